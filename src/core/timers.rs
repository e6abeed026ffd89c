//! The core's timers: a small table of deadlines. Pure.

use std::time::Instant;

use super::event::{ExtensionId, ShellKind};
use crate::wire::Topic;

/// Everything the core waits for by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timer {
    /// The next connection attempt.
    Reconnect,
    /// Join the channel again.
    Rejoin(Topic),
    /// The join reply is overdue.
    JoinReply(Topic),
    /// The hub did not ask for extensions: older ones never do.
    ExtensionsUnasked,
    /// An extension takes too long.
    Extension(ExtensionId),
    /// Nobody has pressed a key for long.
    ShellIdle(ShellKind),
    /// Look again for the interface's name.
    Interface,
    /// Look again whether the firmware is marked valid.
    Validation,
    /// The fresh offer for a refused URL did not come.
    FreshOffer,
    /// Requested public keys did not come.
    Keys,
    /// The same for the keys of archives.
    ArchiveKeys,
    /// The failed archive has its turn again.
    Archive,
    /// What was put off has its time.
    Hold,
    /// An archive that was put off has its time.
    ArchiveHold,
    /// The decider has had long enough.
    Decider,
    /// A hook may be told something again.
    Notice,
    /// A reboot that was put off is asked about again.
    RebootDeferred,
    /// Reboot although the outcome could not be reported.
    RebootAnyway,
    /// The hub has not answered that a reboot is coming.
    RebootAnnounced,
    /// The machine is still up although the reboot was ordered.
    RebootOverdue,
    /// Everything that reboots has failed: start over.
    RebootRetry,
    /// The running firmware has had long enough to be marked valid.
    Trial,
    /// A support script has to be answered.
    Script,
    /// Look for uploads that have come to a halt.
    Uploads,
    /// Leave although the installer, or the reboot command, has not ended.
    Shutdown,
}

/// Deadlines by timer; setting one again moves it.
#[derive(Debug, Default)]
pub struct Timers(Vec<(Timer, Instant)>);

impl Timers {
    pub fn set(&mut self, timer: Timer, at: Instant) {
        self.cancel(timer);
        self.0.push((timer, at));
    }

    pub fn cancel(&mut self, timer: Timer) {
        self.0.retain(|(other, _)| *other != timer);
    }

    /// The deadline of one timer, if it is running.
    pub fn deadline(&self, timer: Timer) -> Option<Instant> {
        self.0
            .iter()
            .find(|(other, _)| *other == timer)
            .map(|(_, at)| *at)
    }

    /// The earliest deadline.
    pub fn next(&self) -> Option<Instant> {
        self.0.iter().map(|(_, at)| *at).min()
    }

    /// Takes the earliest timer that is due at `now`.
    pub fn pop_due(&mut self, now: Instant) -> Option<Timer> {
        let (index, _) = self
            .0
            .iter()
            .enumerate()
            .filter(|(_, (_, at))| *at <= now)
            .min_by_key(|(_, (_, at))| *at)?;
        Some(self.0.remove(index).0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn timers_fire_in_order_and_once() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut timers = Timers::default();
        timers.set(Timer::Rejoin(Topic::Device), at(5));
        timers.set(Timer::Reconnect, at(1));
        timers.set(Timer::Reconnect, at(7));
        timers.set(Timer::Keys, at(3));
        timers.cancel(Timer::Keys);
        assert_eq!(timers.next(), Some(at(5)));
        assert_eq!(timers.pop_due(at(4)), None);
        assert_eq!(timers.pop_due(at(9)), Some(Timer::Rejoin(Topic::Device)));
        assert_eq!(timers.pop_due(at(9)), Some(Timer::Reconnect));
        assert_eq!(timers.pop_due(at(9)), None);
        assert_eq!(timers.next(), None);
    }
}
