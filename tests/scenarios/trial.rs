//! Firmware on trial: who marks it valid, when it is rolled back, and what becomes of a
//! reboot that does not happen.

use std::time::Duration;

use devhub::store::{Fault, When};
use devhub::{Hub, Join};
use serde_json::{Value, json};

use crate::board::{Board, OLD_SLOT, with_environment};
use crate::rig::{self, Agent, Device, JOINED, RUNNING_UUID, demo, installers};

/// A device whose firmware is not marked valid.
fn unmarked(hub: &Hub, settings: &[(&str, &str)]) -> Device {
    let mut device = Device::new(hub);
    with_environment(&mut device);
    for (name, value) in settings {
        device.set(name, value);
    }
    Board(&device).begin(false);
    device
}

fn meta(join: &Join) -> (bool, bool) {
    let meta = &join.params["meta"];
    let flag = |name: &str| meta[name].as_bool().expect("a flag");
    (
        flag("firmware_validated"),
        flag("firmware_auto_revert_detected"),
    )
}

fn expect_validated(hub: &Hub) {
    hub.expect_push("device", "firmware_validated", |payload| {
        *payload == json!({})
    });
}

fn pushes(hub: &Hub, event: &str) -> usize {
    hub.transcript().pushes("device", event).count()
}

/// Waits until the reboot command has run so often in all.
fn expect_reboots(agent: &Agent, device: &Device, count: usize) {
    agent.wait_log("reboot command accepted");
    assert_eq!(device.reboots(), count);
}

/// Asserts that no reboot is announced for a while.
fn assert_no_reboot(hub: &Hub, device: &Device, reboots: usize) {
    let while_ = Duration::from_secs(2);
    hub.expect_none("device", "rebooting", while_, |_| true);
    assert_eq!(device.reboots(), reboots);
}

fn tally(device: &Device) -> Option<String> {
    std::fs::read_to_string(device.path("data/trial-reboots")).ok()
}

#[test]
fn the_first_join_validates_once_and_for_all_joins_to_come() {
    let hub = rig::hub().start();
    let device = unmarked(&hub, &[("VALIDATE", "on-join")]);
    let mut agent = device.start();
    assert_eq!(meta(&hub.expect_join("device")), (false, false));
    expect_validated(&hub);
    assert_eq!(Board(&device).mark("a").as_deref(), Some("1"));
    hub.drop_tcp();
    assert_eq!(meta(&hub.expect_join("device")), (true, false));
    agent.wait_log_times(JOINED, 2);
    assert_eq!(agent.stop(), 0);
    let agent = device.start();
    assert_eq!(meta(&hub.expect_join("device")), (true, false));
    agent.wait_log(JOINED);
    assert_eq!(pushes(&hub, "firmware_validated"), 1);
    assert!(agent.logged("marking it valid").is_empty());
}

#[test]
fn without_a_join_nothing_is_validated() {
    let hub = rig::hub().start();
    let device = unmarked(&hub, &[("VALIDATE", "on-join"), ("RECONNECT_MAX", "100ms")]);
    hub.set_gate(devhub::Gate::unavailable());
    let agent = device.start();
    agent.wait_log_times("HTTP 503", 3);
    assert_eq!(Board(&device).mark("a").as_deref(), Some("0"));
}

#[test]
fn the_integrator_s_check_decides_and_sees_no_secret() {
    let hub = rig::hub().start();
    let mut device = unmarked(&hub, &[]);
    let tries = device.path("tries").display().to_string();
    let check = format!(
        "command:echo \"[$NERVES_HUB_PRODUCT_SECRET]\" >> {tries}; echo not yet >&2; \
         test $(wc -l < {tries}) -ge 3"
    );
    device.set("VALIDATE", &check);
    let agent = device.start();
    assert_eq!(meta(&hub.expect_join("device")), (false, false));
    agent.wait_log("is not found good: NERVES_HUB_VALIDATE");
    // It is asked every 10 s.
    agent.wait_log_times("is not found good", 2);
    assert_eq!(Board(&device).mark("a").as_deref(), Some("0"));
    expect_validated(&hub);
    assert_eq!(Board(&device).mark("a").as_deref(), Some("1"));
    let said = std::fs::read_to_string(&tries).expect("tries");
    assert_eq!(said, "[]\n[]\n[]\n");
}

