//! What the running firmware is: the Nerves key conventions.
//!
//! Owns loading the key-value store from its source and reading the active slot out of
//! it. Reads only; runs at most one command, under a deadline.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use super::command::{self, CommandError};
pub use super::kv::KeyValues;
use super::uboot_env::{UbootEnv, UbootEnvError};
use crate::config::{MetadataSettings, MetadataSource};

/// Deadline of a metadata command.
const DEADLINE: Duration = Duration::from_secs(10);
/// Most bytes taken from a file or command.
const CAP: usize = 64 * 1024;
/// Keys outside a slot that describe the firmware. Everything else there (settings,
/// serial numbers, secrets) is nobody's business but the device's.
const DESCRIPTION: [&str; 11] = [
    "uuid",
    "product",
    "version",
    "platform",
    "architecture",
    "author",
    "description",
    "vcs_identifier",
    "misc",
    "creation_date",
    "nickname",
];

/// Why there is no metadata.
#[derive(Debug)]
pub enum MetadataError {
    Uboot(UbootEnvError),
    /// The file cannot be read.
    File {
        path: PathBuf,
        error: io::Error,
    },
    /// More than 64 KiB.
    TooLong {
        path: PathBuf,
    },
    /// A line that is not `key=value`. The line itself may be a secret.
    Line {
        source: String,
        number: usize,
    },
    /// The command gave no output.
    Command {
        command: String,
        error: CommandError,
    },
    /// The command exited with another status than zero.
    CommandFailed {
        command: String,
        status: ExitStatus,
        stderr: String,
    },
}

impl fmt::Display for MetadataError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("firmware metadata: ")?;
        match self {
            Self::Uboot(error) => write!(f, "{error}")?,
            Self::File { path, error } => write!(f, "cannot read {}: {error}", path.display())?,
            Self::TooLong { path } => write!(f, "{} is larger than 64 KiB", path.display())?,
            Self::Line { source, number } => {
                write!(f, "line {number} of {source} is not key=value")?;
            }
            Self::Command { command, error } => write!(f, "{command:?}: {error}")?,
            Self::CommandFailed {
                command,
                status,
                stderr,
            } => write!(f, "{command:?} failed ({status}): {}", stderr.trim())?,
        }
        f.write_str("; correct it or change NERVES_HUB_FIRMWARE_METADATA")
    }
}

impl std::error::Error for MetadataError {}

/// Reads the key-value store from where the settings say, logging a warning when the
/// default place has none.
pub fn load(settings: &MetadataSettings) -> Result<KeyValues, MetadataError> {
    let (values, warning) = load_with_warning(settings)?;
    if let Some(warning) = warning {
        warn!("{warning}");
    }
    Ok(values)
}

/// [`load`], with the warning given back.
///
/// A source that was set and fails is an error. The default one failing is a warning and
/// an empty store: the device may have none, or have lost it, and must stay reachable.
pub fn load_with_warning(
    settings: &MetadataSettings,
) -> Result<(KeyValues, Option<String>), MetadataError> {
    match load_source(&settings.source) {
        Ok(values) => Ok((values, None)),
        Err(error) if settings.explicit => Err(error),
        Err(error) => Ok((KeyValues::default(), Some(error.to_string()))),
    }
}

fn load_source(source: &MetadataSource) -> Result<KeyValues, MetadataError> {
    match source {
        MetadataSource::Uboot { config } => UbootEnv::open(config)
            .map(|env| KeyValues(env.values()))
            .map_err(MetadataError::Uboot),
        MetadataSource::File(path) => load_file(path),
        MetadataSource::Command(command) => load_command(command),
        MetadataSource::Env => Ok(KeyValues::default()),
    }
}

fn load_file(path: &Path) -> Result<KeyValues, MetadataError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(CAP as u64 + 1).read_to_end(&mut bytes))
        .map_err(|error| MetadataError::File {
            path: path.to_owned(),
            error,
        })?;
    if bytes.len() > CAP {
        return Err(MetadataError::TooLong {
            path: path.to_owned(),
        });
    }
    lines(&bytes, || path.display().to_string())
}

fn load_command(text: &str) -> Result<KeyValues, MetadataError> {
    let output = command::capture(&mut command::shell(text), DEADLINE, CAP).map_err(|error| {
        MetadataError::Command {
            command: text.to_owned(),
            error,
        }
    })?;
    if !output.status.success() {
        return Err(MetadataError::CommandFailed {
            command: text.to_owned(),
            status: output.status,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        });
    }
    lines(&output.stdout, || format!("the output of {text:?}"))
}

fn lines(bytes: &[u8], source: impl Fn() -> String) -> Result<KeyValues, MetadataError> {
    KeyValues::parse_lines(&String::from_utf8_lossy(bytes)).map_err(|number| MetadataError::Line {
        source: source(),
        number,
    })
}

