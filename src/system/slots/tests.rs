//! Every action by every means, on environments of every naming; the running slot by every
//! source.

mod guard;

use std::collections::BTreeMap;
use std::process::Command;

use super::*;
use crate::system::uboot_env::crc32;

const SIZE: usize = 0x1000;
const NERVES: &str = "nerves_fw_active=b\nnerves_fw_validated=0\nnerves_fw_devpath=/dev/null\n\
    a.nerves_fw_uuid=ua\na.nerves_fw_platform=p\na.nerves_fw_architecture=x\n\
    a.nerves_fw_version=1.0.0\nb.nerves_fw_uuid=ub\nb.nerves_fw_platform=p\n\
    b.nerves_fw_architecture=x\nserial=1\n";

/// A device with a U-Boot environment of these lines.
struct Device {
    folder: tempfile::TempDir,
    settings: SlotSettings,
}

impl Device {
    fn new(lines: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let mut data = lines.replace('\n', "\0").into_bytes();
        data.resize(SIZE - 4, 0);
        let image = [crc32(&data).to_ne_bytes().to_vec(), data].concat();
        std::fs::write(path("env"), image).unwrap();
        let config = format!("{} 0x0 {SIZE:#x}\n", path("env").display());
        std::fs::write(path("fw_env.config"), config).unwrap();
        let offline = ("NERVES_HUB_CONNECT".into(), "0".into());
        let (config, _) = crate::config::parse([offline].into_iter()).unwrap();
        let mut settings = SlotSettings::new(&config);
        settings.metadata.source = MetadataSource::Uboot {
            config: path("fw_env.config"),
        };
        settings.metadata.explicit = true;
        settings.options.ops_fw = path("ops.fw");
        settings.command_line = path("cmdline");
        settings.mounts = path("mountinfo");
        Self { folder, settings }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// Written by another process: a program that this one has open for writing cannot be
    /// run, and a child of another test may have inherited it so.
    fn program(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        let folder = self.folder.path().display();
        let status = Command::new("/bin/sh")
            .args([
                "-c",
                "printf '%s\\n' \"$1\" > \"$2\"; chmod 755 \"$2\"",
                "sh",
            ])
            .arg(format!("#!/bin/sh\ncd {folder}\n{text}"))
            .arg(&path)
            .status();
        assert!(status.unwrap().success());
        path
    }

    fn values(&self) -> BTreeMap<String, String> {
        let MetadataSource::Uboot { config } = &self.settings.metadata.source else {
            panic!("another source");
        };
        crate::system::uboot_env::UbootEnv::open(config)
            .unwrap()
            .values()
    }

    /// What an action changed, as `key=value` and `-key`; a second time it changes nothing.
    fn changes(&self, action: fn(&SlotSettings) -> Result<(), SlotError>) -> Vec<String> {
        let before = self.values();
        action(&self.settings).unwrap();
        let after = self.values();
        let gone = before.keys().filter(|key| !after.contains_key(*key));
        let mut changes: Vec<String> = gone.map(|key| format!("-{key}")).collect();
        for (key, value) in &after {
            if before.get(key) != Some(value) {
                changes.push(format!("{key}={value}"));
            }
        }
        changes
    }

    fn changes_for_good(&self, action: fn(&SlotSettings) -> Result<(), SlotError>) -> Vec<String> {
        let changes = self.changes(action);
        assert_eq!(self.changes(action), [""; 0], "the second time");
        changes
    }
}

#[test]
fn validate_by_every_naming() {
    for (lines, expected) in [
        (NERVES, vec!["nerves_fw_validated=1"]),
        ("nerves_fw_active=a\n", vec!["nerves_fw_validated=1"]),
        ("fw_active=a\na.fw_uuid=u\n", vec!["fw_validated=1"]),
        ("fw_active=a\nfw_validated=0\n", vec!["fw_validated=1"]),
        (
            "nerves_fw_active=a\nfw_validated=0\nnerves_fw_validated=0\n",
            vec!["fw_validated=1", "nerves_fw_validated=1"],
        ),
        (
            "nerves_fw_active=b\na.nerves_fw_validated=0\nb.nerves_fw_validated=0\n",
            vec!["b.nerves_fw_validated=1", "nerves_fw_validated=1"],
        ),
        (
            "fw_active=a\na.fw_validated=0\nupgrade_available=1\nbootcount=3\n",
            vec![
                "a.fw_validated=1",
                "bootcount=0",
                "fw_validated=1",
                "upgrade_available=0",
            ],
        ),
        ("nerves_fw_validated=1\nbootcount=3\n", vec![]),
    ] {
        let device = Device::new(lines);
        assert_eq!(device.changes_for_good(validate), expected, "{lines}");
        let values = KeyValues::from(device.values());
        assert!(values.firmware(&BTreeMap::new(), None).validated, "{lines}");
    }
}

#[test]
fn revert_goes_to_a_slot_that_boots() {
    for (lines, expected) in [
        (NERVES, vec!["nerves_fw_active=a", "nerves_fw_validated=1"]),
        (
            "fw_active=a\nb.fw_uuid=u\nb.fw_validated=0\nupgrade_available=1\n",
            vec![
                "b.fw_validated=1",
                "bootcount=0",
                "fw_active=b",
                "upgrade_available=0",
            ],
        ),
        (
            "nerves_fw_active=one\ntwo.nerves_fw_uuid=u\n",
            vec!["nerves_fw_active=two"],
        ),
    ] {
        assert_eq!(Device::new(lines).changes(revert), expected, "{lines}");
    }
    for (lines, reason) in [
        ("x=1\n", "no slot is recorded as active"),
        ("nerves_fw_active=a\n", "slot b holds no firmware"),
        ("nerves_fw_active=q\n", "there is no other slot than q"),
        (
            "nerves_fw_active=a\nb.fw_uuid=u\nc.fw_uuid=u\n",
            "more than one other slot: b, c",
        ),
        // As ops.fw leaves it after prevent-revert.
        (
            &NERVES.replace("a.nerves_fw_platform=p\n", ""),
            "slot a holds no firmware",
        ),
    ] {
        let device = Device::new(lines);
        let before = device.values();
        let error = revert(&device.settings).unwrap_err();
        assert!(error.to_string().contains(reason), "{error}");
        assert!(error.is_unavailable());
        assert_eq!(device.values(), before);
    }
}

#[test]
fn prevent_revert_is_kept_by_revert() {
    let device = Device::new(NERVES);
    let gone = [
        "-a.nerves_fw_architecture",
        "-a.nerves_fw_platform",
        "-a.nerves_fw_uuid",
    ];
    assert_eq!(device.changes_for_good(prevent_revert), gone);
    assert!(revert(&device.settings).unwrap_err().is_unavailable());
    let device = Device::new("fw_active=a\nb.fw_uuid=u\n");
    assert_eq!(device.changes_for_good(prevent_revert), ["-b.fw_uuid"]);
    assert!(revert(&device.settings).unwrap_err().is_unavailable());
}

#[test]
fn what_cannot_be_done_names_the_ways_out() {
    let mut device = Device::new(NERVES);
    let error = factory_reset(&device.settings).unwrap_err();
    assert!(error.is_unavailable());
    assert!(
        error.to_string().contains("set NERVES_HUB_OPS_FW"),
        "{error}"
    );
    for source in [
        MetadataSource::Env,
        MetadataSource::File("/etc/metadata".into()),
        MetadataSource::Command("cat".to_owned()),
        MetadataSource::Uboot {
            config: "/no/such/config".into(),
        },
    ] {
        device.settings.metadata.source = source;
        for action in [validate, revert, prevent_revert] {
            let error = action(&device.settings).unwrap_err();
            assert!(error.is_unavailable());
            assert!(error.to_string().contains("METADATA=uboot"), "{error}");
        }
    }
}

#[test]
fn a_bad_environment_is_a_failure_and_not_a_lack() {
    let device = Device::new(NERVES);
    device.write("env", &"x".repeat(SIZE));
    let error = validate(&device.settings).unwrap_err();
    assert!(
        !error.is_unavailable() && error.to_string().contains("CRC"),
        "{error}"
    );
}

#[test]
fn marks_are_not_set_for_firmware_that_does_not_run_yet() {
    let mut device = Device::new(NERVES);
    device.settings.options.booted = Some("a".to_owned());
    let before = device.values();
    for action in [validate, prevent_revert] {
        let error = action(&device.settings).unwrap_err();
        let text = "slot a is running while b is recorded as active; reboot first";
        assert!(error.to_string().contains(text), "{error}");
        device.write("ops.fw", "");
        assert!(action(&device.settings).unwrap_err().is_unavailable());
        std::fs::remove_file(device.path("ops.fw")).unwrap();
    }
    assert_eq!(device.values(), before);
    // Taking an update back before its reboot is fine.
    revert(&device.settings).unwrap();
    assert_eq!(device.values()["nerves_fw_active"], "a");
}

#[test]
fn ops_fw_comes_first_and_revert_fw_is_known() {
    let mut device = Device::new(NERVES);
    let answer = "echo \"$@\" >> asked; [ -z \"$NERVES_HUB_PRODUCT_SECRET\" ] || exit 9\n\
                  printf '\\000\\000\\000\\004OK\\000\\000'";
    device.settings.fwup.path = device.program("fwup", answer);
    let folder = device.folder.path().display().to_string();
    let before = device.values();
    device.write("revert.fw", "");
    revert(&device.settings).unwrap();
    device.write("ops.fw", "");
    for action in [validate, revert, prevent_revert, factory_reset] {
        action(&device.settings).unwrap();
    }
    device.settings.fwup.devpath = Some("/dev/other".into());
    validate(&device.settings).unwrap();
    let options = "-q -U --enable-trim --framing";
    let expected: String = [
        ("revert.fw", "revert", "/dev/null"),
        ("ops.fw", "validate", "/dev/null"),
        ("ops.fw", "revert", "/dev/null"),
        ("ops.fw", "prevent-revert", "/dev/null"),
        ("ops.fw", "factory-reset", "/dev/null"),
        ("ops.fw", "validate", "/dev/other"),
    ]
    .iter()
    .map(|(file, task, device)| format!("-a -i {folder}/{file} -t {task} -d {device} {options}\n"))
    .collect();
    let asked = std::fs::read_to_string(device.path("asked")).unwrap();
    assert_eq!(asked, expected);
    assert_eq!(device.values(), before);
}

#[test]
fn what_programs_say_is_passed_on() {
    let mut device = Device::new(NERVES);
    device.write("ops.fw", "");
    let frame = |text: &str| format!("printf '\\000\\000\\000\\006{text}'");
    for (script, problem) in [
        ("exit 0".to_owned(), "without saying whether it succeeded"),
        ("echo oh >&2; exit 3".to_owned(), "exit status: 3: oh"),
        (frame("ER\\000\\000no"), "task validate: no"),
        (
            format!("{}; exit 1", frame("ER\\000\\000no")),
            "task validate: no",
        ),
        (
            format!("{}; exit 1", frame("OK\\000\\000ok")),
            "exit status: 1",
        ),
        ("echo hello".to_owned(), "output is not framed"),
    ] {
        device.settings.fwup.path = device.program("fwup", &script);
        let error = validate(&device.settings).unwrap_err();
        assert!(error.to_string().contains(problem), "{script}: {error}");
        assert!(!error.is_unavailable());
    }
    device.settings.metadata.source = MetadataSource::Env;
    assert!(matches!(
        validate(&device.settings),
        Err(SlotError::NoDevice { .. })
    ));
    // The installer's own program is asked before anything else.
    let confirm = device.program("installer", "echo \"$@\" > confirmed");
    device.settings.installer_command = Some(confirm);
    validate(&device.settings).unwrap();
    let said = std::fs::read_to_string(device.path("confirmed")).unwrap();
    assert_eq!(said, "confirm\n");
    device.settings.installer_command = Some(device.program("installer", "echo bad >&2; exit 1"));
    let error = validate(&device.settings).unwrap_err().to_string();
    assert!(error.ends_with("confirm: exit status: 1: bad"), "{error}");
}

#[test]
fn the_running_slot_by_every_source() {
    let mut device = Device::new(NERVES);
    let roots = [("a", "/dev/no-such-p2"), ("b", "PARTUUID=0123-03")];
    device.settings.options.roots = roots.map(|(k, v)| (k.into(), v.into())).into();
    let mount = |number: &str, source: &str| {
        format!(
            "21 1 0:5 / /proc rw - proc proc rw\n\
             22 1 {number} / / rw,relatime shared:1 - ext4 {source} rw\n"
        )
    };
    for (command_line, mounts, slot) in [
        ("", String::new(), None),
        ("quiet fw_slot=a rw\n", String::new(), Some("a")),
        ("fw_slot=a nerves_fw_slot=b", String::new(), Some("b")),
        ("fw_slot=a fw_slot=b", String::new(), Some("b")),
        ("fw_slot= xfw_slot=b", String::new(), None),
        ("root=/dev/no-such-p2 rw", String::new(), Some("a")),
        ("root=PARTUUID=0123-03", String::new(), Some("b")),
        ("root=/dev/no-such-p9", mount("0:30", "overlay"), None),
        (
            "root=/dev/ram0",
            mount("179:2", "/dev/no-such-p2"),
            Some("a"),
        ),
        ("fw_slot=b root=/dev/no-such-p2", String::new(), Some("b")),
    ] {
        device.write("cmdline", command_line);
        device.write("mountinfo", &mounts);
        let found = booted(&device.settings);
        assert_eq!(found.as_deref(), slot, "{command_line} {mounts}");
    }
    // A link as udev makes them.
    device.write("partition", "");
    std::os::unix::fs::symlink(device.path("partition"), device.path("link")).unwrap();
    let link = device.path("link").display().to_string();
    device.settings.options.roots = vec![("b".to_owned(), link)];
    let root = device.path("partition").display().to_string();
    device.write("cmdline", &format!("root={root}"));
    assert_eq!(booted(&device.settings).as_deref(), Some("b"));
    device.settings.options.booted = Some("c".to_owned());
    assert_eq!(booted(&device.settings).as_deref(), Some("c"));
}

fn start(device: &Device) -> (KeyValues, Running) {
    let values = metadata::load(&device.settings.metadata).unwrap();
    reconcile(&device.settings, values)
}

#[test]
fn a_stale_record_refuses_updates_or_is_corrected() {
    let mut device = Device::new(NERVES);
    assert_eq!(start(&device).1, Running::default());
    device.settings.options.booted = Some("b".to_owned());
    assert_eq!(start(&device).1.stale, None);
    device.settings.options.booted = Some("a".to_owned());
    let (values, running) = start(&device);
    assert_eq!(running.slot.as_deref(), Some("a"));
    let text = "the active slot is recorded as b but a is running; an update would overwrite the \
                running slot; reboot, or set NERVES_HUB_STALE_SLOT=correct";
    assert_eq!(running.stale.as_deref(), Some(text));
    assert_eq!(values.global("active"), Some("b"));
    device.settings.options.correct_stale = true;
    let (values, running) = start(&device);
    assert_eq!((running.slot.as_deref(), running.stale), (Some("a"), None));
    assert_eq!(values.global("active"), Some("a"));
    assert_eq!(device.values()["nerves_fw_active"], "a");
    // The mark was that of b.
    assert!(values.firmware(&BTreeMap::new(), Some("a")).validated);
    assert_eq!(device.values()["nerves_fw_validated"], "1");
}

#[test]
fn a_corrected_record_keeps_each_slots_own_mark() {
    let lines = "nerves_fw_active=b\nnerves_fw_validated=1\na.nerves_fw_validated=0\n\
                 b.nerves_fw_validated=1\nupgrade_available=1\nbootcount=2\n";
    let mut device = Device::new(lines);
    device.settings.options.booted = Some("a".to_owned());
    device.settings.options.correct_stale = true;
    start(&device);
    let expected = lines.replace("active=b", "active=a");
    let expected = expected.replacen("nerves_fw_validated=1", "nerves_fw_validated=0", 1);
    let expected = KeyValues::parse_lines(&expected).unwrap();
    assert!(KeyValues::from(device.values()) == expected);
}

#[test]
fn a_record_that_cannot_be_corrected_refuses_updates() {
    let mut device = Device::new(NERVES);
    device.settings.options.booted = Some("a".to_owned());
    device.settings.options.correct_stale = true;
    device.write("metadata", NERVES);
    device.settings.metadata.source = MetadataSource::File(device.path("metadata"));
    let reason = start(&device).1.stale.unwrap();
    assert!(
        reason.contains("cannot be corrected: it is kept in a file"),
        "{reason}"
    );
}

#[test]
fn slots_are_described() {
    let mut device = Device::new(&format!("{NERVES}a.nerves_fw_validated=1\n"));
    device.settings.options.booted = Some("b".to_owned());
    let description = describe(&device.settings).unwrap();
    assert_eq!(description.active.as_deref(), Some("b"));
    assert_eq!(description.running.as_deref(), Some("b"));
    let [a, b] = description.slots.as_slice() else {
        panic!("{description:?}");
    };
    assert_eq!((a.name.as_str(), a.validated), ("a", Some(true)));
    assert_eq!(a.version.as_deref(), Some("1.0.0"));
    assert_eq!((b.name.as_str(), b.validated), ("b", Some(false)));
    assert_eq!(
        (b.uuid.as_deref(), b.product.as_deref()),
        (Some("ub"), None)
    );
    let error = describe(&Device::new("x=1\n").settings).unwrap_err();
    assert!(matches!(error, SlotError::NoSlots));
}