#[test]
fn a_mark_that_cannot_be_set_is_an_error_and_set_later() {
    let hub = rig::hub().start();
    let device = unmarked(&hub, &[("VALIDATE", "on-join")]);
    Board(&device).lock(true);
    let agent = device.start();
    hub.expect_join("device");
    agent.wait_log("could not be marked valid");
    agent.wait_log("trying again in 10 s");
    assert_eq!(agent.logged("could not be marked valid").len(), 1);
    Board(&device).lock(false);
    expect_validated(&hub);
    assert_eq!(Board(&device).mark("a").as_deref(), Some("1"));
}

#[test]
fn firmware_nobody_validates_is_rebooted_so_often_and_no_more() {
    let hub = rig::hub().start();
    let settings = [("TRIAL_TIMEOUT", "300ms"), ("TRIAL_REBOOTS", "2")];
    let device = unmarked(&hub, &settings);
    for count in 1..=2 {
        let mut agent = device.start();
        hub.expect_join("device");
        hub.expect_push("device", "rebooting", |payload| *payload == json!({}));
        expect_reboots(&agent, &device, count);
        assert_eq!(tally(&device), Some(format!("{RUNNING_UUID} {count}\n")));
        assert_eq!(agent.stop(), 0);
    }
    let mut agent = device.start();
    hub.expect_join("device");
    agent.wait_log("2 reboots did not bring back the old one");
    assert_no_reboot(&hub, &device, 2);
    assert_eq!(agent.stop(), 0);
    // Other firmware has a count of its own.
    Board(&device).set(&[("a.nerves_fw_uuid", "other")]);
    let mut agent = device.start();
    expect_reboots(&agent, &device, 3);
    assert_eq!(tally(&device).as_deref(), Some("other 1\n"));
    assert_eq!(agent.stop(), 0);
    // Validated firmware has none.
    Board(&device).set(&[("a.nerves_fw_validated", "1")]);
    let agent = device.start();
    agent.wait_log(JOINED);
    assert_eq!(tally(&device), None);
}

#[test]
fn a_start_that_cannot_read_the_metadata_does_not_begin_the_count_anew() {
    let hub = rig::hub().start();
    let mut device = unmarked(&hub, &[("TRIAL_TIMEOUT", "300ms"), ("TRIAL_REBOOTS", "1")]);
    let counted = Some(format!("{RUNNING_UUID} 1\n"));
    let mut agent = device.start();
    expect_reboots(&agent, &device, 1);
    assert_eq!(tally(&device), counted);
    assert_eq!(agent.stop(), 0);
    // Only the default place may fail, and there is none on this machine.
    let readable = device.env["NERVES_HUB_FIRMWARE_METADATA"].clone();
    device.unset("FIRMWARE_METADATA");
    device.set("IDENTIFIER", rig::IDENTIFIER);
    let mut agent = device.start();
    agent.wait_log(JOINED);
    assert_eq!(agent.logged("change NERVES_HUB_FIRMWARE_METADATA").len(), 1);
    assert_eq!(agent.stop(), 0);
    assert_eq!(tally(&device), counted);
    device.set("FIRMWARE_METADATA", &readable);
    let agent = device.start();
    agent.wait_log("1 reboots did not bring back the old one");
    hub.skip_seen();
    assert_no_reboot(&hub, &device, 1);
}

#[test]
fn an_unreachable_hub_does_not_keep_bad_firmware_alive() {
    let hub = rig::hub().start();
    let device = unmarked(&hub, &[("TRIAL_TIMEOUT", "300ms"), ("VALIDATE", "on-join")]);
    hub.set_gate(devhub::Gate::unavailable());
    let agent = device.start();
    expect_reboots(&agent, &device, 1);
}

#[test]
fn firmware_validated_in_time_is_not_rebooted() {
    let hub = rig::hub().start();
    let settings = [("TRIAL_TIMEOUT", "1s"), ("VALIDATE", "on-join")];
    let device = unmarked(&hub, &settings);
    let _agent = device.start();
    expect_validated(&hub);
    assert_no_reboot(&hub, &device, 0);
    assert_eq!(tally(&device), None);
}

#[test]
fn the_mark_is_read_again_right_before_the_reboot() {
    let hub = rig::hub().start();
    let device = unmarked(&hub, &[("TRIAL_TIMEOUT", "1500ms")]);
    let agent = device.start();
    agent.wait_log(JOINED);
    // Long before the next poll.
    Board(&device).set(&[("a.nerves_fw_validated", "1")]);
    expect_validated(&hub);
    agent.wait_log("to be rebooted");
    assert_no_reboot(&hub, &device, 0);
    assert_eq!(tally(&device), None);
}

