//! When a download is tried again, when it is given up, and the pauses in between.

use std::time::{Duration, Instant};

use nix::poll::PollFlags;

use crate::config::DownloadSettings;
use crate::system::http::Cancel;
use crate::system::waker;

/// `Retry-After` is obeyed up to this, in seconds.
const MAX_RETRY_AFTER: u64 = 3600;

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
            return Err(Failure::Failed(format!(
                "download failed: not finished in {:?}: {reason}",
                self.settings.max_timeout
            )));
        }
        Ok(())
    }

    pub(super) fn next_pause(
        &mut self,
        reason: String,
        after: Option<u64>,
    ) -> Result<Duration, Failure> {
        log::warn!("download interrupted: {reason}");
        self.failed(reason)?;
        let asked = Duration::from_secs(after.unwrap_or(0).min(MAX_RETRY_AFTER));
        Ok(self.settings.time_between_retries.max(asked))
    }
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
