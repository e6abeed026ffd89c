//! A firmware URL that is refused: the hub is asked for a fresh offer, the download keeps
//! what it has and goes on with that.
//!
//! The hub makes an offer when a device joins that is not downloading, so the device
//! channel is joined anew with `currently_downloading_uuid` null. The update stays in hand
//! here; the offer puts it back into the hub's books.

use super::Core;
use super::effect::Effect;
use super::timers::Timer;
use super::update::Phase;
use crate::wire::{DevicePush, Offer, Topic};

/// Fresh URLs asked for in a row that brought not one byte.
const TRIES: u8 = 3;

/// How far asking for another URL has come.
#[derive(Default)]
pub(super) struct Renewal {
    tries: u8,
    /// The most bytes there were when a URL was refused.
    held: u64,
    state: State,
}

#[derive(Default, PartialEq)]
enum State {
    #[default]
    Unneeded,
    /// To be asked for with the next join, for this reason.
    Wanted(String),
    /// The join that asks is on its way.
    Asked(String),
    /// The hub has taken that join.
    Awaited(String),
}

impl Renewal {
    /// The next join asks.
    pub(super) fn is_wanted(&self) -> bool {
        matches!(self.state, State::Wanted(_))
    }

    /// An offer would be the answer.
    pub(super) fn is_awaited(&self) -> bool {
        self.state != State::Unneeded
    }
}

impl Core {
    pub(super) fn on_url_refused(&mut self, reason: String, held: u64) {
        let Phase::Installing(install) = &mut self.update.phase else {
            return;
        };
        let renewal = &mut install.renewal;
        if held > renewal.held {
            (renewal.tries, renewal.held) = (0, held);
        }
        if renewal.tries >= TRIES {
            let text = format!("download failed: {reason}, after {TRIES} fresh offers");
            return self.cancel_install(text);
        }
        renewal.tries += 1;
        renewal.state = State::Wanted(reason);
        self.rejoin_now(Topic::Device);
    }

    /// A join was sent; it asks if anything is to be asked for.
    pub(super) fn note_join_sent(&mut self) {
        let Phase::Installing(install) = &mut self.update.phase else {
            return;
        };
        let state = &mut install.renewal.state;
        if let State::Wanted(reason) = state {
            *state = State::Asked(std::mem::take(reason));
        }
    }

    /// The device channel is joined, whatever for.
    pub(super) fn await_fresh_offer(&mut self) {
        let Phase::Installing(install) = &mut self.update.phase else {
            return;
        };
        let state = &mut install.renewal.state;
        match state {
            State::Asked(reason) => {
                *state = State::Awaited(std::mem::take(reason));
                self.set_timer(Timer::FreshOffer, self.setup.fresh_offer_timeout);
            }
            // Refused while that join was on its way: it had named the download.
            State::Wanted(_) => self.rejoin_now(Topic::Device),
            State::Unneeded | State::Awaited(_) => {}
        }
    }

    /// The connection or the join is gone, and with it the request.
    pub(super) fn ask_for_fresh_offer_again(&mut self) {
        let Phase::Installing(install) = &mut self.update.phase else {
            return;
        };
        let state = &mut install.renewal.state;
        if let State::Asked(reason) | State::Awaited(reason) = state {
            *state = State::Wanted(std::mem::take(reason));
            self.timers.cancel(Timer::FreshOffer);
        }
    }

    pub(super) fn on_fresh_offer(&mut self, offer: Box<Offer>) {
        let Phase::Installing(install) = &mut self.update.phase else {
            return;
        };
        install.renewal.state = State::Unneeded;
        self.timers.cancel(Timer::FreshOffer);
        let held = &install.offer;
        let is_same = held.uuid == offer.uuid
            && held.size == offer.size
            && held.checksum == offer.checksum
            && held.partials == offer.partials;
        if is_same {
            info!("fresh URL for firmware {}", offer.uuid);
            let (job, url) = (install.job, offer.url.clone());
            install.offer = offer;
            self.push_device(DevicePush::Received);
            let interface = self.session_interface();
            self.push_device(DevicePush::Started { interface });
            return self.effect(Effect::RenewUrl(job, url));
        }
        warn!("the hub offers {} instead of {}", offer.uuid, held.uuid);
        install.instead = Some(offer);
        self.cancel_install("another firmware is offered instead".to_owned());
    }

    pub(super) fn on_fresh_offer_overdue(&mut self) {
        let Phase::Installing(install) = &mut self.update.phase else {
            return;
        };
        if let State::Awaited(reason) = std::mem::take(&mut install.renewal.state) {
            let text = format!("download failed: {reason}, and the hub made no fresh offer");
            self.cancel_install(text);
        }
    }
}

#[cfg(test)]
mod tests;
