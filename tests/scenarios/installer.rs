//! Updates by a program of the integrator's (etc/doc/installers.md): the examples, and
//! programs that fail in every verb.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use devhub::Firmware;

use crate::rig::{self, Device, IDENTIFIER, PRODUCT_SECRET, public_key};
use crate::stage::Stage;

const DONE: [&str; 3] = ["received", "started", "completed"];
const FAILED: [&str; 3] = ["received", "started", "failed"];

/// One of the examples.
fn example(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("etc/installers");
    folder.join(name)
}

fn use_program(device: &mut Device, path: &Path) {
    device.set("INSTALLER", &format!("command:{}", path.display()));
    device.set("FWUP_PATH", "/no/such/fwup");
}

fn write_script(path: &Path, text: &str) {
    std::fs::write(path, format!("#!/bin/sh\n{text}\n")).expect("script");
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).expect("mode");
}

/// A stage whose installer notes its verbs and then runs this, in the device's folder.
fn scripted(text: &str, settings: &[(&str, &str)]) -> Stage {
    Stage::prepared(&rig::standin(), |_, device| {
        let path = device.path("tool.sh");
        let text = format!(
            "cd {}; echo $1 >> verbs\n{text}",
            device.dir.path().display()
        );
        write_script(&path, &text);
        use_program(device, &path);
        for (name, value) in settings {
            device.set(name, value);
        }
    })
}

fn read(stage: &Stage, name: &str) -> String {
    std::fs::read_to_string(stage.device.path(name)).unwrap_or_default()
}

