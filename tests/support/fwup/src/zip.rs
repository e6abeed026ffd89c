//! A ZIP reader that only ever goes forward: local headers, stored or deflated data, descriptors.
//!
//! The checks and their messages, and the moments at which they are made, are those of libarchive's
//! streaming reader, because they end up in fwup's error frames.

use miniz_oxide::inflate::stream::{InflateState, inflate};
use miniz_oxide::{DataFormat, MZError, MZFlush, MZStatus};

use crate::failure::{Failure, Result, fail};
use crate::input::{Input, Short};
use crate::zipheader::{is_zip, le16, le32, le64, read_head, unsupported};

pub use crate::zipheader::Entry;

const OUT: usize = 256 * 1024;
const STORED: u16 = 0;
const DEFLATED: u16 = 8;

pub struct ZipReader {
    pub input: Input,
    entry: Entry,
    crc: crc32fast::Hasher,
    /// Negative once more was taken for data than the header had announced.
    remaining: i64,
    read_compressed: u64,
    read_plain: u64,
    unconsumed: usize,
    finished: bool,
    inflater: Box<InflateState>,
    out: Vec<u8>,
}

/// Where a piece of an entry's data is to be found.
enum Piece {
    Window(usize),
    Out(usize),
    Nothing,
}

impl ZipReader {
    /// Accepts what begins like a ZIP archive.
    pub fn open(mut input: Input) -> Result<ZipReader> {
        if let Err(Short::Error(text)) = input.ahead(1) {
            return fail(text);
        }
        let magic = input.ahead(4).is_ok() && is_zip(input.window());
        if !magic {
            return fail("Unrecognized archive format");
        }
        Ok(ZipReader {
            input,
            entry: Entry::default(),
            crc: crc32fast::Hasher::new(),
            remaining: 0,
            read_compressed: 0,
            read_plain: 0,
            unconsumed: 0,
            finished: true,
            inflater: InflateState::new_boxed(DataFormat::Raw),
            out: Vec::new(),
        })
    }

