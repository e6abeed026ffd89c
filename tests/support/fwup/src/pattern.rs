//! What goes into a resource: given bytes, a file, or a generated and repeatable pattern.

use std::fs::File;
use std::io::{Cursor, Read, Result};
use std::path::PathBuf;

const CHUNK: usize = 4096;

/// The content of a resource. It is read twice: for the hash, which comes first, and for the data.
#[derive(Debug, Clone)]
pub enum Content {
    Bytes(Vec<u8>),
    File(PathBuf),
    /// Pseudo-random bytes; they do not compress.
    Random {
        seed: u64,
        len: u64,
    },
    /// Half pseudo-random, half zeros, in turns of 2 KiB.
    Compressible {
        seed: u64,
        len: u64,
    },
}

impl Content {
    pub fn open(&self) -> Result<Box<dyn Read + '_>> {
        Ok(match self {
            Content::Bytes(bytes) => Box::new(Cursor::new(bytes)),
            Content::File(path) => Box::new(File::open(path)?),
            Content::Random { seed, len } => Box::new(Pattern::new(*seed, CHUNK).take(*len)),
            Content::Compressible { seed, len } => {
                Box::new(Pattern::new(*seed, CHUNK / 2).take(*len))
            }
        })
    }
}

/// An endless stream of chunks whose first `random` bytes are noise, and the rest zero.
struct Pattern {
    state: u64,
    random: usize,
    chunk: [u8; CHUNK],
    at: usize,
}

impl Pattern {
    fn new(seed: u64, random: usize) -> Pattern {
        Pattern {
            // Never zero: a xorshift generator would stay there.
            state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            random,
            chunk: [0; CHUNK],
            at: CHUNK,
        }
    }

    fn refill(&mut self) {
        for eight in self.chunk[..self.random].chunks_exact_mut(8) {
            self.state ^= self.state << 13;
            self.state ^= self.state >> 7;
            self.state ^= self.state << 17;
            eight.copy_from_slice(&self.state.to_le_bytes());
        }
        self.at = 0;
    }
}

impl Read for Pattern {
    fn read(&mut self, out: &mut [u8]) -> Result<usize> {
        let mut done = 0;
        while done < out.len() {
            if self.at == CHUNK {
                self.refill();
            }
            let count = (CHUNK - self.at).min(out.len() - done);
            out[done..done + count].copy_from_slice(&self.chunk[self.at..self.at + count]);
            self.at += count;
            done += count;
        }
        Ok(done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(content: &Content) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut reader = content.open().expect("generated");
        reader.read_to_end(&mut bytes).expect("generated");
        bytes
    }

    #[test]
    fn patterns_repeat_and_depend_on_the_seed() {
        let make = |seed| Content::Random { seed, len: 10_001 };
        assert_eq!(read(&make(1)).len(), 10_001);
        assert_eq!(read(&make(1)), read(&make(1)));
        assert_ne!(read(&make(1)), read(&make(2)));
        let half = read(&Content::Compressible { seed: 1, len: 4096 });
        assert_eq!(half[2048..], [0; 2048]);
    }
}
