//! Credentials, refusals and gates.

use crate::client::{KEY, Refused, SECRET, connect, frame, hub, now, tcp, try_connect};
use devhub::{Gate, Hub, Vsn};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const PATH: &str = "/device-socket/websocket";

fn refused(hub: &Hub, headers: &[(String, String)]) -> Refused {
    try_connect(tcp(hub), PATH, headers, Vsn::Json)
        .err()
        .expect("refused")
}

fn header<'a>(response: &'a Refused, name: &str) -> Option<&'a str> {
    response
        .headers()
        .get(name)
        .map(|value| value.to_str().unwrap())
}

#[test]
fn signatures_made_elsewhere_are_let_in() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../data/vectors/shared_secret.json"
    );
    let vectors: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    for vector in vectors.as_array().unwrap() {
        let text = |key: &str| vector[key].as_str().unwrap();
        let (key, secret, identifier) = (text("key"), text("secret"), text("identifier"));
        let hub = match key.starts_with("nhp_") {
            true => Hub::builder().product(key, secret),
            false => Hub::builder().device_key(key, secret, identifier),
        };
        let hub = hub
            .clock_offset(vector["time"].as_i64().unwrap() - now())
            .start();
        let headers: Vec<_> = vector["headers"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned()))
            .collect();
        let mut client = try_connect(tcp(&hub), PATH, &headers, Vsn::Json).expect("let in");
        client.join("device", json!({}));
        assert_eq!(hub.expect_join("device").identifier, identifier);
    }
}

#[test]
fn wrong_credentials_get_an_empty_401_with_a_date() {
    let hub = hub();
    let good = devhub::auth::sign(KEY, SECRET, "dev", now());
    let mut tampered = good.clone();
    tampered[3].1.pop();
    let cases = [
        devhub::auth::sign(KEY, "wrong", "dev", now()),
        devhub::auth::sign("nhp_unknown", SECRET, "dev", now()),
        devhub::auth::sign(KEY, SECRET, "dev", now() - 95),
        devhub::auth::sign(KEY, SECRET, "dev", now() + 3),
        tampered,
    ];
    for headers in &cases {
        let response = refused(&hub, headers);
        assert_eq!(response.status(), 401);
        assert!(header(&response, "date").is_some());
        assert_eq!(header(&response, "nh-connection-error-reason"), None);
        assert_eq!(header(&response, "content-length"), Some("0"));
    }
    assert!(refused(&hub, &good[..3]).status() == 401);
}

#[test]
fn a_device_key_is_good_for_its_device_only() {
    let hub = Hub::builder().device_key("nhd_1", SECRET, "mine").start();
    let other = devhub::auth::sign("nhd_1", SECRET, "other", now());
    assert_eq!(refused(&hub, &other).status(), 401);
    let mine = devhub::auth::sign("nhd_1", SECRET, "mine", now());
    assert!(try_connect(tcp(&hub), PATH, &mine, Vsn::Json).is_ok());
}

#[test]
fn no_credentials_are_told_so() {
    let response = refused(&hub(), &[]);
    assert_eq!(response.status(), 401);
    assert!(
        header(&response, "nh-connection-error-reason")
            .unwrap()
            .contains("shared secrets")
    );
}

#[test]
fn the_clock_of_the_hub_counts() {
    let hub = hub();
    hub.set_clock_offset(3600);
    let headers = devhub::auth::sign(KEY, SECRET, "dev", now());
    let response = refused(&hub, &headers);
    let date = httpdate::parse_http_date(header(&response, "date").unwrap()).unwrap();
    let ahead = date.duration_since(std::time::SystemTime::now()).unwrap();
    assert!((3590..=3610).contains(&ahead.as_secs()));
}

#[test]
fn gates_act_once_or_always() {
    let hub = hub();
    let headers = devhub::auth::sign(KEY, SECRET, "dev", now());
    hub.refuse_next(503, &[("nh-connection-error-reason", "away")]);
    hub.gate_next(Gate::Redirect {
        status: 307,
        location: "/other".into(),
    });
    let response = refused(&hub, &headers);
    assert_eq!(
        header(&response, "nh-connection-error-reason"),
        Some("away")
    );
    assert_eq!(header(&refused(&hub, &headers), "location"), Some("/other"));
    let mut client = connect(&hub, "dev", Vsn::Json);
    client.send(&frame(None, Some("1"), "phoenix", "heartbeat", json!({})));
    hub.expect_heartbeat();
    hub.set_gate_fn(|upgrade| match upgrade.id {
        4 => Gate::unavailable(),
        _ => Gate::Accept,
    });
    assert_eq!(refused(&hub, &headers).status(), 503);
    assert_eq!(hub.expect_upgrade(4).status, 503);
    connect(&hub, "dev", Vsn::MsgPack);
}

#[test]
fn a_version_nobody_speaks_is_forbidden() {
    let hub = hub();
    let headers = devhub::auth::sign(KEY, SECRET, "dev", now());
    let response = try_connect(
        tcp(&hub),
        "/device-socket/websocket?vsn=1.0.0&x=",
        &headers,
        Vsn::Json,
    );
    assert_eq!(response.err().unwrap().status(), 403);
    let response = try_connect(tcp(&hub), "/nowhere", &headers, Vsn::Json);
    assert_eq!(response.err().unwrap().status(), 404);
}

#[test]
fn connections_are_reset_or_left_hanging() {
    let hub = hub();
    let headers = devhub::auth::sign(KEY, SECRET, "dev", now());
    // A probe of the port uses up nothing.
    drop(tcp(&hub));
    hub.gate_next(Gate::Reset);
    assert!(!attempt(tcp(&hub), &headers), "an answer came");
    for gate in [Gate::HangTcp, Gate::HangTls, Gate::HangUpgrade] {
        hub.gate_next(gate);
        let stream = tcp(&hub);
        stream
            .set_read_timeout(Some(Duration::from_millis(50)))
            .unwrap();
        assert!(!attempt(stream, &headers), "an answer came");
    }
    connect(&hub, "dev", Vsn::Json);
    hub.stop();
    assert_eq!(hub.online(), 0);
}

/// Sends an upgrade request; whether any answer came before the timeout.
fn attempt(mut stream: TcpStream, headers: &[(String, String)]) -> bool {
    let mut request = format!("GET {PATH}?vsn=2.0.0 HTTP/1.1\r\nhost: x\r\n");
    headers
        .iter()
        .for_each(|(name, value)| request.push_str(&format!("{name}: {value}\r\n")));
    stream
        .write_all(format!("{request}\r\n").as_bytes())
        .unwrap();
    matches!(stream.read(&mut [0; 16]), Ok(1..))
}