    /// Moves to the next entry; `None` when the central directory begins.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        self.skip_rest()?;
        self.consume_pending();
        loop {
            if self.input.ahead(4).is_err() {
                // The archive has stopped without a word; the original has no text for it either.
                return fail("(null)");
            }
            let window = self.input.window();
            let found = window.windows(4).position(|four| {
                matches!(
                    four,
                    b"PK\x03\x04" | b"PK\x01\x02" | b"PK\x05\x06" | b"PK\x06\x06"
                )
            });
            let Some(at) = found else {
                let skipped = window.len() - 3;
                self.input.consume(skipped);
                continue;
            };
            let local = window[at + 2] == 3;
            self.input.consume(at);
            if !local {
                return Ok(None);
            }
            return self.local_header().map(Some);
        }
    }

    fn local_header(&mut self) -> Result<Entry> {
        let truncated = |_| Failure("Truncated ZIP file header".to_string());
        self.input.ahead(30).map_err(truncated)?;
        let head: Vec<u8> = self.input.window()[..30].to_vec();
        let (name_len, extra_len) = (le16(&head, 26), le16(&head, 28));
        let mut entry = read_head(&head);
        self.input.consume(30);
        self.input.ahead(name_len.max(1)).map_err(truncated)?;
        entry.name = String::from_utf8_lossy(&self.input.window()[..name_len]).into_owned();
        self.input.consume(name_len);
        if extra_len > 0 {
            self.input.ahead(extra_len).map_err(truncated)?;
            entry.read_extra(&self.input.window()[..extra_len])?;
            self.input.consume(extra_len);
        }
        self.begin(entry.clone());
        Ok(entry)
    }

    fn begin(&mut self, entry: Entry) {
        self.crc = crc32fast::Hasher::new();
        self.remaining = i64::try_from(entry.compressed).unwrap_or(i64::MAX);
        self.read_compressed = 0;
        self.read_plain = 0;
        self.finished = !entry.length_at_end() && entry.compressed == 0;
        *self.inflater = InflateState::new(DataFormat::Raw);
        self.entry = entry;
    }

    /// The next piece of the current entry; `None` at its end.
    pub fn data(&mut self) -> Result<Option<&[u8]>> {
        loop {
            self.consume_pending();
            if self.finished {
                return Ok(None);
            }
            if self.entry.encrypted() {
                return fail("Passphrase required for this entry");
            }
            let piece = match self.entry.method {
                STORED => self.stored()?,
                DEFLATED => self.deflated()?,
                other => return fail(unsupported(other)),
            };
            let bytes = match piece {
                Piece::Window(count) => &self.input.window()[..count],
                Piece::Out(count) => &self.out[..count],
                Piece::Nothing => &[],
            };
            self.crc.update(bytes);
            self.read_plain += bytes.len() as u64;
            if self.finished {
                self.check_end()?;
            }
            match piece {
                Piece::Window(count) if count > 0 => {
                    return Ok(Some(&self.input.window()[..count]));
                }
                Piece::Out(count) if count > 0 => return Ok(Some(&self.out[..count])),
                _ => {}
            }
        }
    }

    /// Reads the current entry whole, up to `most` bytes. Any trouble leaves nothing at all.
    pub fn read_all(&mut self, entry: &Entry, most: usize) -> Vec<u8> {
        let most = match entry.size_is_set() {
            true => most.min(entry.size as usize),
            false => most,
        };
        let mut all = Vec::new();
        while all.len() < most {
            match self.data() {
                Ok(Some(bytes)) => {
                    all.extend_from_slice(&bytes[..bytes.len().min(most - all.len())])
                }
                Ok(None) => break,
                Err(_) => return Vec::new(),
            }
        }
        all
    }

    fn consume_pending(&mut self) {
        self.input.consume(self.unconsumed);
        self.unconsumed = 0;
    }

    fn stored(&mut self) -> Result<Piece> {
        if self.entry.length_at_end() {
            return self.stored_until_descriptor();
        }
        if self.remaining == 0 {
            self.finished = true;
            return Ok(Piece::Nothing);
        }
        if self.input.ahead(1).is_err() {
            return fail("Truncated ZIP file data");
        }
        let count = self.remaining.min(self.input.window().len() as i64);
        self.remaining -= count;
        self.read_compressed += count as u64;
        self.unconsumed = count as usize;
        Ok(Piece::Window(count as usize))
    }

    /// Stored data whose length comes after it: it ends where a fitting descriptor begins.
    fn stored_until_descriptor(&mut self) -> Result<Piece> {
        if self.input.ahead(24).is_err() {
            return fail("Truncated ZIP file data");
        }
        let window = self.input.window();
        let crc = self.crc.clone().finalize();
        if &window[..4] == b"PK\x07\x08" && le32(window, 4) == u64::from(crc) {
            self.take_descriptor(4);
            self.finished = true;
            return Ok(Piece::Nothing);
        }
        let stop = window.len() - 4;
        let next = window[1..]
            .windows(4)
            .position(|four| four == b"PK\x07\x08");
        let count = next.map_or(stop, |at| (at + 1).min(stop)).max(1);
        self.remaining -= count as i64;
        self.read_compressed += count as u64;
        self.unconsumed = count;
        Ok(Piece::Window(count))
    }

    fn deflated(&mut self) -> Result<Piece> {
        self.out.resize(OUT, 0);
        if let Err(Short::Error(_)) = self.input.ahead(1) {
            return fail("Truncated ZIP file body");
        }
        let mut window = self.input.window();
        if !self.entry.length_at_end() {
            let most = self.remaining.clamp(0, window.len() as i64) as usize;
            window = &window[..most];
        }
        let result = inflate(&mut self.inflater, window, &mut self.out, MZFlush::None);
        let starved = window.is_empty();
        match result.status {
            Ok(MZStatus::StreamEnd) => self.finished = true,
            Ok(_) if starved && result.bytes_written == 0 => return decompression_failed(-5),
            Ok(_) => {}
            Err(MZError::Buf) => return decompression_failed(-5),
            Err(_) => return decompression_failed(-3),
        }
        self.input.consume(result.bytes_consumed);
        self.remaining -= result.bytes_consumed as i64;
        self.read_compressed += result.bytes_consumed as u64;
        if self.finished && self.entry.length_at_end() {
            self.optional_descriptor()?;
        }
        Ok(Piece::Out(result.bytes_written))
    }

    fn optional_descriptor(&mut self) -> Result<()> {
        if self.input.ahead(24).is_err() {
            return fail("Truncated ZIP end-of-file record");
        }
        let marked = &self.input.window()[..4] == b"PK\x07\x08";
        self.take_descriptor(if marked { 4 } else { 0 });
        Ok(())
    }

    /// Takes CRC and sizes over from the descriptor whose fields begin at `at`.
    fn take_descriptor(&mut self, at: usize) {
        let window = self.input.window();
        self.entry.crc = le32(window, at) as u32;
        if self.entry.zip64 {
            self.entry.compressed = le64(window, at + 4);
            self.entry.size = le64(window, at + 12);
            self.unconsumed = at + 20;
        } else {
            self.entry.compressed = le32(window, at + 4);
            self.entry.size = le32(window, at + 8);
            self.unconsumed = at + 12;
        }
    }

    fn check_end(&mut self) -> Result<()> {
        let entry = &self.entry;
        if entry.compressed != self.read_compressed {
            return fail(format!(
                "ZIP compressed data is wrong size (read {}, expected {})",
                self.read_compressed, entry.compressed
            ));
        }
        if entry.size as u32 != self.read_plain as u32 {
            return fail(format!(
                "ZIP uncompressed data is wrong size (read {}, expected {})\n",
                self.read_plain, entry.size
            ));
        }
        let crc = self.crc.clone().finalize();
        if entry.crc != crc {
            return fail(format!(
                "ZIP bad CRC: 0x{crc:x} should be 0x{:x}",
                entry.crc
            ));
        }
        Ok(())
    }

    fn skip_rest(&mut self) -> Result<()> {
        self.consume_pending();
        if self.finished {
            return Ok(());
        }
        if !self.entry.length_at_end() || self.entry.compressed > 0 {
            let rest = std::mem::take(&mut self.remaining);
            self.finished = true;
            let skipped = u64::try_from(rest).is_ok_and(|rest| self.input.skip(rest).is_ok());
            return match skipped {
                true => Ok(()),
                false => fail("Truncated ZIP file data"),
            };
        }
        while !self.finished {
            self.data()?;
        }
        self.consume_pending();
        Ok(())
    }
}

fn decompression_failed<T>(code: i32) -> Result<T> {
    fail(format!("ZIP decompression failed ({code})"))
}
