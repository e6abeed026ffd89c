//! Replays the device's frames of recorded sessions and checks that the hub answers with the
//! recorded frames.

use crate::client::{Client, KEY, SECRET, connect};
use devhub::{Frame, Hub, Vsn};
use serde_json::Value;
use std::path::Path;

struct Recorded {
    t: f64,
    from_device: bool,
    frame: Frame,
}

fn recording(name: &str) -> Vec<Recorded> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../data/captures")
        .join(name);
    let text = std::fs::read_to_string(path).unwrap();
    let lines = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines
        .map(|line| Recorded {
            t: line["t"].as_f64().unwrap(),
            from_device: line["from"] == "device",
            frame: Frame::from_value(line["frame"].clone()).unwrap(),
        })
        .collect()
}

/// What an operator did in the recording, the test does too; all else the hub must do.
fn by_operator(recorded: &Recorded) -> bool {
    recorded.t > 1.0 && !["phx_reply", "extensions:get"].contains(&recorded.frame.event.as_str())
}

/// Frames of different channels overtake each other, so ones read too early are kept.
fn expect(client: &mut Client, kept: &mut Vec<Frame>, wanted: &Frame) {
    loop {
        if let Some(at) = kept.iter().position(|frame| frame == wanted) {
            kept.remove(at);
            return;
        }
        let frame = client.receive();
        assert!(
            frame == *wanted || frame.topic != wanted.topic || frame.event != wanted.event,
            "got {frame:?}\nnot {wanted:?}"
        );
        kept.push(frame);
    }
}

fn replay(hub: &Hub, name: &str, vsn: Vsn) {
    let mut link = None;
    let mut kept = Vec::new();
    for (index, recorded) in recording(name).iter().enumerate() {
        let frame = &recorded.frame;
        if recorded.from_device {
            if index > 0 && frame.event == "phx_join" && frame.reference.as_deref() == Some("1") {
                // What was sent before the reboot must not be read after the new join.
                drop(link.take());
                hub.expect_offline();
            }
            link.get_or_insert_with(|| connect(hub, "recorded", vsn))
                .send(frame);
        } else {
            if by_operator(recorded) {
                hub.push_frame(frame.to_value());
            }
            expect(
                link.as_mut().expect("the device speaks first"),
                &mut kept,
                frame,
            );
        }
    }
    assert_eq!(kept, vec![], "more than was recorded");
}

fn recorded_hub() -> Hub {
    let key = "Lsm+FvDSkRuHPMduD+e/GJEc3Iep4GACGDltA3sEdjI=";
    Hub::builder()
        .product(KEY, SECRET)
        .public_keys(&[key], &[key])
        .drive_extensions()
        .start()
}

#[test]
fn a_whole_session_is_answered_as_recorded() {
    replay(&recorded_hub(), "session.jsonl", Vsn::Json);
}

#[test]
fn a_messagepack_session_is_answered_as_recorded() {
    replay(&recorded_hub(), "msgpack.jsonl", Vsn::MsgPack);
}

#[test]
fn an_update_runs_as_recorded() {
    let hub = recorded_hub();
    let all = recording("update.jsonl");
    let update = all
        .iter()
        .find(|recorded| recorded.frame.event == "update")
        .unwrap();
    let payload = update.frame.payload.clone();
    hub.behaviour(|behaviour| behaviour.deployment = Some(payload));
    replay(&hub, "update.jsonl", Vsn::Json);
    let join = hub.expect_join("device");
    assert_eq!(join.params["nerves_fw_version"], "1.0.0");
    assert_eq!(join.via, "/device-socket/websocket");
    hub.expect_status("received");
    hub.expect_status("completed");
    assert_eq!(
        hub.expect_join("device").params["nerves_fw_version"],
        "1.1.0"
    );
    let book = hub.book("recorded").unwrap();
    assert_eq!((book.joins, book.in_flight), (2, None));
    assert_eq!(
        book.progress.last(),
        Some(&("updating".to_string(), Some(100)))
    );
}
