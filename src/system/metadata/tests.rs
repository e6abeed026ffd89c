//! Slot resolution, validation rules and every source.

use super::*;

const NERVES: &str = "\
nerves_fw_active=b
nerves_fw_devpath=/dev/mmcblk0
nerves_fw_version=9.9.9
nerves_serial_number=SN1
a.nerves_fw_uuid=uuid-a
a.nerves_fw_version=1.0.0
b.nerves_fw_uuid=uuid-b
b.nerves_fw_version=2.0.0
b.nerves_fw_application_part0_fstype=ext4
b.other=x
nh_shared_secret=hunter2
nerves_hub_key=hunter2
wifi_passphrase=hunter2
nerves_fw_booted=1
";

fn firmware(text: &str) -> Firmware {
    KeyValues::parse_lines(text)
        .unwrap()
        .firmware(&BTreeMap::new(), None)
}

fn settings(source: MetadataSource, explicit: bool) -> MetadataSettings {
    MetadataSettings {
        source,
        explicit,
        overrides: BTreeMap::new(),
    }
}

#[test]
fn the_active_slot_and_nothing_else_is_told() {
    let firmware = firmware(NERVES);
    let keys: Vec<_> = firmware
        .keys
        .iter()
        .map(|(k, v)| (k.as_str(), v.as_str()))
        .collect();
    assert_eq!(
        keys,
        [
            ("nerves_fw_application_part0_fstype", "ext4"),
            ("nerves_fw_uuid", "uuid-b"),
            ("nerves_fw_version", "2.0.0"),
        ]
    );
    assert_eq!(firmware.uuid.as_deref(), Some("uuid-b"));
    assert_eq!(firmware.slot.as_deref(), Some("b"));
    assert_eq!(firmware.devpath.as_deref(), Some(Path::new("/dev/mmcblk0")));
    assert!(firmware.validated && !firmware.auto_revert_detected);
}

#[test]
fn names_without_nerves_are_a_fallback() {
    let firmware = firmware(
        "fw_active=a\nfw_devpath=/dev/sda\na.fw_uuid=u\na.fw_version=1\na.nerves_fw_version=2\n\
         a.fw_validated=0\nb.fw_validated=0\nb.fw_platform=p\nb.fw_architecture=x\nfw_product=P\n",
    );
    assert_eq!(firmware.get("uuid"), Some("u"));
    assert_eq!(firmware.get("version"), Some("2"));
    assert_eq!(firmware.get("product"), Some("P"));
    assert_eq!(firmware.devpath.as_deref(), Some(Path::new("/dev/sda")));
    assert!(!firmware.validated && firmware.auto_revert_detected);
}

#[test]
fn without_slots_the_description_is_taken_as_it_is() {
    let firmware = firmware("fw_uuid=u\nnerves_fw_version=1\nnerves_fw_misc=\nsecret=x\n");
    assert_eq!(firmware.uuid.as_deref(), Some("u"));
    assert_eq!(firmware.keys.len(), 2);
    assert_eq!(firmware.slot, None);
    assert_eq!(
        super::KeyValues::default()
            .firmware(&BTreeMap::new(), None)
            .uuid,
        None
    );
}

#[test]
fn validated() {
    for (text, validated) in [
        ("", true),
        ("nerves_fw_validated=1", true),
        ("nerves_fw_validated=0", false),
        ("nerves_fw_validated=maybe", true),
        ("fw_validated=0", false),
        (
            "nerves_fw_active=a\na.nerves_fw_validated=0\nnerves_fw_validated=1",
            false,
        ),
        (
            "nerves_fw_active=a\na.nerves_fw_validated=1\nnerves_fw_validated=0",
            true,
        ),
        ("nerves_fw_active=a\nb.nerves_fw_validated=0", true),
        ("nerves_fw_active=a\nnerves_fw_validated=0", false),
        ("upgrade_available=0\nnerves_fw_validated=0", true),
        ("upgrade_available=1\nnerves_fw_validated=1", false),
        ("upgrade_available=x\nnerves_fw_validated=0", false),
    ] {
        assert_eq!(firmware(text).validated, validated, "{text}");
    }
}

