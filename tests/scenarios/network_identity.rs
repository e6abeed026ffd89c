//! The extension network_identity: what programs on the device say, and what clients of the
//! control socket set.

use std::process::Command;

use devhub::Hub;
use serde_json::{Value, json};

use crate::control::peer::Peer;
use crate::rig::{self, Agent, Device, JOINED, PRODUCT_SECRET};

const KEY: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
const PRIVATE: &str = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";

/// A program on the agent's `PATH`; written by another process, see there for why.
fn program(device: &mut Device, name: &str, text: &str) {
    let folder = device.path("bin");
    std::fs::create_dir_all(&folder).expect("folder");
    let write = r#"printf '#!/bin/sh\n%s\n' "$1" > "$2.new"; chmod 755 "$2.new"; mv "$2.new" "$2""#;
    let status = Command::new("/bin/sh")
        .args(["-c", write, "sh", text])
        .arg(folder.join(name))
        .status();
    assert!(status.expect("a shell").success());
    let path = format!("{}:/usr/bin:/bin", folder.display());
    device.env.insert("PATH".into(), path);
}

fn device(hub: &Hub, settings: &[(&str, &str)]) -> Device {
    let mut device = Device::new(hub);
    device.set("EXTENSIONS", "network_identity");
    for (name, value) in settings {
        device.set(name, value);
    }
    device
}

fn expect_report(hub: &Hub) -> Value {
    let mut report = hub.expect_push("extensions", "network_identity:report", |_| true);
    report["identities"].take()
}

fn said(device: &Device, value: &Value) {
    let new = device.path("said.new");
    std::fs::write(&new, value.to_string()).expect("said");
    std::fs::rename(new, device.path("said")).expect("said");
}

fn has_leaked(hub: &Hub, agent: &Agent, secret: &str) -> bool {
    let transcript = format!("{:?}", hub.transcript());
    transcript.contains(secret) || agent.log().contains(secret)
}

#[test]
fn all_is_told_when_asked_and_then_what_changes() {
    let hub = rig::hub().drive_extensions().start();
    let mut device = device(
        &hub,
        &[
            (
                "NETWORK_IDENTITY",
                "netbird, wireguard:wg0, command:wg show wg0 dump",
            ),
            ("NETWORK_IDENTITY_INTERVAL", "100ms"),
        ],
    );
    let wg = format!(
        "case \"$3\" in public-key) echo {KEY};; listen-port) echo 51820;;\n\
         *) echo '{PRIVATE} {KEY} 51820 off';; esac"
    );
    program(&mut device, "wg", &wg);
    let netbird = format!(
        "env > {0}/environment; cat {0}/said",
        device.dir.path().display()
    );
    program(&mut device, "netbird", &netbird);
    said(
        &device,
        &json!({"publicKey": "nb", "netbirdIp": "100.64.0.1"}),
    );
    let agent = device.start();
    let wireguard = json!({
        "service": "wireguard", "identifier": KEY, "instance": "wg0",
        "details": {"interface": "wg0", "listen_port": 51820},
    });
    let netbird =
        |ip: &str| json!({"service": "netbird", "identifier": "nb", "details": {"ip": ip}});
    assert_eq!(
        expect_report(&hub),
        json!([netbird("100.64.0.1"), wireguard])
    );
    said(
        &device,
        &json!({"publicKey": "nb", "netbirdIp": "100.64.0.2"}),
    );
    assert_eq!(expect_report(&hub), json!([netbird("100.64.0.2")]));
    hub.push("extensions", "network_identity:request", json!({}));
    assert_eq!(
        expect_report(&hub),
        json!([netbird("100.64.0.2"), wireguard])
    );
    agent.wait_log("network_identity: command: it printed no JSON");
    assert!(!has_leaked(&hub, &agent, PRIVATE));
    assert!(has_leaked(&hub, &agent, KEY), "nothing would be found");
    let environment = std::fs::read_to_string(device.path("environment")).expect("it ran");
    assert!(environment.contains("NERVES_HUB_HOST"), "{environment}");
    assert!(!environment.contains(PRODUCT_SECRET), "{environment}");
}

#[test]
fn what_a_client_sets_is_told_and_survives_a_detach_and_a_reconnect() {
    let hub = rig::hub().drive_extensions().start();
    let device = device(&hub, &[]);
    let agent = device.start();
    assert_eq!(expect_report(&hub), json!([]));
    let mut peer = Peer::connect(&device);
    let set = json!({"identities": [{
        "service": "iroh", "identifier": "c8924b", "instance": "console",
        "details": {"relay": "https://r", "secret_key": PRIVATE},
    }]});
    let told = json!([{
        "service": "iroh", "identifier": "c8924b", "instance": "console",
        "details": {"relay": "https://r"},
    }]);
    assert_eq!(peer.ask("identities", set)["result"], json!({"set": 1}));
    assert_eq!(expect_report(&hub), told);
    let refused = peer.ask("identities", json!({"identities": [{"service": "iroh"}]}));
    let message = refused["error"]["message"].as_str().expect("a message");
    assert!(message.contains("identities[0]: identifier"), "{message}");
    let name = json!({"extensions": ["network_identity"]});
    hub.push("extensions", "detach", name.clone());
    hub.expect_push("extensions", "network_identity:detached", |_| true);
    agent.wait_gone("extension");
    hub.push("extensions", "attach", name);
    assert_eq!(expect_report(&hub), told);
    hub.close(1012);
    agent.wait_log_times(JOINED, 2);
    assert_eq!(expect_report(&hub), told);
    assert!(!has_leaked(&hub, &agent, PRIVATE));
}