/// The verbs so far, with one space between them.
fn verbs(stage: &Stage) -> String {
    let text = read(stage, "verbs");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A device with two slots, the first one running, and the `dd-slot` example.
fn two_slots() -> Stage {
    Stage::prepared(&rig::standin(), |_, device| {
        for (name, file) in [("SLOT_A", "a"), ("SLOT_B", "b"), ("STATE", "state")] {
            let path = device.path(file).display().to_string();
            device.env.insert(name.to_owned(), path);
        }
        std::fs::write(device.path("a"), "slot a").expect("slot");
        std::fs::write(device.path("b"), vec![0; 5_000_000]).expect("slot");
        std::fs::write(device.path("state"), "active=a\n").expect("state");
        use_program(device, &example("dd-slot"));
    })
}

fn assert_slots(stage: &Stage, active: &str, b: Option<&Path>) {
    let state = read(stage, "state");
    assert!(state.starts_with(&format!("active={active}\n")), "{state}");
    assert_eq!(read(stage, "a"), "slot a");
    if let Some(file) = b {
        assert_holds(stage, "b", file);
    }
}

/// A file of the device's folder is byte for byte this one.
fn assert_holds(stage: &Stage, name: &str, file: &Path) {
    let got = std::fs::read(stage.device.path(name)).expect(name);
    let whole = got == std::fs::read(file).expect("firmware");
    assert!(
        whole,
        "{name} has {} bytes, not those of {}",
        got.len(),
        file.display()
    );
}

fn demo_file() -> PathBuf {
    rig::data("fw/demo-2.0.0.fw")
}

fn checksum(firmware: &Firmware) -> String {
    let payload = firmware.payload();
    payload["checksum"].as_str().expect("checksum").to_owned()
}

#[test]
fn an_image_goes_to_the_other_slot_which_then_is_the_active_one() {
    let stage = two_slots();
    assert_eq!(stage.join.params["update_tool"], "dd-slot");
    assert_eq!(stage.join.params["fwup_version"], serde_json::Value::Null);
    let (forged, firmware) = stage.forge("big.fw", 3000);
    stage.hub.offer(&firmware);
    stage.expect_installed();
    assert_eq!(stage.statuses(), DONE);
    assert_slots(&stage, "b", Some(&forged.path));
    assert_eq!(stage.agent.logged("ERROR"), Vec::<String>::new());
    confirms(&stage);
}

/// By hand: the agent's part of it is another story.
fn confirms(stage: &Stage) {
    assert_eq!(read(stage, "state"), "active=b\nvalidated=0\n");
    let status = std::process::Command::new(example("dd-slot"))
        .arg("confirm")
        .envs(&stage.device.env)
        .status();
    assert!(status.expect("dd-slot").success());
    assert_eq!(read(stage, "state"), "active=b\nvalidated=1\n");
}

#[test]
fn without_keys_device_path_and_checksum_it_is_the_programs_decision() {
    let mut stage = two_slots();
    assert_eq!(stage.agent.stop(), 0);
    stage.device.unset("FWUP_PUBLIC_KEYS");
    let metadata = "nerves_fw_active=a\na.nerves_fw_uuid=old\nnerves_serial_number=1\n";
    std::fs::write(stage.device.path("metadata"), metadata).expect("metadata");
    stage.agent = stage.device.start();
    stage.hub.expect_join("device");
    let firmware = rig::demo(&stage.hub);
    stage.hub.offer(&firmware.clone().old_style());
    stage.expect_installed();
    assert_slots(&stage, "b", Some(&demo_file()));
    stage.agent.wait_log("the hub named no checksum");
}

#[test]
fn an_image_that_is_not_the_offered_one_never_becomes_active() {
    let stage = two_slots();
    stage
        .hub
        .offer(&rig::demo(&stage.hub).with_wrong_checksum());
    let reason = stage.expect_failed();
    assert!(reason.starts_with("checksum mismatch"), "{reason}");
    assert_eq!(stage.statuses(), FAILED);
    assert_slots(&stage, "a", None);
    stage.assert_unharmed();
    for (verb, times) in [("begin", 2), ("abort", 2), ("finish", 0)] {
        let started = format!("dd-slot {verb} started");
        assert_eq!(stage.agent.logged(&started).len(), times, "{verb}");
    }
    // It left nothing behind that keeps the next one from being installed.
    let firmware = rig::demo(&stage.hub);
    stage.hub.offer(&firmware);
    stage.expect_installed();
    assert_slots(&stage, "b", Some(&demo_file()));
}

#[test]
fn a_program_that_fails_is_quoted_and_told_to_clean_up() {
    let begins = "begin abort";
    let finishes = "begin finish abort";
    let cases = [
        (
            "begin) cat > /dev/null; echo info x; echo error no disk; echo error late; exit 1 ;;",
            "begin: no disk",
            begins,
        ),
        (
            "begin) echo why >&2; exit 3 ;;",
            "begin: exit status 3: why",
            begins,
        ),
        ("begin) kill -9 $$ ;;", "begin: killed by signal 9", begins),
        // It says so, and that it is fine.
        (
            "begin) cat > /dev/null; echo error no ;;",
            "begin: no",
            begins,
        ),
        (
            "begin) exit 0 ;;",
            "begin: ended before it had read the whole firmware",
            begins,
        ),
        (
            "begin) exec sleep 600 ;;",
            "begin: no sign of life for 1 s; killed",
            begins,
        ),
        (
            "begin) cat > /dev/null; sleep 600 & wait ;;",
            "begin: no sign of life for 1 s; killed",
            begins,
        ),
        (
            "begin) cat > /dev/null ;; finish) echo error no boot loader; exit 1 ;;",
            "finish: no boot loader",
            finishes,
        ),
        (
            "begin) cat > /dev/null ;; finish) trap '' TERM; sleep 600 & wait ;;",
            "finish: not done after 1 s; killed",
            finishes,
        ),
        // Its own failure changes nothing.
        (
            "begin) echo error first; exit 1 ;; abort) echo error second; exit 1 ;;",
            "begin: first",
            begins,
        ),
    ];
    for (case, reason, ran) in cases {
        let text = format!("case $1 in {case} esac");
        let stage = scripted(&text, &[("FWUP_STALL_TIMEOUT", "1s")]);
        let (_, firmware) = stage.forge("forged.fw", 2000);
        stage.hub.offer(&firmware);
        assert_eq!(
            stage.expect_failed(),
            format!("tool error: {reason}"),
            "{case}"
        );
        assert_eq!(verbs(&stage), ran, "{case}");
        assert_eq!(stage.statuses(), FAILED, "{case}");
        stage.assert_unharmed();
    }
}

#[test]
fn a_program_that_cannot_be_started_is_named() {
    let stage = Stage::prepared(&rig::standin(), |_, device| {
        let path = device.path("tool.sh");
        std::fs::write(&path, "#!/bin/sh\n").expect("file");
        use_program(device, &path);
    });
    stage.hub.offer(&rig::demo(&stage.hub));
    let reason = stage.expect_failed();
    assert!(
        reason.starts_with("tool error: begin: cannot start /"),
        "{reason}"
    );
    assert!(reason.contains("Permission denied"), "{reason}");
    stage.assert_unharmed();
}

#[test]
fn a_cancelled_update_is_aborted_before_the_agent_leaves() {
    for prepare in ["", "trap '' TERM;"] {
        let text = format!(
            "case $1 in begin) {prepare} echo info here; cat > /dev/null ;; abort) echo clean > aborted ;; esac"
        );
        let mut stage = scripted(&text, &[]);
        stage.offer_halting_at(1_000_000, &rig::demo(&stage.hub));
        stage.agent.wait_log("tool begin: here");
        assert_eq!(stage.agent.stop(), 0);
        assert_eq!(verbs(&stage), "begin abort");
        assert_eq!(read(&stage, "aborted"), "clean\n");
        assert_eq!(stage.statuses(), ["received", "started"]);
        assert_eq!(stage.device.reboots(), 0);
    }
}

#[test]
fn a_program_that_babbles_costs_neither_the_log_nor_the_update() {
    let babble = "head -c 1000000 /dev/zero | tr '\\0' x; yes | head -n 100000; \
                  seq 100000 >&2; yes 'progress 7' | head -n 10000";
    let text = format!("case $1 in begin) {babble}; cat > got ;; esac");
    let stage = scripted(&text, &[]);
    let firmware = rig::demo(&stage.hub);
    stage.hub.offer(&firmware);
    stage.expect_installed();
    assert_holds(&stage, "got", &demo_file());
    assert!(stage.agent.logged("tool begin").len() < 250);
    assert!(stage.agent.log().len() < 200_000);
    assert!(stage.agent.memory("VmHWM") < 64 * 1024);
}

#[test]
fn a_program_knows_what_it_installs_and_no_secret() {
    let text = "env > env.$1; [ $1 != begin ] || cat > got";
    let stage = scripted(text, &[("FWUP_ENV", "BOARD=demo")]);
    let firmware = rig::demo(&stage.hub);
    stage.hub.offer(&firmware);
    stage.expect_installed();
    assert_eq!(verbs(&stage), "begin finish");
    for verb in ["begin", "finish"] {
        let env = read(&stage, &format!("env.{verb}"));
        let devpath = stage.device.disk().display().to_string();
        for (name, value) in [
            ("NERVES_HUB_INSTALL_UUID", firmware.uuid.as_str()),
            ("NERVES_HUB_INSTALL_VERSION", "2.0.0"),
            ("NERVES_HUB_INSTALL_PRODUCT", "demo"),
            ("NERVES_HUB_INSTALL_CHECKSUM", &checksum(&firmware)),
            (
                "NERVES_HUB_INSTALL_SIZE",
                &firmware.payload()["size"].to_string(),
            ),
            ("NERVES_HUB_INSTALL_DEVPATH", &devpath),
            ("NERVES_HUB_INSTALL_PUBLIC_KEYS", &public_key()),
            ("NERVES_HUB_DEVICE_IDENTIFIER", IDENTIFIER),
            ("BOARD", "demo"),
        ] {
            let line = format!("{name}={value}");
            assert!(env.lines().any(|other| other == line), "{line}: {env}");
        }
        for absent in [PRODUCT_SECRET, "PRODUCT_SECRET", "FIRMWARE_FILE"] {
            assert!(!env.contains(absent), "{absent}: {env}");
        }
    }
}

/// A stage with an example and a program for it to call, which notes its arguments.
fn with_tool(name: &str, text: &str) -> Stage {
    Stage::prepared(&rig::standin(), |_, device| {
        let folder = device.dir.path().display().to_string();
        let text = format!("echo \"$@\" >> {folder}/called\n{text}");
        write_script(&device.path(name), &text);
        let path = std::env::var("PATH").unwrap_or_default();
        device.env.insert("PATH".into(), format!("{folder}:{path}"));
        device.env.insert("SPOOL".into(), folder.clone());
        device.env.insert("SWUPDATE_KEY".into(), "key.pem".into());
        device
            .env
            .insert("SWUPDATE_SELECTION".into(), "stable,{other}".into());
        use_program(device, &example(name));
    })
}

/// What the tool was called with, the device's folder as `/M`.
fn called(stage: &Stage) -> String {
    let folder = stage.device.dir.path().display().to_string();
    read(stage, "called").replace(&folder, "/M")
}

#[test]
fn the_rauc_example_installs_a_checked_bundle() {
    let text = "[ $1 != install ] || { cp $2 ${0%/*}/got; sleep 0.6; echo ' 40% Copying image'; }";
    let stage = with_tool("rauc", text);
    let firmware = rig::demo(&stage.hub);
    stage.hub.offer(&firmware);
    // Half a second after the last word about the download.
    stage.hub.expect_push("device", "fwup_progress", |push| {
        push["stage"] == "updating" && push["value"] == 40
    });
    stage.expect_installed();
    let bundle = "/M/nerveshub.raucb";
    assert_eq!(called(&stage), format!("info {bundle}\ninstall {bundle}\n"));
    assert_holds(&stage, "got", &demo_file());
    assert!(!stage.device.path("nerveshub.raucb").exists());

    for (fails, reason) in [
        ("info", "rauc error: begin: rauc info: signature is bad"),
        (
            "install",
            "rauc error: finish: rauc install: signature is bad",
        ),
    ] {
        let text = format!("[ $1 != {fails} ] || {{ echo signature is bad >&2; exit 1; }}");
        let stage = with_tool("rauc", &text);
        stage.hub.offer(&rig::demo(&stage.hub));
        assert_eq!(stage.expect_failed(), reason);
        assert!(!stage.device.path("nerveshub.raucb").exists());
        stage.assert_unharmed();
    }
}

#[test]
fn the_swupdate_example_installs_a_checked_image() {
    let stage = with_tool("swupdate", "");
    stage.hub.offer(&rig::demo(&stage.hub));
    stage.expect_installed();
    let options = "-i /M/nerveshub.swu -k key.pem -e stable,b";
    assert_eq!(called(&stage), format!("-c {options}\n-v {options}\n"));
    assert!(!stage.device.path("nerveshub.swu").exists());

    let text = "echo '[ERROR] : no key'; echo bye; exit 1";
    let stage = with_tool("swupdate", text);
    stage.hub.offer(&rig::demo(&stage.hub));
    let reason = stage.expect_failed();
    assert_eq!(reason, "swupdate error: begin: swupdate: [ERROR] : no key");
    stage.assert_unharmed();
}
