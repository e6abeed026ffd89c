//! From the decision to reboot to the machine going down: announce, command, force, and
//! start over. Pure. Owns no reason to reboot: those are the hub's, `update`'s and `trial`'s.

use std::time::{Duration, Instant};

use super::Core;
use super::effect::Effect;
use super::timers::Timer;
use super::update::Phase;
use crate::config::values::show_duration;
use crate::wire::occurrence::Occurrence;
use crate::wire::verdict::{Asked, Question, Verdict};
use crate::wire::{DevicePush, Outbound};

/// How long an announced reboot waits for the hub's answer.
const ANNOUNCE: Duration = Duration::from_secs(5);
/// Nothing is put off by less.
const DEFER_MIN: Duration = Duration::from_secs(1);
/// Pause before everything is tried again; doubles up to the cap, for ever.
const RETRY_MIN: Duration = Duration::from_secs(30);
const RETRY_MAX: Duration = Duration::from_secs(300);

/// The state of the reboot.
#[derive(Debug, Default)]
pub struct Reboot {
    step: Step,
    why: Option<Why>,
    failures: u32,
    /// When it was asked about first.
    since: Option<Instant>,
}

/// What an earlier run has left to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    pub uuid: String,
    pub reboot: Ordered,
}

/// How far that run came with its reboot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ordered {
    /// The hub may not have heard of the success either.
    No,
    /// What became of the command is not known.
    Tried,
    /// The command said that it would be done.
    Accepted,
}

/// Who wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// New firmware is installed.
    Update,
    /// The hub asked for it.
    Hub,
    /// The running firmware was not marked valid in time.
    Trial,
}

impl Why {
    /// For integrators.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Update => "update",
            Self::Hub => "hub",
            Self::Trial => "trial",
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Step {
    #[default]
    None,
    /// The integrator is asked whether it suits.
    Asking,
    /// It does not, for now.
    Deferred,
    /// The hub was told; the answer to this reference proves that it knows.
    Announced(Option<u64>),
    /// The reboot command is running.
    Commanded,
    /// It has said that it will be done.
    Accepted,
    /// The kernel was told.
    Forced,
    /// Nothing helped; waits to start over.
    Resting,
}

impl Reboot {
    /// The machine may go down any moment: nothing new is begun.
    pub(super) fn is_under_way(&self) -> bool {
        match self.step {
            Step::Announced(_) | Step::Commanded | Step::Accepted | Step::Forced => true,
            Step::None | Step::Asking | Step::Deferred | Step::Resting => false,
        }
    }

    /// Who wants it, while somebody does.
    pub(super) fn why(&self) -> Option<Why> {
        self.why.filter(|_| self.is_wanted())
    }

    pub(super) fn is_put_off(&self) -> bool {
        self.step == Step::Deferred
    }

    /// Under way, or waiting to be tried again.
    pub(super) fn is_wanted(&self) -> bool {
        self.step != Step::None
    }
}

impl Core {
    pub(super) fn on_reboot_requested(&mut self) {
        if self.reboot.is_under_way() {
            return info!("reboot is already on its way");
        }
        match self.update.phase {
            Phase::Installing(_) if !self.setup.operator.reboot_during_update => warn!(
                "reboot refused: firmware is being written; ask again afterwards, or see \
                 NERVES_HUB_REBOOT_DURING_UPDATE"
            ),
            Phase::Reporting(_) | Phase::Rebooting if self.update.may_have_switched() => {
                info!("reboot is already on its way");
            }
            // A failure still to be told brings no reboot about.
            Phase::Idle
            | Phase::Asking(_)
            | Phase::AwaitingKeys(_)
            | Phase::Installing(_)
            | Phase::Reporting(_)
            | Phase::Rebooting => {
                info!("the hub asks for a reboot");
                self.consider_reboot(Why::Hub);
            }
        }
    }

    /// Asks whether a reboot suits, for as long as it may be put off.
    pub(super) fn consider_reboot(&mut self, why: Why) {
        self.reboot.why = Some(why);
        self.timers.cancel(Timer::RebootRetry);
        self.timers.cancel(Timer::RebootDeferred);
        if self.may_defer().is_zero() {
            return self.go_down(why);
        }
        if self.reboot.step != Step::Asking {
            self.reboot.step = Step::Asking;
            self.ask(Question::RebootRequest(why.name()));
        }
    }

    /// How much longer it may be put off.
    fn may_defer(&mut self) -> Duration {
        if self.leaving {
            return Duration::ZERO;
        }
        let since = *self.reboot.since.get_or_insert(self.now);
        let most = self.setup.policy.reboot_max_defer;
        most.saturating_sub(self.now.saturating_duration_since(since))
    }

