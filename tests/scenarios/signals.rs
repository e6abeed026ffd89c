//! Signals in the middle of an update: it is cancelled cleanly or finished in time, and
//! nothing is left running.

use std::path::Path;

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use serde_json::Value;

use crate::fwup::script;
use crate::rig::{self, Device, Installer, PATIENCE, installers, within};
use crate::stage::{Stage, is_there};

const DONE: [&str; 3] = ["received", "started", "completed"];

/// A stage whose download has stopped in the middle.
fn stalled(installer: &Installer, settings: &[(&str, &str)]) -> Stage {
    let stage = Stage::new(installer, settings);
    let firmware = rig::demo(&stage.hub);
    stage.offer_halting_at(1_000_000, &firmware);
    stage
}

/// Runs the real installer, then waits at a gate before it says how that went.
fn gated(device: &mut Device, installer: &Installer) {
    let (gate, said) = (device.path("gate"), device.path("said"));
    nix::unistd::mkfifo(&gate, Mode::S_IRWXU).expect("gate");
    let (gate, said, real) = (gate.display(), said.display(), installer.path.display());
    let text = format!("{real} \"$@\" > {said}\ncat {gate} > /dev/null\ncat {said}");
    let script = script(device, &text);
    device.use_installer(&script);
}

/// Waits until the installer is through and stands at the gate; held open it stays there.
fn at_the_gate(stage: &Stage) -> std::fs::File {
    let gate = stage.device.path("gate");
    let (sender, receiver) = std::sync::mpsc::channel();
    // Opening waits for the reader.
    assert!(
        within(PATIENCE, move || sender.send(open(&gate)).is_ok()),
        "not at the gate"
    );
    receiver.recv().expect("gate")
}

fn open(gate: &Path) -> std::fs::File {
    std::fs::OpenOptions::new()
        .write(true)
        .open(gate)
        .expect("gate")
}

/// A stage whose installer has all bytes and has not answered yet.
fn finishing(installer: &Installer, settings: &[(&str, &str)]) -> (Stage, std::fs::File) {
    let stage = Stage::prepared(installer, |_, device| {
        gated(device, installer);
        for (name, value) in settings {
            device.set(name, value);
        }
    });
    stage.hub.offer(&stage.firmware("small-2.0.1.fw"));
    let gate = at_the_gate(&stage);
    (stage, gate)
}

#[test]
fn a_download_is_cancelled_without_a_word_to_the_hub() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        for installer in installers() {
            let mut stage = stalled(&installer, &[]);
            let pid = stage.fwup_pid();
            stage.agent.signal(signal);
            assert_eq!(stage.agent.wait_exit(), 0);
            assert!(!is_there(pid), "fwup outlived the agent");
            stage.hub.expect_offline();
            assert_eq!(stage.statuses(), ["received", "started"]);
            assert_eq!(stage.device.reboots(), 0);
            stage
                .agent
                .wait_log("update cancelled, running firmware untouched");
        }
    }
}

#[test]
fn before_the_first_piece_no_fwup_is_started_that_would_have_to_be_ended() {
    let mut stage = Stage::new(&rig::standin(), &[]);
    let firmware = rig::demo(&stage.hub);
    stage.offer_halting_at(1000, &firmware);
    assert_eq!(stage.agent.stop(), 0);
    stage
        .agent
        .wait_log("update cancelled, running firmware untouched");
    assert!(stage.fwup_pids().is_empty());
    assert_eq!(stage.statuses(), ["received", "started"]);
    stage.assert_untouched();
}

#[test]
fn an_fwup_that_ignores_the_signal_is_killed() {
    let mut stage = Stage::prepared(&rig::standin(), |_, device| {
        let script = script(device, "trap '' TERM; while :; do read line; done");
        device.use_installer(&script);
    });
    let firmware = rig::demo(&stage.hub);
    stage.offer_halting_at(140_000, &firmware);
    let pid = stage.fwup_pid();
    assert_eq!(stage.agent.stop(), 0);
    assert!(!is_there(pid), "fwup outlived the agent");
    assert_eq!(stage.statuses(), ["received", "started"]);
}

#[test]
fn an_update_that_is_all_there_is_finished_reported_and_booted_before_leaving() {
    for installer in installers() {
        let (mut stage, gate) = finishing(&installer, &[]);
        stage.agent.signal(Signal::SIGTERM);
        stage
            .agent
            .wait_log("leaving once the installer has finished");
        drop(gate);
        assert_eq!(stage.agent.wait_exit(), 0);
        assert_eq!(stage.statuses(), DONE);
        assert_eq!(stage.device.reboots(), 1);
        stage.device.assert_image_of("small-2.0.1.fw");
    }
}

#[test]
fn an_update_that_does_not_finish_in_time_is_left_behind() {
    let (mut stage, _gate) = finishing(&rig::standin(), &[("SHUTDOWN_TIMEOUT", "300ms")]);
    let pid = stage.fwup_pid();
    assert_eq!(stage.agent.stop(), 0);
    stage.agent.wait_log("the installer did not end in time");
    assert!(!is_there(pid), "fwup outlived the agent");
    assert_eq!(stage.statuses(), ["received", "started"]);
    assert_eq!(stage.device.reboots(), 0);
}

