//! The slot commands, by `ops.fw` and by the U-Boot environment; a record of the active slot
//! that is not true.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use fwup_standin::archive::Builder;
use nerveshub_agent::system::uboot_env::{UbootEnv, crc32};

use crate::board;
use crate::config::{run, text};
use crate::rig::{self, Device, IDENTIFIER, Installer, installers};
use crate::stage::Stage;

/// One copy of the environment, and where the two are, in blocks of 512 bytes.
const SIZE: usize = 16 * 512;
const PLACES: [u64; 2] = [16, 32];
/// Where the other slot's partition begins, in such blocks.
const OTHER_SLOT: u64 = 64;

const VARIABLES: &str = "nerves_fw_active=b\nnerves_fw_validated=0\n\
    a.nerves_fw_uuid=uuid-a\na.nerves_fw_version=1.0.0\na.nerves_fw_product=demo\n\
    a.nerves_fw_platform=demo-board\na.nerves_fw_architecture=x86_64\n\
    b.nerves_fw_uuid=uuid-b\nb.nerves_fw_version=2.0.0\nb.nerves_fw_product=demo\n\
    b.nerves_fw_platform=demo-board\nb.nerves_fw_architecture=x86_64\n";

/// Tasks as those of Nerves systems, in the form that fwup compiles them to.
const OPS: &str = "uboot-environment \"env\" {\nblock-offset=16\nblock-count=16\n\
    block-offset-redund=32\n}\n\
    task \"validate\" {\non-init {\nfunlist={4,uboot_setenv,env,nerves_fw_validated,1}\n}\n}\n\
    task \"revert.a\" {\nreqlist={4,\"require-uboot-variable\",env,nerves_fw_active,b}\n\
    on-init {\nfunlist={4,uboot_setenv,env,nerves_fw_active,a,\
    4,uboot_setenv,env,nerves_fw_validated,1}\n}\n}\n\
    task \"revert.b\" {\non-init {\nfunlist={2,error,\"nothing to go back to\"}\n}\n}\n\
    task \"prevent-revert\" {\non-init {\nfunlist={3,uboot_unsetenv,env,a.nerves_fw_platform,\
    3,uboot_unsetenv,env,a.nerves_fw_architecture,3,trim,64,32,4,raw_memset,64,32,255}\n}\n}\n\
    task \"factory-reset\" {\non-init {\nfunlist={4,raw_memset,128,8,255}\n}\n}\n";

/// A device without a hub: a disk with both copies of the environment on it.
struct Board {
    folder: tempfile::TempDir,
    env: BTreeMap<String, String>,
}

impl Board {
    fn new(installer: &Installer) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let mut board = Self {
            folder,
            env: BTreeMap::new(),
        };
        std::fs::write(board.path("disk"), vec![0x5a; 200 * 512]).expect("disk");
        write_environment(&board.path("disk"), &board.path("fw_env.config"), VARIABLES);
        let path = |name: &str| board.path(name).display().to_string();
        let settings = [
            (
                "FIRMWARE_METADATA",
                format!("uboot:{}", path("fw_env.config")),
            ),
            ("FWUP_DEVPATH", path("disk")),
            ("FWUP_PATH", installer.path.display().to_string()),
            ("OPS_FW", path("ops.fw")),
            (
                "REBOOT_COMMAND",
                format!("echo reboot >> {}", path("rebooted")),
            ),
            // Whatever this machine was started with.
            ("BOOTED_SLOT", "b".to_owned()),
            ("CONTROL_SOCKET", path("control.sock")),
        ];
        for (name, value) in settings {
            board.env.insert(format!("NERVES_HUB_{name}"), value);
        }
        board
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn add_ops_fw(&self) {
        let builder = Builder::new("1.0.0").extra_conf(OPS);
        builder.write_to(self.path("ops.fw")).expect("ops.fw");
    }

    fn values(&self) -> BTreeMap<String, String> {
        let env = UbootEnv::open(&self.path("fw_env.config"));
        env.expect("environment").values()
    }