#[test]
fn a_reboot_that_cannot_be_counted_is_not_made() {
    let hub = rig::hub().start();
    let device = unmarked(&hub, &[("TRIAL_TIMEOUT", "100ms")]);
    // In the way of the file that replaces the count.
    std::fs::create_dir_all(device.path("data/trial-reboots.new")).expect("obstacle");
    let agent = device.start();
    agent.wait_log("cannot be counted in");
    assert_no_reboot(&hub, &device, 0);
}

#[test]
fn an_update_in_hand_goes_before_a_rollback() {
    let hub = rig::hub().start();
    let device = unmarked(&hub, &[("TRIAL_TIMEOUT", "1s")]);
    let (firmware, store) = (demo(&hub), hub.store());
    store.fault(&firmware.path(), When::Nth(1), Fault::StallAt(1_000_000));
    let agent = device.start();
    agent.wait_log(JOINED);
    hub.push("device", "update", firmware.payload());
    hub.expect_status("started");
    assert_no_reboot(&hub, &device, 0);
    store.release();
    hub.expect_status("completed");
    expect_reboots(&agent, &device, 1);
    device.assert_image_of("demo-2.0.0.fw");
    assert_eq!(tally(&device), None);
}

#[test]
fn a_reboot_command_that_does_not_reboot_is_not_the_last_word() {
    const FORCED: &str = "would force the reboot: NERVES_HUB_REBOOT_FORCE is off; trying again";
    for (command, timeout, reason) in [
        ("true", "300ms", "has not rebooted this machine within"),
        ("sleep 1000", "300ms", ""),
        ("echo no >&2; exit 3", "60s", "exit status: 3: no"),
    ] {
        let hub = rig::hub().start();
        let mut device = Device::new(&hub);
        device.set("REBOOT_COMMAND", command);
        device.set("REBOOT_TIMEOUT", timeout);
        let agent = device.start();
        agent.wait_log(JOINED);
        hub.reboot();
        agent.wait_log(FORCED);
        let lines = agent.logged(FORCED);
        assert!(lines[0].contains(reason), "{command}: {}", lines[0]);
        // Nothing else has changed: it is still there for the hub.
        hub.identify();
        agent.wait_log("identify: this is");
    }
}

/// One whole life: updated, tried, not validated, rolled back.
#[test]
fn new_firmware_that_nobody_validates_is_rolled_back_end_to_end() {
    for installer in installers() {
        let hub = rig::hub().start();
        let mut device = Device::new(&hub);
        device.use_installer(&installer);
        device.set("TRIAL_TIMEOUT", "500ms");
        with_environment(&mut device);
        let board = Board(&device);
        board.begin(true);
        let a_is_untouched = || {
            let slot = std::fs::read(board.slot_a()).expect("slot a");
            assert!(slot == OLD_SLOT, "slot a was written to");
        };

        let firmware = demo(&hub);
        let mut agent = device.start();
        let join = hub.expect_join("device");
        assert_eq!(join.params["nerves_fw_uuid"], RUNNING_UUID);
        assert_eq!(meta(&join), (true, false));
        hub.offer(&firmware);
        hub.expect_status("completed");
        expect_reboots(&agent, &device, 1);
        assert_eq!(agent.stop(), 0);
        device.assert_image_of("demo-2.0.0.fw");
        a_is_untouched();

        board.try_b(&firmware.uuid);
        let mut agent = device.start();
        let join = hub.expect_join("device");
        assert_eq!(join.params["nerves_fw_uuid"], firmware.uuid);
        assert_eq!(meta(&join), (false, false));
        hub.expect_push("device", "rebooting", |payload| *payload == json!({}));
        expect_reboots(&agent, &device, 2);
        assert_eq!(agent.stop(), 0);
        let counted = format!("{} 1\n", firmware.uuid);
        assert_eq!(tally(&device), Some(counted));

        board.revert();
        let agent = device.start();
        let join = hub.expect_join("device");
        assert_eq!(join.params["nerves_fw_uuid"], RUNNING_UUID);
        assert_eq!(join.params["currently_downloading_uuid"], Value::Null);
        assert_eq!(meta(&join), (true, true));
        agent.wait_log("alarm FirmwareReverted");
        agent.signal(nix::sys::signal::Signal::SIGUSR1);
        agent.wait_log("alarms=FirmwareReverted");
        assert_no_reboot(&hub, &device, 2);
        assert_eq!(tally(&device), None);
        device.assert_image_of("demo-2.0.0.fw");
        a_is_untouched();
    }
}
