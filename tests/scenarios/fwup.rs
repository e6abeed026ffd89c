//! An installer that misbehaves: killed, hanging, silent, talking nonsense, missing; and
//! what it is given to work with.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use devhub::store::{Fault, When};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::Pid;

use crate::rig::{self, Device, Installer, PATIENCE, PRODUCT_SECRET, installers};
use crate::stage::{Stage, is_there};

const FAILED: [&str; 3] = ["received", "started", "failed"];

/// A program that stands in fwup's place and tells a version when asked.
pub fn script(device: &Device, text: &str) -> Installer {
    let path = device.path("fwup.sh");
    let text = format!("#!/bin/sh\n[ \"$1\" = --version ] && {{ echo 1.16.0; exit 0; }}\n{text}\n");
    std::fs::write(&path, text).expect("script");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("mode");
    Installer {
        name: "script",
        path,
    }
}

/// A stage with a script for an installer; `ALIVE` in its text is a pipe of the device's.
fn scripted(text: &str, settings: &[(&str, &str)]) -> Stage {
    Stage::prepared(&rig::standin(), |_, device| {
        let alive = device.path("alive");
        nix::unistd::mkfifo(&alive, Mode::S_IRWXU).expect("pipe");
        let text = text.replace("ALIVE", &alive.display().to_string());
        let script = script(device, &text);
        device.use_installer(&script);
        for (name, value) in settings {
            device.set(name, value);
        }
    })
}

#[test]
fn a_killed_fwup_is_noticed_at_once_though_no_byte_arrives() {
    for installer in installers() {
        // So few bytes that fwup has seen hardly any of them, and many.
        for stop in [140_000, 1_000_000] {
            let stage = Stage::new(&installer, &[]);
            let firmware = rig::demo(&stage.hub);
            stage.offer_halting_at(stop, &firmware);
            let pid = stage.fwup_pid();
            kill(Pid::from_raw(pid), Signal::SIGKILL).expect("kill");
            assert_eq!(stage.expect_failed(), "fwup error: killed by signal 9");
            assert_eq!(stage.statuses(), FAILED);
            assert!(!is_there(pid));
            stage.hub.store().release();
            stage.assert_takes_the_next();
        }
    }
}

#[test]
fn an_fwup_that_hangs_is_killed_with_everything_it_started() {
    let stalls = [
        ("reads nothing", "wait"),
        ("reads all, never answers", "cat > /dev/null; wait"),
        ("is deaf", "trap '' TERM; cat > /dev/null; wait; wait"),
    ];
    for (name, then) in stalls {
        // Both hold the pipe open for as long as they live.
        let text = format!("exec 9> ALIVE; sleep 600 & {then}");
        let stage = scripted(&text, &[("FWUP_STALL_TIMEOUT", "1s")]);
        let alive = stage.device.path("alive");
        let (sender, all_gone) = std::sync::mpsc::channel();
        std::thread::spawn(move || sender.send(std::fs::read(alive)));
        stage.hub.offer(&stage.firmware("small-2.0.1.fw"));
        let pid = stage.fwup_pid();
        let reason = stage.expect_failed();
        let expected = "fwup error: no sign of life for 1 s; killed";
        assert_eq!(reason, expected, "{name}");
        assert_eq!(stage.statuses(), FAILED, "{name}");
        assert!(!is_there(pid), "{name}");
        assert!(
            all_gone.recv_timeout(PATIENCE).is_ok(),
            "{name}: something lives on"
        );
        stage.assert_untouched();
        stage.assert_unharmed();
    }
}

#[test]
fn a_slow_download_is_no_stall_of_fwup() {
    for installer in installers() {
        let stage = Stage::new(&installer, &[("FWUP_STALL_TIMEOUT", "300ms")]);
        let firmware = stage.firmware("small-2.0.1.fw");
        stage
            .hub
            .store()
            .fault(&firmware.path(), When::Always, Fault::Slow(60_000));
        stage.hub.offer(&firmware);
        stage.expect_installed();
        assert_eq!(stage.statuses(), ["received", "started", "completed"]);
    }
}

