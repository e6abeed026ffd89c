//! Hooks: programs of the integrator's that are run, or asked, when something happens.
//!
//! Owns their names, which are an interface, and where each of them is. Runs none.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::reader::Reader;
use super::table::{Setting, setting};

/// What there is a hook for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    Configure,
    UpdateAvailable,
    UpdateProgress,
    UpdateCompleted,
    UpdateFailed,
    RebootRequest,
    ArchiveAvailable,
    ArchiveReady,
    Connected,
    Disconnected,
    ReconnectBackoff,
    Identify,
    FirmwareValidated,
    FirmwareAutoRevertDetected,
}

impl Hook {
    pub const ALL: [Self; 14] = [
        Self::Configure,
        Self::UpdateAvailable,
        Self::UpdateProgress,
        Self::UpdateCompleted,
        Self::UpdateFailed,
        Self::RebootRequest,
        Self::ArchiveAvailable,
        Self::ArchiveReady,
        Self::Connected,
        Self::Disconnected,
        Self::ReconnectBackoff,
        Self::Identify,
        Self::FirmwareValidated,
        Self::FirmwareAutoRevertDetected,
    ];

    /// Of its file in the folder of hooks.
    pub fn name(self) -> &'static str {
        match self {
            Self::Configure => "configure",
            Self::UpdateAvailable => "update-available",
            Self::UpdateProgress => "update-progress",
            Self::UpdateCompleted => "update-completed",
            Self::UpdateFailed => "update-failed",
            Self::RebootRequest => "reboot-request",
            Self::ArchiveAvailable => "archive-available",
            Self::ArchiveReady => "archive-ready",
            Self::Connected => "connected",
            Self::Disconnected => "disconnected",
            Self::ReconnectBackoff => "reconnect-backoff",
            Self::Identify => "identify",
            Self::FirmwareValidated => "firmware-validated",
            Self::FirmwareAutoRevertDetected => "firmware-auto-revert-detected",
        }
    }

    /// The setting that names another file.
    fn row(self) -> &'static Setting {
        match self {
            Self::Configure => setting!("NERVES_HUB_HOOK_CONFIGURE"),
            Self::UpdateAvailable => setting!("NERVES_HUB_HOOK_UPDATE_AVAILABLE"),
            Self::UpdateProgress => setting!("NERVES_HUB_HOOK_UPDATE_PROGRESS"),
            Self::UpdateCompleted => setting!("NERVES_HUB_HOOK_UPDATE_COMPLETED"),
            Self::UpdateFailed => setting!("NERVES_HUB_HOOK_UPDATE_FAILED"),
            Self::RebootRequest => setting!("NERVES_HUB_HOOK_REBOOT_REQUEST"),
            Self::ArchiveAvailable => setting!("NERVES_HUB_HOOK_ARCHIVE_AVAILABLE"),
            Self::ArchiveReady => setting!("NERVES_HUB_HOOK_ARCHIVE_READY"),
            Self::Connected => setting!("NERVES_HUB_HOOK_CONNECTED"),
            Self::Disconnected => setting!("NERVES_HUB_HOOK_DISCONNECTED"),
            Self::ReconnectBackoff => setting!("NERVES_HUB_HOOK_RECONNECT_BACKOFF"),
            Self::Identify => setting!("NERVES_HUB_HOOK_IDENTIFY"),
            Self::FirmwareValidated => setting!("NERVES_HUB_HOOK_FIRMWARE_VALIDATED"),
            Self::FirmwareAutoRevertDetected => {
                setting!("NERVES_HUB_HOOK_FIRMWARE_AUTO_REVERT_DETECTED")
            }
        }
    }
}

/// Where hooks are, and how long one may take.
#[derive(Clone, Debug, Default)]
pub struct HookSettings {
    pub folder: PathBuf,
    pub timeout: Duration,
    /// Set one by one; no path: switched off.
    pub each: Vec<(Hook, Option<PathBuf>)>,
}

impl HookSettings {
    /// Its file, and whether a setting names it: then it should exist. `None`: switched off.
    pub fn path(&self, hook: Hook) -> Option<(PathBuf, bool)> {
        match self.each.iter().find(|(other, _)| *other == hook) {
            Some((_, path)) => path.clone().map(|path| (path, true)),
            None => Some((self.folder.join(hook.name()), false)),
        }
    }
}

/// For the hook that is run before the settings are read; what is wrong with them is said
/// then.
pub fn early(env: impl Iterator<Item = (OsString, OsString)>) -> HookSettings {
    read(&mut Reader::new(env))
}

pub(super) fn read(r: &mut Reader) -> HookSettings {
    let mut each = Vec::new();
    for hook in Hook::ALL {
        if let Some(path) = r.path(hook.row()) {
            each.push((hook, (path != Path::new("none")).then_some(path)));
        }
    }
    HookSettings {
        folder: r.path(setting!("NERVES_HUB_HOOKS_DIR")).unwrap_or_default(),
        timeout: r.duration(setting!("NERVES_HUB_HOOK_TIMEOUT")),
        each,
    }
}
