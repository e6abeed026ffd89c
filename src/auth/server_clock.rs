//! The hub's clock, learnt from a refusal. Pure.
//!
//! The hub refuses signatures more than 90 s old and any from its future, so a device
//! whose clock is off in either direction signs with the hub's time instead. The offset
//! is kept against the monotonic clock: setting the device's clock later cannot break it.

use std::time::Instant;

/// Signed a little in the past: `Date` has whole seconds and even 1 s ahead is refused.
const MARGIN_S: u64 = 2;

/// What the hub's clock showed at a moment of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerClock {
    at: Instant,
    unix_seconds: u64,
}

impl ServerClock {
    pub fn learn(now: Instant, unix_seconds: u64) -> Self {
        Self {
            at: now,
            unix_seconds,
        }
    }

    /// The time to sign with at `now`, in unix seconds.
    pub fn signing_time(&self, now: Instant) -> u64 {
        let elapsed = now.saturating_duration_since(self.at);
        (self.unix_seconds + elapsed.as_secs()).saturating_sub(MARGIN_S)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn signing_time_follows_the_monotonic_clock_and_stays_behind_the_hub() {
        let start = Instant::now();
        let clock = ServerClock::learn(start, 1_000_000);
        assert_eq!(clock.signing_time(start), 999_998);
        let later = start + Duration::from_secs(3600);
        assert_eq!(clock.signing_time(later), 1_003_598);
    }
}
