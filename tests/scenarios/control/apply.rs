//! `nerveshub-agent apply`: a firmware file of this device, with and without a hub.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use devhub::store::{Fault, When};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::peer::Peer;
use super::{OPEN, cli, done, shown_on_terminal, status};
use crate::rig::{self, Device, Installer, RUNNING_UUID, data, installers, standin};
use crate::stage::{Forged, Stage};
use crate::terminal::expect_gone;

const DEMO: &str = "demo-2.0.0.fw";
const DEMO_UUID: &str = "db632b18-3abc-5c29-eb3b-b9b1c3cd7270";

fn stage(installer: &Installer, settings: &[(&str, &str)]) -> Stage {
    let stage = Stage::new(installer, settings);
    stage.agent.wait_log(OPEN);
    stage.agent.wait_log(rig::JOINED);
    stage
}

fn firmware(file: &str) -> String {
    data("fw").join(file).display().to_string()
}

/// The command in the background.
fn start(device: &Device, path: &Path, stderr: Stdio) -> Child {
    Command::new(env!("CARGO_BIN_EXE_nerveshub-agent"))
        .arg("apply")
        .arg(path)
        .env_clear()
        .envs(&device.env)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(stderr)
        .spawn()
        .expect("command")
}

/// What a refused file leaves: nothing, anywhere.
fn assert_no_trace(stage: &Stage) {
    stage.barrier();
    stage.assert_untouched();
    stage.assert_unharmed();
    assert_eq!(stage.statuses(), Vec::<String>::new());
    assert!(!stage.device.path("data/update").exists());
}

#[test]
fn a_good_file_is_installed_and_the_device_reboots_into_it() {
    for installer in installers() {
        let stage = stage(&installer, &[]);
        let path = firmware(DEMO);
        let said = done(&stage.device, &["apply", &path]);
        let expected = format!("{path}: demo 2.0.0 ({DEMO_UUID}) installed; rebooting\n");
        assert_eq!(said, expected);
        stage.expect_installed();
        stage.device.assert_image_of(DEMO);
        assert_eq!(stage.statuses(), ["received", "started", "completed"]);
        assert_eq!(stage.hub.connections(), 1);
        let (said, code) = cli(&stage.device, &["apply", &path]);
        assert_eq!(code, 69, "{said}");
        assert!(said.contains("the machine is to reboot"), "{said}");
        assert!(data("fw").join(DEMO).exists());
    }
}

#[test]
fn a_file_from_the_wrong_hands_or_none_s_is_not_written() {
    for installer in installers() {
        let stage = stage(&installer, &[]);
        for (file, part) in [
            ("wrong-key-2.0.2.fw", "signature"),
            ("unsigned-2.0.3.fw", "sign"),
            ("fw.json", "fw.json: "),
        ] {
            let (said, code) = cli(&stage.device, &["apply", &firmware(file)]);
            assert_eq!(code, 74, "{} {file}: {said}", installer.name);
            assert!(said.contains(part), "{} {file}: {said}", installer.name);
        }
        assert_no_trace(&stage);
        // The agent is none the worse for it.
        done(&stage.device, &["apply", &firmware("small-2.0.1.fw")]);
        stage.expect_installed();
        stage.device.assert_image_of("small-2.0.1.fw");
    }
}

#[test]
fn a_truncated_or_damaged_file_is_found_out_before_a_byte_is_written() {
    for installer in installers() {
        let stage = stage(&installer, &[]);
        let whole = std::fs::read(data("fw").join(DEMO)).expect("firmware");
        let mut damaged = whole.clone();
        let middle = whole.len() / 2;
        damaged[middle] ^= 0x40;
        let path = stage.device.path("usb.fw");
        for bytes in [&whole[..whole.len() - 1000], &whole[..middle], &damaged] {
            std::fs::write(&path, bytes).expect("file");
            let (said, code) = cli(&stage.device, &["apply", &path.display().to_string()]);
            assert_eq!(code, 74, "{said}");
            assert!(said.contains("fwup error: "), "{said}");
            // It is somebody's, and stays.
            assert_eq!(std::fs::read(&path).expect("file").len(), bytes.len());
            stage.assert_untouched();
        }
        stage.barrier();
        stage.assert_unharmed();
        // The hub has no update in its books that could have failed.
        let told = stage.statuses();
        assert!(!told.iter().any(|word| word == "failed"), "{told:?}");
        stage.assert_takes_the_next();
    }
}

