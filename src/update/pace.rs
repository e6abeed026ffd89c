//! Reading at a rate, and not for ever.
//!
//! Owns the pauses of the rate limit and the end of an attempt's time, for every byte that
//! is read, kept or not. What the bytes are for is the reader's matter.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use super::patience;
use crate::system::http::Cancel;

/// Shorter pauses for the rate limit are saved up.
const SHORT_PAUSE: Duration = Duration::from_millis(5);

/// A body that is read no faster than `rate` (bytes per second, 0 for no limit) and no
/// longer than `until`.
pub(super) struct Paced<'a> {
    body: &'a mut dyn Read,
    rate: u64,
    due: Instant,
    until: Instant,
    cancel: &'a Cancel,
}

impl<'a> Paced<'a> {
    pub(super) fn new(
        body: &'a mut dyn Read,
        rate: u64,
        until: Instant,
        cancel: &'a Cancel,
    ) -> Self {
        Self {
            body,
            rate,
            due: Instant::now(),
            until,
            cancel,
        }
    }

    /// Short bursts are averaged out.
    fn hold(&mut self, count: u64) -> io::Result<()> {
        if self.rate == 0 {
            return Ok(());
        }
        let now = Instant::now();
        // Time lost to a slow link or flash is not made up for.
        self.due = self.due.max(now) + Duration::from_micros(count * 1_000_000 / self.rate);
        if self.due.saturating_duration_since(now) < SHORT_PAUSE {
            return Ok(());
        }
        let pause = self.due.min(self.until).saturating_duration_since(now);
        patience::sleep(pause, self.cancel)
            .map_err(|_| io::Error::other("the download was cancelled"))
    }
}

impl Read for Paced<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if Instant::now() >= self.until {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let count = self.body.read(buffer)?;
        self.hold(count as u64)?;
        Ok(count)
    }
}
