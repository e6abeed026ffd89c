//! Where downloaded bytes go, as the requests for them see it.

use std::io::{self, Read};

use super::patience::Failure;
use super::response::Known;

/// Where the bytes of a file go, in order.
pub trait Sink {
    /// The first byte wanted, counted from the start of the file.
    fn position(&self) -> u64;

    /// Where the wanted bytes end; `None` is the end of the file.
    fn end(&self) -> Option<u64> {
        None
    }

    /// Reads once from the network, `limit` bytes at most; 0 is the body's end.
    ///
    /// # Errors
    /// The network's or the sink's own.
    fn take(&mut self, body: &mut dyn Read, limit: u64) -> Result<usize, TakeError>;

    /// Whether the whole file is welcome where only the rest was asked for.
    fn takes_whole(&self) -> bool {
        true
    }

    /// The whole file comes although only the rest was asked for: reads what is held
    /// already off it. False: it is another file.
    ///
    /// # Errors
    /// The network's.
    fn skip_held(&mut self, body: &mut dyn Read) -> io::Result<bool>;

    /// The file's validators became known; nothing of it is held yet.
    ///
    /// # Errors
    /// The sink's own.
    fn on_known(&mut self, _known: &Known) -> Result<(), Failure> {
        Ok(())
    }

    /// Forgets everything held.
    ///
    /// # Errors
    /// The sink's own.
    fn start_over(&mut self) -> Result<(), Failure>;

    /// All bytes are here. False: they are wrong, and what is wrong is forgotten.
    ///
    /// # Errors
    /// The sink's own.
    fn finish(&mut self) -> Result<bool, Failure>;
}

/// Why [`Sink::take`] took nothing.
pub enum TakeError {
    Network(io::Error),
    Own(Failure),
}

impl From<io::Error> for TakeError {
    fn from(error: io::Error) -> Self {
        Self::Network(error)
    }
}

/// Reads `count` bytes off `body` through `chunk`, showing them to `see`.
pub(super) fn read_off(
    body: &mut dyn Read,
    count: u64,
    chunk: &mut [u8],
    mut see: impl FnMut(&[u8]),
) -> io::Result<()> {
    let mut left = count;
    while left > 0 {
        let room = usize::try_from(left).map_or(chunk.len(), |left| left.min(chunk.len()));
        match body.read(&mut chunk[..room])? {
            0 => return Err(io::Error::other("the connection ended early")),
            got => {
                see(&chunk[..got]);
                left -= got as u64;
            }
        }
    }
    Ok(())
}
