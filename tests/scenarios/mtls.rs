//! Client certificates: every kind of key, from files and from the key-value store, and what
//! happens to bad ones.

use devhub::certs::{Ca, Identity, KeyKind, Validity};
use devhub::{Builder, Hub, Tls};
use nix::sys::signal::Signal;

use crate::rig::{self, Device, IDENTIFIER, RUNNING_UUID, statuses};

/// A hub that knows no shared secret.
fn hub_for(ca: &Ca) -> Builder {
    Hub::builder()
        .deadline(rig::PATIENCE)
        .tls(Tls::Server)
        .mtls(ca)
}

fn device_with(hub: &Hub, identity: &Identity) -> Device {
    let mut device = Device::new(hub);
    device.use_certificate(identity);
    device.set("RECONNECT_MAX", "100ms");
    device
}

#[test]
fn good_certificates_of_every_kind_join() {
    let ca = Ca::new("devices");
    for (kind, mode, version) in [
        (KeyKind::EcP256, Tls::Server, "TLSv1_3"),
        (KeyKind::EcP256, Tls::Only12, "TLSv1_2"),
        (KeyKind::EcP384, Tls::Only12, "TLSv1_2"),
        (KeyKind::Ed25519, Tls::Only13, "TLSv1_3"),
        (KeyKind::Ed25519, Tls::Only12, "TLSv1_2"),
        (KeyKind::Rsa2048, Tls::Server, "TLSv1_3"),
        (KeyKind::Rsa2048, Tls::Only12, "TLSv1_2"),
    ] {
        let hub = hub_for(&ca).tls(mode).start();
        let device = device_with(&hub, &ca.client_with(IDENTIFIER, kind, Validity::Now));
        let _agent = device.start();
        let join = hub.expect_join("device");
        assert_eq!(join.identifier, IDENTIFIER, "{kind:?}");
        assert_eq!(join.via, "/socket/websocket");
        assert!(
            !join
                .headers
                .iter()
                .any(|(name, _)| name.starts_with("x-nh-"))
        );
        let tls = hub.upgrades()[0].tls.clone().expect("TLS");
        assert_eq!(tls.version, version);
        assert_eq!(tls.client_cn.as_deref(), Some(IDENTIFIER));
    }
}

#[test]
fn sessions_with_a_certificate_resume() {
    let ca = Ca::new("devices");
    for mode in [Tls::Only12, Tls::Only13] {
        let hub = hub_for(&ca).tls(mode).start();
        let device = device_with(&hub, &ca.client(IDENTIFIER));
        let _agent = device.start();
        hub.expect_join("device");
        hub.close(1012);
        hub.expect_join("device");
        assert_eq!(statuses(&hub), [101, 101]);
        assert!(
            hub.upgrades()[1].tls.as_ref().expect("TLS").resumed,
            "{mode:?}"
        );
    }
}

#[test]
fn bad_certificates_are_answered_401_and_retried() {
    let ca = Ca::new("devices");
    for identity in [
        ca.client_with(IDENTIFIER, KeyKind::EcP256, Validity::Expired),
        ca.client_with(IDENTIFIER, KeyKind::EcP256, Validity::NotYet),
        Ca::new("others").client(IDENTIFIER),
    ] {
        let hub = hub_for(&ca).start();
        let device = device_with(&hub, &identity);
        let agent = device.start();
        agent.wait_log_times("credentials or its clock: HTTP 401; next attempt in", 3);
        assert_eq!(statuses(&hub)[..3], [401, 401, 401]);
        // No secret, so no clock to sign with.
        assert!(agent.logged("signing the next attempts").is_empty());
    }
}

#[test]
fn certificates_refused_in_the_handshake_are_told() {
    let ca = Ca::new("devices");
    for mode in [Tls::Only12, Tls::Only13] {
        let hub = hub_for(&ca).tls(mode).mtls_reject_in_handshake().start();
        let expired = ca.client_with(IDENTIFIER, KeyKind::EcP256, Validity::Expired);
        let device = device_with(&hub, &expired);
        let agent = device.start();
        agent.wait_log_times("alert: CertificateExpired; next attempt in", 2);
        assert_eq!(hub.connections(), 0);
    }
}

#[test]
fn a_device_without_a_certificate_is_turned_away() {
    let ca = Ca::new("devices");
    let hub = hub_for(&ca).start();
    let device = Device::new(&hub);
    let agent = device.start();
    agent.wait_log_times("credentials or its clock: HTTP 401;", 2);
    assert_eq!(hub.connections(), 0);
    assert_eq!(hub.upgrades()[0].tls.as_ref().expect("TLS").client_cn, None);
}

#[test]
fn a_renewed_certificate_is_taken_on_sighup() {
    let ca = Ca::new("devices");
    let hub = hub_for(&ca).start();
    let expired = ca.client_with(IDENTIFIER, KeyKind::EcP256, Validity::Expired);
    let mut device = device_with(&hub, &expired);
    let agent = device.start();
    agent.wait_log("HTTP 401;");
    // A broken pair leaves the old one in use.
    std::fs::write(device.path("client.pem"), "nothing").expect("file");
    agent.signal(Signal::SIGHUP);
    agent.wait_log("client.key: no PEM certificate in it; keeping the credentials in use");
    device.use_certificate(&ca.client(IDENTIFIER));
    agent.signal(Signal::SIGHUP);
    hub.expect_join("device");
}

/// PEM on one line of the key-value store.
fn one_line(pem: &str) -> String {
    pem.trim_end().replace('\n', "\\n")
}

#[test]
fn certificates_in_the_key_value_store_are_used() {
    let ca = Ca::new("devices");
    let hub = hub_for(&ca).start();
    let identity = ca.client(IDENTIFIER);
    let mut device = Device::new(&hub);
    device.unset("PRODUCT_KEY").unset("PRODUCT_SECRET");
    let (cert, key) = (one_line(&identity.cert_pem), one_line(&identity.key_pem));
    let lines = format!("nerves_hub_cert={cert}\nnerves_hub_key={key}\n");
    device.write_metadata(RUNNING_UUID, "1.0.0", &lines);
    let agent = device.start();
    let join = hub.expect_join("device");
    assert_eq!(join.via, "/socket/websocket");
    // The key stays on the device.
    assert!(!join.params.to_string().contains("PRIVATE KEY"));
    assert!(agent.logged("PRIVATE KEY").is_empty());
}

#[test]
fn shared_secrets_in_the_key_value_store_are_used() {
    let (key, secret) = ("key/of+device", "c2VjcmV0Pw==");
    for (prefix, product) in [("nh_shared", false), ("nh_shared_product", true)] {
        let builder = Hub::builder().deadline(rig::PATIENCE);
        let hub = match product {
            true => builder.product("nhp_1/+=", secret).start(),
            false => builder.device_key(key, secret, IDENTIFIER).start(),
        };
        let key = if product { "nhp_1/+=" } else { key };
        let mut device = Device::new(&hub);
        device.unset("PRODUCT_KEY").unset("PRODUCT_SECRET");
        let lines = format!("{prefix}_key={key}\n{prefix}_secret={secret}\n");
        device.write_metadata(RUNNING_UUID, "1.0.0", &lines);
        let _agent = device.start();
        let join = hub.expect_join("device");
        assert!(!join.params.to_string().contains(secret));
        assert_eq!(hub.upgrades()[0].header("x-nh-key"), Some(key));
    }
}
