//! Updates that succeed: what the hub sees, what lands on the device, and the reboot.

use serde_json::Value;

use crate::rig::{self, RUNNING_UUID, demo, installers, public_key};
use crate::stage::Stage;

#[test]
fn an_offer_becomes_an_image_a_report_and_a_reboot() {
    for installer in installers() {
        let stage = Stage::new(&installer, &[]);
        let join = &stage.join.params;
        assert_eq!(join["nerves_fw_uuid"], RUNNING_UUID);
        assert_eq!(join["currently_downloading_uuid"], Value::Null);
        stage.hub.offer(&demo(&stage.hub));
        stage.expect_installed();
        assert_eq!(stage.statuses(), ["received", "started", "completed"]);
        stage.device.assert_image_of("demo-2.0.0.fw");
        assert_progress_grows(&stage);
    }
}

/// One stage after the other, each growing, and 100 just before `completed`.
fn assert_progress_grows(stage: &Stage) {
    let transcript = stage.hub.transcript();
    let seen: Vec<(bool, u64)> = transcript
        .pushes("device", "fwup_progress")
        .map(|push| {
            (
                push["stage"] == "updating",
                push["value"].as_u64().expect("whole"),
            )
        })
        .collect();
    assert!(seen.windows(2).all(|pair| pair[0] < pair[1]), "{seen:?}");
    assert_eq!(seen.last(), Some(&(true, 100)));
}

#[test]
fn the_outcome_is_reported_and_the_reboot_ordered_only_once() {
    let stage = Stage::new(&rig::standin(), &[]);
    stage.hub.offer(&stage.firmware("small-2.0.1.fw"));
    stage.expect_installed();
    stage.hub.drop_tcp();
    let join = stage.hub.expect_join("device");
    assert_eq!(join.params["currently_downloading_uuid"], Value::Null);
    // The device may take its time to reboot; a new offer must not be written meanwhile.
    stage.hub.offer(&demo(&stage.hub));
    stage.agent.wait_log("left alone");
    stage.barrier();
    assert_eq!(stage.statuses(), ["received", "started", "completed"]);
    assert_eq!(stage.device.reboots(), 1);
    stage.device.assert_image_of("small-2.0.1.fw");
}

#[test]
fn an_offer_without_size_and_checksum_is_taken() {
    for installer in installers() {
        let stage = Stage::new(&installer, &[]);
        stage.hub.offer(&demo(&stage.hub).old_style());
        stage.expect_installed();
        assert_eq!(stage.statuses(), ["received", "started", "completed"]);
        stage.device.assert_image_of("demo-2.0.0.fw");
    }
}

#[test]
fn an_offer_in_the_join_reply_is_taken() {
    let stage = Stage::prepared(&rig::standin(), |hub, _| {
        let offer = demo(hub).payload();
        hub.behaviour(|behaviour| behaviour.join_response = offer);
    });
    stage.expect_installed();
    assert_eq!(stage.statuses(), ["received", "started", "completed"]);
    stage.device.assert_image_of("demo-2.0.0.fw");
}

#[test]
fn a_deployment_reaches_a_device_that_joins_and_leaves_one_alone_that_has_it() {
    let stage = Stage::prepared(&rig::standin(), |hub, _| hub.deploy(Some(&demo(hub))));
    stage.expect_installed();
    let mut again = stage;
    assert_eq!(again.agent.stop(), 0);
    let uuid = demo(&again.hub).uuid;
    again.device.write_metadata(&uuid, "2.0.0", "");
    again.agent = again.device.start();
    let join = again.hub.expect_join("device");
    assert_eq!(join.params["nerves_fw_uuid"], uuid);
    again.barrier();
    assert_eq!(again.statuses(), ["received", "started", "completed"]);
    assert_eq!(again.device.reboots(), 1);
}

#[test]
fn a_second_offer_during_an_update_is_left_alone() {
    let stage = Stage::new(&rig::standin(), &[]);
    let (first, second) = (demo(&stage.hub), stage.firmware("small-2.0.1.fw"));
    let store = stage.hub.store();
    stage.offer_halting_at(1_000_000, &first);
    stage.hub.expect_status("started");
    stage.hub.offer(&second);
    stage.agent.wait_log(&format!("{} left alone", second.uuid));
    // The same one again, as a server may send it after a rejoin.
    stage.hub.offer(&first);
    stage.agent.wait_log(&format!("{} left alone", first.uuid));
    store.release();
    stage.expect_installed();
    assert_eq!(stage.statuses(), ["received", "started", "completed"]);
    assert_eq!(store.requests_for(&second.path()).len(), 0);
    stage.device.assert_image_of("demo-2.0.0.fw");
}

#[test]
fn a_reboot_request_does_not_interrupt_an_update() {
    let stage = Stage::new(&rig::standin(), &[]);
    let firmware = demo(&stage.hub);
    stage.offer_halting_at(1_000_000, &firmware);
    stage.hub.reboot();
    stage.agent.wait_log("reboot refused");
    stage.hub.store().release();
    stage.expect_installed();
    stage.device.assert_image_of("demo-2.0.0.fw");
}

#[test]
fn keys_that_come_with_the_connection_are_enough() {
    for installer in installers() {
        let keys = public_key();
        let hub = rig::hub().public_keys(&[&keys], &[]).start();
        let stage = Stage::on(hub, &installer, |_, device| {
            device.unset("FWUP_PUBLIC_KEYS");
        });
        assert_eq!(stage.join.params["fwup_public_keys"], "on_connect");
        stage.hub.offer(&demo(&stage.hub));
        stage.expect_installed();
        assert_eq!(stage.statuses(), ["received", "started", "completed"]);
        stage.device.assert_image_of("demo-2.0.0.fw");
    }
}

#[test]
fn an_offer_that_overtakes_the_keys_waits_for_them() {
    let stage = Stage::prepared(&rig::standin(), |_, device| {
        device.unset("FWUP_PUBLIC_KEYS");
    });
    stage.hub.offer(&demo(&stage.hub));
    stage.hub.expect_status("received");
    let keys = serde_json::json!({"keys": [public_key()]});
    stage.hub.push("device", "fwup_public_keys", keys);
    stage.expect_installed();
    assert_eq!(stage.statuses(), ["received", "started", "completed"]);
}

#[test]
fn a_failing_reboot_command_is_tried_again() {
    let stage = Stage::new(
        &rig::standin(),
        &[("REBOOT_COMMAND", "echo no >&2; exit 3")],
    );
    stage.hub.offer(&stage.firmware("small-2.0.1.fw"));
    stage.hub.expect_status("completed");
    stage.agent.wait_log("trying again in 30 s");
    let log = stage.agent.log();
    assert!(log.contains("exit status: 3: no"), "{log}");
    assert_eq!(stage.statuses(), ["received", "started", "completed"]);
    assert_eq!(stage.hub.online(), 1);
}
