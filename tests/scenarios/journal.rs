//! The agent is killed around the switch of slots and started again within the same boot:
//! the hub hears of the firmware that runs, and of each success once.

mod reboots;

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use devhub::{Firmware, Gate, Join};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::Value;

use crate::board::{Board, with_environment};
use crate::rig::{Device, Installer, PATIENCE, RUNNING_UUID, installers, within};
use crate::stage::Stage;

const FILE: &str = "small-2.0.1.fw";

/// What stands in for fwup: it runs it, and once it has succeeded switches to slot b, as a
/// task's last step does. While there is a file `halt`, it says so and waits then; where
/// there is a file `fail`, it ends in failure after the switch.
fn wrap(device: &mut Device, installer: &Installer) {
    let path = |name: &str| device.path(name).display().to_string();
    let script = format!(
        "#!/bin/sh\n\
         fwup={}\n\
         case \"$1\" in --version) exec $fwup \"$@\";; esac\n\
         $fwup \"$@\" || exit\n\
         cp {} {new} && mv {new} {} || exit\n\
         ! test -e {} || exit 1\n\
         test -e {} || exit 0\n\
         echo switched > {}\n\
         read go < {}\n",
        installer.path.display(),
        path("switched"),
        Board(device).environment().display(),
        path("fail"),
        path("halt"),
        path("told"),
        path("go"),
        new = path("switched.copy"),
    );
    for fifo in ["told", "go"] {
        mkfifo(&device.path(fifo), Mode::S_IRUSR | Mode::S_IWUSR).expect(fifo);
    }
    let wrapper = device.path("wrapper");
    std::fs::write(&wrapper, script).expect("wrapper");
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&wrapper, mode).expect("wrapper");
    device.set("FWUP_PATH", &wrapper.display().to_string());
    halt(device, true);
}

fn halt(device: &Device, on: bool) {
    let file = device.path("halt");
    let done = match on {
        true => std::fs::write(file, ""),
        false => std::fs::remove_file(file),
    };
    done.expect("halt");
}

/// A device whose update is at the point where slot b is active and its fwup not yet gone.
fn switched(installer: &Installer, strategy: &str) -> (Stage, Firmware) {
    switched_with(installer, &[("UPDATER", strategy)])
}

fn switched_with(installer: &Installer, settings: &[(&str, &str)]) -> (Stage, Firmware) {
    let stage = Stage::prepared(installer, |_, device| {
        with_environment(device);
        Board(device).begin(true);
        for (name, value) in settings {
            device.set(name, value);
        }
        wrap(device, installer);
    });
    assert_describes_a(&stage.join);
    let firmware = stage.firmware(FILE);
    let board = Board(&stage.device);
    board.write_switched(&stage.device.path("switched"), &firmware.uuid);
    stage.hub.deploy(Some(&firmware));
    stage.hub.offer(&firmware);
    assert!(reads(stage.device.path("told"), "switched\n"));
    assert_eq!(board.active(), "b");
    (stage, firmware)
}

/// Whether a word comes out of this pipe in time.
fn reads(fifo: PathBuf, word: &'static str) -> bool {
    within(PATIENCE, move || {
        let mut said = String::new();
        let opened = std::fs::File::open(fifo);
        opened
            .and_then(|mut file| file.read_to_string(&mut said))
            .is_ok()
            && said == word
    })
}

fn lets_go(device: &Device) {
    let fifo = device.path("go");
    assert!(within(PATIENCE, || std::fs::write(fifo, "go\n").is_ok()));
}

/// The installer ends well, and that is known.
fn let_finish(stage: &Stage, firmware: &Firmware) {
    halt(&stage.device, false);
    lets_go(&stage.device);
    let installed = format!("firmware {} installed", firmware.uuid);
    stage.agent.wait_log(&installed);
}

/// Whether a note of an update in hand is left.
fn noted(stage: &Stage) -> bool {
    stage.device.path("data/update").exists()
}

fn kill(stage: &mut Stage) {
    stage.agent.signal(Signal::SIGKILL);
    stage.agent.wait_exit();
}

fn restart(stage: &mut Stage) -> Join {
    stage.agent = stage.device.start();
    stage.hub.expect_join("device")
}

fn assert_describes_a(join: &Join) {
    assert_eq!(join.params["nerves_fw_uuid"], RUNNING_UUID);
    assert_eq!(join.params["nerves_fw_version"], "1.0.0");
    assert_eq!(join.params["meta"]["firmware_validated"], true);
    let reverted = &join.params["meta"]["firmware_auto_revert_detected"];
    assert_eq!(*reverted, false);
}

fn requests(stage: &Stage, firmware: &Firmware) -> usize {
    stage.hub.store().requests_for(&firmware.path()).len()
}