#[test]
fn what_fwup_does_wrong_is_said_plainly() {
    let frame = |text: &str| format!("printf '{text}'");
    let cases = [
        (
            "exit 0".to_owned(),
            "ended without saying whether it succeeded",
        ),
        (
            "cat > /dev/null".to_owned(),
            "ended without saying whether it succeeded",
        ),
        (
            "cat > /dev/null; echo hello".to_owned(),
            "output is not framed: \"hello\\n\"",
        ),
        (
            "echo hello; sleep 600".to_owned(),
            "output is not framed: \"hello\\n\"",
        ),
        (
            "echo no disk >&2; exit 3".to_owned(),
            "exit status 3: no disk",
        ),
        ("kill -TERM $$".to_owned(), "killed by signal 15"),
        // OK, but the firmware was not read.
        (
            frame("\\000\\000\\000\\004OK\\000\\000"),
            "ended before it had read the whole firmware",
        ),
        // OK, but a bad end.
        (
            format!(
                "cat > /dev/null; {}; exit 1",
                frame("\\000\\000\\000\\004OK\\000\\000")
            ),
            "exit status 1",
        ),
        // ER, and yet a good end.
        (frame("\\000\\000\\000\\006ER\\000\\000no"), "no"),
        // Half a message.
        (
            format!("cat > /dev/null; {}", frame("\\000\\000\\000\\004OK")),
            "ended without saying whether it succeeded",
        ),
    ];
    for (text, expected) in cases {
        let stage = scripted(&text, &[]);
        stage.hub.offer(&rig::demo(&stage.hub));
        assert_eq!(
            stage.expect_failed(),
            format!("fwup error: {expected}"),
            "{text}"
        );
        assert_eq!(stage.statuses(), FAILED, "{text}");
        stage.assert_untouched();
        stage.assert_unharmed();
    }
}

#[test]
fn a_missing_fwup_does_not_keep_the_device_offline() {
    let not_executable = |device: &Device| {
        let path = device.path("fwup.txt");
        std::fs::write(&path, "no program").expect("file");
        path
    };
    type Place = fn(&Device) -> PathBuf;
    let cases: [(Place, &str); 2] = [
        (
            |device| device.path("nowhere/fwup"),
            "No such file or directory",
        ),
        (not_executable, "Permission denied"),
    ];
    for (path, expected) in cases {
        let stage = Stage::prepared(&rig::standin(), |_, device| {
            let path = path(device).display().to_string();
            device.set("FWUP_PATH", &path);
        });
        let join = &stage.join.params;
        assert_eq!(join["fwup_version"], serde_json::Value::Null);
        stage.hub.offer(&rig::demo(&stage.hub));
        let reason = stage.expect_failed();
        assert!(reason.starts_with("fwup error: cannot start "), "{reason}");
        assert!(reason.contains(expected), "{reason}");
        assert_eq!(stage.statuses(), FAILED);
        stage.assert_untouched();
        stage.assert_unharmed();
    }
}

#[test]
fn fwup_gets_its_options_and_environment_and_no_secret() {
    for installer in installers() {
        let stage = Stage::prepared(&rig::standin(), |_, device| {
            let (seen, real) = (device.path("seen"), installer.path.display());
            let seen = seen.display();
            let text = format!("{{ echo \"$@\"; env; }} > {seen}\nexec {real} \"$@\"");
            let script = script(device, &text);
            device.use_installer(&script);
            device.set("FWUP_ENV", "BOARD=demo,SLOT=b=2");
            device.set("FWUP_EXTRA_OPTIONS", "--verify-writes --max-size 65536");
        });
        stage.hub.offer(&stage.firmware("small-2.0.1.fw"));
        stage.expect_installed();
        stage.device.assert_image_of("small-2.0.1.fw");
        let seen = std::fs::read_to_string(stage.device.path("seen")).expect("seen");
        let mut lines = seen.lines();
        let options = lines.next().expect("options");
        let disk = stage.device.disk();
        let start = format!(
            "--framing --apply --no-unmount -d {} --task upgrade",
            disk.display()
        );
        assert!(options.starts_with(&start), "{options}");
        assert!(
            options.contains(&format!("--public-key {}", rig::public_key())),
            "{options}"
        );
        assert!(
            options.ends_with("--verify-writes --max-size 65536"),
            "{options}"
        );
        let environment: Vec<&str> = lines.collect();
        assert!(environment.contains(&"BOARD=demo"), "{seen}");
        assert!(environment.contains(&"SLOT=b=2"), "{seen}");
        assert!(!seen.contains(PRODUCT_SECRET), "{seen}");
        assert!(!seen.contains("PRODUCT_SECRET"), "{seen}");
    }
}

#[test]
fn a_download_that_starts_over_takes_a_fresh_fwup_and_leaves_none_behind() {
    for installer in installers() {
        let stage = Stage::new(&installer, &[("FWUP_TASK", "switch")]);
        let (forged, firmware) = stage.forge("forged.fw", 400);
        let (store, path) = (stage.hub.store(), firmware.path());
        store.fault(&path, When::Nth(1), Fault::CutAt(200_000));
        store.fault(&path, When::Nth(1), Fault::Etag("\"old\"".into()));
        stage.hub.offer(&firmware);
        stage.expect_installed();
        forged.assert_on(&stage.device);
        let pids = stage.fwup_pids();
        assert_eq!(pids.len(), 2);
        assert!(!pids.into_iter().any(is_there));
    }
}
