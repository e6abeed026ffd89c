//! The hub goes away while firmware is being written: the update goes on, and its outcome
//! is owed until the hub has it.

use devhub::{Firmware, Hub};
use serde_json::Value;

use crate::rig::{self, PATIENCE, installers};
use crate::stage::Stage;

/// Where the store stops until it is released.
const HALF: u64 = 1_500_000;

/// A stage in the middle of an update.
fn halfway(stage: &Stage) -> Firmware {
    let firmware = rig::demo(&stage.hub);
    stage.offer_halting_at(HALF, &firmware);
    stage.hub.expect_status("started");
    firmware
}

/// The device says which firmware it is busy with, so that the hub keeps its books.
fn expect_busy_join(hub: &Hub, firmware: &Firmware) {
    let join = hub.expect_join("device");
    assert_eq!(join.params["currently_downloading_uuid"], *firmware.uuid);
}

#[test]
fn a_lost_socket_does_not_stop_an_update() {
    type Loss = fn(&Hub);
    let losses: [(&str, Loss); 4] = [
        ("reset", Hub::drop_tcp),
        ("end without a goodbye", Hub::cut_tcp),
        ("closed", |hub| hub.close(1001)),
        ("channel crash", |hub| hub.crash_channel("device")),
    ];
    for (name, lose) in losses {
        let stage = Stage::new(&rig::standin(), &[]);
        let firmware = halfway(&stage);
        lose(&stage.hub);
        expect_busy_join(&stage.hub, &firmware);
        stage.hub.store().release();
        stage.expect_installed();
        assert_eq!(
            stage.statuses(),
            ["received", "started", "completed"],
            "{name}"
        );
        assert_eq!(
            stage.hub.store().requests_for(&firmware.path()).len(),
            1,
            "{name}"
        );
        stage.device.assert_image_of("demo-2.0.0.fw");
    }
}

#[test]
fn an_update_that_ends_while_the_hub_is_away_is_reported_and_booted_once_it_is_back() {
    for installer in installers() {
        let stage = Stage::new(&installer, &[]);
        let firmware = halfway(&stage);
        stage.hub.stop();
        stage.hub.store().release();
        stage.agent.wait_log(" installed");
        stage.barrier();
        assert_eq!(stage.device.reboots(), 0, "rebooted before the report");
        stage.hub.restart();
        expect_busy_join(&stage.hub, &firmware);
        stage.expect_installed();
        assert_eq!(stage.statuses(), ["received", "started", "completed"]);
    }
}

#[test]
fn a_failure_while_the_hub_is_away_is_reported_once_it_is_back() {
    let stage = Stage::new(&rig::standin(), &[]);
    let firmware = halfway(&stage);
    stage.hub.kill();
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(stage.fwup_pid()),
        nix::sys::signal::Signal::SIGKILL,
    )
    .expect("kill");
    stage.agent.wait_log("not installed");
    stage.hub.restart();
    expect_busy_join(&stage.hub, &firmware);
    let reason = stage.expect_failed();
    assert_eq!(reason, "fwup error: killed by signal 9");
    assert_eq!(stage.statuses(), ["received", "started", "failed"]);
    // The outcome is known now: the next join is that of an idle device.
    stage.hub.drop_tcp();
    let join = stage.hub.expect_join("device");
    assert_eq!(join.params["currently_downloading_uuid"], Value::Null);
    assert_eq!(stage.device.reboots(), 0);
}

#[test]
fn a_hub_that_falls_silent_at_completion_does_not_hold_the_reboot_back() {
    let stage = Stage::new(&rig::standin(), &[]);
    halfway(&stage);
    stage.hub.freeze();
    stage.hub.store().release();
    stage.agent.wait_log("reboot command accepted");
    stage.hub.unfreeze();
    stage.hub.expect_status("completed");
    stage.hub.wait(
        |transcript| transcript.pushes("phoenix", "heartbeat").next().map(|_| ()),
        PATIENCE,
    );
    stage.barrier();
    assert_eq!(stage.statuses(), ["received", "started", "completed"]);
    assert_eq!(stage.device.reboots(), 1);
}
