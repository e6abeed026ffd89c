//! The record under an installation: looked at before, put right after.

use super::*;

/// The agent started with these lines, slot a running.
fn guarding(lines: &str) -> (Device, Guard) {
    let device = Device::new(lines);
    let values = metadata::load(&device.settings.metadata).unwrap();
    let guard = Guard::new(device.settings.clone(), Some("a".to_owned()), &values);
    (device, guard)
}

/// The same, over an environment that has changed since.
fn after(before: &str, lines: &str) -> (Device, Guard) {
    let (_, mut guard) = guarding(before);
    let device = Device::new(lines);
    guard.settings = device.settings.clone();
    (device, guard)
}

fn a() -> String {
    NERVES.replace("active=b", "active=a")
}

#[test]
fn nothing_is_written_over_the_running_slot() {
    let (_device, guard) = guarding(&a());
    assert_eq!(guard.aim(), Ok(Some("/dev/null".into())));
    let (_device, guard) = after(&a(), &a().replace("/dev/null", "/dev/other"));
    assert_eq!(guard.aim(), Ok(Some("/dev/other".into())));
    for (lines, reason) in [
        (NERVES, "recorded as b but a is running"),
        (&a().replace("nerves_fw_active", "x"), "no slot is recorded"),
    ] {
        let (_device, guard) = after(&a(), lines);
        let error = guard.aim().unwrap_err();
        assert!(error.contains(reason), "{error}");
    }
    // A record that cannot be read may have changed.
    let (device, mut guard) = guarding(&a());
    guard.settings.fwup.devpath = Some("/dev/set".into());
    assert_eq!(guard.aim(), Ok(Some("/dev/set".into())));
    for explicit in [true, false] {
        guard.settings.metadata.explicit = explicit;
        device.write("env", "");
        assert!(guard.aim().is_err());
        assert!(!guard.take_back("ub"));
        assert_eq!(guard.record(), None);
    }
}

#[test]
fn without_a_record_there_is_nothing_to_change() {
    let device = Device::new("");
    device.write("env", "");
    let mut guard = Guard::new(device.settings, Some("a".into()), &KeyValues::default());
    guard.settings.fwup.devpath = Some("/dev/set".into());
    assert_eq!(guard.aim(), Ok(Some("/dev/set".into())));
    assert!(guard.take_back("u"));
}

#[test]
fn a_switch_is_taken_back_with_the_slot_it_was_to() {
    let lines = format!("{NERVES}b.nerves_fw_validated=0\nupgrade_available=1\n");
    let (device, guard) = guarding(&lines);
    let record = guard.record().unwrap();
    assert_eq!(
        (record.active, record.uuid),
        (Some("b".into()), Some("ub".into()))
    );
    assert!(guard.take_back("ub"));
    let values = KeyValues::from(device.values());
    let firmware = values.firmware(&BTreeMap::new(), None);
    assert_eq!(firmware.uuid.as_deref(), Some("ua"));
    // Neither on trial nor rolled back.
    assert!(firmware.validated && !firmware.auto_revert_detected);
    assert!(revert(&device.settings).unwrap_err().is_unavailable());
    let before = device.values();
    assert!(guard.take_back("ub"));
    assert_eq!(device.values(), before);
}

#[test]
fn what_an_installation_cannot_have_changed_is_left_alone() {
    let (device, guard) = guarding(NERVES);
    let before = device.values();
    assert!(!guard.take_back("another"));
    assert_eq!(device.values(), before);
    // A description that is only read.
    let (device, mut guard) = guarding(NERVES);
    device.write("metadata", NERVES);
    guard.settings.metadata.source = MetadataSource::File(device.path("metadata"));
    assert!(!guard.take_back("ub"));
}