#[test]
fn without_a_key_nothing_is_installed() {
    let stage = Stage::prepared(&standin(), |_, device| {
        device.unset("FWUP_PUBLIC_KEYS");
    });
    stage.agent.wait_log(OPEN);
    let (said, code) = cli(&stage.device, &["apply", &firmware(DEMO)]);
    assert_eq!(code, 69);
    assert!(said.contains("no public keys available"), "{said}");
    assert_no_trace(&stage);
}

#[test]
fn what_is_no_file_says_so() {
    let stage = stage(&standin(), &[]);
    let (said, code) = cli(&stage.device, &["apply", "/no/such.fw"]);
    assert_eq!(code, 66, "{said}");
    let folder = stage.device.dir.path().display().to_string();
    let (said, code) = cli(&stage.device, &["apply", &folder]);
    assert_eq!(code, 74);
    assert!(said.contains("is not a regular file"), "{said}");
    for wrong in [
        &["apply"][..],
        &["apply", "--force"],
        &["apply", "a", "b"],
        &["apply", "a", "--no-reboot"],
    ] {
        assert_eq!(cli(&stage.device, wrong).1, 64, "{wrong:?}");
    }
    let mut peer = Peer::connect(&stage.device);
    let answer = peer.ask("apply", json!({"path": "firmware.fw"}));
    assert_eq!(answer["error"]["code"], "bad-params");
    assert_no_trace(&stage);
}

#[test]
fn the_running_firmware_and_a_downgrade_need_force() {
    for (settings, said_of, running) in [
        (&[][..], "is already running", (DEMO_UUID, "2.0.0")),
        (
            &[("DOWNGRADE", "ignore")],
            "is lower than the running 9.0.0",
            (RUNNING_UUID, "9.0.0"),
        ),
    ] {
        let stage = Stage::prepared(&standin(), |_, device| {
            device.write_metadata(running.0, running.1, "");
            for (name, value) in settings {
                device.set(name, value);
            }
        });
        stage.agent.wait_log(OPEN);
        let (said, code) = cli(&stage.device, &["apply", &firmware(DEMO)]);
        assert_eq!(code, 69, "{said}");
        assert!(said.contains(said_of), "{said}");
        assert!(said.contains("--force"), "{said}");
        assert_no_trace(&stage);
        done(&stage.device, &["apply", "--force", &firmware(DEMO)]);
        stage.expect_installed();
        stage.device.assert_image_of(DEMO);
    }
}

#[test]
fn an_update_of_the_hub_s_goes_first() {
    let stage = stage(&standin(), &[]);
    let offered = rig::demo(&stage.hub);
    stage.offer_halting_at(1_000_000, &offered);
    let (said, code) = cli(&stage.device, &["apply", &firmware("small-2.0.1.fw")]);
    assert_eq!(code, 75, "{said}");
    assert!(said.contains("an update is in hand"), "{said}");
    stage.hub.store().release();
    stage.expect_installed();
    stage.device.assert_image_of(DEMO);
}

/// A stage whose stand-in is in the middle of a large file, and the command that waits.
fn in_the_middle() -> (Stage, PathBuf, Child) {
    let stage = stage(&standin(), &[]);
    let path = stage.device.path("large.fw");
    Forged::new(&path, 64 * 1024);
    let mut peer = Peer::connect(&stage.device);
    peer.ask("subscribe", json!({"events": ["update"]}));
    let child = start(&stage.device, &path, Stdio::piped());
    loop {
        let event = peer.event();
        if event["event"] == "update-progress" && event["percent"].as_u64() > Some(0) {
            break;
        }
    }
    stage.agent.signal(Signal::SIGSTOP);
    (stage, path, child)
}

#[test]
fn a_command_that_is_interrupted_leaves_the_update_alone() {
    let (stage, _, mut child) = in_the_middle();
    child.kill().expect("killed");
    child.wait().expect("status");
    stage.agent.signal(Signal::SIGCONT);
    stage.expect_installed();
}