    /// The exit code, and what was said on the stream that belongs to it.
    fn run(&self, arguments: &[&str]) -> (i32, String) {
        let output = run(&self.env, arguments);
        let code = output.status.code().expect("code");
        let said = if code == 0 {
            &output.stdout
        } else {
            &output.stderr
        };
        (code, text(said))
    }

    fn done(&self, arguments: &[&str]) -> String {
        let (code, said) = self.run(arguments);
        assert_eq!(code, 0, "{arguments:?}: {said}");
        said
    }

    fn block(&self, number: u64) -> [u8; 512] {
        let disk = std::fs::File::open(self.path("disk")).expect("disk");
        let mut block = [0; 512];
        disk.read_exact_at(&mut block, number * 512).expect("block");
        block
    }
}

/// Both copies, the first one newer, and the configuration that tells where they are.
pub fn write_environment(disk: &std::path::Path, config: &std::path::Path, variables: &str) {
    let mut data = variables.replace('\n', "\0").into_bytes();
    data.resize(SIZE - 5, 0);
    let file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(disk)
        .expect("disk");
    let mut lines = String::new();
    for (flag, place) in [2_u8, 1].into_iter().zip(PLACES) {
        let head = [&crc32(&data).to_ne_bytes()[..], &[flag]].concat();
        let image = [head, data.clone()].concat();
        file.write_all_at(&image, place * 512).expect("copy");
        lines += &format!("{} {:#x} {SIZE:#x}\n", disk.display(), place * 512);
    }
    std::fs::write(config, lines).expect("configuration");
}

#[test]
fn slots_by_the_environment_alone() {
    let board = Board::new(&rig::standin());
    let table = "\
SLOT  STATE            VALIDATED  UUID    VERSION  PRODUCT
a     –                –          uuid-a  1.0.0    demo
b     active, running  no         uuid-b  2.0.0    demo
";
    assert_eq!(board.done(&["slots"]), table);
    board.done(&["validate"]);
    assert_eq!(board.values()["nerves_fw_validated"], "1");
    board.done(&["validate"]);
    let said = board.done(&["revert"]);
    assert!(said.contains("reboot for it to take effect"), "{said}");
    assert_eq!(board.values()["nerves_fw_active"], "a");
    assert!(!board.path("rebooted").exists());
    let json: serde_json::Value =
        serde_json::from_str(&board.done(&["slots", "--json"])).expect("JSON");
    assert_eq!(
        (&json["active"], &json["running"]),
        (&"a".into(), &"b".into())
    );
    assert_eq!(json["slots"][0]["version"], "1.0.0");
    assert_eq!(json["slots"][0]["active"], true);
    assert_eq!(json["slots"][1]["running"], true);
    // Back again, this time with the reboot.
    let said = board.done(&["revert", "--reboot"]);
    assert!(said.ends_with("rebooting\n"), "{said}");
    let rebooted = std::fs::read_to_string(board.path("rebooted")).expect("reboot");
    assert_eq!(rebooted, "reboot\n");
    assert_eq!(board.values()["nerves_fw_active"], "b");
    board.done(&["prevent-revert"]);
    let before = board.values();
    assert!(!before.contains_key("a.nerves_fw_platform"));
    let (code, said) = board.run(&["revert"]);
    assert_eq!(code, 69, "{said}");
    assert!(said.contains("slot a holds no firmware"), "{said}");
    let (code, said) = board.run(&["factory-reset"]);
    assert_eq!(code, 69, "{said}");
    assert!(said.contains("NERVES_HUB_OPS_FW"), "{said}");
    assert_eq!(board.values(), before);
    assert_eq!(board.block(OTHER_SLOT), [0x5a; 512]);
}

