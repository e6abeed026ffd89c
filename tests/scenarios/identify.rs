//! The device shows itself, and reboots when the hub asks for it.

use std::path::{Path, PathBuf};

use crate::rig::{self, Device, standin, within};
use crate::stage::Stage;

fn wait_for(what: &str, is_so: impl Fn() -> bool + Send + 'static) {
    let seen = within(rig::PATIENCE, move || {
        while !is_so() {
            std::thread::yield_now();
        }
        true
    });
    assert!(seen, "{what}");
}

fn read(path: PathBuf) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// An LED made of plain files.
fn led(device: &Device) -> PathBuf {
    let led = device.path("leds/green:status");
    std::fs::create_dir_all(&led).expect("led");
    for (file, text) in [
        ("trigger", "none [heartbeat] timer"),
        ("brightness", "0"),
        ("max_brightness", "1"),
        ("delay_on", ""),
        ("delay_off", ""),
    ] {
        std::fs::write(led.join(file), text).expect(file);
    }
    led
}

#[test]
fn an_led_blinks_and_gets_its_trigger_back_also_when_the_agent_has_to_go() {
    let hub = rig::hub().start();
    let mut device = Device::new(&hub);
    let led = led(&device);
    device.set("IDENTIFY_LED", &led.display().to_string());
    let mut agent = device.start();
    hub.expect_join("device");
    hub.identify();
    let (trigger, delay) = (led.join("trigger"), led.join("delay_off"));
    wait_for("blinking", move || {
        read(trigger.clone()) == "timer" && read(delay.clone()) == "250"
    });
    hub.identify();
    agent.wait_log("identify: under way already");
    assert_eq!(agent.stop(), 0);
    assert_eq!(read(led.join("trigger")), "heartbeat");
}

#[test]
fn an_led_stops_blinking_by_itself() {
    let hub = rig::hub().start();
    let mut device = Device::new(&hub);
    let led = led(&device);
    device.set("IDENTIFY_LED", &led.display().to_string());
    let agent = device.start();
    hub.expect_join("device");
    hub.identify();
    agent.wait_log("blinks");
    let trigger = led.join("trigger");
    wait_for("the old trigger", move || {
        read(trigger.clone()) == "heartbeat"
    });
}

#[test]
fn a_command_that_hangs_is_one_at_a_time_and_ends_with_the_agent() {
    let hub = rig::hub().start();
    let mut device = Device::new(&hub);
    let told = device.path("told");
    let text = format!(
        "trap '' TERM; sleep 1000 & echo $NERVES_HUB_DEVICE_IDENTIFIER $NERVES_HUB_PRODUCT_SECRET $! >> {}; wait",
        told.display()
    );
    device.set("IDENTIFY_COMMAND", &text);
    let mut agent = device.start();
    hub.expect_join("device");
    hub.identify();
    let seen = told.clone();
    wait_for("the command", move || read(seen.clone()).ends_with('\n'));
    hub.identify();
    agent.wait_log("identify: under way already");
    // The link and the dispatcher are well.
    hub.close(1000);
    hub.expect_join("device");
    assert_eq!(agent.stop(), 0);
    let said = read(told);
    let words: Vec<&str> = said.split_whitespace().collect();
    assert_eq!((words.len(), words[0]), (2, rig::IDENTIFIER), "{said}");
    let stat = format!("/proc/{}/stat", words[1]);
    wait_for("its child's end", move || {
        let stat = std::fs::read_to_string(Path::new(&stat));
        !stat.is_ok_and(|stat| !stat.contains(") Z "))
    });
}

#[test]
fn a_reboot_is_refused_while_firmware_is_being_written_and_obeyed_afterwards() {
    let stage = Stage::new(&standin(), &[]);
    let firmware = rig::demo(&stage.hub);
    stage.offer_halting_at(1_000_000, &firmware);
    stage.fwup_pid();
    stage.hub.reboot();
    stage
        .agent
        .wait_log("reboot refused: firmware is being written");
    assert_eq!(stage.device.reboots(), 0);
    let transcript = stage.hub.transcript();
    assert_eq!(transcript.pushes("device", "rebooting").count(), 0);
    stage.hub.store().release();
    stage.expect_installed();
    stage.device.assert_image_of("demo-2.0.0.fw");

    let stage = Stage::new(&standin(), &[]);
    stage.hub.reboot();
    stage.hub.expect_push("device", "rebooting", |_| true);
    stage.agent.wait_log("reboot command accepted");
    assert_eq!(stage.device.reboots(), 1);
}

#[test]
fn a_failed_update_refuses_no_reboot() {
    let stage = Stage::new(&standin(), &[]);
    let firmware = rig::demo(&stage.hub);
    stage.hub.store().fault(
        &firmware.path(),
        devhub::store::When::Always,
        devhub::store::Fault::Status(404),
    );
    stage.hub.offer(&firmware);
    stage.expect_failed();
    stage.hub.reboot();
    stage.hub.expect_push("device", "rebooting", |_| true);
    stage.agent.wait_log("reboot command accepted");
}

#[test]
fn a_reboot_goes_before_an_update_when_the_setting_says_so() {
    let stage = Stage::new(&standin(), &[("REBOOT_DURING_UPDATE", "1")]);
    let firmware = rig::demo(&stage.hub);
    stage.offer_halting_at(1_000_000, &firmware);
    stage.fwup_pid();
    stage.hub.reboot();
    stage.hub.expect_push("device", "rebooting", |_| true);
    stage.agent.wait_log("reboot command accepted");
    assert_eq!(stage.device.reboots(), 1);
    assert_eq!(stage.statuses(), ["received", "started"]);
}
