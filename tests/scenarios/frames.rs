//! Frames no hub should send: every one of them is survived on the same connection.

use devhub::{Dir, Hub};
use serde_json::json;

use crate::channel::round_trip;
use crate::rig::{self, Agent, Device, JOINED};

const MIB: usize = 1024 * 1024;
/// Logged for each frame that cannot be understood.
const IGNORED: &str = " ignored: ";

/// A hub and a joined device with fast heartbeats.
fn joined() -> (Hub, Device, Agent) {
    let hub = rig::hub().start();
    let mut device = Device::new(&hub);
    device.set("HEARTBEAT_INTERVAL", "1s");
    let agent = device.start();
    hub.expect_join("device");
    agent.wait_log(JOINED);
    (hub, device, agent)
}

/// The connection is the first one still, heartbeats go on, and events are acted on.
fn assert_alive(hub: &Hub, device: &Device, agent: &Agent) {
    assert_eq!(round_trip(hub, 4711)["result"], "error");
    let beats = |hub: &Hub| {
        let transcript = hub.transcript();
        let entries = transcript.entries.iter();
        let answers = entries.filter(|entry| {
            let frame = entry.frame.as_ref().filter(|_| entry.dir == Dir::Server);
            frame.is_some_and(|frame| frame.topic == "phoenix")
        });
        answers.count()
    };
    let before = beats(hub);
    hub.skip_seen();
    for _ in 0..2 {
        hub.expect_heartbeat();
    }
    assert!(beats(hub) > before, "heartbeats are not answered");
    hub.identify();
    agent.wait_log("identify: this is device");
    hub.reboot();
    hub.expect_push("device", "rebooting", |_| true);
    agent.wait_log("reboot command accepted");
    assert_eq!(device.reboots(), 1);
    assert_eq!(agent.logged("identify: this is device").len(), 1);
    assert_eq!((hub.connections(), hub.online()), (1, 1));
    assert_eq!(agent.logged(JOINED).len(), 1);
    assert!(agent.logged("panicked").is_empty());
}

#[test]
fn malformed_text_is_survived() {
    let (hub, device, agent) = joined();
    let nested = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let deep = format!(
        "[null,null,\"device\",\"identify\",{}{}]",
        "{\"a\":".repeat(50_000),
        "}".repeat(50_000)
    );
    let malformed = [
        "",
        " ",
        "not JSON",
        "{}",
        "[]",
        "null",
        "7",
        "\"device\"",
        "\u{0}\u{1}",
        "[null,null,\"device\",\"identify\"]",
        "[null,null,\"device\",\"identify\",{},1]",
        "[null,null,\"device\",\"identify\",{}",
        "[null,null,\"device\",\"identify\",{}]]",
        "[null,null,7,\"identify\",{}]",
        "[null,null,\"device\",null,{}]",
        "[null,null,null,null,null]",
        "{\"topic\":\"device\",\"event\":\"identify\",\"payload\":{},\"ref\":null,\"join_ref\":1}",
        "[null,null,\"device\",\"identify\",{\"a\":1e999}]",
        "[null,null,\"device\",\"\\ud800\",{}]",
        &nested,
        &deep,
    ];
    malformed.iter().for_each(|text| hub.push_raw_text(*text));
    agent.wait_log_times(IGNORED, malformed.len());
    assert_alive(&hub, &device, &agent);
}

#[test]
fn unknown_topics_and_events_are_survived() {
    let (hub, device, agent) = joined();
    let unknown = [
        r#"[null,null,"device","firmware_burn",{"now":true}]"#,
        r#"[null,null,"device","",{}]"#,
        r#"[null,null,"Device","identify",{}]"#,
        r#"[null,null,"device:1","reboot",{}]"#,
        r#"[null,null,"","reboot",{}]"#,
        r#"[null,null,"console","up",{"data":"x"}]"#,
        r#"[null,null,"phoenix","reboot",{}]"#,
    ];
    unknown.iter().for_each(|text| hub.push_raw_text(*text));
    agent.wait_log_times("ignoring unknown event", unknown.len());
    // Known, but of channels that were never joined.
    let strange = [
        r#"[null,null,"extensions","geo:location:request",{}]"#,
        r#"[null,null,"console","dn",{"data":"x"}]"#,
    ];
    strange.iter().for_each(|text| hub.push_raw_text(*text));
    agent.wait_log_times("channel that is not joined", strange.len());
    // What a channel of another topic says about itself is not about this one.
    for event in ["phx_error", "phx_close"] {
        for topic in ["console", "extensions", "phoenix", "nonsense"] {
            hub.push_frame(json!([null, null, topic, event, {}]));
        }
    }
    // Answers nobody waits for.
    for reference in ["0", "1", "2", "99", "x", ""] {
        for status in ["ok", "error", "timeout"] {
            let payload = json!({"status": status, "response": {"firmware_url": "x"}});
            hub.push_frame(json!(["1", reference, "device", "phx_reply", payload]));
        }
    }
    assert_alive(&hub, &device, &agent);
}