    fn go_down(&mut self, why: Why) {
        self.reboot.since = None;
        match why {
            Why::Update => self.order_reboot_for(why),
            Why::Hub | Why::Trial => self.announce_reboot(why),
        }
    }

    /// `None`: nobody has decided.
    pub(super) fn on_reboot_decided(&mut self, verdict: Option<Verdict>) {
        let Some(why) = self.reboot.why.filter(|_| self.reboot.step == Step::Asking) else {
            return;
        };
        match verdict {
            Some(Verdict::Later { after, reason }) => {
                let after = after.max(DEFER_MIN).min(self.may_defer());
                let words = reason.as_deref().unwrap_or("no reason given");
                info!("reboot put off by {} s: {words}", after.as_secs());
                self.reboot.step = Step::Deferred;
                self.set_timer(Timer::RebootDeferred, after);
            }
            Some(Verdict::Go | Verdict::Ignore { .. }) | None => self.on_reboot_agreed(why),
        }
    }

    fn on_reboot_agreed(&mut self, why: Why) {
        // An update that came meanwhile goes first.
        if why != Why::Update && self.update.may_have_switched() && !self.may_interrupt(why) {
            self.reboot.step = Step::Deferred;
            return self.set_timer(Timer::RebootDeferred, RETRY_MIN);
        }
        self.go_down(why);
    }

    /// The hub's reboot, where the integrator has said that it may cost an update.
    fn may_interrupt(&self, why: Why) -> bool {
        let may = self.setup.operator.reboot_during_update;
        may && why == Why::Hub && self.update.is_installing()
    }

    /// The time it was put off by is over.
    pub(super) fn on_reboot_deferred(&mut self) {
        let Some(why) = self
            .reboot
            .why
            .filter(|_| self.reboot.step == Step::Deferred)
        else {
            return;
        };
        match self.may_defer().is_zero() {
            true => {
                warn!("the reboot has been put off for long enough");
                self.on_reboot_agreed(why);
            }
            false => self.consider_reboot(why),
        }
    }

    /// Tells the hub, when it can be told, and reboots once it knows.
    pub(super) fn announce_reboot(&mut self, why: Why) {
        if let Phase::AwaitingKeys(offer) = &self.update.phase {
            info!("rebooting: firmware {} left alone", offer.uuid);
            self.update.phase = Phase::Idle;
        }
        self.drop_question_about_update("rebooting");
        if self.push_device(DevicePush::Rebooting).is_none() {
            return self.order_reboot_for(why);
        }
        self.timers.cancel(Timer::RebootRetry);
        self.reboot.why = Some(why);
        self.publish(Occurrence::RebootPending(why.name()));
        self.reboot.step = Step::Announced(self.push(None, Outbound::Heartbeat));
        self.set_timer(Timer::RebootAnnounced, ANNOUNCE);
    }

    /// The hub answered `reference`.
    pub(super) fn on_reboot_confirmed(&mut self, reference: u64) {
        if self.reboot.step == Step::Announced(Some(reference)) {
            self.order_reboot();
        }
    }

    pub(super) fn order_reboot_for(&mut self, why: Why) {
        self.reboot.why = Some(why);
        self.publish(Occurrence::RebootPending(why.name()));
        self.order_reboot();
    }

    pub(super) fn order_reboot(&mut self) {
        self.timers.cancel(Timer::RebootAnnounced);
        self.timers.cancel(Timer::RebootRetry);
        self.timers.cancel(Timer::RebootDeferred);
        self.forget_question(Asked::RebootRequest);
        self.reboot.step = Step::Commanded;
        self.set_timer(Timer::RebootOverdue, self.setup.reboot_timeout);
        if self.leaving {
            self.set_timer(Timer::Shutdown, self.setup.shutdown_timeout);
        }
        self.effect(Effect::Reboot);
    }

    /// On SIGTERM: true when leaving waits for the reboot command.
    pub(super) fn finish_reboot(&mut self) -> bool {
        match self.reboot.step {
            // Told or not, now or never.
            Step::Announced(_) => self.order_reboot(),
            Step::Commanded | Step::Forced => {
                self.set_timer(Timer::Shutdown, self.setup.shutdown_timeout);
            }
            // Nobody has had time to say no.
            Step::Asking if self.reboot.why == Some(Why::Update) => self.order_reboot(),
            // Accepted: the machine is going down, which may be why we are told to stop.
            // What was put off after an update is owed by the next start.
            Step::None | Step::Asking | Step::Deferred | Step::Accepted | Step::Resting => {
                return false;
            }
        }
        let seconds = self.setup.shutdown_timeout.as_secs_f64();
        info!("leaving once the reboot command has ended, {seconds:.0} s at most");
        true
    }