/// An installed update whose reboot command waits at a gate.
fn rebooting(settings: &[(&str, &str)]) -> Stage {
    let stage = Stage::prepared(&rig::standin(), |_, device| {
        let (gate, rebooted) = (device.path("gate"), device.path("rebooted"));
        nix::unistd::mkfifo(&gate, Mode::S_IRWXU).expect("gate");
        let (gate, rebooted) = (gate.display(), rebooted.display());
        let command = format!("cat {gate} > /dev/null; echo reboot >> {rebooted}");
        device.set("REBOOT_COMMAND", &command);
        for (name, value) in settings {
            device.set(name, value);
        }
    });
    stage.hub.offer(&stage.firmware("small-2.0.1.fw"));
    stage.hub.expect_status("completed");
    stage.agent.wait_log("then rebooting");
    stage
}

#[test]
fn a_reboot_that_is_ordered_takes_place_before_leaving() {
    let mut stage = rebooting(&[]);
    let gate = at_the_gate(&stage);
    stage.agent.signal(Signal::SIGTERM);
    stage
        .agent
        .wait_log("leaving once the reboot command has ended");
    assert_eq!(stage.device.reboots(), 0);
    drop(gate);
    assert_eq!(stage.agent.wait_exit(), 0);
    assert_eq!(stage.device.reboots(), 1);
    assert_eq!(stage.statuses(), DONE);
}

#[test]
fn a_reboot_command_that_does_not_end_in_time_is_left_behind() {
    let mut stage = rebooting(&[("SHUTDOWN_TIMEOUT", "300ms")]);
    let _gate = at_the_gate(&stage);
    assert_eq!(stage.agent.stop(), 0);
    stage
        .agent
        .wait_log("the reboot command did not end in time");
    assert_eq!(stage.device.reboots(), 0);
}

#[test]
fn a_second_signal_leaves_at_once() {
    let (mut stage, _gate) = finishing(&rig::standin(), &[("SHUTDOWN_TIMEOUT", "10m")]);
    let pid = stage.fwup_pid();
    stage.agent.signal(Signal::SIGTERM);
    stage
        .agent
        .wait_log("leaving once the installer has finished");
    stage.agent.signal(Signal::SIGTERM);
    assert_eq!(stage.agent.wait_exit(), 0);
    stage.agent.wait_log("second termination signal");
    assert!(!is_there(pid), "fwup outlived the agent");
    assert_eq!(stage.statuses(), ["received", "started"]);
    assert_eq!(stage.device.reboots(), 0);
}

#[test]
fn no_offer_is_taken_while_leaving() {
    let (mut stage, gate) = finishing(&rig::standin(), &[]);
    stage.agent.signal(Signal::SIGTERM);
    stage
        .agent
        .wait_log("leaving once the installer has finished");
    let other = rig::demo(&stage.hub);
    stage.hub.offer(&other);
    stage
        .agent
        .wait_log(&format!("leaving: firmware {} left alone", other.uuid));
    drop(gate);
    assert_eq!(stage.agent.wait_exit(), 0);
    assert_eq!(stage.statuses(), DONE);
}

#[test]
fn a_reload_does_not_disturb_an_update() {
    for installer in installers() {
        let stage = stalled(&installer, &[]);
        let pid = stage.fwup_pid();
        stage.agent.signal(Signal::SIGHUP);
        let join = stage.hub.expect_join("device");
        let firmware = rig::demo(&stage.hub);
        assert_eq!(join.params["currently_downloading_uuid"], *firmware.uuid);
        assert!(is_there(pid));
        stage.hub.store().release();
        stage.expect_installed();
        assert_eq!(stage.statuses(), DONE);
        assert_eq!(stage.hub.store().requests().len(), 1);
        stage.device.assert_image_of("demo-2.0.0.fw");
    }
}

#[test]
fn a_status_line_tells_what_the_agent_is_doing() {
    let stage = stalled(&rig::standin(), &[]);
    let firmware = rig::demo(&stage.hub);
    stage.hub.expect_push("device", "fwup_progress", |_| true);
    stage.barrier();
    let log = stage.agent.log();
    let line = log
        .lines()
        .find(|line| line.contains("status: "))
        .expect("a status line");
    let expected = format!("update=\"installing {}", firmware.uuid);
    assert!(line.contains(&expected), "{line}");
    assert!(
        line.contains(&format!("identifier={}", rig::IDENTIFIER)),
        "{line}"
    );
    stage.hub.store().release();
    stage.expect_installed();
}

#[test]
fn a_killed_agent_ends_its_fwup_and_starts_afresh() {
    let mut stage = Stage::prepared(&rig::standin(), |_, device| {
        device.use_installer(&script(device, "exec cat > /dev/null"));
    });
    let firmware = rig::demo(&stage.hub);
    stage.offer_halting_at(1_000_000, &firmware);
    let fwup = stage.fwup_pid();
    stage.agent.signal(Signal::SIGKILL);
    assert_eq!(stage.agent.wait_exit(), 128 + 9);
    let over = within(PATIENCE, move || {
        // Whose child it is now may take its time to reap it.
        let lives = || std::fs::read_to_string(format!("/proc/{fwup}/stat"));
        while lives().is_ok_and(|stat| !stat.contains(") Z ")) {
            std::thread::yield_now();
        }
        true
    });
    assert!(over, "fwup goes on without the agent");
    stage.hub.store().clear_faults(&firmware.path());
    stage.device.use_installer(&rig::standin());
    stage.agent = stage.device.start();
    let join = stage.hub.expect_join("device");
    assert_eq!(join.params["currently_downloading_uuid"], Value::Null);
    stage.hub.offer(&firmware);
    stage.expect_installed();
    stage.device.assert_image_of("demo-2.0.0.fw");
}
