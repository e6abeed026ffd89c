//! Update policy, windows, holds and put-off reboots, against the hub and its books.

use serde_json::Value;

use crate::rig::{self, Device, JOINED, demo};
use crate::stage::Stage;

/// `DAY HH:MM-HH:MM` so many minutes from now for so long, where local time is UTC + 5:30.
fn window(from_minutes: u64, minutes: u64) -> String {
    let now = std::time::SystemTime::now();
    let since = now.duration_since(std::time::UNIX_EPOCH).expect("a clock");
    let at = |minutes: u64| {
        let minute = (since.as_secs() / 60 + 330 + minutes) % 1440;
        format!("{:02}:{:02}", minute / 60, minute % 60)
    };
    format!("{}-{}", at(from_minutes), at(from_minutes + minutes))
}

/// The zone of [`window`], which needs no files.
fn schedule(device: &mut Device, windows: &str) {
    device.env.insert("TZ".to_owned(), "XXX-5:30".to_owned());
    device
        .set("UPDATE_POLICY", "schedule")
        .set("UPDATE_WINDOW", windows);
}

fn delay(status: &Value) -> u64 {
    status["delay_for"].as_u64().expect("a whole delay")
}

impl Stage {
    fn assert_channel_never_crashed(&self) {
        self.barrier();
        assert_eq!(self.agent.logged("channel crashed"), Vec::<String>::new());
    }
}

#[test]
fn an_update_within_its_window_is_installed() {
    let stage = Stage::prepared(&rig::standin(), |_, device| {
        schedule(device, &window(1430, 20));
    });
    stage.hub.offer(&demo(&stage.hub));
    stage.expect_installed();
    assert_eq!(stage.statuses(), ["received", "started", "completed"]);
}

#[test]
fn outside_its_window_an_update_is_put_off_until_it_opens_in_local_time() {
    let stage = Stage::prepared(&rig::standin(), |_, device| {
        schedule(device, &window(90, 10));
    });
    stage.hub.offer(&demo(&stage.hub));
    let first = stage.hub.expect_status("rescheduled");
    assert_eq!(first["reason"], "outside the update window");
    assert!((5_280_000..=5_400_000).contains(&delay(&first)), "{first}");
    // The hub forgets what it was told; the device does not.
    stage.hub.close(1000);
    stage.agent.wait_log_times(JOINED, 2);
    stage.hub.offer(&demo(&stage.hub));
    let again = stage.hub.expect_status("rescheduled");
    assert!(delay(&again) <= delay(&first), "{again}");
    stage.agent.wait_log("stays put off");
    let words = ["received", "rescheduled", "received", "rescheduled"];
    assert_eq!(stage.statuses(), words);
    stage.assert_channel_never_crashed();
}

#[test]
fn what_the_hook_put_off_is_asked_for_when_its_time_has_come() {
    let stage = Stage::prepared(&rig::standin(), |_, device| {
        let text = "[ -e \"$0.asked\" ] && exec echo apply; : > \"$0.asked\"; echo reschedule 5";
        device.hook("update-available", text);
    });
    stage.hub.offer(&demo(&stage.hub));
    let first = stage.hub.expect_status("rescheduled");
    assert_eq!(delay(&first), 5_000);
    // A device that joins and downloads nothing is offered what there is.
    let join = stage.hub.expect_join("device");
    assert_eq!(join.params["currently_downloading_uuid"], Value::Null);
    stage.hub.offer(&demo(&stage.hub));
    stage.expect_installed();
    let words = [
        "received",
        "rescheduled",
        "received",
        "started",
        "completed",
    ];
    assert_eq!(stage.statuses(), words);
    // On the same connection.
    assert_eq!(stage.hub.connections(), 1);
    stage.assert_channel_never_crashed();
}

#[test]
fn a_downgrade_is_ignored_where_that_is_set() {
    let stage = Stage::prepared(&rig::standin(), |_, device| {
        device.set("DOWNGRADE", "ignore");
        device.write_metadata(rig::RUNNING_UUID, "2.0.1", "");
    });
    stage.hub.offer(&demo(&stage.hub));
    let reason = stage.hub.expect_status("ignored")["reason"].clone();
    assert_eq!(
        reason,
        "version 2.0.0 is lower than the running 2.0.1 (NERVES_HUB_DOWNGRADE is ignore)"
    );
    stage.hub.offer(&stage.firmware("small-2.0.1.fw"));
    stage.expect_installed();
    stage.assert_channel_never_crashed();
}

#[test]
fn the_running_firmware_is_installed_again_where_that_is_set() {
    let stage = Stage::prepared(&rig::standin(), |hub, device| {
        device.set("SAME_FIRMWARE", "apply");
        device.write_metadata(&demo(hub).uuid, "2.0.0", "");
    });
    stage.hub.offer(&demo(&stage.hub));
    stage.expect_installed();
}

#[test]
fn a_policy_without_questions() {
    for (settings, word) in [
        (("UPDATE_POLICY", "ignore"), "ignored"),
        (("ON_NO_DECISION", "ignore"), "ignored"),
        (("ON_NO_DECISION", "reschedule"), "rescheduled"),
        (("UPDATE_POLICY", "apply"), "completed"),
    ] {
        let stage = Stage::new(&rig::standin(), &[settings]);
        if word == "completed" {
            // Not even asked.
            stage.device.hook("update-available", "echo ignore");
        }
        stage.hub.offer(&demo(&stage.hub));
        stage.hub.expect_status(word);
        stage.assert_channel_never_crashed();
    }
}

#[test]
fn a_reboot_is_put_off_within_bounds() {
    let stage = Stage::prepared(&rig::standin(), |_, device| {
        device.set("REBOOT_MAX_DEFER", "2s");
        device.hook("reboot-request", "echo defer 3600 busy");
    });
    stage.hub.offer(&demo(&stage.hub));
    stage.hub.expect_status("completed");
    stage.agent.wait_log("reboot put off by");
    assert_eq!(stage.device.reboots(), 0);
    stage.agent.wait_log("put off for long enough");
    stage.agent.wait_log("reboot command accepted");
    assert_eq!(stage.device.reboots(), 1);
}

#[test]
fn a_reboot_put_off_is_owed_by_the_next_start() {
    let mut stage = Stage::prepared(&rig::standin(), |_, device| {
        device.hook("reboot-request", "echo defer 600 busy");
    });
    stage.hub.offer(&demo(&stage.hub));
    stage.agent.wait_log("reboot put off by 600 s: busy");
    assert_eq!(stage.agent.stop(), 0);
    assert_eq!(stage.device.reboots(), 0);
    std::fs::remove_file(stage.device.path("hooks/reboot-request")).expect("hook");
    stage.agent = stage.device.start();
    stage.agent.wait_log("reboot command accepted");
    assert_eq!(stage.device.reboots(), 1);
}
