//! One file on disk that grows by downloading: kept over crashes, reboots and power cuts.
//!
//! After each whole part, and at the file's end, its bytes are synced and then the part's
//! SHA-256 is noted beside it, so that a restart can tell what a power cut has torn. A tail
//! that was not noted is used, but is the first to be thrown away when the whole turns out
//! wrong; at once, where nothing tells the whole's checksum. What the file is for is the
//! caller's.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::cache::{self, Names};
use super::feed::CHUNK;
use super::fetch;
use super::means::Means;
use super::patience::Failure;
use super::progress::Progress;
use super::response::Known;
use super::sink::{Sink, TakeError};
use super::streaming::{CHECKSUM_TRIES, checksum_mismatch, skip_same};
use crate::config::Secret;
use crate::system::durable;
use crate::wire::PART;
use crate::wire::json::json;

/// Bytes of one noted SHA-256.
const SUM: usize = 32;
/// Most bytes of the file of facts.
const FACTS: usize = 4096;

/// What is to be fetched.
pub(super) struct Wanted<'a> {
    pub url: &'a Secret,
    pub size: Option<u64>,
    /// SHA-256 of the whole file. Without one, bytes that a power cut may have torn are
    /// fetched again at once: nothing here would tell that the whole is wrong.
    pub checksum: Option<[u8; 32]>,
    /// SHA-256 of each [`PART`] bytes, or none.
    pub partials: &'a [[u8; 32]],
}

/// Fetches what is missing of the file; it is whole, proven as far as `wanted` allows,
/// and synced afterwards. Files of others like it are removed first.
///
/// # Errors
/// See [`Failure`].
pub(super) fn keep(wanted: Wanted, names: &Names, means: &Means) -> Result<(), Failure> {
    cache::claim(names)?;
    let (url, size) = (wanted.url, wanted.size);
    let (mut store, known) = Store::open(wanted, names)?;
    if store.position > 0 {
        info!("{} bytes are here already", store.position);
    }
    store.make_sure_of_room(size)?;
    let progress = Progress::new(means.tell, size, store.position);
    let fetched = fetch::pursue(url, known, means, &progress, &mut store);
    if let Err(Failure::Failed(_)) = &fetched
        && store.is_spoilt
    {
        // Nothing of it is of any use; the reason stands.
        let _ = remove(names);
    }
    fetched
}

/// Removes the file so far and what was noted about it.
///
/// # Errors
/// Something stays.
pub(super) fn remove(names: &Names) -> Result<(), Failure> {
    for path in [names.partial(), names.sums(), names.facts()] {
        names.shelf.remove(&path)?;
    }
    Ok(())
}

/// The file so far.
struct Store<'a> {
    wanted: Wanted<'a>,
    names: &'a Names,
    file: File,
    sums: File,
    buffer: Vec<u8>,
    position: u64,
    hasher: Sha256,
    /// Of the part that `position` is in.
    part_hasher: Sha256,
    /// Bytes from here on were found at the start and not noted as safe: a power cut may
    /// have torn them. With the hasher up to here.
    doubt: Option<(u64, Sha256)>,
    checksum_tries: u32,
    /// No byte is worth keeping.
    is_spoilt: bool,
}