/// Everything that the agent does because of its join has been done.
fn settle(stage: &Stage) {
    stage.hub.identify();
    stage.agent.wait_log("identify: this is");
    stage.barrier();
}

fn completions(stage: &Stage) -> usize {
    let statuses = stage.statuses();
    statuses.iter().filter(|one| *one == "completed").count()
}

#[test]
fn a_success_the_hub_has_not_heard_of_is_owed_by_the_next_run() {
    for installer in installers() {
        for strategy in ["streaming", "caching", "parts"] {
            let (mut stage, firmware) = switched(&installer, strategy);
            // The hub is away when fwup ends.
            stage.hub.set_gate(Gate::unavailable());
            stage.hub.drop_tcp();
            stage.agent.wait_log("connection lost: ");
            let_finish(&stage, &firmware);
            kill(&mut stage);
            assert_eq!(completions(&stage), 0);
            assert_eq!(stage.device.reboots(), 0);

            stage.hub.set_gate(Gate::default());
            let join = restart(&mut stage);
            assert_describes_a(&join);
            assert_eq!(join.params["currently_downloading_uuid"], firmware.uuid);
            stage.expect_installed();
            settle(&stage);
            assert_eq!(completions(&stage), 1);
            assert_eq!(requests(&stage, &firmware), 1, "{strategy}");
            stage.device.assert_image_of(FILE);
            // What is switched to stays so.
            assert_eq!(Board(&stage.device).active(), "b");
            assert!(stage.agent.logged("fwup started").is_empty());

            // The machine has booted, as its kernel command line tells: all is paid.
            kill(&mut stage);
            stage.device.set("BOOTED_SLOT", "b");
            stage.hub.deploy(None);
            let join = restart(&mut stage);
            assert_eq!(join.params["nerves_fw_uuid"], firmware.uuid);
            assert_eq!(join.params["currently_downloading_uuid"], Value::Null);
            assert_eq!(join.params["meta"]["firmware_validated"], false);
            settle(&stage);
            assert_eq!(completions(&stage), 1);
            assert_eq!(stage.device.reboots(), 1);
            assert!(!noted(&stage));
        }
    }
}

/// The default policy and the one that corrects records: an update is not undone.
#[test]
fn a_record_that_an_update_has_switched_is_not_corrected() {
    let installer = installers().pop().expect("an installer");
    for settings in [
        &[("STALE_SLOT", "correct")][..],
        &[("STALE_SLOT", "correct"), ("BOOTED_SLOT", "a")],
    ] {
        let (mut stage, firmware) = switched_with(&installer, settings);
        stage.hub.set_gate(Gate::unavailable());
        stage.hub.drop_tcp();
        stage.agent.wait_log("connection lost: ");
        let_finish(&stage, &firmware);
        kill(&mut stage);
        stage.hub.set_gate(Gate::default());
        assert_describes_a(&restart(&mut stage));
        stage.expect_installed();
        assert_eq!(Board(&stage.device).active(), "b");
        assert!(stage.agent.logged("; recorded a").is_empty());
    }
}

#[test]
fn a_switch_without_a_verdict_is_taken_back_and_the_update_made_again() {
    for installer in installers() {
        for (strategy, downloads) in [("streaming", 2), ("caching", 1), ("parts", 1)] {
            let (mut stage, firmware) = switched(&installer, strategy);
            kill(&mut stage);
            halt(&stage.device, false);
            assert_eq!(completions(&stage), 0);

            let join = restart(&mut stage);
            stage.agent.wait_log("is running; recorded a");
            assert_describes_a(&join);
            assert_eq!(join.params["currently_downloading_uuid"], Value::Null);
            assert!(stage.agent.logged("alarm").is_empty());
            stage.expect_installed();
            settle(&stage);
            assert_eq!(
                stage.statuses(),
                ["received", "started", "received", "started", "completed"]
            );
            assert_eq!(requests(&stage, &firmware), downloads, "{strategy}");
            stage.device.assert_image_of(FILE);
            assert_eq!(Board(&stage.device).active(), "b");
        }
    }
}

/// What the kernel says of the running slot is no reason to leave the record wrong, and
/// the slot half installed is none to go back to.
#[test]
fn a_switch_is_taken_back_where_the_running_slot_is_known_anyhow() {
    let installer = installers().pop().expect("an installer");
    let settings = [("BOOTED_SLOT", "a"), ("STALE_SLOT", "refuse")];
    let (mut stage, firmware) = switched_with(&installer, &settings);
    kill(&mut stage);
    stage.hub.deploy(None);
    assert_describes_a(&restart(&mut stage));
    stage.agent.wait_log("is running; recorded a");
    assert_eq!(Board(&stage.device).active(), "a");
    assert_eq!(Board(&stage.device).value("b.nerves_fw_uuid"), None);
    // Also later, when nothing is left of the note.
    kill(&mut stage);
    assert_describes_a(&restart(&mut stage));
    halt(&stage.device, false);
    stage.hub.offer(&firmware);
    stage.expect_installed();
    stage.device.assert_image_of(FILE);
    assert_eq!(Board(&stage.device).active(), "b");
}

