//! What the real server cannot digest, the hub cannot either; and what it does not mind, the
//! hub does not mind.

use crate::client::{Client, connect, frame, hub};
use devhub::{Hub, Vsn};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;
use tungstenite::Message;

fn small() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../data/fw/small-2.0.1.fw")
}

fn joined(hub: &Hub) -> Client {
    let mut client = connect(hub, "dev", Vsn::Json);
    client.join_device("uuid-1", None);
    client.receive_event("extensions:get");
    client
}

/// The answer to a heartbeat comes next: nothing else was sent.
fn assert_digested(client: &mut Client) {
    client.send(&frame(None, Some("hb"), "phoenix", "heartbeat", json!({})));
    let reply = client.receive();
    assert_eq!(
        (reply.event.as_str(), reply.reference.as_deref()),
        ("phx_reply", Some("hb"))
    );
}

fn assert_crashes(event: &str, payload: Value) {
    let hub = hub();
    let mut client = joined(&hub);
    client.push("device", event, payload);
    let crash = client.receive();
    assert_eq!(
        crash,
        frame(
            Some("1"),
            Some("1"),
            "device",
            "phx_error",
            json!({"reason": "channel_crash"})
        )
    );
    client.push("device", "status_update", json!({"status": "received"}));
    assert_eq!(
        client.receive().payload["response"]["reason"],
        "unmatched topic"
    );
    assert_eq!(client.join_device("uuid-1", None).payload["status"], "ok");
}

#[test]
fn unknown_words_and_numbers_crash_the_channel() {
    assert_crashes("status_update", json!({"status": "done"}));
    assert_crashes("status_update", json!({}));
    assert_crashes("status_update", json!({"status": 1}));
    assert_crashes("fwup_progress", json!({"stage": "updating", "value": 12.5}));
    assert_crashes("fwup_progress", json!({"stage": "flashing", "value": 12}));
}

#[test]
fn an_outcome_without_an_update_in_flight_crashes_the_channel() {
    assert_crashes("status_update", json!({"status": "failed", "reason": "x"}));
    assert_crashes("status_update", json!({"status": "ignored", "reason": "x"}));
    assert_crashes(
        "status_update",
        json!({"status": "rescheduled", "delay_for": 1}),
    );
    assert_crashes("status_update", json!({"status": "FWUP error: no space"}));
}

#[test]
fn the_rest_is_digested_without_a_reply() {
    let hub = hub();
    let mut client = joined(&hub);
    for status in ["received", "started", "completed"] {
        client.push("device", "status_update", json!({"status": status}));
    }
    client.push(
        "device",
        "fwup_progress",
        json!({"stage": "downloading", "value": 0}),
    );
    client.push("device", "update_progress", json!({"value": 100}));
    client.push("device", "fwup_progress", json!({}));
    client.push("device", "rebooting", json!({}));
    client.push("device", "never_heard_of", json!({}));
    assert_digested(&mut client);
}

#[test]
fn failed_is_digested_once_per_offer_and_blocks() {
    let hub = hub();
    let mut client = joined(&hub);
    let firmware = hub.firmware(small());
    hub.offer(&firmware);
    assert_eq!(
        client.receive().payload["firmware_meta"]["uuid"],
        firmware.uuid
    );
    client.push(
        "device",
        "status_update",
        json!({"status": "failed", "reason": "x"}),
    );
    assert_digested(&mut client);
    assert!(hub.book("dev").unwrap().blocked);
    client.push(
        "device",
        "status_update",
        json!({"status": "failed", "reason": "x"}),
    );
    assert_eq!(client.receive().event, "phx_error");
}

#[test]
fn a_join_keeps_the_books_only_with_the_uuid() {
    let hub = hub();
    let mut client = joined(&hub);
    let firmware = hub.firmware(small());
    hub.offer(&firmware);
    client.receive_event("update");
    client.join_device("uuid-1", Some(&firmware.uuid));
    assert!(hub.book("dev").unwrap().in_flight.is_some());
    client.join_device("uuid-1", None);
    assert!(hub.book("dev").unwrap().in_flight.is_none());
}

