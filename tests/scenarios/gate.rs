//! What may happen to a connection before it is a session: refusals, nonsense, silence. The
//! agent says what it was, and tries again.

use std::net::{TcpListener, TcpStream};

use devhub::{Gate, Refusal, Tls};
use nix::sys::socket::{Backlog, listen};

use crate::rig::{self, Device, JOINED, statuses};

/// A device that tries again at once.
fn eager(hub: &devhub::Hub) -> Device {
    let mut device = Device::new(hub);
    device.set("RECONNECT_MIN", "20ms");
    device.set("RECONNECT_MAX", "20ms");
    device
}

/// Refusals, and what the agent says about each.
fn refusals() -> [(Gate, &'static str); 6] {
    [
        (
            Gate::Refuse(Refusal::status(401).reason("no such product")),
            "the hub refused this device's credentials or its clock: HTTP 401 (no such product);",
        ),
        (
            Gate::unauthorized(),
            "the hub refused this device's credentials or its clock: HTTP 401;",
        ),
        (
            Gate::Refuse(Refusal::status(403)),
            "the hub refused this device's credentials or its clock: HTTP 403;",
        ),
        (
            Gate::unavailable(),
            "the hub is briefly away; the credentials are fine: HTTP 503 (the platform could",
        ),
        (
            // In one piece: a body that comes later than its head is not waited for.
            Gate::Garbage(
                b"HTTP/1.1 500 Oops\r\ncontent-length: 23\r\n\r\n<h1>boom</h1>\nat line 7".to_vec(),
            ),
            "the hub refused the upgrade: HTTP 500 (<h1>boom</h1>);",
        ),
        (
            Gate::Refuse(Refusal::status(302)),
            "the hub refused the upgrade: HTTP 302;",
        ),
    ]
}

#[test]
fn every_refusal_is_named_and_retried() {
    let hub = rig::hub().start();
    let cases = refusals();
    cases
        .iter()
        .for_each(|(gate, _)| hub.gate_next(gate.clone()));
    let device = eager(&hub);
    let agent = device.start();
    hub.expect_join("device");
    assert_eq!(statuses(&hub), [401, 401, 403, 503, 0, 302, 101]);
    for (_, log) in cases {
        agent.wait_log(log);
    }
}

#[test]
fn answers_that_are_none_are_survived() {
    let hub = rig::hub().start();
    let gates = [
        Gate::Garbage(b"\x00\xff\x16\x03\r\n\r\n\r\n".to_vec()),
        Gate::Garbage(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()),
        // An upgrade whose key does not prove anything.
        Gate::Garbage(
            b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
              sec-websocket-accept: bm90IHRoaXMgb25lIQ==\r\n\r\n"
                .to_vec(),
        ),
        // A head that never ends.
        Gate::Garbage([b"HTTP/1.1 200 OK\r\nx: ".as_slice(), &[b'y'; 400_000]].concat()),
        Gate::CloseUpgrade,
        Gate::Reset,
    ];
    gates.iter().for_each(|gate| hub.gate_next(gate.clone()));
    let device = eager(&hub);
    let agent = device.start();
    hub.expect_join("device");
    agent.wait_log_times("WebSocket upgrade: ", gates.len());
    assert_eq!(hub.connections(), 1);
}

#[test]
fn wrong_credentials_are_retried_and_right_ones_then_join() {
    let hub = rig::hub().start();
    let mut device = eager(&hub);
    device.set("PRODUCT_SECRET", "not+the/secret=");
    let agent = device.start();
    hub.expect_upgrades(4);
    agent.wait_log_times(
        "refused this device's credentials or its clock: HTTP 401;",
        3,
    );
    drop(agent);
    device.set("PRODUCT_SECRET", rig::PRODUCT_SECRET);
    let _agent = device.start();
    hub.expect_join("device");
    let seen = statuses(&hub);
    let (last, refused) = seen.split_last().expect("upgrades");
    assert_eq!(*last, 101);
    assert!(refused.iter().all(|status| *status == 401 || *status == 0));
}

#[test]
fn the_device_s_own_secret_takes_precedence() {
    let hub = devhub::Hub::builder()
        .deadline(rig::PATIENCE)
        .device_key("key/of+device", "secret/of+device=", rig::IDENTIFIER)
        .start();
    let mut device = Device::new(&hub);
    device.set("SHARED_KEY", "key/of+device");
    device.set("SHARED_SECRET", "secret/of+device=");
    let _agent = device.start();
    hub.expect_join("device");
    let upgrade = &hub.upgrades()[0];
    assert_eq!(upgrade.header("x-nh-key"), Some("key/of+device"));
    assert_eq!(upgrade.header("x-nh-alg"), Some("NH1-HMAC-sha256-1000-32"));
    assert_eq!(upgrade.path, "/device-socket/websocket");
    assert_eq!(upgrade.query, "vsn=2.0.0");
}

#[test]
fn a_hub_that_hangs_in_tls_or_the_upgrade_meets_its_deadline() {
    let hub = rig::hub().tls(Tls::Server).start();
    for gate in [Gate::HangTcp, Gate::HangTls, Gate::HangUpgrade] {
        hub.gate_next(gate);
    }
    let mut device = eager(&hub);
    device.set("TLS_TIMEOUT", "1s");
    device.set("UPGRADE_TIMEOUT", "1s");
    let agent = device.start();
    hub.expect_join("device");
    agent.wait_log_times("TLS with localhost took too long", 2);
    agent.wait_log("WebSocket upgrade: no answer in time");
}

#[test]
fn a_plain_hub_that_hangs_meets_the_upgrade_s_deadline() {
    let hub = rig::hub().start();
    for gate in [Gate::HangTcp, Gate::HangTls, Gate::HangUpgrade] {
        hub.gate_next(gate);
    }
    let mut device = eager(&hub);
    device.set("UPGRADE_TIMEOUT", "500ms");
    let agent = device.start();
    hub.expect_join("device");
    agent.wait_log_times("WebSocket upgrade: no answer in time", 3);
}

/// A listener whose queue is full: the kernel drops every further SYN.
fn deaf_listener() -> (TcpListener, Vec<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listener");
    let address = listener.local_addr().expect("address");
    listen(&listener, Backlog::new(0).expect("backlog")).expect("listen");
    let limit = std::time::Duration::from_millis(200);
    let mut queued = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, limit) {
        queued.push(stream);
        assert!(queued.len() < 64, "the queue does not fill");
    }
    (listener, queued)
}

