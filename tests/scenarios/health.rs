//! The `health` extension: what the hub is told of the device, and the command that shows it.

use std::os::unix::fs::PermissionsExt;

use devhub::Hub;
use serde_json::{Value, json};

use crate::config::run;
use crate::control::peer::Peer;
use crate::rig::{self, Device};

/// A device with the extensions that are enabled by default.
fn device(hub: &Hub) -> Device {
    let mut device = Device::new(hub);
    device.unset("EXTENSIONS");
    device
}

fn report(hub: &Hub, is_it: impl Fn(&Value) -> bool) -> Value {
    let mut push = hub.expect_push("extensions", "health:report", |push| is_it(&push["value"]));
    push["value"].take()
}

fn check(hub: &Hub) {
    hub.push("extensions", "health:check", json!({}));
}

/// What a command printed.
fn said(device: &Device, arguments: &[&str]) -> String {
    let output = run(&device.env, arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {errors}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The next such event about the alarm of failing parts.
fn alarm(peer: &mut Peer, event: &str) -> Value {
    loop {
        let said = peer.event();
        if said["event"] == event && said["name"] == "HealthCheckFailed" {
            return said;
        }
    }
}

#[test]
fn the_hub_gets_a_report_whenever_it_asks_and_after_each_reconnect() {
    let hub = rig::hub().drive_extensions().start();
    let device = device(&hub);
    let _agent = device.start();
    assert_eq!(
        hub.expect_join("extensions").params,
        json!({"health": "0.0.1"})
    );
    let first = report(&hub, |_| true);
    for number in [
        "cpu_usage_percent",
        "load_1min",
        "mem_used_percent",
        "disk_used_percentage",
    ] {
        assert!(first["metrics"][number].is_number(), "{number}: {first}");
    }
    for part in ["metadata", "alarms", "checks", "connectivity"] {
        assert!(first[part].is_object(), "{part}: {first}");
    }
    check(&hub);
    report(&hub, |_| true);
    hub.drop_tcp();
    report(&hub, |_| true);
}

#[test]
fn values_of_clients_and_alarms_are_in_it_also_after_a_detach() {
    let hub = rig::hub().start();
    let device = device(&hub);
    let _agent = device.start();
    hub.expect_push("extensions", "health:attached", |_| true);
    said(&device, &["alarm", "set", "PumpBlocked", "no flow"]);
    let mut peer = Peer::connect(&device);
    let given =
        json!({"metrics": {"pump_rpm": 0}, "checks": {"pump": {"pass": false, "note": "stuck"}}});
    let answer = peer.ask("metrics", given);
    assert_eq!(
        answer["result"]["metrics"],
        json!({"pump_rpm": 0}),
        "{answer}"
    );
    let refused = peer.ask("metrics", json!({"metrics": {"pump_rpm": "slow"}}));
    assert!(
        refused.to_string().contains("pump_rpm is not a number"),
        "{refused}"
    );
    hub.push("extensions", "detach", json!({"extensions": ["health"]}));
    hub.expect_push("extensions", "health:detached", |_| true);
    hub.push("extensions", "attach", json!({"extensions": ["health"]}));
    hub.expect_push("extensions", "health:attached", |_| true);
    check(&hub);
    let found = report(&hub, |_| true);
    assert_eq!(found["metrics"]["pump_rpm"], 0);
    assert_eq!(
        found["checks"]["pump"],
        json!({"pass": false, "note": "stuck"})
    );
    assert_eq!(found["alarms"]["PumpBlocked"], "no flow");
}

#[test]
fn the_command_shows_the_very_report_and_makes_it_itself_without_an_agent() {
    let hub = rig::hub().start();
    let mut device = device(&hub);
    device.set("HEALTH_METRICS", "memory,disk");
    let agent = device.start();
    hub.expect_push("extensions", "health:attached", |_| true);
    let keys = |report: &Value| {
        let metrics = report["metrics"].as_object().expect("metrics");
        metrics.keys().cloned().collect::<Vec<_>>()
    };
    check(&hub);
    let sent = report(&hub, |_| true);
    let shown: Value = serde_json::from_str(&said(&device, &["health", "--json"])).expect("JSON");
    assert_eq!(keys(&shown), keys(&sent));
    assert_eq!(
        shown["metrics"]["disk_total_kb"],
        sent["metrics"]["disk_total_kb"]
    );
    let words = said(&device, &["health"]);
    assert!(
        words.starts_with("Metrics       disk_available_kb "),
        "{words}"
    );
    drop(agent);
    let output = run(&device.env, &["health", "--json"]);
    let alone: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(keys(&alone), keys(&sent));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("no agent is running here"), "{errors}");
    device.set("HEALTH_METRICS", "ram");
    let output = run(&device.env, &["health"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&output.stderr).contains("\"ram\""));
}

#[test]
fn a_part_that_fails_is_an_alarm_and_the_rest_is_sent() {
    let hub = rig::hub().start();
    let mut device = device(&hub);
    let folder = device.path("health");
    std::fs::create_dir(&folder).expect("folder");
    let program = |name: &str, text: &str| {
        let (new, path) = (folder.join(".new"), folder.join(name));
        std::fs::write(&new, format!("#!/bin/sh\n{text}\n")).expect("program");
        std::fs::set_permissions(&new, PermissionsExt::from_mode(0o755)).expect("mode");
        std::fs::rename(&new, &path).expect("program");
    };
    program("modem", "exit 7");
    program(
        "secrets",
        r#"echo "{\"metadata\":{\"secret\":\"[$NERVES_HUB_PRODUCT_SECRET]\"}}""#,
    );
    std::fs::write(folder.join("app.env"), "metric.rpm=7\n").expect("file");
    device.set("HEALTH_DIR", &folder.display().to_string());
    let _agent = device.start();
    hub.expect_push("extensions", "health:attached", |_| true);
    let mut peer = Peer::connect(&device);
    peer.ask("subscribe", json!({"events": ["alarm"]}));
    check(&hub);
    let found = report(&hub, |_| true);
    let why = "modem: exit status: 7: ";
    assert_eq!(found["alarms"]["HealthCheckFailed"], why);
    assert_eq!(found["metrics"]["rpm"], 7);
    assert_eq!(found["metadata"]["secret"], "[]");
    let raised = alarm(&mut peer, "alarm-set");
    assert_eq!(raised["description"], why);
    program("modem", r#"echo '{"metrics":{"rssi":-71}}'"#);
    check(&hub);
    let found = report(&hub, |report| report["metrics"]["rssi"] == -71);
    assert_eq!(found["alarms"].get("HealthCheckFailed"), None);
    alarm(&mut peer, "alarm-cleared");
}

#[test]
fn a_program_that_hangs_costs_neither_the_report_nor_a_heartbeat() {
    let hub = rig::hub().start();
    let mut device = device(&hub);
    let path = device.path("health/hang");
    std::fs::create_dir(device.path("health")).expect("folder");
    std::fs::write(&path, "#!/bin/sh\ntrap '' TERM\nsleep 600; sleep 600\n").expect("program");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("mode");
    let folder = device.path("health").display().to_string();
    device.set("HEALTH_DIR", &folder);
    device
        .set("EXTENSION_TIMEOUT", "4s")
        .set("HEARTBEAT_INTERVAL", "200ms");
    let agent = device.start();
    hub.expect_push("extensions", "health:attached", |_| true);
    check(&hub);
    hub.skip_seen();
    for _ in 0..5 {
        hub.expect_heartbeat();
    }
    let found = report(&hub, |_| true);
    let why = found["alarms"]["HealthCheckFailed"]
        .as_str()
        .expect("an alarm");
    assert!(why.contains("hang did not end within 2s"), "{why}");
    assert!(found["metrics"]["mem_size_mb"].is_number());
    assert!(agent.children().is_empty(), "{:?}", agent.children());
}

#[test]
fn a_disk_that_is_full_is_an_alarm() {
    let hub = rig::hub().start();
    let mut device = device(&hub);
    device
        .set("HEALTH_DISK_ALARM", "1")
        .set("HEALTH_DISK_IGNORE", "none");
    let _agent = device.start();
    hub.expect_push("extensions", "health:attached", |_| true);
    check(&hub);
    let found = report(&hub, |_| true);
    assert_eq!(found["alarms"]["DiskAlmostFull:/"], "/ is 1 % full");
    hub.push("extensions", "detach", json!({"extensions": "all"}));
    hub.expect_push("extensions", "health:detached", |_| true);
    // Nobody looks any more.
    assert!(!said(&device, &["alarm", "list"]).contains("DiskAlmostFull"));
}
