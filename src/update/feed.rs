//! The bounded channel from a download to the installer: a slow flash slows the download
//! down, and memory stays flat.

use crossbeam_channel::{Receiver, Sender, bounded};

/// Payload bytes of a full chunk.
pub const CHUNK: usize = 32 * 1024;
/// fwup's frame length stands before the payload.
pub const HEADER: usize = 4;
/// Chunks on their way; with [`CHUNK`] this bounds the memory of an update.
const DEPTH: usize = 8;

/// From the download to the installer.
#[derive(Debug, PartialEq, Eq)]
pub enum Feed {
    Chunk(Chunk),
    /// What was sent so far is void: begin again with the first byte.
    Restart,
    /// That was all, and it is proven as far as the offer allows.
    End,
}

/// Firmware bytes with room for their frame header, so that framing costs no copy.
#[derive(Debug, PartialEq, Eq)]
pub struct Chunk(Vec<u8>);

impl Default for Chunk {
    fn default() -> Self {
        let mut bytes = Vec::with_capacity(HEADER + CHUNK);
        bytes.extend_from_slice(&[0; HEADER]);
        Self(bytes)
    }
}

impl Chunk {
    /// The firmware bytes.
    pub fn payload(&self) -> &[u8] {
        &self.0[HEADER..]
    }

    /// Room left before the chunk is full.
    pub fn room(&self) -> usize {
        (HEADER + CHUNK).saturating_sub(self.0.len())
    }

    pub fn extend(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// Reads once into the room left; the new bytes come back.
    ///
    /// # Errors
    /// The reader's.
    pub fn read_from(&mut self, reader: &mut impl std::io::Read) -> std::io::Result<&[u8]> {
        let before = self.0.len();
        self.0.resize(HEADER + CHUNK, 0);
        let count = reader.read(&mut self.0[before..]);
        self.0.truncate(before + *count.as_ref().unwrap_or(&0));
        count.map(|_| &self.0[before..])
    }

    /// The whole fwup frame.
    pub fn framed(&mut self) -> &[u8] {
        // Invariant: a payload is at most CHUNK bytes.
        let length = u32::try_from(self.payload().len()).unwrap_or(u32::MAX);
        self.0[..HEADER].copy_from_slice(&length.to_be_bytes());
        &self.0
    }
}

/// Both ends.
pub fn channel() -> (Sender<Feed>, Receiver<Feed>) {
    bounded(DEPTH)
}
