//! The device channel: what the join says, how the channel is kept, and every event.

use std::time::Duration;

use devhub::{Dir, Hub, Join};
use serde_json::{Value, json};

use crate::rig::{self, Device, IDENTIFIER, JOINED, RUNNING_UUID, launch, standin};

/// The first recorded device frame: the join of the reference client.
fn recorded_join() -> Value {
    let text = std::fs::read_to_string(rig::data("captures/session.jsonl")).expect("capture");
    let entry: Value = serde_json::from_str(text.lines().next().expect("line")).expect("JSON");
    entry["frame"][4].clone()
}

fn fwup_version() -> String {
    let output = std::process::Command::new(standin().path)
        .arg("--version")
        .output()
        .expect("stand-in");
    String::from_utf8(output.stdout)
        .expect("version")
        .trim()
        .to_owned()
}

/// A script without text, under a number that no earlier one had, and its refusal:
/// everything before it has been seen.
pub fn round_trip(hub: &Hub, number: u32) -> Value {
    let script = format!("round-trip-{number}");
    hub.push("device", "scripts/run", json!({"ref": script, "text": ""}));
    hub.expect_push("device", "scripts/run", |answer| answer["ref"] == script)
}

pub fn joins(hub: &Hub) -> usize {
    hub.transcript().pushes("device", "phx_join").count()
}

#[test]
fn the_join_says_what_the_recorded_one_says() {
    let hub = rig::hub().start();
    let mut device = Device::new(&hub);
    device.unset("FWUP_PUBLIC_KEYS");
    let mut expected = recorded_join();
    let firmware = expected.as_object().expect("object").iter();
    let lines: String = firmware
        .filter(|(key, _)| key.starts_with("nerves_fw_"))
        .map(|(key, value)| format!("a.{key}={}\n", value.as_str().expect("text")))
        .collect();
    device.write_metadata("", "", &lines);
    let _agent = device.start();
    let join = hub.expect_join("device");
    expected["fwup_version"] = json!(fwup_version());
    expected["update_tool"] = json!("fwup");
    let mut params = join.params;
    // Where the disk is may go along: it is one of the firmware's keys.
    params
        .as_object_mut()
        .expect("object")
        .remove("nerves_fw_devpath");
    assert_eq!(params, expected);
    assert_eq!(join.join_ref.as_deref(), Some("1"));
    assert_eq!(join.identifier, IDENTIFIER);
}

#[test]
fn the_join_tells_the_state_of_both_slots() {
    let hub = rig::hub().start();
    let device = Device::new(&hub);
    let other = "b.nerves_fw_validated=0\nb.nerves_fw_platform=p\nb.nerves_fw_architecture=a\n";
    device.write_metadata(
        RUNNING_UUID,
        "1.0.0",
        &format!("a.nerves_fw_validated=0\n{other}"),
    );
    let _agent = device.start();
    let params = hub.expect_join("device").params;
    assert_eq!(
        params["meta"],
        json!({"firmware_validated": false, "firmware_auto_revert_detected": true})
    );
    assert_eq!(params["currently_downloading_uuid"], Value::Null);
    // Keys are configured: none are asked for.
    assert_eq!(params.get("fwup_public_keys"), None);
    assert_eq!(params.get("archive_public_keys"), None);
}

#[test]
fn the_interface_is_reported_once_per_connection() {
    let hub = rig::hub().start();
    let (_device, _agent) = launch(&hub);
    for _ in 0..2 {
        let join = hub.expect_join("device");
        let report = hub.expect_frame("device", "report_network_interface", |_| true);
        let frame = report.frame.expect("frame");
        assert_eq!(frame.payload, json!({"interface": "lo"}));
        assert_eq!(frame.join_ref, join.join_ref);
        hub.close(1000);
    }
    hub.expect_join("device");
    round_trip(&hub, 1);
    hub.crash_channel("device");
    hub.expect_join("device");
    round_trip(&hub, 2);
    let transcript = hub.transcript();
    let reports = transcript.pushes("device", "report_network_interface");
    assert_eq!(reports.count(), 3);
}

/// Waits for the join after `first` on the same connection.
fn expect_rejoin(hub: &Hub, first: &Join) -> Join {
    let second = hub.expect_join("device");
    assert_eq!(second.conn, first.conn);
    assert_ne!(second.join_ref, first.join_ref);
    assert_eq!(second.params, first.params);
    second
}

/// From the hub's last `event` to the join that followed.
fn waited_after(hub: &Hub, event: &str) -> Duration {
    let transcript = hub.transcript();
    let entries = &transcript.entries;
    let sent = entries.iter().position(|entry| {
        let frame = entry.frame.as_ref().filter(|_| entry.dir == Dir::Server);
        frame.is_some_and(|frame| frame.event == event)
    });
    let sent = sent.expect("sent");
    let joined = entries[sent..]
        .iter()
        .find(|entry| entry.from_device("device", "phx_join").is_some());
    joined.expect("joined").t - entries[sent].t
}

#[test]
fn a_crashed_channel_is_joined_again_on_the_same_socket() {
    let hub = rig::hub().start();
    let (_device, agent) = launch(&hub);
    let first = hub.expect_join("device");
    hub.crash_channel("device");
    let second = expect_rejoin(&hub, &first);
    assert!(waited_after(&hub, "phx_error") >= Duration::from_millis(200));
    agent.wait_log("the device channel crashed at the hub: {\"reason\":\"channel_crash\"}");
    hub.crash_channel("device");
    expect_rejoin(&hub, &second);
    agent.wait_log_times(JOINED, 3);
    assert_eq!(round_trip(&hub, 1)["result"], "error");
    assert_eq!(hub.connections(), 1);
}