#[test]
fn a_connection_that_is_never_made_meets_its_deadline() {
    let hub = rig::hub().start();
    let (listener, _queued) = deaf_listener();
    let address = listener.local_addr().expect("address");
    let mut device = eager(&hub);
    device.set("HOST", &format!("ws://{address}"));
    device.set("CONNECT_TIMEOUT", "200ms");
    device.set("WAIT_FOR_NETWORK", "0");
    let agent = device.start();
    let log = format!("127.0.0.1 ({address}): connection timed out; next attempt in");
    agent.wait_log_times(&log, 2);
}

#[test]
fn the_network_is_waited_for() {
    let hub = rig::hub().start();
    hub.stop();
    let (_device, agent) = rig::launch(&hub);
    agent.wait_log("waiting for the network: 127.0.0.1 (");
    hub.restart();
    hub.expect_join("device");
    agent.wait_log(JOINED);
    assert!(agent.logged("next attempt in").is_empty());
}

#[test]
fn a_name_that_does_not_exist_is_told_and_retried() {
    let hub = rig::hub().start();
    let mut device = eager(&hub);
    device.set("HOST", "ws://no-such-host.invalid:4000");
    device.set("WAIT_FOR_NETWORK", "0");
    device.set("DNS_TIMEOUT", "500ms");
    let agent = device.start();
    agent.wait_log_times("no-such-host.invalid: ", 3);
}
