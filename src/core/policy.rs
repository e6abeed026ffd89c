//! Whether an offer is taken: rules, holds, windows, and whoever is asked. Pure.
//!
//! Rules kept here: the hub gets one answer to each offer, on the channel it came by; an
//! offer that was put off is answered again without asking, and asked for again when its
//! time has come; a device without the time of day is not locked out for ever.

use std::time::{Duration, Instant};

use super::Core;
use super::effect::Effect;
use super::event::Opening;
use super::timers::Timer;
use super::update::Phase;
use super::version;
use crate::config::values::show_duration;
use crate::config::{NoDecision, UpdatePolicy};
use crate::wire::occurrence::Occurrence;
use crate::wire::verdict::{Asked, Question, Verdict};
use crate::wire::{DevicePush, Offer, Topic};

/// What `NERVES_HUB_ON_NO_DECISION=reschedule` puts an offer off by.
const NO_DECISION_DELAY: Duration = Duration::from_secs(3600);
/// Nothing is put off by less: the hub would offer in a circle.
const MIN_DELAY: Duration = Duration::from_secs(5);
/// The hub counts by itself: it is asked a little later, and not by a whole fleet at once.
const SLACK: Duration = Duration::from_secs(1);
const SPREAD_MAX: Duration = Duration::from_secs(60);
/// What has its time while something else is in hand is looked at again after this.
const HOLD_AGAIN: Duration = Duration::from_secs(60);
/// While the time of day is unknown, an offer is put off by this at a time ...
const CLOCK_DELAY: Duration = Duration::from_secs(15 * 60);
/// ... until the agent has run for so long: every daily window has opened once by then.
const CLOCK_PATIENCE: Duration = Duration::from_secs(86_400);

/// An offer about which nothing is decided yet.
pub(super) struct Asking {
    pub(super) offer: Box<Offer>,
    /// Offered meanwhile: the answer does not matter any more.
    next: Option<Box<Offer>>,
}

/// An offer that was put off.
pub(super) struct Hold {
    pub(super) uuid: String,
    pub(super) until: Instant,
    pub(super) reason: Option<String>,
}

impl Core {
    /// An offer that is the hub's current one, and received: what becomes of it?
    pub(super) fn consider(&mut self, offer: Box<Offer>) {
        if let Some(reason) = self.objection(&offer) {
            return self.ignore(&offer, reason);
        }
        if let Some(hold) = self.update.hold.as_ref()
            && hold.uuid == offer.uuid
            && hold.until > self.now
        {
            let (left, reason) = (hold.until - self.now, hold.reason.clone());
            info!("firmware {} stays put off", offer.uuid);
            return self.push_rescheduled(left, reason);
        }
        match self.setup.policy.update {
            UpdatePolicy::Apply => self.take_up(offer),
            UpdatePolicy::Ignore => {
                self.ignore(&offer, "NERVES_HUB_UPDATE_POLICY is ignore".to_owned());
            }
            UpdatePolicy::Ask => {
                let question = Question::UpdateAvailable(offer.clone());
                self.begin_asking(offer);
                self.ask(question);
            }
            UpdatePolicy::Schedule => {
                self.begin_asking(offer);
                let hub_time = self.hub_time();
                self.effect(Effect::FindWindow { hub_time });
            }
        }
    }

    fn begin_asking(&mut self, offer: Box<Offer>) {
        self.update.phase = Phase::Asking(Asking { offer, next: None });
    }

    /// What no one needs to be asked about.
    pub(super) fn objection(&self, offer: &Offer) -> Option<String> {
        let policy = &self.setup.policy;
        let is_same = self.setup.firmware_uuid.as_deref() == Some(&offer.uuid);
        if is_same && !policy.same_firmware {
            return Some(format!("firmware {} is already running", offer.uuid));
        }
        let running = self.setup.firmware.get("nerves_fw_version");
        running
            .filter(|running| !policy.downgrades && version::is_lower(&offer.version, running))
            .map(|running| {
                format!(
                    "version {} is lower than the running {running} (NERVES_HUB_DOWNGRADE is ignore)",
                    offer.version
                )
            })
    }

    fn ignore(&mut self, offer: &Offer, reason: String) {
        info!("ignored: {reason}");
        self.publish(Occurrence::UpdateIgnored {
            uuid: offer.uuid.clone(),
            reason: reason.clone(),
        });
        self.push_device(DevicePush::Ignored { reason });
    }

