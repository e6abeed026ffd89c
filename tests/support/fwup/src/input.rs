//! Where archive bytes come from (file, stdin, framed stdin), with bounded look-ahead.
//!
//! Bytes are taken in blocks of at most 16 KiB, and what is handed on never crosses a block unless
//! it must: the steps in which progress is reported follow from this, so it is the same as fwup's.

use std::fs::File;
use std::io::{BufReader, Read};
use std::os::fd::AsFd;

use crate::failure::{Result, fail};

const BLOCK: usize = 16 * 1024;

enum Source {
    Plain(File),
    Framed {
        stdin: BufReader<File>,
        remaining: usize,
        ended: bool,
    },
}

pub struct Input {
    source: Source,
    label: String,
    block: Vec<u8>,
    block_at: usize,
    block_end: usize,
    /// Bytes gathered from more than one block, when a look-ahead needed them together.
    joined: Vec<u8>,
    joined_at: usize,
    ended: bool,
    /// Total read, for the progress display.
    pub bytes: u64,
}

/// Why fewer bytes than asked for are available.
#[derive(Debug, PartialEq, Eq)]
pub enum Short {
    End,
    Error(String),
}

impl Input {
    /// Opens a path, or stdin when there is none; only stdin is ever framed.
    pub fn open(path: Option<&str>, framing: bool) -> Result<Input> {
        let (source, label) = match path.filter(|path| !path.is_empty()) {
            Some(path) => match File::open(path) {
                Ok(file) => (Source::Plain(file), format!("'{path}'")),
                Err(_) => return fail(format!("Failed to open '{path}'")),
            },
            None => (stdin_source(framing)?, "stdin".to_string()),
        };
        Ok(Input {
            source,
            label,
            block: vec![0; BLOCK],
            block_at: 0,
            block_end: 0,
            joined: Vec::new(),
            joined_at: 0,
            ended: false,
            bytes: 0,
        })
    }

    /// What can be looked at without reading more.
    pub fn window(&self) -> &[u8] {
        if self.joined_at < self.joined.len() {
            &self.joined[self.joined_at..]
        } else {
            &self.block[self.block_at..self.block_end]
        }
    }

    /// Makes at least `least` bytes available in the window.
    pub fn ahead(&mut self, least: usize) -> std::result::Result<(), Short> {
        loop {
            let joined = self.joined.len() - self.joined_at;
            let fresh = self.block_end - self.block_at;
            if joined >= least && joined > 0 {
                return Ok(());
            }
            if joined <= self.block_at && joined + fresh >= least && joined + fresh > 0 {
                // All joined bytes are still in the current block: go back to it.
                self.block_at -= joined;
                self.joined.clear();
                self.joined_at = 0;
                return Ok(());
            }
            if fresh == 0 {
                self.read_block()?;
                continue;
            }
            let take = fresh.min(least - joined);
            self.joined.drain(..self.joined_at);
            self.joined_at = 0;
            let from = self.block_at;
            self.joined
                .extend_from_slice(&self.block[from..from + take]);
            self.block_at += take;
        }
    }

    /// Drops bytes from the window.
    pub fn consume(&mut self, count: usize) {
        let joined = (self.joined.len() - self.joined_at).min(count);
        self.joined_at += joined;
        if self.joined_at == self.joined.len() {
            self.joined.clear();
            self.joined_at = 0;
        }
        self.block_at = (self.block_at + count - joined).min(self.block_end);
    }

    /// Drops any number of bytes, reading as needed.
    pub fn skip(&mut self, mut count: u64) -> std::result::Result<(), Short> {
        while count > 0 {
            self.ahead(1)?;
            let step = count.min(self.window().len() as u64);
            self.consume(step as usize);
            count -= step;
        }
        Ok(())
    }

    fn read_block(&mut self) -> std::result::Result<(), Short> {
        if self.ended {
            return Err(Short::End);
        }
        let got = match &mut self.source {
            Source::Plain(file) => read_some(file, &mut self.block)
                .map_err(|_| Short::Error(format!("Error reading {}", self.label))),
            Source::Framed {
                stdin,
                remaining,
                ended,
            } => read_frame(stdin, remaining, ended, &mut self.block),
        };
        self.filled(got?)
    }

    fn filled(&mut self, count: usize) -> std::result::Result<(), Short> {
        self.block_at = 0;
        self.block_end = count;
        self.bytes += count as u64;
        if count == 0 {
            self.ended = true;
            return Err(Short::End);
        }
        Ok(())
    }
}

fn stdin_source(framing: bool) -> Result<Source> {
    // A file of its own: the buffer behind `std::io::stdin` would change the block sizes.
    let file = match std::io::stdin().as_fd().try_clone_to_owned() {
        Ok(fd) => File::from(fd),
        Err(_) => return fail("Error reading stdin"),
    };
    if !framing {
        return Ok(Source::Plain(file));
    }
    Ok(Source::Framed {
        stdin: BufReader::with_capacity(4 * BLOCK, file),
        remaining: 0,
        ended: false,
    })
}

fn read_frame(
    stdin: &mut BufReader<File>,
    remaining: &mut usize,
    ended: &mut bool,
    block: &mut [u8],
) -> std::result::Result<usize, Short> {
    if *ended {
        return Ok(0);
    }
    if *remaining == 0 {
        let mut length = [0; 4];
        if stdin.read_exact(&mut length).is_err() {
            return Err(Short::Error("Error reading stdin".to_string()));
        }
        *remaining = u32::from_be_bytes(length) as usize;
        if *remaining == 0 {
            *ended = true;
            return Ok(0);
        }
    }
    let want = (*remaining).min(block.len());
    let got = read_full(stdin, &mut block[..want]);
    if got == 0 {
        let text = "Received EOF even though framing indicated more bytes";
        return Err(Short::Error(text.to_string()));
    }
    *remaining -= got;
    Ok(got)
}

fn read_some(file: &mut File, buffer: &mut [u8]) -> std::io::Result<usize> {
    loop {
        match file.read(buffer) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

fn read_full(reader: &mut impl Read, buffer: &mut [u8]) -> usize {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    filled
}
