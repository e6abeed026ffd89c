//! A reboot owed takes place, and none is ordered for ever; what tells that it has.

use super::*;

/// Nothing but the agent was restarted: it is still slot a that runs, whatever is recorded,
/// and the reboot is still owed. But a command that never reboots is not run for ever.
#[test]
fn a_reboot_that_did_not_happen_is_ordered_again_and_not_for_ever() {
    let installer = installers().pop().expect("an installer");
    let (mut stage, firmware) = switched_with(&installer, &[("REBOOT_TIMEOUT", "300ms")]);
    let_finish(&stage, &firmware);
    stage.expect_installed();
    for orders in 2..=3 {
        stage.barrier();
        kill(&mut stage);
        let join = restart(&mut stage);
        assert_describes_a(&join);
        stage.agent.wait_log("was told to reboot and has not");
        stage.agent.wait_log("reboot command accepted");
        assert_eq!(stage.device.reboots(), orders);
        settle(&stage);
        assert_eq!(requests(&stage, &firmware), 1);
        assert_eq!(completions(&stage), 1);
        assert_eq!(Board(&stage.device).active(), "b");
    }
    kill(&mut stage);
    let join = restart(&mut stage);
    stage.agent.wait_log("3 times in vain");
    assert_eq!(join.params["nerves_fw_uuid"], firmware.uuid);
    assert!(!noted(&stage));
    assert_eq!(stage.device.reboots(), 3);
}

/// The same with a command that does not let the agent live to see its end.
#[test]
fn a_reboot_command_that_only_ends_the_agent_is_not_run_for_ever() {
    let installer = installers().pop().expect("an installer");
    let mut stage = Stage::prepared(&installer, |_, device| {
        with_environment(device);
        Board(device).begin(true);
        wrap(device, &installer);
        halt(device, false);
        let rebooted = device.path("rebooted").display().to_string();
        let command = format!("echo reboot >> {rebooted}; kill -9 $PPID");
        device.set("REBOOT_COMMAND", &command);
    });
    let firmware = stage.firmware(FILE);
    let board = Board(&stage.device);
    board.write_switched(&stage.device.path("switched"), &firmware.uuid);
    stage.hub.offer(&firmware);
    stage.agent.wait_exit();
    for orders in 2..=3 {
        stage.agent = stage.device.start();
        stage.agent.wait_exit();
        assert_eq!(stage.device.reboots(), orders);
    }
    let mut join = restart(&mut stage);
    // Those before may have come so far.
    while join.params["nerves_fw_uuid"] == RUNNING_UUID {
        join = stage.hub.expect_join("device");
    }
    assert_eq!(join.params["nerves_fw_uuid"], firmware.uuid);
    assert!(!noted(&stage));
    assert_eq!(completions(&stage), 1);
    assert_eq!(stage.device.reboots(), 3);
}

/// Where the record was changed after the installer's end, the machine has booted, be it
/// the same boot for the kernel: into the new firmware, or already back from it.
#[test]
fn a_record_changed_since_the_installation_tells_of_the_reboot() {
    let installer = installers().pop().expect("an installer");
    let rolled_back = "b.nerves_fw_uuid=other\nb.nerves_fw_validated=0\n\
                       b.nerves_fw_platform=p\nb.nerves_fw_architecture=x\n";
    for reverted in [false, true] {
        let mut stage = Stage::prepared(&installer, |_, _| ());
        let firmware = stage.firmware(FILE);
        stage.hub.offer(&firmware);
        stage.expect_installed();
        kill(&mut stage);
        assert!(noted(&stage));
        match reverted {
            false => stage.device.write_metadata(&firmware.uuid, "2.0.1", ""),
            true => stage
                .device
                .write_metadata(RUNNING_UUID, "1.0.0", rolled_back),
        }
        let join = restart(&mut stage);
        let running = if reverted {
            RUNNING_UUID
        } else {
            &firmware.uuid
        };
        assert_eq!(join.params["nerves_fw_uuid"], running);
        let detected = &join.params["meta"]["firmware_auto_revert_detected"];
        assert_eq!(*detected, reverted);
        settle(&stage);
        assert!(!noted(&stage));
        assert_eq!(completions(&stage), 1);
        assert_eq!(stage.device.reboots(), 1);
        assert!(stage.agent.logged("updates are refused").is_empty());
    }
}

/// A description without slots is that of the firmware that runs.
#[test]
fn a_description_without_slots_tells_of_the_reboot() {
    let installer = installers().pop().expect("an installer");
    let mut stage = Stage::prepared(&installer, |_, device| {
        let disk = device.disk().display().to_string();
        device.set("FIRMWARE_METADATA", "env");
        device.set("FIRMWARE_UUID", RUNNING_UUID);
        device.set("IDENTIFIER", "device-0001");
        device.set("FWUP_DEVPATH", &disk);
    });
    let firmware = stage.firmware(FILE);
    stage.hub.offer(&firmware);
    stage.expect_installed();
    kill(&mut stage);
    stage.device.set("FIRMWARE_UUID", &firmware.uuid);
    let join = restart(&mut stage);
    assert_eq!(join.params["nerves_fw_uuid"], firmware.uuid);
    settle(&stage);
    assert!(!noted(&stage));
    assert_eq!(stage.device.reboots(), 1);
}