    pub(super) fn on_reboot_command_ended(&mut self, result: Result<(), String>) {
        match result {
            Ok(()) => {
                info!("reboot command accepted");
                if self.reboot.step == Step::Commanded {
                    self.reboot.step = Step::Accepted;
                }
                if self.leaving {
                    self.exit();
                }
            }
            Err(reason) if self.reboot.step == Step::Commanded => self.force_reboot(&reason),
            // Given up on before it ended.
            Err(reason) => warn!("{reason}"),
        }
    }

    /// The machine is still up.
    pub(super) fn on_reboot_overdue(&mut self) {
        let after = show_duration(self.setup.reboot_timeout);
        match self.reboot.step {
            Step::Commanded | Step::Accepted => self.force_reboot(&format!(
                "NERVES_HUB_REBOOT_COMMAND has not rebooted this machine within {after}"
            )),
            Step::Forced => {
                self.on_reboot_failed(&format!("the forced reboot did not happen within {after}"));
            }
            Step::None | Step::Asking | Step::Deferred | Step::Announced(_) | Step::Resting => {}
        }
    }

    fn force_reboot(&mut self, reason: &str) {
        if !self.setup.reboot_force {
            return self.on_reboot_failed(&format!(
                "{reason}; would force the reboot: NERVES_HUB_REBOOT_FORCE is off"
            ));
        }
        error!("{reason}; forcing the reboot");
        self.reboot.step = Step::Forced;
        self.set_timer(Timer::RebootOverdue, self.setup.reboot_timeout);
        self.effect(Effect::ForceReboot);
    }

    /// Firmware was installed before the agent started again; the machine is still up.
    pub(super) fn keep_promise(&mut self, Installed { uuid, reboot }: Installed) {
        info!("firmware {uuid} was installed before the agent started again");
        match reboot {
            Ordered::No => self.settle(uuid, None),
            Ordered::Tried => self.reboot_into_new_firmware(),
            Ordered::Accepted => {
                self.update.phase = Phase::Rebooting;
                self.await_accepted_reboot();
            }
        }
    }

    /// An earlier run's command was accepted: the machine has its time to go down.
    fn await_accepted_reboot(&mut self) {
        let pause = show_duration(self.setup.reboot_timeout);
        warn!("the machine was told to reboot and has not; telling it again in {pause}");
        self.reboot.why = Some(Why::Update);
        self.reboot.step = Step::Resting;
        self.set_timer(Timer::RebootRetry, self.setup.reboot_timeout);
    }

    /// Neither the command nor the kernel rebooted: from the beginning, after a pause.
    pub(super) fn on_reboot_failed(&mut self, reason: &str) {
        if !matches!(
            self.reboot.step,
            Step::Commanded | Step::Accepted | Step::Forced
        ) {
            return warn!("{reason}");
        }
        self.timers.cancel(Timer::RebootOverdue);
        self.reboot.step = Step::Resting;
        if self.leaving {
            error!("{reason}");
            return self.exit();
        }
        let factor = 1u32.checked_shl(self.reboot.failures).unwrap_or(u32::MAX);
        let pause = RETRY_MIN.saturating_mul(factor).min(RETRY_MAX);
        self.reboot.failures = (self.reboot.failures + 1).min(31);
        error!("{reason}; trying again in {} s", pause.as_secs());
        self.set_timer(Timer::RebootRetry, pause);
    }

    pub(super) fn on_reboot_retry(&mut self) {
        match self.update.phase {
            Phase::Idle | Phase::Rebooting => self.order_reboot(),
            Phase::Reporting(_) if !self.update.may_have_switched() => self.order_reboot(),
            // An update that came in the pause goes first, and reboots by itself.
            Phase::Installing(_)
            | Phase::Reporting(_)
            | Phase::Asking(_)
            | Phase::AwaitingKeys(_) => {
                self.set_timer(Timer::RebootRetry, RETRY_MIN);
            }
        }
    }

    /// The firmware was marked valid after all: what was to roll it back is not tried again.
    pub(super) fn call_off_trial_reboot(&mut self) {
        if self.reboot.why != Some(Why::Trial) || self.reboot.step == Step::None {
            return;
        }
        info!("the reboot for want of validation is called off");
        for timer in [
            Timer::RebootAnnounced,
            Timer::RebootOverdue,
            Timer::RebootRetry,
            Timer::RebootDeferred,
        ] {
            self.timers.cancel(timer);
        }
        self.reboot = Reboot::default();
    }
}

#[cfg(test)]
mod tests;