    fn reschedule(&mut self, offer: &Offer, after: Duration, reason: Option<String>) {
        let after = after.max(MIN_DELAY);
        let words = reason.as_deref().unwrap_or("no reason given");
        info!(
            "firmware {} put off by {}: {words}",
            offer.uuid,
            show(after)
        );
        self.update.hold = Some(Hold {
            uuid: offer.uuid.clone(),
            until: self.now + after,
            reason: reason.clone(),
        });
        let spread = (after / 10).min(SPREAD_MAX).as_millis().max(1);
        let share = u128::from(self.setup.seed) % spread;
        let late = Duration::from_millis(u64::try_from(share).unwrap_or(0));
        self.set_timer(Timer::Hold, after + SLACK + late);
        self.push_rescheduled(after, reason);
    }

    /// PROTOCOL §3: milliseconds, whatever others send.
    fn push_rescheduled(&mut self, after: Duration, reason: Option<String>) {
        let delay = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        self.push_device(DevicePush::Rescheduled { delay, reason });
    }

    /// What was put off has its time: the hub offers it to a device that joins.
    pub(super) fn on_hold_over(&mut self) {
        let Some(hold) = self.update.hold.take() else {
            return;
        };
        if !self.has_no_update() {
            // What is in hand may fail, and the reboot be put off.
            self.update.hold = Some(hold);
            return self.set_timer(Timer::Hold, HOLD_AGAIN);
        }
        info!("firmware {} has its time: asking the hub for it", hold.uuid);
        self.rejoin_now(Topic::Device);
    }

    /// The answer to [`Effect::FindWindow`].
    pub(super) fn on_window_found(&mut self, opening: Opening) {
        let Phase::Asking(asking) = &self.update.phase else {
            return;
        };
        let since = self.now.saturating_duration_since(self.started);
        let (after, why) = match opening {
            Opening::In(wait) if !wait.is_zero() => (wait, "outside the update window"),
            Opening::ClockUnset if since < CLOCK_PATIENCE => {
                let left = CLOCK_DELAY.min(CLOCK_PATIENCE - since);
                (left, "the time of day is not known yet")
            }
            Opening::In(_) | Opening::ClockUnset => {
                if opening == Opening::ClockUnset {
                    warn!("the time of day stays unknown: update windows do not count");
                }
                let question = Question::UpdateAvailable(asking.offer.clone());
                return self.ask(question);
            }
            Opening::Never => (NO_DECISION_DELAY, "no update window ever opens"),
        };
        if let Some(offer) = self.end_asking() {
            self.reschedule(&offer, after, Some(why.to_owned()));
        }
    }

    /// `None`: nobody has decided.
    pub(super) fn on_update_decided(&mut self, verdict: Option<Verdict>) {
        let Some(offer) = self.end_asking() else {
            return;
        };
        let default = || {
            let reason = Some("nobody has decided about it".to_owned());
            match self.setup.policy.no_decision {
                NoDecision::Apply => Verdict::Go,
                NoDecision::Ignore => Verdict::Ignore { reason },
                NoDecision::Reschedule => Verdict::Later {
                    after: NO_DECISION_DELAY,
                    reason,
                },
            }
        };
        match verdict.unwrap_or_else(default) {
            Verdict::Go => self.take_up(offer),
            Verdict::Ignore { reason } => {
                let reason = reason.unwrap_or_else(|| "not wanted by this device".to_owned());
                self.ignore(&offer, reason);
            }
            Verdict::Later { after, reason } => self.reschedule(&offer, after, reason),
        }
    }

    /// The offer that was asked about, unless it is the hub's current one no more.
    fn end_asking(&mut self) -> Option<Box<Offer>> {
        let asking = match std::mem::take(&mut self.update.phase) {
            Phase::Asking(asking) => asking,
            other => {
                self.update.phase = other;
                return None;
            }
        };
        match asking.next {
            Some(next) => {
                self.on_offer(next);
                None
            }
            None => Some(asking.offer),
        }
    }

    /// Nothing is to be decided any more.
    pub(super) fn drop_question_about_update(&mut self, why: &str) {
        if let Phase::Asking(asking) = &self.update.phase {
            info!("{why}: firmware {} left alone", asking.offer.uuid);
            self.update.phase = Phase::Idle;
            self.forget_question(Asked::UpdateAvailable);
        }
    }
}

impl Asking {
    /// Another offer came before the answer; true when it is of other firmware.
    pub(super) fn overtake(&mut self, offer: Box<Offer>) -> bool {
        let is_other = self.offer.uuid != offer.uuid;
        match is_other {
            // Its URL is fresh.
            false => (self.offer, self.next) = (offer, None),
            true => {
                info!("firmware {} is offered instead", offer.uuid);
                self.next = Some(offer);
            }
        }
        is_other
    }
}

/// To the second, as people read it.
fn show(time: Duration) -> String {
    show_duration(Duration::from_secs(time.as_secs()))
}