#[test]
fn payloads_of_the_wrong_shape_are_survived() {
    let (hub, device, agent) = joined();
    let shapes = [
        "null",
        "7",
        "\"x\"",
        "[]",
        "[[{}]]",
        "{}",
        "{\"unknown\":{\"field\":[1]}}",
    ];
    let events = [
        "update",
        "archive",
        "fwup_public_keys",
        "archive_public_keys",
        "extensions:get",
        "phx_reply",
    ];
    for event in events {
        for shape in shapes {
            hub.push_raw_text(format!("[null,null,\"device\",\"{event}\",{shape}]"));
        }
    }
    let offers = [
        r#"{"update_available":"yes"}"#,
        r#"{"update_available":true,"firmware_url":7,"firmware_meta":{"uuid":"a"}}"#,
        r#"{"update_available":true,"firmware_url":"http://127.0.0.1:1/","firmware_meta":[]}"#,
        r#"{"update_available":true,"firmware_url":"http://127.0.0.1:1/","firmware_meta":{"uuid":"../x"}}"#,
        r#"{"update_available":true,"firmware_url":"http://127.0.0.1:1/","firmware_meta":{"uuid":"a"},"checksum":"xyz"}"#,
        r#"{"update_available":false,"firmware_url":"http://127.0.0.1:1/","firmware_meta":{"uuid":"a"}}"#,
    ];
    for offer in offers {
        hub.push_raw_text(format!("[null,null,\"device\",\"update\",{offer}]"));
    }
    assert_alive(&hub, &device, &agent);
    let transcript = hub.transcript();
    assert_eq!(transcript.pushes("device", "status_update").count(), 0);
}

#[test]
fn fields_nobody_knows_are_no_trouble() {
    let (hub, device, agent) = joined();
    let payload = json!({"a": {"b": [1, null, {"c": "d"}]}, "": 1.5e300, "ref": ["x"]});
    hub.push("device", "identify", payload);
    agent.wait_log("identify: this is device");
    assert_eq!(round_trip(&hub, 1)["result"], "error");
    drop(agent);
    drop(device);
}

#[test]
fn binary_frames_on_a_json_socket_are_survived() {
    let (hub, device, agent) = joined();
    let binaries: [&[u8]; 7] = [
        b"",
        b"\x00",
        b"\xc1\xc1\xc1",
        b"\x95\xc0\xc0",
        b"\xdf\xff\xff\xff\xff",
        b"[null,null,\"device\",\"reboot\",{}]",
        &[0xff; 70_000],
    ];
    binaries
        .iter()
        .for_each(|bytes| hub.push_raw_binary(*bytes));
    agent.wait_log_times(IGNORED, binaries.len());
    assert_alive(&hub, &device, &agent);
}

#[test]
fn a_frame_above_the_limit_is_skipped_and_one_below_is_read() {
    let (hub, device, agent) = joined();
    let identify = |padding: usize| {
        let padding = "x".repeat(padding);
        format!("[null,null,\"device\",\"reboot\",{{\"padding\":\"{padding}\"}}]")
    };
    // Understood, they would reboot.
    hub.push_raw_text(identify(3 * MIB / 2));
    hub.push_raw_binary(vec![0xc1; 2 * MIB]);
    hub.push_raw_text(identify(MIB));
    agent.wait_log("above 1048576 bytes from the hub skipped");
    assert_eq!(round_trip(&hub, 1)["result"], "error");
    assert_eq!(hub.transcript().pushes("device", "rebooting").count(), 0);
    assert_eq!(device.reboots(), 0);
    let large = format!(
        "[null,null,\"device\",\"noise\",{{\"padding\":\"{}\"}}]",
        "x".repeat(MIB - 200)
    );
    hub.push_raw_text(large);
    agent.wait_log("ignoring unknown event \"noise\"");
    assert_alive(&hub, &device, &agent);
}
