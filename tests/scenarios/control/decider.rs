//! The decider over the socket, and the examples that are one.

use serde_json::json;

use super::OPEN;
use super::peer::Peer;
use crate::rig::{self, JOINED};

#[test]
fn one_decides_at_a_time_and_its_place_is_free_when_it_is_gone() {
    let hub = rig::hub().start();
    let (device, agent) = rig::launch(&hub);
    agent.wait_log(JOINED);
    agent.wait_log(OPEN);
    let (mut first, mut second) = (Peer::connect(&device), Peer::connect(&device));
    let registered = json!({"decider": true});
    assert_eq!(first.ask("decide", json!({}))["result"], registered);
    assert_eq!(super::status(&device)["decider"], true);
    let refused = second.ask("decide", json!({}));
    assert_eq!(refused["error"]["code"], "busy");
    let text = refused["error"]["message"].as_str().expect("text");
    assert!(text.contains("there can be one only"), "{text}");
    // An answer to nothing, and one of a stranger.
    first.say(&json!({"question": 1, "answer": "apply"}));
    assert_eq!(first.read()["error"]["code"], "refused");
    second.say(&json!({"question": 1, "answer": "apply"}));
    assert_eq!(second.read()["error"]["code"], "refused");
    drop(first);
    agent.wait_log("the decider is gone");
    assert_eq!(second.ask("decide", json!({}))["result"], registered);
}
