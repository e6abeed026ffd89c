//! When a download is tried again, when it is given up, and the pauses in between.

use std::time::{Duration, Instant};

use nix::poll::PollFlags;

use crate::config::DownloadSettings;
use crate::system::http::Cancel;
use crate::system::waker;

/// `Retry-After` is obeyed up to this, in seconds.
const MAX_RETRY_AFTER: u64 = 3600;

/// No attempt gets less than this (PROTOCOL §5).
const MIN_ATTEMPT: Duration = Duration::from_secs(300);

/// Why a download ended without all its bytes.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    /// To be reported to the hub.
    Failed(String),
    /// Cancelled, or the installer went away; somebody else knows why.
    Abandoned,
}

/// Counts attempts and time.
pub(super) struct Patience {
    settings: DownloadSettings,
    started: Instant,
    /// For `X-Retry-Number`.
    pub(super) retries: u32,
    fruitless: u32,
    /// Bytes beyond this are new: those fetched again after a fresh start are not.
    furthest: u64,
}

impl Patience {
    /// `held` bytes are there already.
    pub(super) fn new(settings: DownloadSettings, held: u64) -> Self {
        Self {
            settings,
            started: Instant::now(),
            retries: 0,
            fruitless: 0,
            furthest: held,
        }
    }

    /// For a download that began earlier.
    pub(super) fn since(self, then: Instant) -> Self {
        Self {
            started: then,
            ..self
        }
    }

    /// The whole download's last moment.
    pub(super) fn ends(&self) -> Instant {
        self.started + self.settings.max_timeout
    }

    /// An attempt has ended with this many bytes held.
    pub(super) fn note_progress(&mut self, held: u64) {
        let progress = held > self.furthest;
        self.furthest = self.furthest.max(held);
        self.fruitless = if progress { 0 } else { self.fruitless + 1 };
    }

    /// Another attempt, or the end.
    pub(super) fn failed(&mut self, reason: String) -> Result<(), Failure> {
        self.retries += 1;
        if self.fruitless >= self.settings.max_disconnects {
            let tries = self.fruitless;
            return Err(Failure::Failed(format!(
                "download failed: {reason} ({tries} attempts without progress)"
            )));
        }
        if self.started.elapsed() >= self.settings.max_timeout {
            return Err(self.late(&reason));
        }
        Ok(())
    }

    fn late(&self, reason: &str) -> Failure {
        let limit = self.settings.max_timeout;
        Failure::Failed(format!(
            "download failed: not finished in {limit:?}: {reason}"
        ))
    }

    pub(super) fn next_pause(
        &mut self,
        reason: String,
        after: Option<u64>,
    ) -> Result<Duration, Failure> {
        warn!("download interrupted: {reason}");
        self.failed(reason.clone())?;
        let asked = Duration::from_secs(after.unwrap_or(0).min(MAX_RETRY_AFTER));
        let pause = self.settings.time_between_retries.max(asked);
        // Pauses count: after one that lasts to the end there is no time for a request.
        if self.started.elapsed() + pause >= self.settings.max_timeout {
            return Err(self.late(&reason));
        }
        Ok(pause)
    }
}

/// How long one attempt at so many bytes may take: at the worst speed expected, or at the
/// rate (in bytes per second, 0 for none) we keep ourselves if that is slower.
pub(super) fn attempt_limit(
    settings: &DownloadSettings,
    rate: u64,
    bytes: Option<u64>,
) -> Duration {
    let mut speed = settings.worst_case_speed.max(1);
    if rate > 0 {
        speed = speed.min(rate.saturating_mul(4)).max(1);
    }
    let bits = bytes.unwrap_or(0).saturating_mul(8);
    let worst = Duration::from_secs(bits / speed);
    worst.max(MIN_ATTEMPT).min(settings.max_timeout)
}

