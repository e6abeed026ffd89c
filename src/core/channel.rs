//! The channels on one connection: joined one after the other, and again after each crash,
//! close and refusal. What a channel is for is its own module's.
//!
//! `device` carries updates: its join is repeated at a fixed pace, and one that is not
//! answered costs the connection. `console` and `extensions` never do; they wait longer
//! each time.

use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use super::backoff::Backoff;
use super::event::ShellKind;
use super::timers::Timer;
use super::{Core, Setup};
use crate::wire::inbound::ReplyBody;
use crate::wire::{Outbound, Reply, Topic};

/// Longest wait before `console` or `extensions` is joined again.
const REJOIN_MAX: Duration = Duration::from_secs(600);
/// A channel that was joined for so long was not the reason of its end.
const STEADY: Duration = Duration::from_secs(60);

/// How far a channel is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Left,
    Joining(u64),
    Joined(u64),
}

/// One channel.
pub(super) struct Channel {
    pub phase: Phase,
    backoff: Backoff,
    joined_at: Option<Instant>,
}

/// The channels of the agent.
pub(super) struct Channels {
    pub device: Channel,
    pub console: Channel,
    pub extensions: Channel,
}

impl Channel {
    fn new(setup: &Setup, max: Duration, salt: u64) -> Self {
        let min = setup.link.rejoin_after;
        let jitter = if max > min {
            setup.link.reconnect_jitter
        } else {
            0
        };
        Self {
            phase: Phase::Left,
            backoff: Backoff::between(min, max.max(min), jitter, setup.seed ^ salt),
            joined_at: None,
        }
    }

    pub fn is_joined(&self) -> bool {
        matches!(self.phase, Phase::Joined(_))
    }

    fn next_delay(&mut self, now: Instant) -> Duration {
        let joined_at = self.joined_at.take();
        if joined_at.is_some_and(|at| now.saturating_duration_since(at) >= STEADY) {
            self.backoff.reset();
        }
        self.backoff.next_delay()
    }
}

impl Channels {
    pub(super) fn new(setup: &Setup) -> Self {
        Self {
            device: Channel::new(setup, setup.link.rejoin_after, 1),
            console: Channel::new(setup, REJOIN_MAX, 2),
            extensions: Channel::new(setup, REJOIN_MAX, 3),
        }
    }

    /// `None` for the transport's own topic, which is not joined.
    fn get(&mut self, topic: Topic) -> Option<&mut Channel> {
        match topic {
            Topic::Device => Some(&mut self.device),
            Topic::Console => Some(&mut self.console),
            Topic::Extensions => Some(&mut self.extensions),
            Topic::Phoenix => None,
        }
    }

    fn phase(&mut self, topic: Topic) -> Phase {
        self.get(topic).map_or(Phase::Left, |channel| channel.phase)
    }

    fn set(&mut self, topic: Topic, phase: Phase) {
        if let Some(channel) = self.get(topic) {
            channel.phase = phase;
        }
    }

    /// The one place where what belongs to an earlier join is dropped: such a frame carries
    /// the reference of that join. Most carry none and count for what is joined.
    pub(super) fn is_current(&mut self, topic: Topic, join_ref: Option<u64>) -> bool {
        match self.phase(topic) {
            Phase::Left => false,
            Phase::Joining(current) | Phase::Joined(current) => {
                join_ref.is_none_or(|reference| reference == current)
            }
        }
    }
}

impl Core {
    /// Joins a channel that is not joined; false when that cannot be done now.
    pub(super) fn join(&mut self, topic: Topic, payload: Map<String, Value>) -> bool {
        if self.channels.phase(topic) != Phase::Left {
            return false;
        }
        let Some(reference) = self.push(None, Outbound::Join(topic, payload)) else {
            return false;
        };
        self.timers.cancel(Timer::Rejoin(topic));
        self.channels.set(topic, Phase::Joining(reference));
        self.set_timer(Timer::JoinReply(topic), self.setup.link.timeouts.join);
        true
    }

