//! The firmware slots: which one runs, marking it good, going back to the other.
//!
//! Owns who carries an action out: the installer's own program, else the device's `ops.fw`
//! (the device's maker knows best), else the U-Boot environment. Blocks: not for the
//! dispatcher thread. Every action may be repeated.

mod describe;
mod guard;
mod native;
mod program;
mod running;

use std::fmt;
use std::io::ErrorKind;
use std::path::PathBuf;

use super::metadata::{self, KeyValues, MetadataError};
use super::uboot_env::UbootEnvError;
use super::uboot_env::writer::WriteError;
use crate::config::{
    Config, FwupSettings, Installer, MetadataSettings, MetadataSource, SlotOptions,
};
pub use describe::{Description, Slot, describe};
pub use guard::{Guard, Record};
pub use running::{Running, booted, disagreement, reconcile};

/// Where slots are looked for and how they are changed.
#[derive(Clone, Debug)]
pub struct SlotSettings {
    pub options: SlotOptions,
    pub metadata: MetadataSettings,
    pub fwup: FwupSettings,
    /// A program that installs firmware in fwup's place: `PROGRAM confirm` validates.
    pub installer_command: Option<PathBuf>,
    /// `/proc/cmdline`.
    pub command_line: PathBuf,
    /// `/proc/self/mountinfo`.
    pub mounts: PathBuf,
}

impl SlotSettings {
    pub fn new(config: &Config) -> Self {
        Self {
            options: config.slots.clone(),
            metadata: config.metadata.clone(),
            fwup: config.fwup.clone(),
            installer_command: match &config.fwup.installer {
                Installer::Fwup => None,
                Installer::Command(path) => Some(path.clone()),
            },
            command_line: PathBuf::from("/proc/cmdline"),
            mounts: PathBuf::from("/proc/self/mountinfo"),
        }
    }
}

/// What can be done with slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Validate,
    Revert,
    PreventRevert,
    FactoryReset,
}

impl Action {
    /// Its name on the command line, and its task in `ops.fw`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Validate => "validate",
            Self::Revert => "revert",
            Self::PreventRevert => "prevent-revert",
            Self::FactoryReset => "factory-reset",
        }
    }
}

/// Why an action was not done, or slots are not known.
#[derive(Debug)]
pub enum SlotError {
    /// The slots as they are do not allow it.
    Refused { action: Action, reason: String },
    /// Only `ops.fw` could do it.
    NeedsOps { action: Action, ops_fw: PathBuf },
    /// Neither `ops.fw` nor an environment to write.
    NoMeans {
        action: Action,
        ops_fw: PathBuf,
        source: MetadataSource,
    },
    /// The record is kept where it cannot be changed.
    ReadOnly { source: MetadataSource },
    /// `ops.fw` is there, but nothing to apply it to.
    NoDevice { action: Action },
    /// A program failed.
    Program { program: String, problem: String },
    /// The environment cannot be read or written.
    Environment(WriteError),
    /// Nothing describes the slots.
    Metadata(MetadataError),
    /// The metadata knows no slots.
    NoSlots,
}

impl fmt::Display for SlotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { action, reason } => write!(f, "{}: {reason}", action.name()),
            Self::NeedsOps { action, ops_fw } => write!(
                f,
                "{} needs an archive with a task for it, and there is no {}; install one or set \
                 NERVES_HUB_OPS_FW",
                action.name(),
                ops_fw.display()
            ),
            Self::NoMeans {
                action,
                ops_fw,
                source,
            } => write!(
                f,
                "{}: there is no {}, and the firmware's description ({source}) cannot be changed; \
                 install that archive, set NERVES_HUB_OPS_FW, or keep the description in the \
                 U-Boot environment (NERVES_HUB_FIRMWARE_METADATA=uboot)",
                action.name(),
                ops_fw.display()
            ),
            Self::ReadOnly { source } => write!(
                f,
                "it is kept in a {source}, which the agent only reads; keep it in the U-Boot \
                 environment (NERVES_HUB_FIRMWARE_METADATA=uboot)"
            ),
            Self::NoDevice { action } => write!(
                f,
                "{}: no device to apply the archive to; set NERVES_HUB_FWUP_DEVPATH, or \
                 nerves_fw_devpath in the metadata",
                action.name()
            ),
            Self::Program { program, problem } => write!(f, "{program}: {problem}"),
            Self::Environment(error) => write!(f, "{error}"),
            Self::Metadata(error) => write!(f, "{error}"),
            Self::NoSlots => f.write_str(
                "the firmware metadata knows no slots (nerves_fw_active, a.nerves_fw_uuid, …); \
                 check NERVES_HUB_FIRMWARE_METADATA",
            ),
        }
    }
}