impl<'a> Store<'a> {
    fn open(wanted: Wanted<'a>, names: &'a Names) -> Result<(Self, Known), Failure> {
        let known = read_facts(names, &wanted);
        let open = |path: &Path| {
            names.shelf.clear_way(path)?;
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true);
            durable::open(path, options.truncate(known.is_none()))
                .map_err(|error| names.shelf.unusable("open", path, &error))
        };
        let size = wanted.size;
        let mut store = Self {
            file: open(&names.partial())?,
            sums: open(&names.sums())?,
            wanted,
            names,
            buffer: vec![0; CHUNK],
            position: 0,
            hasher: Sha256::new(),
            part_hasher: Sha256::new(),
            doubt: None,
            checksum_tries: 0,
            is_spoilt: false,
        };
        store.take_stock()?;
        if store.wanted.checksum.is_none()
            && let Some((at, hasher)) = store.doubt.take()
        {
            store.back_to(at, hasher)?;
        }
        let known = known.unwrap_or_else(|| Known::offered(size));
        Ok((store, known))
    }

    /// Reads what an earlier run left: parts that are as noted, then the rest.
    fn take_stock(&mut self) -> Result<(), Failure> {
        let length = self.length()?;
        if self.wanted.size.is_some_and(|size| length > size) {
            return self.start_over();
        }
        while self.position < length {
            let (begin, before) = (self.position, self.hasher.clone());
            self.read_to((begin + PART).min(length))?;
            let found: [u8; SUM] = self.part_hasher.clone().finalize().into();
            let index = begin / PART;
            let mut noted = [0; SUM];
            let is_noted = self.sums.read_exact_at(&mut noted, index * SUM as u64);
            if self.position - begin < PART {
                if is_noted.is_err() || noted != found {
                    self.doubt.get_or_insert((begin, before));
                }
                return Ok(());
            }
            let offered = self.wanted.partials.get(index as usize);
            let damaged = offered.is_some_and(|offered| *offered != found)
                || (is_noted.is_ok() && noted != found);
            if damaged {
                warn!("kept bytes from {begin} on are damaged; fetching them again");
                return self.back_to(begin, before);
            }
            if is_noted.is_err() && offered.is_none() {
                self.doubt.get_or_insert((begin, before));
            }
            self.note_part()?;
        }
        Ok(())
    }

    fn read_to(&mut self, end: u64) -> Result<(), Failure> {
        while self.position < end {
            let room = (end - self.position).min(CHUNK as u64) as usize;
            let count = self
                .file
                .read_at(&mut self.buffer[..room], self.position)
                .map_err(|error| self.unusable("read", &error))?;
            if count == 0 {
                return Ok(());
            }
            self.hasher.update(&self.buffer[..count]);
            self.part_hasher.update(&self.buffer[..count]);
            self.position += count as u64;
        }
        Ok(())
    }

    fn length(&self) -> Result<u64, Failure> {
        let found = self.file.metadata();
        found
            .map(|found| found.len())
            .map_err(|error| self.unusable("read", &error))
    }

    /// Keeps only the bytes before `at`, the begin of a part.
    fn back_to(&mut self, at: u64, hasher: Sha256) -> Result<(), Failure> {
        self.position = at;
        self.hasher = hasher;
        self.part_hasher = Sha256::new();
        self.doubt = None;
        self.file
            .set_len(at)
            .and_then(|()| self.sums.set_len(at / PART * SUM as u64))
            .map_err(|error| self.unusable("cut", &error))
    }

    /// For a file of so many bytes.
    fn make_sure_of_room(&self, size: Option<u64>) -> Result<(), Failure> {
        let size = size.unwrap_or(0);
        let missing = size.saturating_sub(self.position);
        self.names.shelf.make_sure_of_room(size, missing)
    }

    fn unusable(&self, what: &str, error: &io::Error) -> Failure {
        let path = self.names.partial();
        self.names.shelf.unusable(what, &path, error)
    }

    fn store(&mut self, count: usize) -> Result<(), Failure> {
        let bytes = &self.buffer[..count];
        if let Err(error) = self.file.write_all_at(bytes, self.position) {
            return Err(self.out_of_room(&error));
        }
        self.hasher.update(bytes);
        self.part_hasher.update(bytes);
        self.position += count as u64;
        if self.position > self.names.shelf.max {
            self.is_spoilt = true;
            return self.make_sure_of_room(Some(self.position));
        }
        match self.position.is_multiple_of(PART) {
            true => self.note_part(),
            false => Ok(()),
        }
    }

    fn note_part(&mut self) -> Result<(), Failure> {
        let sum = self.part_hasher.finalize_reset().into();
        let noted = self.note(self.position / PART - 1, sum);
        noted.map_err(|error| self.out_of_room(&error))
    }

    /// The part is safe before its note is: a note never speaks of bytes that may be lost.
    fn note(&self, index: u64, sum: [u8; SUM]) -> io::Result<()> {
        self.file.sync_data()?;
        self.sums.write_all_at(&sum, index * SUM as u64)?;
        self.sums.sync_data()
    }

    /// A disk that is full or broken: what was kept only takes up its room.
    fn out_of_room(&mut self, error: &io::Error) -> Failure {
        self.is_spoilt = true;
        self.unusable("write", error)
    }
}

