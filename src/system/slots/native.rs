//! Slot actions in the U-Boot environment alone.
//!
//! Owns which variables an action changes. For boot loaders that choose the slot by these
//! variables; where a partition table or a file decides, `ops.fw` has to do it.

use super::{Action, SlotError, SlotSettings, booted, refuse_when_stale};
use crate::config::MetadataSource;
use crate::system::metadata::KeyValues;
use crate::system::uboot_env::writer::{Change, Editor, WriteError};

/// What makes a slot firmware in the eyes of `ops.fw` and of [`revert`].
const IDENTITY: [&str; 3] = ["platform", "architecture", "uuid"];
/// The naming of Nerves and the one without its prefix.
const PREFIXES: [&str; 2] = ["nerves_fw_", "fw_"];

pub(super) fn perform(settings: &SlotSettings, action: Action) -> Result<(), SlotError> {
    if action == Action::FactoryReset {
        let ops_fw = settings.options.ops_fw.clone();
        return Err(SlotError::NeedsOps { action, ops_fw });
    }
    let running = booted(settings);
    let no_means = || SlotError::NoMeans {
        action,
        ops_fw: settings.options.ops_fw.clone(),
        source: settings.metadata.source.clone(),
    };
    edit(settings, no_means, |values| {
        refuse_when_stale(values, running.as_deref(), action)?;
        let refused = |reason| SlotError::Refused { action, reason };
        match action {
            Action::Validate => Ok(validate(values)),
            Action::Revert => revert(values).map_err(refused),
            Action::PreventRevert | Action::FactoryReset => prevent_revert(values).map_err(refused),
        }
    })
}

/// Records `slot`, which is running, as the active one. Marks outside slots were the other
/// slot's; left as they are, a boot loader would judge this one by them. The slot's own mark
/// is carried over, and a slot without one was good enough to install the other.
///
/// `unfinished` is a slot whose installation did not succeed: it has never been booted, so
/// that it is nothing to go back to, nor was it rolled back.
pub(super) fn record_active(
    settings: &SlotSettings,
    slot: &str,
    unfinished: Option<&str>,
) -> Result<(), SlotError> {
    let source = settings.metadata.source.clone();
    let read_only = || SlotError::ReadOnly { source };
    edit(settings, read_only, |values| {
        let mut changes = Vec::new();
        set_global(&mut changes, values, "active", slot);
        let mark = values.in_slot(slot, "validated").unwrap_or("1");
        if values.global("validated").is_some() {
            set_global(&mut changes, values, "validated", mark);
        }
        if mark != "0" {
            stop_counting(&mut changes, values);
        }
        if let Some(unfinished) = unfinished {
            forget(&mut changes, values, unfinished);
        }
        Ok(changes)
    })
}

/// Reads, decides and writes under one lock.
fn edit(
    settings: &SlotSettings,
    no_means: impl FnOnce() -> SlotError,
    decide: impl FnOnce(&KeyValues) -> Result<Vec<Change>, SlotError>,
) -> Result<(), SlotError> {
    let MetadataSource::Uboot { config } = &settings.metadata.source else {
        return Err(no_means());
    };
    let editor = match Editor::open(config) {
        // No environment was ever set up here: as good as any other source.
        Err(WriteError::Open(_)) if !config.exists() => return Err(no_means()),
        opened => opened.map_err(SlotError::Environment)?,
    };
    let changes = decide(&KeyValues::from(editor.values()))?;
    editor.write(&changes).map_err(SlotError::Environment)?;
    Ok(())
}

/// The names of a value kept outside slots: each that is there, else the one that fits the
/// environment's other names.
fn set_global(changes: &mut Vec<Change>, values: &KeyValues, name: &str, value: &str) {
    let has = |prefix: &str, name: &str| values.get(&format!("{prefix}{name}")).is_some();
    let mut prefixes: Vec<&str> = PREFIXES.into_iter().filter(|p| has(p, name)).collect();
    if prefixes.is_empty() {
        let known = ["active", "uuid", "version"];
        let speaks = |prefix: &&&str| known.iter().any(|name| has(prefix, name));
        prefixes.push(PREFIXES.iter().find(speaks).unwrap_or(&PREFIXES[0]));
    }
    for prefix in prefixes {
        changes.push((format!("{prefix}{name}"), Some(value.to_owned())));
    }
}

