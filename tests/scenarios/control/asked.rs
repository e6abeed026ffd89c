//! Who decides: the decider of the control socket first, the hook second, the setting last.

use std::path::Path;
use std::process::{Child, Command};

use serde_json::{Value, json};

use super::OPEN;
use super::peer::Peer;
use crate::rig::{self, standin};
use crate::stage::Stage;

/// An example that decides for the agent of this device.
struct Example(Child);

impl Example {
    fn start(program: &str, stage: &Stage) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("etc/examples");
        let mut command = Command::new(path.join(program));
        let socket = stage.device.path("control.sock");
        command.env("NERVES_HUB_CONTROL_SOCKET", &socket);
        command.env("BUSY_FILE", stage.device.path("busy"));
        let connect = super::decider::connector(stage.device.dir.path());
        let connect = format!("{} {}", connect.display(), socket.display());
        command.env("CONNECT", connect);
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let before = stage.agent.logged("is the decider now").len();
        let child = command.spawn().expect("example");
        stage.agent.wait_log_times("is the decider now", before + 1);
        Self(child)
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        super::decider::end(&mut self.0);
    }
}

fn stage() -> Stage {
    let stage = Stage::new(&standin(), &[]);
    stage.agent.wait_log(OPEN);
    stage
}

#[test]
fn the_examples_decide_for_a_device() {
    for program in ["controller.py", "controller.sh"] {
        let stage = stage();
        let _example = Example::start(program, &stage);
        let broken = rig::demo(&stage.hub).with_meta("version", json!("9.0.0-broken"));
        stage.hub.offer(&broken);
        let ignored = stage.hub.expect_status("ignored");
        let reason = ignored["reason"].as_str().expect("a reason");
        assert!(reason.contains("known to be broken"), "{program}: {reason}");
        std::fs::write(stage.device.path("busy"), "").expect("file");
        stage.hub.offer(&rig::demo(&stage.hub));
        let later = stage.hub.expect_status("rescheduled");
        assert_eq!(later["delay_for"], 600_000, "{program}");
        assert_eq!(later["reason"], "the device is busy");
        stage.hub.reboot();
        stage.agent.wait_log("reboot put off by 60 s");
        assert_eq!(stage.device.reboots(), 0);
    }
}

#[test]
fn the_examples_let_an_update_through_to_its_reboot() {
    for program in ["controller.py", "controller.sh"] {
        let stage = stage();
        let _example = Example::start(program, &stage);
        stage.hub.offer(&rig::demo(&stage.hub));
        stage.expect_installed();
        for decided in ["update-available: apply", "reboot-request: reboot"] {
            assert_eq!(stage.agent.logged(decided).len(), 1, "{program}");
        }
    }
}

/// A decider that has been asked about an update, and the question.
fn asked(stage: &Stage) -> (Peer, Value) {
    let mut peer = Peer::connect(&stage.device);
    assert_eq!(
        peer.ask("decide", json!({}))["result"],
        json!({"decider": true})
    );
    stage.hub.offer(&rig::demo(&stage.hub));
    let question = peer.read();
    assert_eq!(question["ask"], "update-available", "{question}");
    assert_eq!(question["about"]["version"], "2.0.0");
    (peer, question["question"].clone())
}

#[test]
fn a_decider_that_dies_in_the_middle_of_a_question_leaves_it_to_the_hook_at_once() {
    let stage = stage();
    stage
        .device
        .hook("update-available", "echo ignore by the hook");
    let (peer, _) = asked(&stage);
    assert_eq!(super::status(&stage.device)["update"]["state"], "asking");
    drop(peer);
    let before = std::time::Instant::now();
    let ignored = stage.hub.expect_status("ignored");
    assert_eq!(ignored["reason"], "by the hook");
    // It has 10 s as long as it lives.
    assert!(before.elapsed() < std::time::Duration::from_secs(8));
}

#[test]
fn without_a_hook_a_dead_decider_leaves_it_to_the_setting() {
    let stage = Stage::new(&standin(), &[("ON_NO_DECISION", "ignore")]);
    stage.agent.wait_log(OPEN);
    let (peer, _) = asked(&stage);
    drop(peer);
    let ignored = stage.hub.expect_status("ignored");
    assert_eq!(ignored["reason"], "nobody has decided about it");
}

#[test]
fn a_decider_that_is_silent_is_not_waited_for() {
    let stage = stage();
    stage
        .device
        .hook("update-available", "echo ignore by the hook");
    let (mut peer, question) = asked(&stage);
    let ignored = stage.hub.expect_status("ignored");
    assert_eq!(ignored["reason"], "by the hook");
    assert_eq!(peer.read(), json!({ "withdrawn": question }));
    peer.say(&json!({"question": question, "answer": "apply"}));
    assert_eq!(peer.read()["error"]["code"], "refused");
    stage.assert_unharmed();
}

#[test]
fn a_second_decider_is_refused_and_the_first_goes_on_deciding() {
    let stage = stage();
    let _example = Example::start("controller.py", &stage);
    let mut second = Peer::connect(&stage.device);
    assert_eq!(second.ask("decide", json!({}))["error"]["code"], "busy");
    drop(second);
    stage.hub.offer(&rig::demo(&stage.hub));
    stage.expect_installed();
}