impl Sink for Store<'_> {
    fn position(&self) -> u64 {
        self.position
    }

    fn take(&mut self, body: &mut dyn Read, limit: u64) -> Result<usize, TakeError> {
        let to_note = PART - self.position % PART;
        let room = limit.min(to_note).min(CHUNK as u64) as usize;
        let count = body.read(&mut self.buffer[..room])?;
        self.store(count).map_err(TakeError::Own)?;
        Ok(count)
    }

    fn skip_held(&mut self, body: &mut dyn Read) -> io::Result<bool> {
        skip_same(body, self.position, &self.hasher)
    }

    fn on_known(&mut self, known: &Known) -> Result<(), Failure> {
        // Where nobody told the size before, the limits are for now.
        self.make_sure_of_room(known.size)?;
        let path = self.names.facts();
        let text = write_facts(known, &self.wanted).to_string();
        durable::write(&path, text.as_bytes())
            .map_err(|error| self.names.shelf.unusable("write", &path, &error))
    }

    fn start_over(&mut self) -> Result<(), Failure> {
        self.back_to(0, Sha256::new())
    }

    fn finish(&mut self) -> Result<bool, Failure> {
        let found: [u8; 32] = self.hasher.clone().finalize().into();
        if self.wanted.checksum.is_some_and(|sum| sum != found) {
            if let Some((at, hasher)) = self.doubt.take() {
                warn!("the file is wrong; fetching again what was not safe, from byte {at}");
                self.back_to(at, hasher)?;
                return Ok(false);
            }
            self.checksum_tries += 1;
            if self.checksum_tries >= CHECKSUM_TRIES {
                self.is_spoilt = true;
                return Err(checksum_mismatch(&found));
            }
            warn!("the file's SHA-256 is not the offered one; fetching it again");
            self.start_over()?;
            return Ok(false);
        }
        self.file
            .sync_all()
            .and_then(|()| match self.position.is_multiple_of(PART) {
                true => Ok(()),
                false => self.note(
                    self.position / PART,
                    self.part_hasher.clone().finalize().into(),
                ),
            })
            .map_err(|error| self.unusable("sync", &error))?;
        self.names.shelf.sync()?;
        Ok(true)
    }
}

fn write_facts(known: &Known, wanted: &Wanted) -> Value {
    json!({
        "size": wanted.size,
        "checksum": wanted.checksum,
        "etag": known.etag,
        "last_modified": known.last_modified,
    })
}

/// What the last run knew, if it was about the same file.
fn read_facts(names: &Names, wanted: &Wanted) -> Option<Known> {
    let bytes = durable::read(&names.facts(), FACTS).ok().flatten()?;
    let facts: Value = serde_json::from_slice(&bytes).ok()?;
    let same = facts["size"] == json!(wanted.size) && facts["checksum"] == json!(wanted.checksum);
    if !same {
        info!("{} is another file now", names.partial().display());
        return None;
    }
    let text = |name: &str| facts[name].as_str().map(str::to_owned);
    Some(Known {
        etag: text("etag"),
        last_modified: text("last_modified"),
        ..Known::offered(wanted.size)
    })
}
