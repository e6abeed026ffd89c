//! Errands: one command or look-up each, on a thread of its own, answered by one event.

use std::process::Command;
use std::time::Duration;

use super::Agent;
use crate::core::event::{Errand, Event};
use crate::system::slots::{self, SlotSettings};
use crate::system::{command, metadata};

/// `fwup --version` answers within this, or there is no usable fwup.
const FWUP_VERSION_DEADLINE: Duration = Duration::from_secs(5);
/// A reboot command that takes longer counts as failed.
const REBOOT_COMMAND_DEADLINE: Duration = Duration::from_secs(60);
const COMMAND_OUTPUT: usize = 64 * 1024;

impl Agent {
    pub(super) fn read_fwup_version(&mut self) {
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
                    log::error!("{} --version: {}", path.display(), output.status);
                    None
                }
                Err(error) => {
                    log::error!("{error}");
                    None
                }
            };
            Event::FwupVersionRead(version.filter(|version| !version.is_empty()))
        });
    }

    pub(super) fn read_validation(&mut self) {
        let settings = SlotSettings::new(&self.config);
        self.errand(Errand::Validation, move || {
            let (metadata, booted) = (&settings.metadata, slots::booted(&settings));
            let read = metadata::load(metadata).map(|values| {
                let firmware = values.firmware(&metadata.overrides, booted.as_deref());
                firmware.validated
            });
            Event::ValidationRead(read.unwrap_or_else(|error| {
                log::warn!("whether the firmware is valid cannot be read: {error}");
                false
            }))
        });
    }

    pub(super) fn reboot(&mut self) {
        let text = self.config.reboot_command.clone();
        self.errand(Errand::Reboot, move || {
            log::info!("flushing disks, then rebooting: {text}");
            nix::unistd::sync();
            let output = command::capture(
                &mut command::shell(&text),
                REBOOT_COMMAND_DEADLINE,
                COMMAND_OUTPUT,
            );
            Event::RebootCommandEnded(match output {
                Ok(output) if output.status.success() => Ok(()),
                Ok(output) => {
                    let said = String::from_utf8_lossy(&output.stderr);
                    Err(format!(
                        "NERVES_HUB_REBOOT_COMMAND: {text:?}: {}: {}",
                        output.status,
                        said.trim()
                    ))
                }
                Err(error) => Err(format!("NERVES_HUB_REBOOT_COMMAND: {text:?}: {error}")),
            })
        });
    }
}
