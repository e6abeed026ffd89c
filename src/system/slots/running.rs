//! Which slot is running, and what follows when the record says another one.
//!
//! Owns the sources: the setting, the kernel command line, the root device. Reads only,
//! but for the correction of the record when that is asked for.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use nix::sys::stat::{major, minor};

use super::{SlotSettings, native};
use crate::system::metadata::{self, KeyValues};

/// What the agent starts with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Running {
    /// The running slot, when that is known.
    pub slot: Option<String>,
    /// Why no update may be installed: it would overwrite the running slot.
    pub stale: Option<String>,
}

/// The running slot: as set, else by `fw_slot` or `nerves_fw_slot` of the kernel's command
/// line, else by the root device.
pub fn booted(settings: &SlotSettings) -> Option<String> {
    if let Some(slot) = &settings.options.booted {
        return Some(slot.clone());
    }
    let command_line = fs::read_to_string(&settings.command_line).unwrap_or_default();
    let word = |name: &str| {
        command_line
            .split_whitespace()
            .filter_map(|word| word.split_once('='))
            .filter(|(key, value)| *key == name && !value.is_empty())
            .map(|(_, value)| value.to_owned())
            // The kernel, too, takes the last of several.
            .next_back()
    };
    word("nerves_fw_slot")
        .or_else(|| word("fw_slot"))
        .or_else(|| by_root(settings, word("root")))
}

fn by_root(settings: &SlotSettings, root: Option<String>) -> Option<String> {
    let roots = &settings.options.roots;
    if roots.is_empty() {
        return None;
    }
    let named = root.and_then(|root| {
        let same = |device: &str| device == root || resolve(device) == resolve(&root);
        roots.iter().find(|(_, device)| same(device))
    });
    let mounts = || fs::read_to_string(&settings.mounts).unwrap_or_default();
    let found = named.or_else(|| {
        let (number, source) = mounted_at_root(&mounts())?;
        let same = |device: &str| {
            let path = resolve(device);
            device_number(&path).is_some_and(|own| own == number) || path == resolve(&source)
        };
        roots.iter().find(|(_, device)| same(device))
    });
    found.map(|(slot, _)| slot.clone())
}

/// `major:minor` and source of what is mounted at `/`; the last mount hides the others.
fn mounted_at_root(mounts: &str) -> Option<(String, String)> {
    mounts
        .lines()
        .filter_map(|line| {
            let (mount, source) = line.split_once(" - ")?;
            let mut fields = mount.split(' ');
            let number = fields.nth(2)?;
            let place = fields.nth(1)?;
            let source = source.split(' ').nth(1)?;
            (place == "/").then(|| (number.to_owned(), source.to_owned()))
        })
        .next_back()
}

/// The file behind links and `PARTUUID=…`; the text itself where there is none.
fn resolve(device: &str) -> PathBuf {
    let path = match device.split_once('=') {
        Some((tag @ ("PARTUUID" | "UUID" | "LABEL" | "PARTLABEL"), value)) => {
            let folder = format!("/dev/disk/by-{}", tag.to_ascii_lowercase());
            Path::new(&folder).join(value)
        }
        _ => PathBuf::from(device),
    };
    fs::canonicalize(path).unwrap_or_else(|_| PathBuf::from(device))
}

fn device_number(path: &Path) -> Option<String> {
    let about = fs::metadata(path).ok()?;
    let number = about.rdev();
    let is_block = about.file_type().is_block_device();
    is_block.then(|| format!("{}:{}", major(number), minor(number)))
}

/// The slot recorded as active and the one that is running, when they differ.
pub fn disagreement<'a>(
    values: &'a KeyValues,
    booted: Option<&'a str>,
) -> Option<(&'a str, &'a str)> {
    let (active, booted) = (values.global("active")?, booted?);
    (active != booted).then_some((active, booted))
}

/// Why no update is installed then.
pub(super) fn stale(active: &str, running: &str) -> String {
    format!(
        "the active slot is recorded as {active} but {running} is running; an update would \
         overwrite the running slot; reboot, or set NERVES_HUB_STALE_SLOT=correct"
    )
}

/// For the agent's start: the running slot, and `values` with the record corrected where
/// that is asked for and possible.
///
/// A record that differs is normal between an update and its reboot. The agent may start
/// in between, and knows of its own updates only, which is why the correction, which undoes
/// the switch, is not the default.
pub fn reconcile(settings: &SlotSettings, values: KeyValues) -> (KeyValues, Running) {
    let slot = booted(settings);
    let Some((active, running)) = disagreement(&values, slot.as_deref()) else {
        return (values, Running { slot, stale: None });
    };
    let mut reason = stale(active, running);
    if settings.options.correct_stale {
        match native::record_active(settings, running, None) {
            Ok(()) => {
                warn!(
                    "the active slot was recorded as {active} but {running} is running; \
                     recorded {running}"
                );
                let values = metadata::load(&settings.metadata).unwrap_or(values);
                return (values, Running { slot, stale: None });
            }
            Err(error) => {
                reason = format!(
                    "the active slot is recorded as {active} but {running} is running, and the \
                     record cannot be corrected: {error}"
                );
            }
        }
    }
    warn!("updates are refused: {reason}");
    let stale = Some(reason);
    (values, Running { slot, stale })
}