/// Both names of a slot's value, where they are there.
fn set_in_slot(
    changes: &mut Vec<Change>,
    values: &KeyValues,
    slot: &str,
    name: &str,
    value: Option<&str>,
) {
    for prefix in PREFIXES {
        let key = format!("{slot}.{prefix}{name}");
        if values.get(&key).is_some() {
            changes.push((key, value.map(str::to_owned)));
        }
    }
}

/// Tells every kind of boot loader that `slot` is good.
fn accept(changes: &mut Vec<Change>, values: &KeyValues, slot: Option<&str>) {
    if let Some(slot) = slot {
        set_in_slot(changes, values, slot, "validated", Some("1"));
    }
    stop_counting(changes, values);
}

/// Ends U-Boot's count of attempts to boot, where it keeps one.
fn stop_counting(changes: &mut Vec<Change>, values: &KeyValues) {
    if values.get("upgrade_available").is_some() {
        for name in ["upgrade_available", "bootcount"] {
            changes.push((name.to_owned(), Some("0".to_owned())));
        }
    }
}

fn validate(values: &KeyValues) -> Vec<Change> {
    let mut changes = Vec::new();
    set_global(&mut changes, values, "validated", "1");
    accept(&mut changes, values, values.global("active"));
    changes
}

fn revert(values: &KeyValues) -> Result<Vec<Change>, String> {
    let (active, other) = pair(values)?;
    if !holds_firmware(values, active, &other) {
        return Err(format!(
            "slot {other} holds no firmware to go back to (no {other}.nerves_fw_uuid, platform or \
             architecture); install an update instead"
        ));
    }
    let mut changes = Vec::new();
    set_global(&mut changes, values, "active", &other);
    if values.global("validated").is_some() {
        set_global(&mut changes, values, "validated", "1");
    }
    accept(&mut changes, values, Some(&other));
    Ok(changes)
}

/// As `ops.fw` of Nerves systems does, which also erases the slot's partition.
fn prevent_revert(values: &KeyValues) -> Result<Vec<Change>, String> {
    let (_, other) = pair(values)?;
    let mut changes = Vec::new();
    forget(&mut changes, values, &other);
    Ok(changes)
}

/// What the slot holds is no firmware any more.
fn forget(changes: &mut Vec<Change>, values: &KeyValues, slot: &str) {
    for name in IDENTITY {
        set_in_slot(changes, values, slot, name, None);
    }
}

/// The active slot and the other one.
fn pair(values: &KeyValues) -> Result<(&str, String), String> {
    let active = values
        .global("active")
        .ok_or("no slot is recorded as active (nerves_fw_active)")?;
    let others: Vec<String> = values.slots().into_iter().filter(|s| s != active).collect();
    let other = match (active, others.as_slice()) {
        (_, [other]) => other.clone(),
        ("a", []) => "b".to_owned(),
        ("b", []) => "a".to_owned(),
        (_, []) => return Err(format!("there is no other slot than {active}")),
        (_, many) => return Err(format!("more than one other slot: {}", many.join(", "))),
    };
    Ok((active, other))
}

/// Platform and architecture tell it, as for `ops.fw`; on systems that record neither, the
/// uuid.
fn holds_firmware(values: &KeyValues, active: &str, slot: &str) -> bool {
    let has = |slot: &str, name: &str| values.in_slot(slot, name).is_some();
    let needed = match has(active, "platform") && has(active, "architecture") {
        true => &IDENTITY[..2],
        false => &IDENTITY[2..],
    };
    needed.iter().all(|name| has(slot, name))
}
