//! What a download works with, and how it asks the hub for another URL.

use std::sync::Arc;
use std::time::Instant;

use super::feed::{Feed, Filler};
use super::patience::Failure;
use crate::config::{DownloadSettings, Secret};
use crate::core::event::InstallEvent;
use crate::system::channel::{Receiver, RecvTimeoutError};
use crate::system::dial::Dialer;
use crate::system::http::Cancel;

/// What a download needs besides its offer.
pub struct Means<'a> {
    pub settings: DownloadSettings,
    pub dialer: Arc<Dialer>,
    pub allow_insecure: bool,
    pub cancel: &'a Cancel,
    pub feed: &'a Filler,
    pub tell: &'a (dyn Fn(InstallEvent) + Sync),
    /// Answers [`InstallEvent::UrlRefused`]; its end means that the job is over.
    pub fresh_urls: Receiver<Secret>,
}

impl Means<'_> {
    /// Asks the hub for another URL of the same file, so many bytes of which are here, and
    /// waits for it.
    pub(super) fn fresh_url(
        &self,
        reason: String,
        held: u64,
        ends: Instant,
    ) -> Result<Secret, Failure> {
        warn!("download refused: {reason}; asking the hub for a fresh URL");
        (self.tell)(InstallEvent::UrlRefused {
            reason: reason.clone(),
            held,
        });
        self.fresh_urls
            .recv_deadline(ends)
            .map_err(|error| match error {
                RecvTimeoutError::Disconnected => Failure::Abandoned,
                RecvTimeoutError::Timeout => {
                    Failure::Failed(format!("download failed: {reason}, and no fresh URL came"))
                }
            })
    }

    pub(super) fn send(&self, feed: Feed) -> Result<(), Failure> {
        match self.feed.send(feed, self.cancel) {
            true => Ok(()),
            false => Err(Failure::Abandoned),
        }
    }
}
