//! One connection's share: neighbouring parts, each proven and put in place as it ends.

use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::system::durable;
use crate::update::cache;
use crate::update::feed::CHUNK;
use crate::update::patience::Failure;
use crate::update::plan::Plan;
use crate::update::sink::{self, Sink, TakeError};

/// A part that is not complete yet.
pub(super) struct Unfinished {
    pub(super) part: usize,
    file: File,
    pub(super) received: u64,
    hasher: Sha256,
}

/// The sink of one request.
pub(super) struct Run {
    pub(super) plan: Plan,
    pub(super) parts: Range<usize>,
    /// SHA-256 of each of these parts.
    pub(super) sums: Vec<[u8; 32]>,
    pub(super) folder: PathBuf,
    /// No other connection fetches a share.
    pub(super) is_sole: bool,
    pub(super) buffer: Vec<u8>,
    /// The part that comes next or is coming.
    pub(super) part: usize,
    pub(super) unfinished: Option<Unfinished>,
    /// Bytes of a part in between that is held already.
    pub(super) passed: u64,
    pub(super) done: Vec<usize>,
    pub(super) wrong: Vec<usize>,
    /// The disk took no more.
    pub(super) is_spoilt: bool,
}

pub(super) fn path_of(folder: &Path, part: usize) -> PathBuf {
    folder.join(format!("{part:05}"))
}

fn new_path_of(folder: &Path, part: usize) -> PathBuf {
    folder.join(format!("{part:05}.new"))
}

impl Sink for Run {
    fn position(&self) -> u64 {
        let begun = self.unfinished.as_ref().map_or(0, |begun| begun.received);
        match self.part < self.parts.end {
            true => self.plan.bytes(self.part).start + begun + self.passed,
            false => self.plan.bytes(self.parts.end - 1).end,
        }
    }

    fn end(&self) -> Option<u64> {
        Some(self.plan.bytes(self.parts.end - 1).end)
    }

    fn take(&mut self, body: &mut dyn Read, limit: u64) -> Result<usize, TakeError> {
        let left = self.plan.bytes(self.part).end - self.position();
        let room = limit.min(left).min(CHUNK as u64) as usize;
        let count = body.read(&mut self.buffer[..room])?;
        if count > 0 {
            self.store(count).map_err(TakeError::Own)?;
        }
        Ok(count)
    }

    /// Several connections that read from the start would fetch bytes over and over.
    fn takes_whole(&self) -> bool {
        self.is_sole
    }

    /// Each part proves itself, so what is held already is read past.
    fn skip_held(&mut self, body: &mut dyn Read) -> io::Result<bool> {
        let position = self.position();
        sink::read_off(body, position, &mut self.buffer, |_| {})?;
        Ok(true)
    }

    /// What is held proves itself, whatever the server has now.
    fn start_over(&mut self) -> Result<(), Failure> {
        Ok(())
    }

    fn finish(&mut self) -> Result<bool, Failure> {
        Ok(true)
    }
}

impl Run {
    fn store(&mut self, count: usize) -> Result<(), Failure> {
        if self.plan.is_held(self.part) {
            self.passed += count as u64;
            if self.passed == self.plan.length(self.part) {
                self.passed = 0;
                self.part += 1;
            }
            return Ok(());
        }
        let stored = self.store_part(count);
        stored.map_err(|error| {
            self.is_spoilt = true;
            cache::unusable("store the firmware in", &self.folder, &error)
        })
    }

    fn store_part(&mut self, count: usize) -> io::Result<()> {
        let mut begun = match self.unfinished.take() {
            Some(begun) => begun,
            None => self.begin()?,
        };
        let bytes = &self.buffer[..count];
        begun.file.write_all_at(bytes, begun.received)?;
        begun.hasher.update(bytes);
        begun.received += count as u64;
        if begun.received < self.plan.length(self.part) {
            self.unfinished = Some(begun);
            return Ok(());
        }
        let part = self.part;
        self.part += 1;
        self.place(part, begun)
    }

    fn begin(&self) -> io::Result<Unfinished> {
        let file = durable::create(&new_path_of(&self.folder, self.part))?;
        Ok(Unfinished {
            part: self.part,
            file,
            received: 0,
            hasher: Sha256::new(),
        })
    }

    /// A part has its name only once it is proven and safe.
    fn place(&mut self, part: usize, begun: Unfinished) -> io::Result<()> {
        let new = new_path_of(&self.folder, part);
        let found: [u8; 32] = begun.hasher.finalize().into();
        if found != self.sums[part - self.parts.start] {
            self.wrong.push(part);
            return fs::remove_file(new);
        }
        begun.file.sync_data()?;
        fs::rename(new, path_of(&self.folder, part))?;
        durable::sync_folder(&self.folder)?;
        self.done.push(part);
        Ok(())
    }
}
