//! Firmware on trial: gets it marked valid the way the integrator chose, tells the hub, and
//! reboots firmware that nobody marked in time so that the bootloader rolls it back. Pure.
//!
//! Rules kept here: one step at a time; no mark and no reboot in an update; no reboot of
//! validated firmware, none that is not counted on disk first, and only so many of the same
//! firmware.

use std::time::Duration;

use super::effect::Effect;
use super::event::Counted;
use super::reboot::Why;
use super::timers::Timer;
use super::update::Phase;
use super::{Core, Setup};
use crate::config::Validate;
use crate::config::values::show_duration;
use crate::wire::DevicePush;
use crate::wire::occurrence::Occurrence;

/// How often the mark is read, or the integrator's check run, while there is no mark; the
/// first pause after a failure to set it.
const POLL: Duration = Duration::from_secs(10);
const MARK_RETRY_MAX: Duration = Duration::from_secs(600);
/// A rollback that had to wait for an update is looked at again after this.
const RECHECK: Duration = Duration::from_secs(10);
/// Wait before a count that could not be kept is tried again.
const COUNT_RETRY: Duration = Duration::from_secs(60);

/// The trial's state.
pub struct Trial {
    step: Step,
    /// The hub has taken a join.
    joined: bool,
    /// The hub knows that the firmware is valid.
    pub(super) told: bool,
    /// Failures in a row to mark it.
    mark_failures: u32,
    /// It is good, but an update kept it from being marked.
    put_off: bool,
    /// What the integrator's check said last.
    last_objection: Option<String>,
    /// Reboots of this firmware made so far.
    reboots: Option<u64>,
    /// The next one is counted on disk already.
    counted: bool,
}

/// What is being done about the missing mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Waiting,
    Reading,
    Checking,
    Marking,
    /// Reading whether the mark is really there.
    Confirming,
}

impl Trial {
    pub(super) fn new(setup: &Setup) -> Self {
        Self {
            step: Step::Waiting,
            joined: false,
            told: false,
            mark_failures: 0,
            put_off: false,
            last_objection: None,
            reboots: setup.trial_reboots,
            counted: false,
        }
    }
}

impl Core {
    pub(super) fn begin_trial(&mut self) {
        if self.device.validated {
            return;
        }
        let timeout = self.setup.trial.timeout;
        if !timeout.is_zero() {
            self.set_timer(Timer::Trial, timeout);
        }
        match self.setup.trial.validate {
            // The first check does not wait for a poll.
            Validate::Command(_) => self.read_validation(),
            Validate::Manual | Validate::OnJoin => self.set_timer(Timer::Validation, POLL),
        }
    }

    /// The hub has taken the join.
    pub(super) fn on_trial_joined(&mut self) {
        self.tell_validated();
        let first = !std::mem::replace(&mut self.trial.joined, true);
        if first && self.setup.trial.validate == Validate::OnJoin && !self.device.validated {
            self.read_validation();
        }
    }

    pub(super) fn read_validation(&mut self) {
        if self.trial.step == Step::Waiting && !self.device.validated {
            self.timers.cancel(Timer::Validation);
            self.trial.step = Step::Reading;
            self.effect(Effect::ReadValidation);
        }
    }

    pub(super) fn on_validation_read(&mut self, validated: Option<bool>) {
        if self.device.validated {
            return;
        }
        let step = std::mem::replace(&mut self.trial.step, Step::Waiting);
        match validated {
            Some(true) => self.on_validated(),
            None | Some(false) if step == Step::Confirming => self.mark_later(
                "the mark was set but does not read as set; \
                 see NERVES_HUB_FIRMWARE_METADATA and NERVES_HUB_FIRMWARE_VALIDATED",
            ),
            Some(false) => self.seek_validation(),
            None if self.control.wants_validation() => self.mark_valid(),
            None => self.set_timer(Timer::Validation, POLL),
        }
    }

    /// There is no mark: takes the next step towards one.
    fn seek_validation(&mut self) {
        if self.control.wants_validation() {
            return self.mark_valid();
        }
        match &self.setup.trial.validate {
            Validate::OnJoin if self.trial.joined => self.mark_valid(),
            Validate::Command(text) => {
                self.trial.step = Step::Checking;
                let check = Effect::CheckFirmware(text.clone());
                self.effect(check);
            }
            Validate::Manual | Validate::OnJoin => self.set_timer(Timer::Validation, POLL),
        }
    }

    pub(super) fn on_firmware_checked(&mut self, result: Result<(), String>) {
        if self.device.validated {
            return;
        }
        self.trial.step = Step::Waiting;
        match result {
            Ok(()) => self.mark_valid(),
            Err(_) if self.control.wants_validation() => self.mark_valid(),
            Err(reason) => {
                self.trial.put_off = false;
                // Every 10 s the same would drown everything else.
                match self.trial.last_objection.as_ref() == Some(&reason) {
                    true => debug!("the running firmware is not found good: {reason}"),
                    false => warn!("the running firmware is not found good: {reason}"),
                }
                self.trial.last_objection = Some(reason);
                self.set_timer(Timer::Validation, POLL);
            }
        }
    }

