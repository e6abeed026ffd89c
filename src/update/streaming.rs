//! The strategy that keeps nothing on disk: HTTP straight into the installer.
//!
//! An interrupted download goes on where it stopped, into the same installer. What the
//! installer gets first is not yet proven; the file's SHA-256 (when the offer has one) is
//! checked before the *last* [`HELD_BACK`] bytes are handed over, and the installer cannot
//! finish without them: a stream that differs from the offer never switches slots.

use std::collections::VecDeque;
use std::io::{self, Read};

use sha2::{Digest, Sha256};

use super::feed::{Chunk, Feed};
use super::fetch;
use super::means::Means;
use super::patience::Failure;
use super::progress::Progress;
use super::response::Known;
use super::sink::{self, Sink, TakeError};
use crate::core::event::InstallEvent;
use crate::wire::Offer;

/// More than a zip's directory takes: without these bytes a part of the last file is
/// missing. About 60 bytes a file, and a comment may follow.
pub const HELD_BACK: usize = 64 * 1024;
/// A file whose checksum is wrong is fetched once more.
pub(super) const CHECKSUM_TRIES: u32 = 2;

/// Downloads `offer` into the feed, to its end.
///
/// # Errors
/// See [`Failure`].
pub fn run(offer: &Offer, means: &Means) -> Result<(), Failure> {
    let progress = Progress::new(means.tell, offer.size, 0);
    let mut stream = Stream {
        offer,
        means,
        received: 0,
        hasher: Sha256::new(),
        filling: Chunk::default(),
        held_back: VecDeque::new(),
        held_bytes: 0,
        checksum_tries: 0,
    };
    let known = Known::offered(offer.size);
    fetch::pursue(&offer.url, known, means, &progress, &mut stream)
}

/// The file so far.
struct Stream<'a> {
    offer: &'a Offer,
    means: &'a Means<'a>,
    /// Bytes received and kept, handed over or held back.
    received: u64,
    hasher: Sha256,
    /// Not yet full; outlives attempts, so that many short ones fill no more memory.
    filling: Chunk,
    held_back: VecDeque<Chunk>,
    held_bytes: usize,
    checksum_tries: u32,
}

impl Sink for Stream<'_> {
    fn position(&self) -> u64 {
        self.received
    }

    fn take(&mut self, body: &mut dyn Read, limit: u64) -> Result<usize, TakeError> {
        let bytes = self.filling.read_from(body, limit)?;
        let count = bytes.len();
        self.hasher.update(bytes);
        self.received += count as u64;
        if self.filling.room() == 0 {
            self.hand_over().map_err(TakeError::Own)?;
        }
        Ok(count)
    }

    fn skip_held(&mut self, body: &mut dyn Read) -> io::Result<bool> {
        skip_same(body, self.received, &self.hasher)
    }

    /// The installer begins anew, too.
    fn start_over(&mut self) -> Result<(), Failure> {
        self.means.send(Feed::Restart)?;
        self.filling.clear();
        self.held_back.clear();
        self.held_bytes = 0;
        self.received = 0;
        self.hasher = Sha256::new();
        Ok(())
    }

    /// Proves the bytes and lets the last ones go.
    fn finish(&mut self) -> Result<bool, Failure> {
        let found: [u8; 32] = self.hasher.clone().finalize().into();
        if is_wrong(self.offer, &found) {
            self.checksum_tries += 1;
            if self.checksum_tries >= CHECKSUM_TRIES {
                return Err(checksum_mismatch(&found));
            }
            warn!("the file's SHA-256 is not the offered one; fetching it again");
            self.start_over()?;
            return Ok(false);
        }
        // Told first: the installer may be through before the next line runs.
        (self.means.tell)(InstallEvent::Downloaded);
        if !self.filling.payload().is_empty() {
            self.hand_over()?;
        }
        while !self.held_back.is_empty() {
            self.release_first()?;
        }
        self.means.send(Feed::End)?;
        Ok(true)
    }
}

impl Stream<'_> {
    /// Queues what has been filled, keeping the last [`HELD_BACK`] bytes here.
    fn hand_over(&mut self) -> Result<(), Failure> {
        let chunk = std::mem::replace(&mut self.filling, self.means.feed.chunk());
        self.held_bytes += chunk.payload().len();
        self.held_back.push_back(chunk);
        while let Some(first) = self.held_back.front().map(|first| first.payload().len()) {
            if self.held_bytes - first < HELD_BACK {
                break;
            }
            self.release_first()?;
        }
        Ok(())
    }

    fn release_first(&mut self) -> Result<(), Failure> {
        if let Some(chunk) = self.held_back.pop_front() {
            self.held_bytes -= chunk.payload().len();
            self.means.send(Feed::Chunk(chunk))?;
        }
        Ok(())
    }
}

/// Reads `count` bytes off `body`; whether they are those that `hasher` has seen.
pub(super) fn skip_same(body: &mut dyn Read, count: u64, hasher: &Sha256) -> io::Result<bool> {
    let mut again = Sha256::new();
    let mut chunk = vec![0; super::feed::CHUNK];
    sink::read_off(body, count, &mut chunk, |bytes| again.update(bytes))?;
    Ok(again.finalize() == hasher.clone().finalize())
}

pub(super) fn is_wrong(offer: &Offer, found: &[u8; 32]) -> bool {
    offer.checksum.is_some_and(|expected| expected != *found)
}

pub(super) fn checksum_mismatch(found: &[u8; 32]) -> Failure {
    let hex: String = found[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    Failure::Failed(format!(
        "checksum mismatch: the file's SHA-256 begins {hex}"
    ))
}