#[test]
fn slots_by_ops_fw() {
    for installer in installers() {
        let board = Board::new(&installer);
        board.add_ops_fw();
        board.done(&["validate"]);
        assert_eq!(
            board.values()["nerves_fw_validated"],
            "1",
            "{}",
            installer.name
        );
        // The task wrote the copy that was obsolete.
        let env = UbootEnv::open(&board.path("fw_env.config")).expect("environment");
        assert_eq!(env.active, 1);
        board.done(&["prevent-revert"]);
        assert!(!board.values().contains_key("a.nerves_fw_platform"));
        // Unlike the environment alone, the archive erases the slot.
        assert!(board.values().contains_key("a.nerves_fw_uuid"));
        assert_eq!(board.block(OTHER_SLOT), [0xff; 512]);
        board.done(&["factory-reset"]);
        assert_eq!(board.block(128), [0xff; 512]);
        board.done(&["revert"]);
        assert_eq!(board.values()["nerves_fw_active"], "a");
        let (code, said) = board.run(&["revert"]);
        assert_eq!(code, 74, "{said}");
        assert!(
            said.contains("task revert: nothing to go back to"),
            "{said}"
        );
    }
}

#[test]
fn an_old_image_reverts_by_its_own_archive() {
    for installer in installers() {
        let board = Board::new(&installer);
        board.add_ops_fw();
        std::fs::rename(board.path("ops.fw"), board.path("revert.fw")).expect("rename");
        board.done(&["revert", "--reboot"]);
        assert_eq!(board.values()["nerves_fw_active"], "a");
        // There is no other task in it: the environment itself is changed, which then is
        // the one of another slot than the running one.
        let (code, said) = board.run(&["validate"]);
        assert_eq!(code, 69, "{said}");
        assert!(
            said.contains("slot b is running while a is recorded"),
            "{said}"
        );
    }
}

#[test]
fn every_way_out_has_its_code() {
    let mut board = Board::new(&rig::standin());
    let (code, said) = board.run(&["revert", "--now"]);
    assert_eq!(code, 64);
    assert!(said.contains("cannot take \"--now\""), "{said}");
    for command in [
        "validate",
        "revert",
        "prevent-revert",
        "factory-reset",
        "slots",
    ] {
        let help = board.done(&[command, "--help"]);
        let usage = format!("Usage: nerveshub-agent {command}");
        assert!(
            help.starts_with(&usage) && help.contains("\nExample"),
            "{help}"
        );
    }
    let set = |board: &mut Board, name: &str, value: &str| {
        let name = format!("NERVES_HUB_{name}");
        board.env.insert(name, value.to_owned());
    };
    set(&mut board, "REBOOT_COMMAND", "echo no >&2; exit 1");
    let (code, said) = board.run(&["revert", "--reboot"]);
    assert_eq!(code, 71, "{said}");
    assert!(said.contains("the other slot is active, but"), "{said}");
    set(&mut board, "STALE_SLOT", "perhaps");
    assert_eq!(board.run(&["validate"]).0, 78);
    set(&mut board, "STALE_SLOT", "refuse");
    set(&mut board, "FIRMWARE_METADATA", "env");
    assert_eq!(board.run(&["validate"]).0, 69);
    assert_eq!(board.run(&["slots"]).0, 69);
    set(&mut board, "FIRMWARE_METADATA", "file:/no/such/file");
    assert_eq!(board.run(&["slots"]).0, 78);
    set(&mut board, "FIRMWARE_METADATA", "uboot:/dev/null");
    assert_eq!(board.run(&["validate"]).0, 74);
}

/// A device whose record says b; slot a is what `Stage` expects to be running.
fn stale(installer: &Installer, policy: &str) -> Stage {
    Stage::prepared(installer, |_, device| {
        let config = device.path("fw_env.config");
        let more = format!(
            "nerves_serial_number={IDENTIFIER}\nnerves_fw_devpath={}\n",
            device.disk().display()
        );
        let variables = format!("{VARIABLES}{more}");
        write_environment(&device.path("env"), &config, &variables);
        device.set("FIRMWARE_METADATA", &format!("uboot:{}", config.display()));
        device.set("BOOTED_SLOT", "a");
        device.set("STALE_SLOT", policy);
    })
}

