//! MessagePack on the wire: equal in effect to JSON, and as hard to upset.

use devhub::{Dir, Hub};
use serde_json::{Value, json};

use crate::channel::round_trip;
use crate::rig::{self, Device, JOINED, demo};

/// A hub and a device of this serializer that has joined and taken an update.
fn updated(serializer: &str) -> (Hub, Device) {
    let hub = rig::hub().start();
    let mut device = Device::new(&hub);
    device.set("SERIALIZER", serializer);
    device.set("HEARTBEAT_INTERVAL", "1s");
    let agent = device.start();
    hub.expect_heartbeat();
    assert_eq!(round_trip(&hub, 1)["result"], "error");
    hub.offer(&demo(&hub));
    hub.expect_status("completed");
    agent.wait_log("reboot command accepted");
    hub.expect_heartbeat();
    assert_eq!(hub.connections(), 1);
    (hub, device)
}

/// What the device said, without what depends on timing. Refs are left out: a heartbeat may
/// come in between.
fn said(hub: &Hub) -> Vec<(String, String, Value)> {
    let transcript = hub.transcript();
    let entries = transcript.entries.iter();
    let frames = entries
        .filter(|entry| entry.dir == Dir::Device)
        .filter_map(|entry| entry.frame.clone());
    frames
        .filter(|frame| frame.topic != "phoenix" && frame.event != "fwup_progress")
        .map(|frame| (frame.topic, frame.event, frame.payload))
        .collect()
}

#[test]
fn a_session_is_the_same_in_both_serializers() {
    let (json, json_device) = updated("json");
    let (packed, packed_device) = updated("msgpack");
    assert_eq!(json.upgrades()[0].query, "vsn=2.0.0");
    assert_eq!(packed.upgrades()[0].query, "vsn=3.0.0");
    let (mut one, mut other) = (said(&json), said(&packed));
    // Each device has a disk of its own.
    for (said, device) in [(&mut one, &json_device), (&mut other, &packed_device)] {
        let join = &mut said[0].2;
        let text = join.to_string();
        let disk = device.disk().display().to_string();
        *join = serde_json::from_str(&text.replace(&disk, "DISK")).expect("JSON");
        device.assert_image_of("demo-2.0.0.fw");
        assert_eq!(device.reboots(), 1);
    }
    assert_eq!(one, other);
    let events: Vec<&str> = one.iter().map(|(_, event, _)| event.as_str()).collect();
    assert_eq!(
        events,
        [
            "phx_join",
            "report_network_interface",
            "scripts/run",
            "status_update",
            "status_update",
            "status_update"
        ]
    );
    let progress = packed.book(rig::IDENTIFIER).expect("book").progress;
    assert!(
        progress.contains(&("updating".to_owned(), Some(100))),
        "{progress:?}"
    );
}

/// Messages that hold no frame.
fn malformed() -> [Vec<u8>; 11] {
    let deep = [
        b"\x95\xc0\xc0\xa6device\xa8identify".as_slice(),
        &[0x91; 90_000],
        b"\xc0",
    ];
    [
        b"".to_vec(),
        b"\xc1".to_vec(),
        b"\x90".to_vec(),
        b"\x94\xc0\xc0\xa6device\xa8identify".to_vec(),
        b"\x95\xc0\xc0\xa6dev".to_vec(),
        b"\xdd\xff\xff\xff\xff\xc0".to_vec(),
        b"\xc6\xff\xff\xff\xff".to_vec(),
        b"\xa6device".to_vec(),
        // Text that is not UTF-8, as topic.
        b"\x95\xc0\xc0\xa3\xff\xfe\xfd\xa8identify\x80".to_vec(),
        // Bytes, which no JSON value can hold.
        b"\x95\xc0\xc0\xa6device\xa8identify\x81\xa1x\xc4\x01\xff".to_vec(),
        deep.concat(),
    ]
}

#[test]
fn malformed_messagepack_is_survived() {
    let hub = rig::hub().start();
    let mut device = Device::new(&hub);
    device.set("SERIALIZER", "msgpack");
    let agent = device.start();
    hub.expect_join("device");
    agent.wait_log(JOINED);
    let malformed = malformed();
    malformed
        .iter()
        .for_each(|bytes| hub.push_raw_binary(bytes.clone()));
    hub.push_raw_text("text on a binary socket");
    agent.wait_log_times(" ignored: ", malformed.len() + 1);
    hub.push_raw_binary(vec![0xc1; 3 * 1024 * 1024 / 2]);
    // Numbers as references, and fields nobody knows.
    hub.push_raw_binary(&b"\x95\x01\xcd\x03\xe8\xa6device\xa8identify\x81\xa1x\xa1y"[..]);
    hub.push("device", "identify", json!({"more": [1, {"a": null}]}));
    agent.wait_log("above 1048576 bytes from the hub skipped");
    agent.wait_log_times("identify: this is device", 2);
    assert_eq!(round_trip(&hub, 1)["result"], "error");
    assert_eq!(hub.connections(), 1);
    assert!(agent.logged("panicked").is_empty());
}

#[test]
fn a_crashed_channel_is_joined_again_over_messagepack() {
    let hub = rig::hub().start();
    let mut device = Device::new(&hub);
    device.set("SERIALIZER", "msgpack");
    let agent = device.start();
    let first = hub.expect_join("device");
    hub.crash_channel("device");
    let second = hub.expect_join("device");
    assert_eq!((first.conn, &first.params), (second.conn, &second.params));
    agent.wait_log_times(JOINED, 2);
}

#[test]
fn compression_is_declined_cleanly() {
    let hub = rig::hub().start();
    let mut device = Device::new(&hub);
    device.set("COMPRESS", "1");
    let agent = device.start();
    hub.expect_join("device");
    agent.wait_log("NERVES_HUB_COMPRESS has no effect");
    assert_eq!(hub.upgrades()[0].header("sec-websocket-extensions"), None);
}