/// The same without a switch: the record is right, and left alone.
#[test]
fn an_installer_killed_before_the_switch_leaves_nothing_to_correct() {
    let installer = installers().pop().expect("an installer");
    let mut stage = Stage::prepared(&installer, |_, device| {
        with_environment(device);
        Board(device).begin(true);
    });
    let firmware = stage.firmware("demo-2.0.0.fw");
    stage.offer_halting_at(500_000, &firmware);
    stage.agent.wait_log("fwup started");
    kill(&mut stage);
    let before = std::fs::read(Board(&stage.device).environment()).expect("environment");
    let join = restart(&mut stage);
    assert_describes_a(&join);
    assert_eq!(join.params["currently_downloading_uuid"], Value::Null);
    settle(&stage);
    assert!(stage.agent.logged("; recorded a").is_empty());
    let board = Board(&stage.device);
    let after = std::fs::read(board.environment()).expect("environment");
    assert!(before == after, "the environment was written to");
    assert_eq!(stage.device.reboots(), 0);
    // A later switch is somebody's wish.
    board.write_switched(&board.environment(), "another");
    kill(&mut stage);
    let join = restart(&mut stage);
    assert_eq!(join.params["nerves_fw_uuid"], "another");
    assert_eq!(Board(&stage.device).active(), "b");
}

/// The installer said no, but had switched already.
#[test]
fn a_switch_by_an_installer_that_fails_is_taken_back_at_once() {
    let installer = installers().pop().expect("an installer");
    let stage = Stage::prepared(&installer, |_, device| {
        with_environment(device);
        Board(device).begin(true);
        wrap(device, &installer);
        std::fs::write(device.path("fail"), "").expect("fail");
    });
    let firmware = stage.firmware(FILE);
    let board = Board(&stage.device);
    board.write_switched(&stage.device.path("switched"), &firmware.uuid);
    stage.hub.offer(&firmware);
    assert!(stage.expect_failed().contains("exit status 1"));
    assert_eq!(stage.agent.logged("is running; recorded a").len(), 1);
    assert_eq!(board.active(), "a");
    assert_eq!(board.value("b.nerves_fw_uuid"), None);
    assert!(!noted(&stage));
    stage.assert_unharmed();
    // And is no hindrance.
    halt(&stage.device, false);
    std::fs::remove_file(stage.device.path("fail")).expect("fail");
    stage.hub.offer(&firmware);
    stage.expect_installed();
    assert_eq!(board.active(), "b");
}

#[test]
fn a_switch_by_an_installer_ended_by_sigterm_is_taken_back() {
    let installer = installers().pop().expect("an installer");
    let (mut stage, _) = switched_with(&installer, &[("SHUTDOWN_TIMEOUT", "100ms")]);
    stage.agent.stop();
    stage.hub.deploy(None);
    assert_describes_a(&restart(&mut stage));
    assert_eq!(Board(&stage.device).active(), "a");
    assert!(!noted(&stage));
    assert_eq!(stage.device.reboots(), 0);
}

/// An installer that was killed is no reason to undo what somebody else has done since.
#[test]
fn a_switch_to_other_firmware_is_not_the_installer_s() {
    let installer = installers().pop().expect("an installer");
    let mut stage = Stage::prepared(&installer, |_, device| {
        with_environment(device);
        Board(device).begin(true);
    });
    let firmware = stage.firmware("demo-2.0.0.fw");
    stage.offer_halting_at(500_000, &firmware);
    stage.fwup_pid();
    kill(&mut stage);
    let board = Board(&stage.device);
    board.write_switched(&board.environment(), "another");
    // For as long as the record is not true, that is known.
    for _ in 0..2 {
        assert_describes_a(&restart(&mut stage));
        assert_eq!(Board(&stage.device).active(), "b");
        stage.hub.offer(&stage.firmware(FILE));
        let reason = stage.expect_failed();
        assert!(reason.contains("recorded as b but a is"), "{reason}");
        kill(&mut stage);
    }
    assert!(noted(&stage));
    Board(&stage.device).set(&[("nerves_fw_active", "a")]);
    let join = restart(&mut stage);
    assert_eq!(join.params["nerves_fw_uuid"], RUNNING_UUID);
    assert!(!noted(&stage));
}