fn recorded(device: &Device) -> String {
    let env = UbootEnv::open(&device.path("fw_env.config")).expect("environment");
    env.values()["nerves_fw_active"].clone()
}

#[test]
fn an_update_over_the_running_slot_is_refused() {
    for installer in installers() {
        let stage = stale(&installer, "refuse");
        // The hub hears of the firmware that runs.
        assert_eq!(stage.join.params["nerves_fw_uuid"], "uuid-a");
        assert_eq!(stage.join.params["nerves_fw_version"], "1.0.0");
        stage.hub.offer(&stage.firmware("small-2.0.1.fw"));
        assert_eq!(
            stage.expect_failed(),
            "the active slot is recorded as b but a is running; an update would overwrite the \
             running slot; reboot, or set NERVES_HUB_STALE_SLOT=correct"
        );
        assert_eq!(stage.statuses(), ["received", "failed"]);
        stage.assert_untouched();
        stage.assert_unharmed();
        assert_eq!(recorded(&stage.device), "b");
    }
}

#[test]
fn a_corrected_record_lets_updates_through() {
    for installer in installers() {
        let stage = stale(&installer, "correct");
        assert_eq!(stage.join.params["nerves_fw_uuid"], "uuid-a");
        stage.agent.wait_log("is running; recorded a");
        assert_eq!(recorded(&stage.device), "a");
        // The mark on record was that of the other slot.
        assert_eq!(stage.join.params["meta"]["firmware_validated"], true);
        stage.assert_takes_the_next();
    }
}

#[test]
fn a_record_that_cannot_be_corrected_refuses_updates() {
    let stage = Stage::new(
        &rig::standin(),
        &[("BOOTED_SLOT", "b"), ("STALE_SLOT", "correct")],
    );
    stage.hub.offer(&stage.firmware("small-2.0.1.fw"));
    let reason = stage.expect_failed();
    assert!(
        reason.contains("recorded as a but b is running"),
        "{reason}"
    );
    assert!(
        reason.contains("cannot be corrected: it is kept in a file"),
        "{reason}"
    );
    stage.assert_untouched();
}

/// Somebody reverts while the agent runs: what was the other slot is the running one now.
#[test]
fn a_record_that_changes_while_the_agent_runs_is_noticed() {
    let installer = rig::standin();
    for booted in [None, Some("a")] {
        let stage = Stage::prepared(&installer, |_, device| {
            board::with_environment(device);
            board::Board(device).begin(true);
            if let Some(slot) = booted {
                device.set("BOOTED_SLOT", slot);
            }
        });
        let board = board::Board(&stage.device);
        board.set(&[("nerves_fw_active", "b")]);
        stage.hub.offer(&stage.firmware("small-2.0.1.fw"));
        assert_eq!(
            stage.expect_failed(),
            "the active slot is recorded as b but a is running; an update would overwrite the \
             running slot; reboot, or set NERVES_HUB_STALE_SLOT=correct"
        );
        assert!(stage.fwup_pids().is_empty());
        stage.assert_untouched();
        stage.assert_unharmed();
        assert!(!stage.device.path("data/update").exists());
        board.set(&[("nerves_fw_active", "a")]);
        stage.assert_takes_the_next();
    }
}

/// Where to write is what the record says then, not what it said at the start.
#[test]
fn a_device_path_that_changes_while_the_agent_runs_is_followed() {
    let stage = Stage::prepared(&rig::standin(), |_, device| {
        board::with_environment(device);
        board::Board(device).begin(true);
    });
    let board = board::Board(&stage.device);
    let slot_a = board.slot_a();
    board.set(&[("nerves_fw_devpath", &slot_a.display().to_string())]);
    stage.hub.offer(&stage.firmware("small-2.0.1.fw"));
    stage.expect_installed();
    stage.assert_untouched();
    assert!(std::fs::read(slot_a).expect("slot a") != board::OLD_SLOT);
}