impl std::error::Error for SlotError {}

impl SlotError {
    /// Whether this device cannot do it at all, as opposed to having failed at it.
    pub fn is_unavailable(&self) -> bool {
        match self {
            Self::Refused { .. }
            | Self::NeedsOps { .. }
            | Self::NoMeans { .. }
            | Self::ReadOnly { .. }
            | Self::NoDevice { .. }
            | Self::NoSlots => true,
            Self::Environment(error) => match error {
                WriteError::Open(UbootEnvError::Config { .. })
                | WriteError::TooLarge { .. }
                | WriteError::Overlap { .. } => true,
                WriteError::Device { error, .. } => error.kind() == ErrorKind::Unsupported,
                _ => false,
            },
            Self::Program { .. } | Self::Metadata(_) => false,
        }
    }
}

/// Marks the running firmware as good: the boot loader stays with it.
///
/// # Errors
/// See [`SlotError`]; the mark is then not set.
pub fn validate(settings: &SlotSettings) -> Result<(), SlotError> {
    match &settings.installer_command {
        Some(path) => program::confirm(path),
        None => perform(settings, Action::Validate),
    }
}

/// Makes the other slot the active one from the next boot on.
///
/// # Errors
/// See [`SlotError`]; the active slot is then as before.
pub fn revert(settings: &SlotSettings) -> Result<(), SlotError> {
    perform(settings, Action::Revert)
}

/// Makes the other slot useless to go back to.
///
/// # Errors
/// See [`SlotError`].
pub fn prevent_revert(settings: &SlotSettings) -> Result<(), SlotError> {
    perform(settings, Action::PreventRevert)
}

/// Erases what the device's maker counts as data.
///
/// # Errors
/// See [`SlotError`].
pub fn factory_reset(settings: &SlotSettings) -> Result<(), SlotError> {
    perform(settings, Action::FactoryReset)
}

fn perform(settings: &SlotSettings, action: Action) -> Result<(), SlotError> {
    let Some((archive, task)) = program::archive(&settings.options.ops_fw, action) else {
        return native::perform(settings, action);
    };
    let values = metadata::load(&settings.metadata).unwrap_or_else(|error| {
        // The archive may do without, given a device path.
        warn!("{error}");
        KeyValues::default()
    });
    refuse_when_stale(&values, booted(settings).as_deref(), action)?;
    let firmware = values.firmware(&settings.metadata.overrides, None);
    let devpath = settings.fwup.devpath.clone().or(firmware.devpath);
    let devpath = devpath.ok_or(SlotError::NoDevice { action })?;
    program::apply(&settings.fwup, &archive, task, &devpath)
}

/// Marks belong to the slot that is recorded as active. While another one runs, as between
/// an update and its reboot, they would hit firmware that has never run.
fn refuse_when_stale(
    values: &KeyValues,
    booted: Option<&str>,
    action: Action,
) -> Result<(), SlotError> {
    if !matches!(action, Action::Validate | Action::PreventRevert) {
        return Ok(());
    }
    match disagreement(values, booted) {
        None => Ok(()),
        Some((active, booted)) => Err(SlotError::Refused {
            action,
            reason: format!(
                "slot {booted} is running while {active} is recorded as active; reboot first, or \
                 let the agent correct the record (NERVES_HUB_STALE_SLOT=correct)"
            ),
        }),
    }
}

#[cfg(test)]
mod tests;