#[test]
fn an_agent_that_is_killed_in_the_middle_starts_clean() {
    let (mut stage, path, child) = in_the_middle();
    let pid = stage.fwup_pid();
    stage.agent.signal(Signal::SIGKILL);
    stage.agent.wait_exit();
    let output = child.wait_with_output().expect("output");
    assert_eq!(output.status.code(), Some(69));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("ended the connection"), "{said}");
    stage.agent = stage.device.start();
    let join = stage.hub.expect_join("device");
    assert_eq!(join.params["nerves_fw_uuid"], RUNNING_UUID);
    assert_eq!(join.params["currently_downloading_uuid"], Value::Null);
    stage.agent.wait_log(OPEN);
    assert_eq!(status(&stage.device)["update"]["state"], "idle");
    expect_gone(&pid.to_string());
    assert_eq!(stage.device.reboots(), 0);
    done(&stage.device, &["apply", &path.display().to_string()]);
    stage.expect_installed();
}

#[test]
fn without_an_agent_the_way_out_is_told() {
    let hub = rig::hub().start();
    let device = Device::new(&hub);
    let (said, code) = cli(&device, &["apply", &firmware(DEMO)]);
    assert_eq!(code, 69);
    assert!(said.contains("no agent is running"), "{said}");
    assert!(!device.disk().exists());
}

#[test]
fn without_a_hub_it_is_installed_all_the_same() {
    for installer in installers() {
        let hub = rig::hub().start();
        let mut device = Device::new(&hub);
        device.use_installer(&installer);
        device.set("CONNECT", "0");
        std::fs::write(device.disk(), "").expect("disk");
        let agent = device.start();
        agent.wait_log(OPEN);
        let before = std::time::Instant::now();
        done(&device, &["apply", &firmware(DEMO)]);
        agent.wait_log("reboot command accepted");
        // Sooner than a reboot that waits for the hub to be told.
        assert!(before.elapsed() < std::time::Duration::from_secs(50));
        device.assert_image_of(DEMO);
        assert_eq!((device.reboots(), hub.connections()), (1, 0));
    }
}

#[test]
fn a_failure_owed_to_a_hub_that_is_away_is_no_obstacle() {
    let stage = stage(&standin(), &[("MAX_DISCONNECTS", "1")]);
    let offered = rig::demo(&stage.hub);
    let store = stage.hub.store();
    store.fault(&offered.path(), When::Always, Fault::CutAt(1000));
    stage.hub.offer(&offered);
    stage.hub.expect_status("started");
    stage.hub.kill();
    stage.agent.wait_log("not installed: ");
    done(&stage.device, &["apply", &firmware("small-2.0.1.fw")]);
    stage.agent.wait_log("reboot command accepted");
    stage.device.assert_image_of("small-2.0.1.fw");
}

#[test]
fn progress_is_shown_on_a_terminal() {
    let stage = stage(&standin(), &[]);
    let path = stage.device.path("large.fw");
    Forged::new(&path, 16 * 1024);
    let shown = shown_on_terminal(|stderr| start(&stage.device, &path, stderr));
    assert!(shown.contains("large.fw: verifying"), "{shown:?}");
    assert!(shown.contains("large.fw: [#"), "{shown:?}");
    assert!(shown.contains("#] 100 %"), "{shown:?}");
    assert!(shown.ends_with("\r\x1b[K"), "{shown:?}");
}

#[test]
fn an_installer_of_the_integrator_s_gets_the_file_whatever_it_is() {
    let stage = Stage::prepared(&standin(), |_, device| {
        let path = device.path("install");
        let told = device.path("told").display().to_string();
        let text = format!(
            "#!/bin/sh\n\
             echo \"$1 $NERVES_HUB_FIRMWARE_FILE $NERVES_HUB_INSTALL_SIZE\" >> {told}\n\
             case $1 in begin) cat >> {told};; esac\n"
        );
        std::fs::write(&path, text).expect("program");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&path, mode).expect("mode");
        let installer = format!("command:{}", path.display());
        device
            .set("INSTALLER", &installer)
            .unset("FWUP_PUBLIC_KEYS");
    });
    stage.agent.wait_log(OPEN);
    let path = stage.device.path("bundle.raucb");
    std::fs::write(&path, "RAUC\n").expect("bundle");
    let path = path.display().to_string();
    let said = done(&stage.device, &["apply", &path]);
    assert!(said.contains(": firmware (00000000-"), "{said}");
    stage.expect_installed();
    let told = std::fs::read_to_string(stage.device.path("told")).expect("told");
    assert_eq!(told, format!("begin {path} 5\nRAUC\nfinish {path} 5\n"));
}
