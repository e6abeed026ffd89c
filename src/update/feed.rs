//! The bounded channel from a download to the installer: a slow flash slows the download
//! down, and memory stays flat. Emptied chunks travel back to be filled again.

use std::fmt;
use std::io::{self, Read};
use std::path::PathBuf;

use crossbeam_channel::{Receiver, Sender, bounded};

/// Payload bytes of a full chunk.
pub const CHUNK: usize = 64 * 1024;
/// fwup's frame length stands before the payload.
pub const HEADER: usize = 4;
/// Chunks on their way; with [`CHUNK`] this bounds the memory of an update.
const DEPTH: usize = 4;

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

    /// Waits for room; false when the installer is gone.
    pub fn send(&self, feed: Feed) -> bool {
        self.full.send(feed).is_ok()
    }
}

/// The installer's end.
pub struct Drain {
    full: Receiver<Feed>,
    empty: Sender<Chunk>,
}

impl Drain {
    /// To wait for the next piece.
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
