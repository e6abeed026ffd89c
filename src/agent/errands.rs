//! Errands: one command or look-up each, on a thread of its own, answered by one event.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::{Agent, hooks};
use crate::config::Installer;
use crate::core::event::{Counted, Errand, Event, Worker};
use crate::system::hook::Site;
use crate::system::slots::{self, SlotSettings};
use crate::system::{command, durable, firmware_file, metadata, reboot, tally};

/// `fwup --version` answers within this, or there is no usable fwup.
const FWUP_VERSION_DEADLINE: Duration = Duration::from_secs(5);
/// The integrator's check of the running firmware is killed after this.
const FIRMWARE_CHECK_DEADLINE: Duration = Duration::from_secs(60);
const COMMAND_OUTPUT: usize = 64 * 1024;

impl Agent {
    pub(super) fn read_fwup_version(&mut self) {
        if self.config.fwup.installer != Installer::Fwup {
            return self.own.push_back(Event::FwupVersionRead(None));
        }
        let path = self.config.fwup.path.clone();
        self.errand(Errand::FwupVersion, move || {
            let mut program = Command::new(&path);
            program.arg("--version");
            command::without_secrets(&mut program);
            let output = command::capture(&mut program, FWUP_VERSION_DEADLINE, COMMAND_OUTPUT);
            let version = match output {
                Ok(output) if output.status.success() => {
                    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
                }
                Ok(output) => {
                    error!("{} --version: {}", path.display(), output.status);
                    None
                }
                Err(error) => {
                    error!("{error}");
                    None
                }
            };
            Event::FwupVersionRead(version.filter(|version| !version.is_empty()))
        });
    }

    pub(super) fn read_firmware(&mut self, path: PathBuf, public_keys: Vec<String>) {
        let installer = self.config.fwup.installer.clone();
        let fwup = self.config.fwup.path.clone();
        self.errand(Errand::FirmwareFile, move || {
            let fwup = matches!(installer, Installer::Fwup).then_some(&*fwup);
            Event::FirmwareRead(firmware_file::describe(&path, fwup, &public_keys))
        });
    }

    pub(super) fn read_validation(&mut self) {
        let (settings, hooks) = (SlotSettings::new(&self.config), self.hooks.clone());
        self.errand(Errand::Validation, move || {
            Event::ValidationRead(is_validated(&settings, &hooks))
        });
    }

    pub(super) fn check_firmware(&mut self, text: String) {
        self.errand(Errand::FirmwareCheck, move || {
            Event::FirmwareChecked(run("NERVES_HUB_VALIDATE", &text, FIRMWARE_CHECK_DEADLINE))
        });
    }

    pub(super) fn mark_valid(&mut self) {
        let settings = SlotSettings::new(&self.config);
        self.errand(Errand::MarkValid, move || {
            Event::ValidMarked(slots::validate(&settings).map_err(|error| error.to_string()))
        });
    }

    pub(super) fn count_trial_reboot(&mut self, uuid: String, number: u64) {
        let (settings, hooks) = (SlotSettings::new(&self.config), self.hooks.clone());
        let path = tally::path(&self.config.data_path);
        self.errand(Errand::CountTrialReboot, move || {
            Event::TrialRebootCounted(match is_validated(&settings, &hooks) {
                Some(true) => Counted::Validated,
                None => Counted::Failed("the firmware's mark cannot be read".to_owned()),
                Some(false) => match tally::write(&path, &uuid, number) {
                    Ok(()) => Counted::Persisted,
                    Err(error) => Counted::Failed(format!(
                        "the reboot cannot be counted in {}: {error}; check NERVES_HUB_DATA_PATH",
                        path.display()
                    )),
                },
            })
        });
    }

    pub(super) fn forget_trial_reboots(&mut self) {
        let path = tally::path(&self.config.data_path);
        let errand = Errand::ForgetTrialReboots;
        self.spawn(errand.name(), Worker::Errand(errand), move || {
            durable::remove(&path).map_err(|error| format!("{}: {error}", path.display()))
        });
    }

    pub(super) fn reboot(&mut self) {
        let text = self.config.reboot_command.clone();
        let deadline = self.config.reboot_timeout;
        let journal = self.journal.clone();
        self.errand(Errand::Reboot, move || {
            info!("flushing disks, then rebooting: {text}");
            reboot::flush(deadline / 2);
            // Before it runs: one that only restarts the agent must not do so for ever.
            journal.reboot_ordered();
            let result = run("NERVES_HUB_REBOOT_COMMAND", &text, deadline);
            if result.is_ok() {
                journal.reboot_accepted();
            }
            Event::RebootCommandEnded(result)
        });
    }

    pub(super) fn force_reboot(&mut self) {
        let limit = self.config.reboot_timeout / 2;
        self.errand(Errand::ForceReboot, move || {
            Event::ForcedRebootFailed(reboot::force(limit).to_string())
        });
    }
}

/// Whether the running firmware is marked valid; `None`: that cannot be read.
fn is_validated(settings: &SlotSettings, hooks: &Site) -> Option<bool> {
    if let Some(validated) = hooks::is_validated(&settings.metadata, hooks) {
        return Some(validated);
    }
    let unreadable = |reason: String| {
        warn!("whether the firmware is valid cannot be read: {reason}");
        None
    };
    let (source, booted) = (&settings.metadata, slots::booted(settings));
    match metadata::load_with_warning(source) {
        Ok((values, None)) => {
            let firmware = values.firmware(&source.overrides, booted.as_deref());
            Some(firmware.validated)
        }
        // An empty store in place of one that cannot be read just now says nothing.
        Ok((_, Some(warning))) => unreadable(warning),
        Err(error) => unreadable(error.to_string()),
    }
}

/// Runs a setting's command; an `Err` names both, and the exit status or what it said.
fn run(setting: &str, text: &str, deadline: Duration) -> Result<(), String> {
    command::capture(&mut command::shell(text), deadline, COMMAND_OUTPUT)
        .map_err(|error| error.to_string())
        .and_then(|output| command::verdict(&output))
        .map_err(|problem| format!("{setting}: {text:?}: {problem}"))
}