/// The running firmware.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Firmware {
    /// For the join payload: every `nerves_fw_*` of the active slot without its prefix,
    /// and the description kept outside slots.
    pub keys: BTreeMap<String, String>,
    /// `nerves_fw_uuid`.
    pub uuid: Option<String>,
    /// The running slot, else `nerves_fw_active`.
    pub slot: Option<String>,
    /// Unknown counts as validated.
    pub validated: bool,
    /// The other slot holds firmware that was tried and never validated.
    pub auto_revert_detected: bool,
    /// `nerves_fw_devpath`: where updates are written.
    pub devpath: Option<PathBuf>,
}

impl Firmware {
    /// A key of the join payload without its `nerves_fw_`, such as `version`; empty
    /// values count as absent.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.keys
            .get(&format!("nerves_fw_{name}"))
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }
}

impl KeyValues {
    /// The running firmware's description: that of slot `booted` where it is known, else of
    /// the slot recorded as active; with `overrides` (names without prefix, from
    /// `NERVES_HUB_FIRMWARE_*`) on top.
    pub fn firmware(&self, overrides: &BTreeMap<String, String>, booted: Option<&str>) -> Firmware {
        let active = self.global("active");
        let slot = booted.or(active);
        // Between an update and its reboot the other slot is new rather than rolled back,
        // and marks outside slots are its.
        let recorded = active.is_none() || slot == active;
        let own_mark = |slot| self.in_slot(slot, "validated") != Some("0");
        let mut firmware = Firmware {
            keys: self.active_keys(slot, overrides),
            uuid: None,
            slot: slot.map(str::to_owned),
            validated: match slot {
                Some(slot) if !recorded => own_mark(slot),
                _ => self.is_validated(slot),
            },
            auto_revert_detected: recorded && self.is_auto_reverted(slot),
            devpath: self
                .global("devpath")
                .or_else(|| self.in_slot(slot?, "devpath"))
                .map(PathBuf::from),
        };
        firmware.uuid = firmware.get("uuid").map(str::to_owned);
        let on = |key| overrides.get(key).map(|value| value == "1");
        firmware.validated = on("validated").unwrap_or(firmware.validated);
        firmware.auto_revert_detected =
            on("auto_revert_detected").unwrap_or(firmware.auto_revert_detected);
        firmware
    }

    /// From weak to strong: outside slots, active slot, overrides; in each the names with
    /// `nerves_` win over those without.
    fn active_keys(
        &self,
        slot: Option<&str>,
        overrides: &BTreeMap<String, String>,
    ) -> BTreeMap<String, String> {
        let mut keys = BTreeMap::new();
        let mut add = |name: &str, value: &str| {
            keys.insert(format!("nerves_fw_{name}"), value.to_owned());
        };
        for name in DESCRIPTION {
            if let Some(value) = self.global(name) {
                add(name, value);
            }
        }
        for prefix in slot
            .iter()
            .flat_map(|slot| [format!("{slot}.fw_"), format!("{slot}.nerves_fw_")])
        {
            for (key, value) in &self.0 {
                if let Some(name) = key.strip_prefix(&prefix) {
                    add(name, value);
                }
            }
        }
        for name in DESCRIPTION {
            if let Some(value) = overrides.get(name) {
                add(name, value);
            }
        }
        keys
    }

    /// `nerves_fw_NAME`, else `fw_NAME`.
    pub(super) fn global(&self, name: &str) -> Option<&str> {
        self.get(&format!("nerves_fw_{name}"))
            .or_else(|| self.get(&format!("fw_{name}")))
    }

    /// `SLOT.nerves_fw_NAME`, else `SLOT.fw_NAME`.
    pub(super) fn in_slot(&self, slot: &str, name: &str) -> Option<&str> {
        self.get(&format!("{slot}.nerves_fw_{name}"))
            .or_else(|| self.get(&format!("{slot}.fw_{name}")))
    }

    /// Every slot that is described or recorded as active, in order.
    pub(super) fn slots(&self) -> Vec<String> {
        let described = self.0.keys().filter_map(|key| {
            let (slot, name) = key.split_once('.')?;
            (name.starts_with("nerves_fw_") || name.starts_with("fw_")).then_some(slot)
        });
        let mut slots = Vec::<String>::new();
        for slot in described.chain(self.global("active")) {
            // There are a few: a set would be 3 KiB of code.
            let place = slots.partition_point(|other| other.as_str() < slot);
            if !slot.is_empty() && slots.get(place).is_none_or(|other| other != slot) {
                slots.insert(place, slot.to_owned());
            }
        }
        slots
    }

    /// `upgrade_available` decides when it is 0 or 1, else the active slot's mark, else
    /// the global one; unknown counts as yes.
    pub(super) fn is_validated(&self, slot: Option<&str>) -> bool {
        match self.get("upgrade_available") {
            Some("0") => return true,
            Some("1") => return false,
            _ => {}
        }
        let mark = slot
            .and_then(|slot| self.in_slot(slot, "validated"))
            .or_else(|| self.global("validated"));
        mark != Some("0")
    }

    fn is_auto_reverted(&self, slot: Option<&str>) -> bool {
        let other = match slot {
            Some("a") => "b",
            Some("b") => "a",
            _ => return false,
        };
        self.in_slot(other, "validated") == Some("0")
            && self.in_slot(other, "platform").is_some()
            && self.in_slot(other, "architecture").is_some()
    }
}

#[cfg(test)]
mod tests;