    pub(super) fn on_rejoin_due(&mut self, topic: Topic) {
        match topic {
            Topic::Device => self.join_device(),
            Topic::Console => self.join_console(),
            Topic::Extensions => self.join_extensions(),
            Topic::Phoenix => {}
        }
    }

    pub(super) fn on_reply(&mut self, reply: Reply) {
        if self.channels.phase(reply.topic) != Phase::Joining(reply.reference) {
            return self.on_confirmed(reply.reference);
        }
        self.timers.cancel(Timer::JoinReply(reply.topic));
        match reply.outcome {
            Ok(body) => self.on_joined(reply.topic, reply.reference, body),
            Err(reason) => {
                warn!("the hub refused the {} channel: {reason}", reply.topic);
                if reply.topic == Topic::Device {
                    self.link.last_error = Some(format!("join refused: {reason}"));
                }
                self.rejoin_later(reply.topic);
            }
        }
    }

    fn on_joined(&mut self, topic: Topic, join_ref: u64, body: ReplyBody) {
        let now = self.now;
        if let Some(channel) = self.channels.get(topic) {
            channel.phase = Phase::Joined(join_ref);
            channel.joined_at = Some(now);
        }
        match topic {
            Topic::Device => self.on_device_joined(body.offer),
            Topic::Console => self.on_console_joined(),
            Topic::Extensions => self.on_extensions_joined(body.attach),
            Topic::Phoenix => {}
        }
    }

    pub(super) fn on_join_overdue(&mut self, topic: Topic) {
        match topic {
            Topic::Device => self.drop_link("the hub did not answer the join"),
            Topic::Console | Topic::Extensions => {
                warn!("the hub did not answer the join of the {topic} channel");
                self.rejoin_later(topic);
            }
            Topic::Phoenix => {}
        }
    }

    /// Joins the joined channel again; the hub answers with a new one and closes the old.
    pub(super) fn rejoin_now(&mut self, topic: Topic) {
        if matches!(self.channels.phase(topic), Phase::Joined(_)) {
            self.channels.set(topic, Phase::Left);
            self.on_rejoin_due(topic);
        }
    }

    fn rejoin_later(&mut self, topic: Topic) {
        self.channels.set(topic, Phase::Left);
        self.timers.cancel(Timer::JoinReply(topic));
        self.on_channel_left(topic);
        let now = self.now;
        if let Some(channel) = self.channels.get(topic) {
            let delay = channel.next_delay(now);
            self.set_timer(Timer::Rejoin(topic), delay);
        }
    }

    fn on_channel_left(&mut self, topic: Topic) {
        match topic {
            Topic::Device => self.ask_for_fresh_offer_again(),
            Topic::Console => {
                self.on_shell_unwatched(ShellKind::Console);
                self.abandon_uploads();
                self.end_sending("the console is gone");
            }
            Topic::Extensions => self.suspend_extensions(),
            Topic::Phoenix => {}
        }
    }

    pub(super) fn on_channel_error(&mut self, topic: Topic, join_ref: Option<u64>, reason: &str) {
        if self.channels.is_current(topic, join_ref) {
            warn!("the {topic} channel crashed at the hub: {reason}");
            if topic == Topic::Device {
                self.forget_indigestible_report();
            }
            self.rejoin_later(topic);
        }
    }

    pub(super) fn on_channel_closed(&mut self, topic: Topic, join_ref: Option<u64>) {
        if self.channels.is_current(topic, join_ref) {
            warn!("the hub closed the {topic} channel");
            self.rejoin_later(topic);
        }
    }

    /// The connection is gone, and every channel with it.
    pub(super) fn on_channels_lost(&mut self) {
        for topic in [Topic::Device, Topic::Console, Topic::Extensions] {
            self.channels.set(topic, Phase::Left);
            self.timers.cancel(Timer::Rejoin(topic));
            self.timers.cancel(Timer::JoinReply(topic));
            self.on_channel_left(topic);
        }
    }
}
