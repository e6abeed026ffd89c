//! TLS, client certificates and the CONNECT proxy.

use crate::client::{Client, KEY, Refused, SECRET, connect, now, tcp, try_connect};
use devhub::certs::{Ca, Identity, KeyKind, Validity};
use devhub::proxy::Proxy;
use devhub::{Hub, Tls, Vsn};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::json;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

type Secure = StreamOwned<ClientConnection, TcpStream>;

fn config(hub: &Hub, identity: Option<&Identity>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(hub.ca_pem().as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let cert = CertificateDer::from_pem_slice(identity.cert_pem.as_bytes()).unwrap();
            let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).unwrap();
            builder.with_client_auth_cert(vec![cert], key).unwrap()
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

fn secure(hub: &Hub, config: &Arc<ClientConfig>) -> Secure {
    let name = "localhost".try_into().unwrap();
    StreamOwned::new(
        ClientConnection::new(config.clone(), name).unwrap(),
        tcp(hub),
    )
}

fn with_certificate(hub: &Hub, identity: Option<&Identity>) -> Result<Client<Secure>, Refused> {
    try_connect(
        secure(hub, &config(hub, identity)),
        "/socket/websocket",
        &[],
        Vsn::Json,
    )
}

#[test]
fn good_client_certificates_of_every_kind() {
    for kind in [
        KeyKind::EcP256,
        KeyKind::EcP384,
        KeyKind::Ed25519,
        KeyKind::Rsa2048,
    ] {
        let ca = Ca::new("devices");
        let mode = if kind == KeyKind::EcP384 {
            Tls::Only12
        } else {
            Tls::Server
        };
        let hub = Hub::builder().tls(mode).mtls(&ca).start();
        let identity = ca.client_with("serial-1", kind, Validity::Now);
        let mut client = with_certificate(&hub, Some(&identity)).expect("let in");
        client.join("device", json!({}));
        assert_eq!(hub.expect_join("device").identifier, "serial-1");
        let tls = hub.upgrades()[0].tls.clone().unwrap();
        let version = if mode == Tls::Only12 {
            "TLSv1_2"
        } else {
            "TLSv1_3"
        };
        assert_eq!(
            (tls.version.as_str(), tls.alpn.as_deref()),
            (version, Some("http/1.1"))
        );
        assert_eq!(tls.client_cn.as_deref(), Some("serial-1"));
    }
}

#[test]
fn bad_client_certificates_get_401() {
    let ca = Ca::new("devices");
    let hub = Hub::builder().tls(Tls::Server).mtls(&ca).start();
    let bad = [
        ca.client_with("x", KeyKind::EcP256, Validity::Expired),
        ca.client_with("x", KeyKind::EcP256, Validity::NotYet),
        Ca::new("others").client("x"),
    ];
    for identity in &bad {
        let response = with_certificate(&hub, Some(identity))
            .err()
            .expect("refused");
        assert_eq!(response.status(), 401);
        assert!(
            response
                .headers()
                .get("nh-connection-error-reason")
                .is_none()
        );
    }
    let response = with_certificate(&hub, None).err().expect("refused");
    assert!(
        response
            .headers()
            .get("nh-connection-error-reason")
            .is_some()
    );
}

#[test]
fn resumed_sessions_are_seen() {
    let hub = Hub::builder()
        .tls(Tls::Server)
        .product(KEY, SECRET)
        .alpn(&[])
        .start();
    let config = config(&hub, None);
    for _ in 0..2 {
        let headers = devhub::auth::sign(KEY, SECRET, "dev", now());
        let stream = secure(&hub, &config);
        let mut client =
            try_connect(stream, "/device-socket/websocket", &headers, Vsn::Json).expect("let in");
        client.join("device", json!({}));
    }
    let resumed: Vec<bool> = hub
        .upgrades()
        .iter()
        .map(|u| u.tls.as_ref().unwrap().resumed)
        .collect();
    assert_eq!(resumed, [false, true]);
    assert_eq!(hub.upgrades()[0].tls.as_ref().unwrap().alpn, None);
}

#[test]
fn the_proxy_tunnels_and_asks_for_credentials() {
    let hub = crate::client::hub();
    let proxy = Proxy::builder()
        .basic("user", "pass")
        .map("hub.example:443", ([127, 0, 0, 1], hub.port()).into())
        .start();
    let ask = |auth: &str| {
        let mut tcp = TcpStream::connect(proxy.address()).unwrap();
        write!(tcp, "CONNECT hub.example:443 HTTP/1.1\r\n{auth}\r\n").unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            tcp.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        (tcp, String::from_utf8(head).unwrap())
    };
    assert!(ask("").1.starts_with("HTTP/1.1 407 "));
    let (tcp, head) = ask("proxy-authorization: Basic dXNlcjpwYXNz\r\n");
    assert!(head.starts_with("HTTP/1.1 200 "));
    let headers = devhub::auth::sign(KEY, SECRET, "dev", now());
    assert!(try_connect(tcp, "/device-socket/websocket", &headers, Vsn::Json).is_ok());
    let statuses: Vec<u16> = proxy.expect_connects(2).iter().map(|c| c.status).collect();
    assert_eq!(statuses, [407, 200]);
    connect(&hub, "dev", Vsn::Json);
}

#[test]
fn a_huge_message_arrives_whole() {
    let hub = Hub::builder().tls(Tls::Server).product(KEY, SECRET).start();
    let headers = devhub::auth::sign(KEY, SECRET, "dev", now());
    let stream = secure(&hub, &config(&hub, None));
    let mut client =
        try_connect(stream, "/device-socket/websocket", &headers, Vsn::MsgPack).expect("let in");
    client.join("device", json!({}));
    let huge: Vec<u8> = (0..8 << 20).map(|n: u32| n as u8).collect();
    hub.push_raw_binary(huge.clone());
    hub.identify();
    assert!(client.receive_raw().into_data() == huge);
    assert_eq!(client.receive().event, "identify");
}
