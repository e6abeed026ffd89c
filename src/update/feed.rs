//! The bounded channel from a download to the installer: a slow flash slows the download
//! down, and memory stays flat. Emptied chunks travel back to be filled again.

use std::fmt;
use std::io::{self, Read};
use std::path::PathBuf;

use std::time::Duration;

use crate::system::channel::{Receiver, RecvTimeoutError, SendTimeoutError, Sender, bounded};
use crate::system::http::Cancel;

/// Payload bytes of a full chunk.
pub const CHUNK: usize = 32 * 1024;
/// fwup's frame length stands before the payload.
pub const HEADER: usize = 4;
/// Chunks on their way; with [`CHUNK`] this bounds the memory of an update.
const DEPTH: usize = 2;

/// How often one that waits for the other looks for a cancellation: a thread that panicked
/// keeps its end of the channel for ever.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// From the download to the installer.
#[derive(Debug)]
pub enum Feed {
    Chunk(Chunk),
    /// The whole firmware is in this file; nothing else follows.
    File {
        path: PathBuf,
        /// Its SHA-256 is the offered one. False: the offer named none.
        proven: bool,
    },
    /// What was sent so far is void: begin again with the first byte.
    Restart,
    /// That was all, and it is proven as far as the offer allows.
    End,
}

/// Firmware bytes with room for their frame header, so that framing costs no copy.
pub struct Chunk {
    /// Header, payload, and what is left of an earlier one.
    bytes: Box<[u8]>,
    end: usize,
}

impl Default for Chunk {
    fn default() -> Self {
        let bytes = vec![0; HEADER + CHUNK].into_boxed_slice();
        Self { bytes, end: HEADER }
    }
}

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chunk({} bytes)", self.payload().len())
    }
}

impl Chunk {
    /// The firmware bytes.
    pub fn payload(&self) -> &[u8] {
        &self.bytes[HEADER..self.end]
    }

    /// Room left before the chunk is full.
    pub fn room(&self) -> usize {
        self.bytes.len() - self.end
    }

    /// Makes it empty again.
    pub fn clear(&mut self) {
        self.end = HEADER;
    }

    /// Reads once into the room left, `limit` bytes at most; the new bytes come back.
    ///
    /// # Errors
    /// The reader's.
    pub fn read_from(&mut self, reader: &mut dyn Read, limit: u64) -> io::Result<&[u8]> {
        let before = self.end;
        let room = usize::try_from(limit).map_or(self.room(), |limit| limit.min(self.room()));
        self.end += reader.read(&mut self.bytes[before..before + room])?;
        Ok(&self.bytes[before..self.end])
    }

    /// The whole fwup frame.
    pub fn framed(&mut self) -> &[u8] {
        // Invariant: a payload is at most CHUNK bytes.
        let length = u32::try_from(self.payload().len()).unwrap_or(u32::MAX);
        self.bytes[..HEADER].copy_from_slice(&length.to_be_bytes());
        &self.bytes[..self.end]
    }
}

/// The download's end.
pub struct Filler {
    full: Sender<Feed>,
    empty: Receiver<Chunk>,
}

impl Filler {
    /// An empty chunk, used before if there is one.
    pub fn chunk(&self) -> Chunk {
        self.empty.try_recv().unwrap_or_default()
    }

    /// Waits for room; false when the installer is gone, or the update cancelled.
    pub fn send(&self, mut feed: Feed, cancel: &Cancel) -> bool {
        loop {
            match self.full.send_timeout(feed, LOOK_EVERY) {
                Ok(()) => return true,
                Err(SendTimeoutError::Timeout(_)) if cancel.is_cancelled() => return false,
                Err(SendTimeoutError::Timeout(back)) => feed = back,
                Err(SendTimeoutError::Disconnected(_)) => return false,
            }
        }
    }
}

/// The installer's end.
pub struct Drain {
    full: Receiver<Feed>,
    empty: Sender<Chunk>,
}

impl Drain {
    /// Waits for the next piece; `None` when the download is gone, or the update cancelled.
    pub fn next(&self, cancel: &Cancel) -> Option<Feed> {
        loop {
            match self.full.recv_timeout(LOOK_EVERY) {
                Ok(piece) => return Some(piece),
                Err(RecvTimeoutError::Timeout) if !cancel.is_cancelled() => {}
                Err(_) => return None,
            }
        }
    }

    /// To wait for the next piece and something else.
    pub fn pieces(&self) -> &Receiver<Feed> {
        &self.full
    }

    /// Lets an emptied chunk be filled again; more than are ever on their way are dropped.
    pub fn give_back(&self, mut chunk: Chunk) {
        chunk.clear();
        let _ = self.empty.try_send(chunk);
    }
}

/// Both ends.
pub fn channel() -> (Filler, Drain) {
    let (full, pieces) = bounded(DEPTH);
    let (give, take) = bounded(DEPTH);
    (
        Filler { full, empty: take },
        Drain {
            full: pieces,
            empty: give,
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_is_parked_does_not_hold_the_other_once_it_is_cancelled() {
        let (filler, drain) = channel();
        let cancel = Cancel::new().expect("waker");
        for _ in 0..DEPTH {
            assert!(filler.send(Feed::Restart, &cancel));
        }
        std::thread::scope(|scope| {
            let sender = scope.spawn(|| filler.send(Feed::Restart, &cancel));
            cancel.cancel();
            assert!(!sender.join().expect("sender"));
        });
        for _ in 0..DEPTH {
            assert!(matches!(drain.next(&cancel), Some(Feed::Restart)));
        }
        assert!(drain.next(&cancel).is_none());
    }
}