pub(super) fn sleep(pause: Duration, cancel: &Cancel) -> Result<(), Failure> {
    use std::os::fd::AsFd;
    let door = cancel.waker.as_fd();
    let slept = waker::wait(
        door,
        PollFlags::POLLIN,
        Some(Instant::now() + pause),
        &cancel.waker,
    );
    match slept {
        Ok(waker::Woken::DeadlinePassed) => Ok(()),
        _ => Err(Failure::Abandoned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);
    const HOUR: Duration = Duration::from_secs(3600);

    fn settings() -> DownloadSettings {
        DownloadSettings {
            max_disconnects: 3,
            idle_timeout: MINUTE,
            max_timeout: 24 * HOUR,
            time_between_retries: Duration::from_secs(15),
            worst_case_speed: 30_000,
            rate_limit: 0,
        }
    }

    fn patience(settings: DownloadSettings) -> Patience {
        Patience::new(settings, 0)
    }

    #[test]
    fn a_server_s_wish_is_obeyed_up_to_an_hour() {
        let pause = |after| patience(settings()).next_pause("503".into(), after);
        let seconds = Duration::from_secs;
        for (after, expected) in [
            (None, seconds(15)),
            (Some(0), seconds(15)),
            (Some(14), seconds(15)),
            (Some(16), seconds(16)),
            (Some(3600), HOUR),
            (Some(3601), HOUR),
            (Some(u64::MAX), HOUR),
        ] {
            assert_eq!(pause(after), Ok(expected), "{after:?}");
        }
    }

    #[test]
    fn a_pause_that_outlasts_the_download_is_not_made() {
        let settings = DownloadSettings {
            max_timeout: 10 * MINUTE,
            ..settings()
        };
        let pause = |after| patience(settings).next_pause("HTTP 503".into(), Some(after));
        assert_eq!(pause(540), Ok(9 * MINUTE));
        let reason = "download failed: not finished in 600s: HTTP 503";
        assert_eq!(pause(600), Err(Failure::Failed(reason.to_owned())));
    }

    #[test]
    fn attempts_in_a_row_without_a_new_byte_are_counted() {
        let mut patience = patience(settings());
        let mut attempt = |held| {
            patience.note_progress(held);
            let ended = patience.failed("cut".into());
            (patience.retries, ended.is_ok())
        };
        assert_eq!(attempt(10), (1, true));
        assert_eq!(attempt(10), (2, true));
        // Fetched again after a fresh start: nothing new.
        assert_eq!(attempt(4), (3, true));
        assert_eq!(attempt(11), (4, true));
        assert_eq!(attempt(0), (5, true));
        assert_eq!(attempt(11), (6, true));
        assert_eq!(attempt(11), (7, false));
    }

    #[test]
    fn the_reason_for_giving_up_is_told() {
        let mut tired = patience(settings());
        for _ in 0..3 {
            tired.note_progress(0);
        }
        let reason = "download failed: HTTP 503 (3 attempts without progress)";
        assert_eq!(
            tired.failed("HTTP 503".into()),
            Err(Failure::Failed(reason.to_owned()))
        );
        let mut late = patience(DownloadSettings {
            max_timeout: Duration::ZERO,
            ..settings()
        });
        late.note_progress(1);
        let reason = "download failed: not finished in 0ns: HTTP 503";
        assert_eq!(
            late.failed("HTTP 503".into()),
            Err(Failure::Failed(reason.to_owned()))
        );
    }

    #[test]
    fn an_attempt_has_the_time_that_its_bytes_take_at_worst() {
        let limit = |rate, bytes| attempt_limit(&settings(), rate, bytes);
        // 30 kbit/s: 3750 bytes a second.
        for (rate, bytes, expected) in [
            (0, None, 5 * MINUTE),
            (0, Some(0), 5 * MINUTE),
            (0, Some(300 * 3750), 5 * MINUTE),
            (0, Some(360 * 3750), 6 * MINUTE),
            (0, Some(3600 * 3750), HOUR),
            // Half the rate we allow ourselves, when that is slower.
            (1_000_000, Some(3600 * 3750), HOUR),
            (1000, Some(3600 * 1000), 2 * HOUR),
            // Never more than the whole download gets.
            (0, Some(u64::MAX), 24 * HOUR),
            (1, Some(u64::MAX), 24 * HOUR),
        ] {
            assert_eq!(limit(rate, bytes), expected, "{rate} {bytes:?}");
        }
        let hasty = DownloadSettings {
            max_timeout: MINUTE,
            worst_case_speed: 0,
            ..settings()
        };
        assert_eq!(attempt_limit(&hasty, 0, Some(u64::MAX)), MINUTE);
    }
}