#[test]
fn rejoining_replies_first_and_closes_the_old_join_then() {
    let hub = hub();
    let mut client = joined(&hub);
    let reply = client.join_device("uuid-1", None);
    assert_eq!(reply.join_ref.as_deref(), Some("2"));
    let close = client.receive();
    assert_eq!(
        close,
        frame(Some("1"), Some("1"), "device", "phx_close", json!({}))
    );
}

#[test]
fn firmware_that_is_not_validated_gets_no_update() {
    let hub = hub();
    let mut client = connect(&hub, "dev", Vsn::Json);
    client.join(
        "device",
        json!({"nerves_fw_uuid": "u", "meta": {"firmware_validated": false}}),
    );
    hub.offer(&hub.firmware(small()));
    assert_digested(&mut client);
    client.push("device", "firmware_validated", json!({}));
    assert_eq!(client.receive().event, "update");
}

#[test]
fn an_unknown_topic_is_refused_and_a_bad_join_crashes() {
    let hub = hub();
    let mut client = connect(&hub, "dev", Vsn::Json);
    let reply = client.join("nonsense", json!({}));
    assert_eq!(
        reply.payload,
        json!({"status": "error", "response": {"reason": "unmatched topic"}})
    );
    let reply = client.join("device", json!({"meta": null}));
    assert_eq!(reply.payload["response"]["reason"], "join crashed");
}

#[test]
fn an_extension_that_may_not_attach_is_told_to_detach() {
    let hub = hub();
    let mut client = connect(&hub, "dev", Vsn::MsgPack);
    let reply = client.join(
        "extensions",
        json!({"health": "0.0.1", "geo": "x", "own": "1.0.0"}),
    );
    assert_eq!(reply.payload["response"], json!(["health"]));
    client.push("extensions", "own:attached", json!({}));
    let reply = client.receive();
    assert_eq!(
        reply.payload,
        json!({"status": "error", "response": "detach"})
    );
}

#[test]
fn the_same_identity_again_closes_the_older_connection() {
    let hub = hub();
    let mut old = joined(&hub);
    let mut new = joined(&hub);
    assert_eq!(old.receive_end(), Some(1001));
    assert_digested(&mut new);
    assert_eq!(hub.connections(), 2);
}

#[test]
fn silence_is_closed_with_1002() {
    let builder = Hub::builder().product(crate::client::KEY, crate::client::SECRET);
    let hub = builder.idle_timeout(Duration::from_millis(100)).start();
    assert_eq!(joined(&hub).receive_end(), Some(1002));
}

#[test]
fn garbage_crashes_the_socket() {
    let hub = hub();
    let mut client = joined(&hub);
    client.send_raw(Message::text("{not a frame"));
    assert_eq!(client.receive_end(), Some(1011));
}

#[test]
fn stopping_closes_with_1012_and_the_port_comes_back() {
    let hub = hub();
    let mut client = joined(&hub);
    let stopper = std::thread::scope(|scope| {
        scope.spawn(|| hub.stop());
        let code = client.receive_end();
        drop(client);
        code
    });
    assert_eq!(stopper, Some(1012));
    hub.restart();
    assert_digested(&mut joined(&hub));
}

#[test]
fn faults_of_the_link() {
    let hub = hub();
    let mut client = joined(&hub);
    hub.drop_tcp();
    assert_eq!(client.receive_end(), None);
    hub.expect_offline();
    let mut client = joined(&hub);
    hub.answer_heartbeats(false);
    client.set_timeout(Duration::from_millis(100));
    client.send(&frame(None, Some("hb"), "phoenix", "heartbeat", json!({})));
    assert!(client.is_silent());
    hub.expect_heartbeat();
    hub.freeze();
    client.push("device", "rebooting", json!({}));
    assert!(client.is_silent());
    hub.unfreeze();
    hub.expect_push("device", "rebooting", |_| true);
    hub.crash_channel("device");
    client.set_timeout(Duration::from_secs(10));
    assert_eq!(client.receive().event, "phx_error");
    hub.close(4000);
    assert_eq!(client.receive_end(), Some(4000));
}