#[test]
fn auto_revert() {
    let other = "b.nerves_fw_validated=0\nb.nerves_fw_platform=p\nb.nerves_fw_architecture=x\n";
    for (text, detected) in [
        (format!("nerves_fw_active=a\n{other}"), true),
        (format!("nerves_fw_active=b\n{other}"), false),
        (format!("nerves_fw_active=c\n{other}"), false),
        (other.to_owned(), false),
        (
            format!("nerves_fw_active=a\n{other}b.nerves_fw_validated=1"),
            false,
        ),
        (
            format!("nerves_fw_active=a\n{other}b.nerves_fw_validated="),
            false,
        ),
        (
            format!("nerves_fw_active=a\n{other}b.nerves_fw_platform="),
            false,
        ),
        (
            format!("nerves_fw_active=a\n{other}b.nerves_fw_architecture="),
            false,
        ),
        (
            "nerves_fw_active=b\na.nerves_fw_validated=0\na.nerves_fw_platform=p\n\
             a.nerves_fw_architecture=x"
                .to_owned(),
            true,
        ),
    ] {
        assert_eq!(firmware(&text).auto_revert_detected, detected, "{text}");
    }
}

#[test]
fn the_running_slot_is_described_whatever_is_recorded() {
    let values = |more: &str| KeyValues::parse_lines(&format!("{NERVES}{more}")).unwrap();
    let firmware = |more: &str| values(more).firmware(&BTreeMap::new(), Some("a"));
    let plain = firmware("nerves_fw_validated=0\n");
    assert_eq!(plain.uuid.as_deref(), Some("uuid-a"));
    assert_eq!(plain.slot.as_deref(), Some("a"));
    // The mark is that of b, which has not run yet.
    assert!(plain.validated);
    assert!(!firmware("a.nerves_fw_validated=0\n").validated);
    let other = "b.nerves_fw_validated=0\nb.nerves_fw_platform=p\nb.nerves_fw_architecture=x\n";
    assert!(!firmware(other).auto_revert_detected);
    assert!(firmware(&format!("{other}nerves_fw_active=a\n")).auto_revert_detected);
    assert_eq!(
        values("").slots().into_iter().collect::<Vec<_>>(),
        ["a", "b"]
    );
}

#[test]
fn overrides_are_on_top() {
    let overrides = [
        ("uuid", "mine"),
        ("validated", "0"),
        ("auto_revert_detected", "1"),
    ];
    let overrides = overrides.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    let firmware = KeyValues::parse_lines(NERVES)
        .unwrap()
        .firmware(&overrides, None);
    assert_eq!(firmware.uuid.as_deref(), Some("mine"));
    assert_eq!(firmware.get("version"), Some("2.0.0"));
    assert!(!firmware.validated && firmware.auto_revert_detected);
    assert!(!firmware.keys.contains_key("nerves_fw_validated"));
}

#[test]
fn a_missing_default_is_a_warning_and_a_missing_choice_an_error() {
    let uboot = MetadataSource::Uboot {
        config: "/no/such/fw_env.config".into(),
    };
    let (values, warning) = load_with_warning(&settings(uboot.clone(), false)).unwrap();
    assert!(values.is_empty());
    let text = "firmware metadata: cannot read /no/such/fw_env.config: No such file or directory \
                (os error 2); correct it or change NERVES_HUB_FIRMWARE_METADATA";
    assert_eq!(warning.as_deref(), Some(text));
    let error = load(&settings(uboot, true)).unwrap_err();
    assert_eq!(error.to_string(), text);
}

#[test]
fn files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kv");
    let load = || load(&settings(MetadataSource::File(path.clone()), true));
    std::fs::write(&path, NERVES).unwrap();
    assert_eq!(load().unwrap().serial_number(), Some("SN1"));
    std::fs::write(&path, "a=1\nhunter2\n").unwrap();
    let error = load().unwrap_err().to_string();
    assert!(
        error.contains("line 2 of ") && !error.contains("hunter2"),
        "{error}"
    );
    std::fs::write(&path, "a=1\n".repeat(20_000)).unwrap();
    assert!(matches!(load(), Err(MetadataError::TooLong { .. })));
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(load(), Err(MetadataError::File { .. })));
}

#[test]
fn commands() {
    let load = |text: &str| load(&settings(MetadataSource::Command(text.to_owned()), true));
    let values = load("echo nerves_fw_uuid=u; echo nerves_fw_version=1").unwrap();
    assert_eq!(values.get("nerves_fw_uuid"), Some("u"));
    assert_eq!(
        load("echo broken >&2; exit 3").unwrap_err().to_string(),
        "firmware metadata: \"echo broken >&2; exit 3\" failed (exit status: 3): broken; \
         correct it or change NERVES_HUB_FIRMWARE_METADATA"
    );
    assert!(matches!(
        load("echo nonsense"),
        Err(MetadataError::Line { .. })
    ));
    assert!(matches!(
        load("yes a=1"),
        Err(MetadataError::Command {
            error: CommandError::TooLong { .. },
            ..
        })
    ));
}