#[test]
fn a_closed_channel_is_joined_again_and_stale_closes_are_ignored() {
    let hub = rig::hub().start();
    let (_device, agent) = launch(&hub);
    let first = hub.expect_join("device");
    agent.wait_log(JOINED);
    let old = first.join_ref.clone();
    hub.push_frame(json!([old, old, "device", "phx_close", {}]));
    // The hub answers a join of a joined topic, then closes the old channel.
    let second = expect_rejoin(&hub, &first);
    agent.wait_log_times(JOINED, 2);
    for stale in [json!(old), json!("77"), json!(0)] {
        hub.push_frame(json!([stale, stale, "device", "phx_close", {}]));
        hub.push_frame(json!([stale, stale, "device", "phx_error", {"reason": "x"}]));
    }
    assert_eq!(round_trip(&hub, 1)["result"], "error");
    // The next rejoin is asked for by a close of the channel as it is now.
    let current = second.join_ref.clone();
    hub.push_frame(json!([current, current, "device", "phx_close", {}]));
    expect_rejoin(&hub, &second);
    assert!(waited_after(&hub, "phx_close") >= Duration::from_millis(200));
    assert_eq!((joins(&hub), hub.connections()), (3, 1));
    agent.wait_log_times("the hub closed the device channel", 2);
}

#[test]
fn a_refused_join_is_tried_again_on_the_same_socket() {
    let hub = rig::hub().start();
    hub.behaviour(|behaviour| {
        let reason = json!({"reason": "not today"});
        behaviour.refused_joins.insert("device".to_owned(), reason);
    });
    let (_device, agent) = launch(&hub);
    let first = hub.expect_join("device");
    expect_rejoin(&hub, &first);
    agent.wait_log("the hub refused the device channel: error: {\"reason\":\"not today\"}");
    hub.behaviour(|behaviour| behaviour.refused_joins.clear());
    agent.wait_log(JOINED);
    assert_eq!(hub.connections(), 1);
}

#[test]
fn a_join_without_an_answer_ends_the_connection() {
    let hub = rig::hub().start();
    hub.behaviour(|behaviour| {
        behaviour.silent_joins.insert("device".to_owned());
    });
    let mut device = Device::new(&hub);
    device.set("JOIN_TIMEOUT", "1s");
    let agent = device.start();
    let first = hub.expect_join("device");
    agent.wait_log("the hub did not answer the join; next attempt in");
    hub.behaviour(|behaviour| behaviour.silent_joins.clear());
    agent.wait_log(JOINED);
    assert!(hub.expect_join("device").conn > first.conn);
}

#[test]
fn events_come_with_and_without_references() {
    let hub = rig::hub().start();
    let (_device, agent) = launch(&hub);
    let join_ref = hub.expect_join("device").join_ref;
    hub.push_frame(json!([null, null, "device", "identify", {}]));
    hub.push_frame(json!([join_ref, null, "device", "identify", {}]));
    hub.push_frame(json!([join_ref, "900", "device", "identify", {}]));
    hub.push_raw_text(r#"[1, 901, "device", "identify", {}]"#);
    agent.wait_log_times("identify: this is device device-0001", 4);
}

#[test]
fn what_is_not_enabled_is_left_alone() {
    let archive = json!({"url": "http://127.0.0.1:1/a", "uuid": "a-1", "version": "1"});
    let hub = rig::hub()
        .behaviour(|behaviour| behaviour.archive = Some(archive))
        .advertise(Some(
            json!({"extensions": {"geo": ["0.0.1"], "health": ["0.0.1"]}}),
        ))
        .start();
    let (_device, agent) = launch(&hub);
    hub.expect_join("device");
    agent.wait_log("archive a-1 ignored");
    agent.wait_log("no extension is enabled");
    hub.push("device", "extensions:get", json!({}));
    hub.push("device", "archive_public_keys", json!({"keys": []}));
    round_trip(&hub, 1);
    let transcript = hub.transcript();
    assert_eq!(transcript.pushes("extensions", "phx_join").count(), 0);
    assert_eq!(transcript.pushes("console", "phx_join").count(), 0);
    assert_eq!(transcript.pushes("device", "status_update").count(), 0);
}

#[test]
fn a_reboot_is_announced_and_then_done() {
    let hub = rig::hub().start();
    let (device, agent) = launch(&hub);
    hub.expect_join("device");
    hub.reboot();
    hub.expect_push("device", "rebooting", |payload| *payload == json!({}));
    agent.wait_log("reboot command accepted");
    assert_eq!(device.reboots(), 1);
}

#[test]
fn firmware_becomes_valid_later() {
    let hub = rig::hub().start();
    let device = Device::new(&hub);
    device.write_metadata(RUNNING_UUID, "1.0.0", "a.nerves_fw_validated=0\n");
    let agent = device.start();
    let join = hub.expect_join("device");
    assert_eq!(join.params["meta"]["firmware_validated"], json!(false));
    agent.wait_log(JOINED);
    device.write_metadata(RUNNING_UUID, "1.0.0", "a.nerves_fw_validated=1\n");
    // The mark is read every 10 s.
    hub.expect_push("device", "firmware_validated", |payload| {
        *payload == json!({})
    });
    hub.crash_channel("device");
    let join = hub.expect_join("device");
    assert_eq!(join.params["meta"]["firmware_validated"], json!(true));
}
