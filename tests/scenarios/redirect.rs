//! Redirects of the upgrade: followed, counted, and never a way out of TLS.

use devhub::{Gate, Hub, Tls};

use crate::rig::{self, Device, JOINED, statuses};

const SOCKET: &str = "/device-socket/websocket?vsn=2.0.0";

fn redirect(status: u16, location: impl Into<String>) -> Gate {
    Gate::Redirect {
        status,
        location: location.into(),
    }
}

/// A further hub of the same authority.
fn sibling(hub: &Hub) -> Hub {
    rig::hub()
        .tls(Tls::Server)
        .identity(hub.ca().server())
        .start()
}

fn secret_headers(hub: &Hub) -> usize {
    let upgrades = hub.upgrades();
    let headers = upgrades.iter().flat_map(|upgrade| &upgrade.headers);
    headers
        .filter(|(name, _)| name.starts_with("x-nh-"))
        .count()
}

#[test]
fn an_absolute_redirect_is_followed() {
    // `ws:` as it stands, and `http:` as a proxy in front of a hub writes it.
    for scheme in ["ws", "http"] {
        let (first, second) = (rig::hub().start(), rig::hub().start());
        let location = format!("{scheme}://127.0.0.1:{}{SOCKET}", second.port());
        first.gate_next(redirect(302, location));
        let (_device, agent) = rig::launch(&first);
        second.expect_join("device");
        assert_eq!(statuses(&first), [302]);
        agent.wait_log(JOINED);
        assert!(agent.logged("next attempt in").is_empty());
        // The next connection starts with the configured hub again.
        second.close(1000);
        first.expect_join("device");
    }
}

#[test]
fn two_redirects_in_a_row_are_followed_relative_ones_too() {
    let hub = rig::hub().start();
    hub.gate_next(redirect(307, "/elsewhere/socket?x=1"));
    hub.gate_next(redirect(301, "../device-socket/./websocket?vsn=2.0.0"));
    let (_device, agent) = rig::launch(&hub);
    hub.expect_join("device");
    let paths: Vec<String> = hub.upgrades().into_iter().map(|each| each.path).collect();
    assert_eq!(
        paths,
        [
            "/device-socket/websocket",
            "/elsewhere/socket",
            "/device-socket/websocket"
        ]
    );
    agent.wait_log(JOINED);
    assert!(agent.logged("next attempt in").is_empty());
    agent.wait_log("redirected to ws://127.0.0.1:");
}

#[test]
fn a_third_redirect_is_an_error_and_the_configured_hub_is_tried_again() {
    let (first, second) = (rig::hub().start(), rig::hub().start());
    let there = format!("ws://127.0.0.1:{}{SOCKET}", second.port());
    first.gate_next(redirect(302, there.clone()));
    second.set_gate(redirect(302, there));
    let (_device, agent) = rig::launch(&first);
    first.expect_join("device");
    assert_eq!(statuses(&first), [302, 101]);
    assert_eq!(statuses(&second), [302, 302]);
    agent.wait_log("redirected more than 2 times; next attempt in");
}

#[test]
fn endless_redirects_are_retried_with_back_off() {
    let hub = rig::hub().start();
    hub.set_gate(redirect(302, SOCKET));
    let (_device, agent) = rig::launch(&hub);
    agent.wait_log_times("redirected more than 2 times; next attempt in", 3);
    let delays = agent.logged("next attempt in");
    let third = ["in 0.4 s", "in 0.5 s", "in 0.6 s"];
    assert!(
        third.iter().any(|end| delays[2].ends_with(end)),
        "{delays:?}"
    );
    hub.set_gate(Gate::Accept);
    hub.expect_join("device");
}

#[test]
fn a_redirect_out_of_tls_is_refused() {
    let secure = rig::hub().tls(Tls::Server).start();
    let plain = rig::hub().start();
    for scheme in ["ws", "http"] {
        let location = format!("{scheme}://127.0.0.1:{}{SOCKET}", plain.port());
        secure.gate_next(redirect(302, location));
    }
    let (_device, agent) = rig::launch(&secure);
    secure.expect_join("device");
    agent.wait_log_times("refused (NERVES_HUB_ALLOW_INSECURE is not set)", 2);
    assert_eq!(plain.tcp_connections(), 0);
    assert_eq!(statuses(&secure), [302, 302, 101]);
}

#[test]
fn a_redirect_out_of_tls_never_carries_the_shared_secret() {
    let secure = rig::hub().tls(Tls::Server).start();
    let plain = rig::hub().start();
    secure.gate_next(redirect(
        302,
        format!("ws://127.0.0.1:{}{SOCKET}", plain.port()),
    ));
    let mut device = Device::new(&secure);
    device.set("ALLOW_INSECURE", "1");
    let _agent = device.start();
    secure.expect_join("device");
    assert_eq!(statuses(&plain), [401]);
    assert_eq!(secret_headers(&plain), 0);
    assert_eq!(secret_headers(&secure), 8);
}

#[test]
fn credentials_left_behind_are_not_picked_up_by_plain_text_s_next_redirect() {
    let secure = rig::hub().tls(Tls::Server).start();
    let (plain, third) = (rig::hub().start(), sibling(&secure));
    secure.gate_next(redirect(
        302,
        format!("ws://127.0.0.1:{}{SOCKET}", plain.port()),
    ));
    plain.gate_next(redirect(302, format!("{}{SOCKET}", third.url())));
    let mut device = Device::new(&secure);
    device.set("ALLOW_INSECURE", "1");
    let _agent = device.start();
    secure.expect_join("device");
    assert_eq!((statuses(&plain), statuses(&third)), (vec![302], vec![401]));
    assert_eq!((secret_headers(&plain), secret_headers(&third)), (0, 0));
}

#[test]
fn a_redirect_within_tls_keeps_the_shared_secret() {
    let first = rig::hub().tls(Tls::Server).start();
    let second = sibling(&first);
    let there = format!("https://localhost:{}{SOCKET}", second.port());
    first.gate_next(redirect(308, there));
    let (_device, _agent) = rig::launch(&first);
    assert_eq!(second.expect_join("device").identifier, rig::IDENTIFIER);
    assert_eq!(secret_headers(&second), 4);
}

#[test]
fn redirects_to_nowhere_are_retried() {
    let hub = rig::hub().start();
    for location in ["ftp://127.0.0.1/x", "https://", "http://127.0.0.1:99999/"] {
        hub.gate_next(redirect(302, location));
    }
    let mut device = Device::new(&hub);
    device.set("RECONNECT_MAX", "100ms");
    let agent = device.start();
    hub.expect_join("device");
    agent.wait_log_times("redirected: location has", 3);
    assert_eq!(statuses(&hub), [302, 302, 302, 101]);
}
