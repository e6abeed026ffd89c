//! TLS as the device sees it: which hubs it trusts, what it negotiates, and what it says.

use devhub::certs::{Ca, Request, Validity};
use devhub::{Builder, Hub, Tls, TlsInfo};

use crate::rig::{self, Device, JOINED, launch};

fn secure() -> Builder {
    rig::hub().tls(Tls::Server)
}

/// A hub of a certificate made by `make`.
fn hub_with(make: impl FnOnce(&Ca) -> devhub::certs::Identity) -> Hub {
    let ca = Ca::new("hub CA");
    let identity = make(&ca);
    secure().ca(ca).identity(identity).start()
}

fn negotiated(hub: &Hub, upgrade: usize) -> TlsInfo {
    hub.upgrades()[upgrade].tls.clone().expect("TLS")
}

/// The agent says `text`, tries again, and never gets as far as a request.
fn assert_refuses(hub: &Hub, device: &Device, text: &str) {
    let agent = device.start();
    agent.wait_log_times(text, 2);
    assert_eq!(hub.upgrades().len(), 0);
    assert!(agent.logged(JOINED).is_empty());
    for line in agent.logged(text) {
        assert!(line.contains("; next attempt in "), "{line}");
    }
}

#[test]
fn a_shared_secret_joins_over_both_versions() {
    for (mode, version) in [
        (Tls::Server, "TLSv1_3"),
        (Tls::Only13, "TLSv1_3"),
        (Tls::Only12, "TLSv1_2"),
    ] {
        let hub = rig::hub().tls(mode).start();
        let (_device, _agent) = launch(&hub);
        let join = hub.expect_join("device");
        assert_eq!(join.via, "/device-socket/websocket");
        let tls = negotiated(&hub, 0);
        assert_eq!(tls.version, version);
        assert_eq!(tls.server_name.as_deref(), Some("localhost"));
        assert_eq!(tls.alpn.as_deref(), Some("http/1.1"));
        assert_eq!(tls.client_cn, None);
    }
}

#[test]
fn a_hub_without_alpn_is_fine() {
    let hub = secure().alpn(&[]).start();
    let (_device, _agent) = launch(&hub);
    hub.expect_join("device");
    assert_eq!(negotiated(&hub, 0).alpn, None);
}

#[test]
fn a_hub_that_prefers_http_2_is_asked_for_http_1() {
    let hub = secure().alpn(&["h2", "http/1.1"]).start();
    let (_device, _agent) = launch(&hub);
    hub.expect_join("device");
    assert_eq!(negotiated(&hub, 0).alpn.as_deref(), Some("http/1.1"));
}

#[test]
fn sessions_resume_on_every_reconnect() {
    for mode in [Tls::Only12, Tls::Only13] {
        let hub = rig::hub().tls(mode).start();
        let (_device, _agent) = launch(&hub);
        hub.expect_join("device");
        for _ in 0..2 {
            hub.close(1000);
            hub.expect_join("device");
        }
        let resumed: Vec<bool> = (0..3).map(|at| negotiated(&hub, at).resumed).collect();
        assert_eq!(resumed, [false, true, true], "{mode:?}");
    }
}

#[test]
fn every_end_of_a_secure_connection_is_followed_by_a_new_one() {
    let hub = secure().start();
    let (_device, agent) = launch(&hub);
    let close: fn(&Hub) = |hub| hub.close(1012);
    let ends = [close, Hub::drop_tcp, Hub::cut_tcp];
    for (index, end) in ends.into_iter().enumerate() {
        agent.wait_log_times(JOINED, index + 1);
        end(&hub);
        agent.wait_log_times("connection lost: ", index + 1);
    }
    agent.wait_log_times(JOINED, ends.len() + 1);
    assert_eq!(hub.connections(), ends.len() + 1);
}

#[test]
fn an_unknown_authority_is_refused() {
    let hub = secure().start();
    for mode in ["add", "only"] {
        let mut device = Device::new(&hub);
        std::fs::write(device.path("ca.pem"), Ca::new("others").cert_pem()).expect("CA");
        device.set("CA_MODE", mode);
        let text = "TLS: the certificate's issuer is not trusted; set NERVES_HUB_CA_FILE";
        assert_refuses(&hub, &device, text);
    }
}

#[test]
fn a_private_authority_needs_to_be_named() {
    let hub = secure().start();
    let mut device = Device::new(&hub);
    device.unset("CA_FILE");
    assert_refuses(&hub, &device, "the certificate's issuer is not trusted");
}

#[test]
fn only_the_named_authority_may_be_trusted() {
    let hub = secure().start();
    let mut device = Device::new(&hub);
    device.set("CA_MODE", "only");
    let _agent = device.start();
    hub.expect_join("device");
}

#[test]
fn several_authorities_in_one_file_are_all_trusted() {
    let hub = secure().start();
    let device = Device::new(&hub);
    let both = format!("{}\n{}", Ca::new("others").cert_pem(), hub.ca_pem());
    std::fs::write(device.path("ca.pem"), both).expect("CA");
    let _agent = device.start();
    hub.expect_join("device");
}