    /// Not while the mark might be set on the new firmware, which has never run.
    fn mark_valid(&mut self) {
        self.trial.put_off = self.update.may_have_switched();
        if self.trial.put_off {
            debug!("the running firmware is good: to be marked valid if the update fails");
            return self.set_timer(Timer::Validation, POLL);
        }
        info!("the running firmware is good: marking it valid");
        self.trial.step = Step::Marking;
        self.effect(Effect::MarkValid);
    }

    pub(super) fn on_valid_marked(&mut self, result: Result<(), String>) {
        if self.device.validated {
            return;
        }
        self.trial.step = Step::Waiting;
        match result {
            Ok(()) => {
                self.trial.step = Step::Confirming;
                self.effect(Effect::ReadValidation);
            }
            Err(reason) => self.mark_later(&reason),
        }
    }

    fn mark_later(&mut self, reason: &str) {
        let factor = 1u32
            .checked_shl(self.trial.mark_failures)
            .unwrap_or(u32::MAX);
        let pause = POLL.saturating_mul(factor).min(MARK_RETRY_MAX);
        self.trial.mark_failures = (self.trial.mark_failures + 1).min(31);
        error!(
            "the running firmware could not be marked valid: {reason}; trying again in {} s",
            pause.as_secs()
        );
        self.set_timer(Timer::Validation, pause);
        self.answer_validations(Err(reason));
    }

    /// A client of the control socket wants it marked: takes the step that is not taken
    /// already, or the next one when this one ends.
    pub(super) fn validate_now(&mut self) {
        if self.trial.step == Step::Waiting {
            self.timers.cancel(Timer::Validation);
            self.mark_valid();
        }
    }

    fn on_validated(&mut self) {
        info!("the running firmware is marked valid");
        self.device.validated = true;
        self.trial.step = Step::Waiting;
        self.timers.cancel(Timer::Validation);
        self.timers.cancel(Timer::Trial);
        if self.trial.counted || self.trial.reboots != Some(0) {
            self.effect(Effect::ForgetTrialReboots);
        }
        self.tell_validated();
        self.publish(Occurrence::FirmwareValidated);
        self.answer_validations(Ok(()));
        self.call_off_trial_reboot();
    }

    /// Once. What is not sent while the channel is away is in the next join's `meta`.
    fn tell_validated(&mut self) {
        if self.device.validated && !self.trial.told {
            self.trial.told = self.push_device(DevicePush::FirmwareValidated).is_some();
        }
    }

    /// The time for a mark is over.
    pub(super) fn on_trial_over(&mut self) {
        if self.device.validated {
            return;
        }
        if self.trial_must_wait() {
            return self.set_timer(Timer::Trial, RECHECK);
        }
        let timeout = show_duration(self.setup.trial.timeout);
        match self.next_trial_reboot() {
            Ok((uuid, number)) => {
                let most = self.setup.trial.reboots;
                error!(
                    "firmware {uuid} was not marked valid within {timeout}: to be rebooted so \
                     that the bootloader goes back ({number} of {most})"
                );
                self.effect(Effect::CountTrialReboot { uuid, number });
            }
            Err(reason) => error!(
                "the running firmware was not marked valid within {timeout}, but {reason}: \
                 not rebooting"
            ),
        }
    }

    /// The running firmware and the number of its next reboot, or why there is none.
    fn next_trial_reboot(&self) -> Result<(String, u64), String> {
        let uuid = self.setup.firmware_uuid.clone().ok_or(
            "it has no uuid to count reboots by (provide nerves_fw_uuid or \
             NERVES_HUB_FIRMWARE_UUID)",
        )?;
        let made = self.trial.reboots.ok_or(
            "how often it was rebooted cannot be read (see trial-reboots in \
             NERVES_HUB_DATA_PATH)",
        )?;
        let most = self.setup.trial.reboots;
        match made < most {
            true => Ok((uuid, made + 1)),
            false => Err(format!(
                "{made} reboots did not bring back the old one (NERVES_HUB_TRIAL_REBOOTS is {most})"
            )),
        }
    }

    /// Updates win (leaving waits for nothing else), and so do a mark that is just being set,
    /// or about to be, and another's reboot. A failure that is still to be told does not.
    fn trial_must_wait(&self) -> bool {
        self.update.may_have_switched()
            || matches!(self.update.phase, Phase::Asking(_) | Phase::AwaitingKeys(_))
            || self.reboot.is_wanted()
            || self.trial.put_off
            || matches!(self.trial.step, Step::Marking | Step::Confirming)
    }

    pub(super) fn on_trial_reboot_counted(&mut self, counted: Counted) {
        if self.device.validated {
            // Counted while the mark was being set: not left behind.
            if counted == Counted::Persisted {
                self.effect(Effect::ForgetTrialReboots);
            }
            return;
        }
        match counted {
            Counted::Validated => self.on_validated(),
            Counted::Persisted => {
                self.trial.counted = true;
                if self.trial_must_wait() {
                    return self.set_timer(Timer::Trial, RECHECK);
                }
                self.announce_reboot(Why::Trial);
            }
            Counted::Failed(reason) => {
                error!(
                    "{reason}; not rebooting: without a count it might go on for ever; \
                     trying again in {} s",
                    COUNT_RETRY.as_secs()
                );
                self.set_timer(Timer::Trial, COUNT_RETRY);
            }
        }
    }
}

#[cfg(test)]
mod tests;
