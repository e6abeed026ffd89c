//! When something that ended is tried again, and that it is said once. Pure.

use std::time::{Duration, Instant};

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);

/// From 1 s, doubling to 60 s; from 1 s again after a minute that went well.
#[derive(Default)]
pub struct Retry {
    delay: Duration,
    begun: Option<Instant>,
}

impl Retry {
    /// It runs.
    pub fn begin(&mut self, now: Instant) {
        self.begun = Some(now);
    }

    /// It failed or ended; it is tried again then.
    pub fn again(&mut self, now: Instant) -> Instant {
        let went_well = self
            .begun
            .take()
            .is_some_and(|begun| now - begun >= LONGEST);
        self.delay = match went_well {
            true => FIRST,
            false => (self.delay * 2).clamp(FIRST, LONGEST),
        };
        now + self.delay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_a_minute_and_start_over_after_a_good_one() {
        let now = Instant::now();
        let mut retry = Retry::default();
        let delays = [(); 8].map(|()| (retry.again(now) - now).as_secs());
        assert_eq!(delays, [1, 2, 4, 8, 16, 32, 60, 60]);
        retry.begin(now);
        let soon = now + Duration::from_secs(59);
        assert_eq!((retry.again(soon) - soon).as_secs(), 60);
        retry.begin(now);
        let later = now + Duration::from_secs(60);
        assert_eq!((retry.again(later) - later).as_secs(), 1);
    }
}
