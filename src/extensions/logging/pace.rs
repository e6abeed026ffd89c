//! How fast the hub takes lines, by the version that was agreed. Pure: time is given.

use std::time::{Duration, Instant};

/// What is sent at once, and how often.
#[derive(Debug)]
pub struct Pace {
    /// Lines in one push; `None`: the push is the line.
    pub batch: Option<usize>,
    burst: u32,
    period: Duration,
    /// When as many pushes as `burst` would be free again.
    full_at: Instant,
}

impl Pace {
    pub fn new(version: &str, now: Instant) -> Self {
        let (batch, burst, period) = pace(version);
        let full_at = now;
        Self {
            batch,
            burst,
            period,
            full_at,
        }
    }

    /// What was sent in the version before counts.
    pub fn agree(&mut self, version: &str) {
        (self.batch, self.burst, self.period) = pace(version);
    }

    /// When the next push is free; not after `now` when it is.
    pub fn next(&self, now: Instant) -> Instant {
        let debt = self.full_at.saturating_duration_since(now);
        now + debt.saturating_sub(self.period * (self.burst - 1))
    }

    pub fn spend(&mut self, now: Instant) {
        self.full_at = self.full_at.max(now) + self.period;
    }
}

fn pace(version: &str) -> (Option<usize>, u32, Duration) {
    match version.starts_with("0.0.") {
        // The hub has ten for each device, and five more with each second of its clock; what
        // comes without one is dropped. Five at once are those of a second not yet begun.
        true => (None, 5, Duration::from_millis(200)),
        false => (Some(100), 1, Duration::from_secs(1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many pushes are free from `from` to `until`, for one that always has some.
    fn pushes(pace: &mut Pace, from: Instant, until: Instant) -> Vec<Duration> {
        let (mut now, mut times) = (from, Vec::new());
        loop {
            now = pace.next(now);
            if now > until {
                return times;
            }
            pace.spend(now);
            times.push(now - from);
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn single_lines_fit_the_hubs_bucket_wherever_its_seconds_begin() {
        let start = Instant::now();
        for shift in 0..10 {
            let mut pace = Pace::new("0.0.1", start);
            // Busy for 7 s, silent for 4, busy again.
            let mut times = pushes(&mut pace, start, start + 7 * SECOND);
            assert_eq!(times.len(), 5 + 35);
            let again = start + 11 * SECOND;
            let later = pushes(&mut pace, again, again + 7 * SECOND);
            assert_eq!(later.len(), 5 + 35);
            times.extend(later.iter().map(|time| *time + 11 * SECOND));
            // Hammer's token bucket as the hub has it: whole seconds of the wall clock.
            let (mut fill, mut last) = (10_u64, 0);
            for time in times {
                let second = (time + shift * SECOND / 10).as_secs();
                fill = (fill + (second - last) * 5).min(10);
                last = second;
                assert!(fill > 0, "dropped at {time:?}, shifted by {shift}");
                fill -= 1;
            }
        }
    }

    #[test]
    fn batches_are_one_a_second() {
        let start = Instant::now();
        let mut pace = Pace::new("0.1.0", start);
        assert_eq!(pace.batch, Some(100));
        let times = pushes(&mut pace, start, start + 3 * SECOND);
        assert_eq!(times, [0, 1, 2, 3].map(|second| second * SECOND));
        let again = start + 60 * SECOND;
        assert_eq!(pushes(&mut pace, again, again + SECOND).len(), 2);
    }

    #[test]
    fn a_new_agreement_is_no_new_bucket() {
        let start = Instant::now();
        let mut pace = Pace::new("0.0.1", start);
        pushes(&mut pace, start, start);
        pace.agree("0.0.1");
        assert_eq!(pace.next(start), start + SECOND / 5);
        pace.agree("0.1.0");
        assert_eq!(pace.next(start), start + SECOND);
    }
}