#[test]
fn a_certificate_for_another_name_is_refused_unless_that_name_is_expected() {
    let hub = hub_with(|ca| ca.server_for(&["hub.example"]));
    let mut device = Device::new(&hub);
    assert_refuses(&hub, &device, "TLS: certificate refused: ");
    device.set("SNI", "hub.example");
    let _agent = device.start();
    hub.expect_join("device");
    assert_eq!(
        negotiated(&hub, 0).server_name.as_deref(),
        Some("hub.example")
    );
}

#[test]
fn an_address_is_a_name_too() {
    let hub = secure().start();
    let mut device = Device::new(&hub);
    device.set("HOST", &format!("wss://127.0.0.1:{}", hub.port()));
    let _agent = device.start();
    hub.expect_join("device");
    // Addresses are not sent as server names.
    assert_eq!(negotiated(&hub, 0).server_name, None);
}

fn server_with(ca: &Ca, validity: Validity) -> devhub::certs::Identity {
    ca.issue(&Request {
        common_name: "localhost".to_owned(),
        names: vec!["localhost".to_owned()],
        validity,
        server: true,
        ..Request::default()
    })
}

#[test]
fn an_expired_certificate_is_refused() {
    let hub = hub_with(|ca| server_with(ca, Validity::Expired));
    let device = Device::new(&hub);
    let text = "TLS: the certificate ended on 2001-01-01T00:00:00Z, device clock 2";
    assert_refuses(&hub, &device, text);
}

#[test]
fn a_certificate_of_the_future_is_told_to_be_the_clock_s_fault() {
    let hub = hub_with(|ca| server_with(ca, Validity::NotYet));
    let device = Device::new(&hub);
    let agent = device.start();
    let cause = "is before the certificate's start 2100-01-01T00:00:00Z; set the clock";
    agent.wait_log_times(cause, 2);
    let lines = agent.logged(cause);
    assert!(lines[0].contains("TLS: device clock 2"), "{lines:?}");
    assert_eq!(hub.upgrades().len(), 0);
}

#[test]
fn a_client_s_certificate_is_no_hub_s() {
    let hub = hub_with(|ca| {
        ca.issue(&Request {
            common_name: "localhost".to_owned(),
            names: vec!["localhost".to_owned()],
            ..Request::default()
        })
    });
    let device = Device::new(&hub);
    assert_refuses(&hub, &device, "TLS: certificate refused: ");
}

#[test]
fn an_answer_that_is_no_tls_is_told() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("listener");
    let port = listener.local_addr().expect("address").port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            use std::io::{Read as _, Write as _};
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    let hub = secure().start();
    let mut device = Device::new(&hub);
    device.set("HOST", &format!("wss://localhost:{port}"));
    let agent = device.start();
    agent.wait_log_times("TLS: received corrupt message", 2);
    agent.wait_log_times("; next attempt in", 2);
}

#[test]
fn updates_come_over_tls_from_a_trusted_store_only() {
    let hub = secure().start();
    let (device, _agent) = launch(&hub);
    hub.expect_join("device");
    let firmware = rig::demo(&hub);
    assert!(firmware.url.starts_with("https://localhost:"));
    // Another store, of an authority that nobody knows.
    let stranger = devhub::store::Store::builder()
        .tls(Tls::Server, Ca::new("others").server())
        .start();
    let path = firmware.path();
    stranger.put(
        &path,
        std::fs::read(rig::data("fw/demo-2.0.0.fw")).expect("firmware"),
    );
    let url = format!("{}{path}", stranger.url());
    hub.offer(&firmware.clone().with_url(&url));
    hub.expect_status("started");
    let refused = hub.expect_push("device", "status_update", |push| push["status"] == "failed");
    assert!(
        refused["reason"]
            .as_str()
            .expect("reason")
            .contains("not trusted")
    );
    assert_eq!(stranger.requests().len(), 0);
    // The answer to this one confirms the report; until then the update is in hand.
    hub.expect_heartbeat();
    hub.offer(&firmware);
    hub.expect_status("completed");
    device.assert_image_of("demo-2.0.0.fw");
}

#[test]
fn downloads_trust_a_renewed_authority_on_sighup() {
    let hub = secure().start();
    let (device, agent) = launch(&hub);
    hub.expect_join("device");
    let firmware = rig::demo(&hub);
    let others = Ca::new("others");
    let store = devhub::store::Store::builder()
        .tls(Tls::Server, others.server())
        .start();
    let path = firmware.path();
    let bytes = std::fs::read(rig::data("fw/demo-2.0.0.fw")).expect("firmware");
    store.put(&path, bytes);
    let both = format!("{}{}", hub.ca_pem(), others.cert_pem());
    std::fs::write(device.path("ca.pem"), both).expect("CA");
    agent.signal(nix::sys::signal::Signal::SIGHUP);
    hub.expect_join("device");
    let url = format!("{}{path}", store.url());
    hub.offer(&firmware.with_url(&url));
    hub.expect_status("completed");
    device.assert_image_of("demo-2.0.0.fw");
}
