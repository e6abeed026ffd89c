//! The extension geo: asked by the hub, and answered.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use devhub::{Hub, Tls};
use serde_json::{Value, json};

use crate::rig::{self, Agent, Device, JOINED};

fn start(hub: &Hub, settings: &[(&str, &str)]) -> (Device, Agent) {
    let mut device = Device::new(hub);
    device.set("EXTENSIONS", "geo");
    for (name, value) in settings {
        device.set(name, value);
    }
    let agent = device.start();
    (device, agent)
}

fn expect_update(hub: &Hub) -> Value {
    hub.expect_push("extensions", "geo:location:update", |_| true)
}

/// A geoip service; the number of its requests.
fn service() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listener");
    let url = format!("http://{}/where", listener.local_addr().expect("address"));
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = requests.clone();
    // Ends with the process.
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            counted.fetch_add(1, Ordering::SeqCst);
            let mut first = String::new();
            let mut reader = BufReader::new(stream.try_clone().expect("clone"));
            reader.read_line(&mut first).expect("a request");
            let nonce = first.split(['=', ' ']).nth(2).expect("a nonce");
            let body = json!({"latitude": "52.52", "longitude": "13.4"}).to_string();
            // The agent may be gone.
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\nx-nonce: {nonce}\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
        }
    });
    (url, requests)
}

#[test]
fn a_fixed_place_is_told_each_time_the_hub_asks() {
    let hub = rig::hub().drive_extensions().start();
    let (_device, _agent) = start(&hub, &[("GEO", "fixed:-33.9,18.4,20")]);
    assert_eq!(
        hub.expect_join("extensions").params,
        json!({"geo": "0.0.1"})
    );
    let place = json!({"latitude": -33.9, "longitude": 18.4, "source": "fixed", "accuracy": 20});
    assert_eq!(expect_update(&hub), place);
    hub.push("extensions", "geo:location:request", json!({}));
    assert_eq!(expect_update(&hub), place);
}

#[test]
fn the_service_is_asked_once_for_all_attaches_and_connections() {
    let hub = rig::hub().drive_extensions().start();
    let (url, requests) = service();
    // Plain http: the service is on this machine.
    let (_device, agent) = start(&hub, &[("GEO_URL", &url)]);
    let place = json!({"latitude": 52.52, "longitude": 13.4, "source": "geoip"});
    assert_eq!(expect_update(&hub), place);
    for _ in 0..3 {
        let all = json!({"extensions": "all"});
        hub.push("extensions", "detach", all.clone());
        hub.expect_push("extensions", "geo:detached", |_| true);
        agent.wait_gone("extension");
        hub.push("extensions", "attach", all);
        assert_eq!(expect_update(&hub), place);
    }
    hub.close(1012);
    agent.wait_log_times(JOINED, 2);
    assert_eq!(expect_update(&hub), place);
    assert_eq!(requests.load(Ordering::SeqCst), 1);
}

#[test]
fn tls_to_the_service_trusts_what_downloads_trust() {
    let hub = rig::hub().tls(Tls::Server).drive_extensions().start();
    let url = format!("https://{}/where", hub.host_port());
    // The hub's own server: it is trusted, and it is no such service.
    let (device, agent) = start(&hub, &[("GEO_URL", &url)]);
    let update = expect_update(&hub);
    assert_eq!(update["error_code"], "HTTP_ERROR");
    let said = update["error_description"].as_str().expect("text");
    assert!(said.starts_with(&format!("{url}: HTTP 4")), "{said}");
    drop((agent, device));
    let other = rig::hub().tls(Tls::Server).start();
    let url = format!("https://{}/where", other.host_port());
    let (_device, _agent) = start(&hub, &[("GEO_URL", &url)]);
    let update = expect_update(&hub);
    let said = update["error_description"].as_str().expect("text");
    assert!(said.starts_with(&format!("{url}: TLS: ")), "{said}");
}

#[test]
fn a_command_that_hangs_costs_the_connection_nothing() {
    let hub = rig::hub().drive_extensions().start();
    let settings = [
        ("GEO", "command:sleep 1000"),
        ("EXTENSION_TIMEOUT", "1s"),
        ("HEARTBEAT_INTERVAL", "200ms"),
    ];
    let (_device, _agent) = start(&hub, &settings);
    hub.expect_join("extensions");
    // Killed before the extension would count as hanging.
    assert_eq!(expect_update(&hub)["error_code"], "COMMAND_ERROR");
    hub.expect_heartbeat();
    assert_eq!(hub.connections(), 1);
}
