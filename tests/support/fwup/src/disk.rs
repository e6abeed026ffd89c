//! The destination, written in whole segments of 128 KiB as fwup's block cache does.
//!
//! Streamed segments go out as soon as they are full; everything else waits for the final flush,
//! so that a task that fails leaves nothing of its last steps behind.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;

use crate::failure::{Result, fail, os_text};

pub const BLOCK: u64 = 512;
const SEGMENT: usize = 128 * 1024;
const BLOCKS: usize = SEGMENT / BLOCK as usize;
/// Segments kept in memory: 8 MiB.
const KEPT: usize = 64;

struct Segment {
    data: Vec<u8>,
    valid: [bool; BLOCKS],
    dirty: bool,
}

/// How the destination was found when it was opened.
pub struct Limits {
    /// Its size in bytes when it must not be exceeded.
    pub end: Option<u64>,
    pub verify: bool,
}

pub struct Disk {
    file: File,
    limits: Limits,
    segments: BTreeMap<u64, Segment>,
    spare: Option<Vec<u8>>,
    /// Where an earlier write has failed.
    bad: Option<u64>,
}

impl Disk {
    pub fn new(file: File, limits: Limits) -> Disk {
        Disk {
            file,
            limits,
            segments: BTreeMap::new(),
            spare: None,
            bad: None,
        }
    }

    /// Writes bytes anywhere. What is left of a block that was not known before becomes zero.
    pub fn write(&mut self, mut bytes: &[u8], mut offset: u64, streamed: bool) -> Result<()> {
        while !bytes.is_empty() {
            let base = offset - offset % SEGMENT as u64;
            let at = (offset - base) as usize;
            let count = bytes.len().min(SEGMENT - at);
            let segment = self.segment(base)?;
            segment.data[at..at + count].copy_from_slice(&bytes[..count]);
            let (first, last) = (at / BLOCK as usize, (at + count - 1) / BLOCK as usize);
            segment.valid[first..=last].fill(true);
            segment.dirty = true;
            let full = at + count == SEGMENT && segment.valid.iter().all(|valid| *valid);
            if streamed && full {
                self.flush_segment(base, true)?;
            }
            bytes = &bytes[count..];
            offset += count as u64;
        }
        Ok(())
    }

    pub fn read(&mut self, bytes: &mut [u8], offset: u64) -> Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            let place = offset + done as u64;
            let base = place - place % SEGMENT as u64;
            let at = (place - base) as usize;
            let count = (bytes.len() - done).min(SEGMENT - at);
            self.complete_segment(base)?;
            let segment = self.segment(base)?;
            bytes[done..done + count].copy_from_slice(&segment.data[at..at + count]);
            done += count;
        }
        Ok(())
    }

    /// Forgets everything not written yet.
    pub fn reset(&mut self) {
        self.segments.clear();
    }

    /// Writes everything out, in order.
    pub fn flush(&mut self) -> Result<()> {
        self.check_earlier()?;
        let bases: Vec<u64> = self.segments.keys().copied().collect();
        for base in bases {
            self.flush_segment(base, false)?;
        }
        Ok(())
    }

    fn segment(&mut self, base: u64) -> Result<&mut Segment> {
        if !self.segments.contains_key(&base) && self.segments.len() >= KEPT {
            // The first is as good as any: writes mostly go upwards.
            if let Some(oldest) = self.segments.keys().next().copied() {
                self.flush_segment(oldest, true)?;
            }
        }
        let spare = &mut self.spare;
        Ok(self.segments.entry(base).or_insert_with(|| {
            let mut data = spare.take().unwrap_or_else(|| vec![0; SEGMENT]);
            data.fill(0);
            Segment {
                data,
                valid: [false; BLOCKS],
                dirty: false,
            }
        }))
    }

    /// Fills the blocks of a segment that were not written from the destination.
    fn complete_segment(&mut self, base: u64) -> Result<()> {
        if self.segment(base)?.valid.iter().all(|valid| *valid) {
            return Ok(());
        }
        let mut old = vec![0; SEGMENT];
        let count = self.io_size(base)?;
        read_at_most(&self.file, &mut old[..count], base)?;
        let segment = self.segment(base)?;
        for block in 0..BLOCKS {
            if !segment.valid[block] {
                let range = block * BLOCK as usize..(block + 1) * BLOCK as usize;
                segment.data[range.clone()].copy_from_slice(&old[range]);
                segment.valid[block] = true;
            }
        }
        Ok(())
    }

    fn check_earlier(&self) -> Result<()> {
        match self.bad {
            Some(base) => fail(format!("write failed at offset {base}. Check media size.")),
            None => Ok(()),
        }
    }

    fn flush_segment(&mut self, base: u64, ongoing: bool) -> Result<()> {
        self.check_earlier()?;
        if self
            .segments
            .get(&base)
            .is_some_and(|segment| segment.dirty)
        {
            self.complete_segment(base)?;
        }
        let Some(segment) = self.segments.remove(&base) else {
            return Ok(());
        };
        if !segment.dirty {
            return Ok(());
        }
        let written = self
            .io_size(base)
            .and_then(|count| self.write_out(&segment.data[..count], base));
        if ongoing && written.is_err() {
            // The original writes these in the background: the failure shows at the next write.
            self.bad = Some(base);
            return Ok(());
        }
        written?;
        self.spare = Some(segment.data);
        Ok(())
    }

    fn write_out(&self, data: &[u8], base: u64) -> Result<()> {
        if self.file.write_all_at(data, base).is_err() {
            return fail(format!(
                "writing {} bytes failed at offset {base}. Check media size.",
                data.len()
            ));
        }
        if self.limits.verify {
            let mut back = vec![0; data.len()];
            if self.file.read_exact_at(&mut back, base).is_err() {
                return fail(format!("read back failed at offset {base}"));
            }
            if back != data {
                return fail(format!("write verification failed at offset {base}"));
            }
        }
        Ok(())
    }

    /// How much of a segment lies before the end of the destination.
    fn io_size(&self, base: u64) -> Result<usize> {
        match self.limits.end {
            Some(end) if base > end => fail(format!(
                "read/write failed at offset {base} since past end of media ({end})."
            )),
            Some(end) => Ok((end - base).min(SEGMENT as u64) as usize),
            None => Ok(SEGMENT),
        }
    }
}

fn read_at_most(file: &File, mut bytes: &mut [u8], mut offset: u64) -> Result<()> {
    while !bytes.is_empty() {
        match file.read_at(bytes, offset) {
            Ok(0) => return Ok(()),
            Ok(count) => {
                bytes = &mut bytes[count..];
                offset += count as u64;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => {
                return fail(format!(
                    "unexpected error reading {} bytes at offset {offset}: {}.\nPossible causes \
                     are that the destination is too small, the device (e.g., an SD card) is \
                     going bad, or the connection to it is flaky.",
                    bytes.len(),
                    os_text(&error)
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(end: Option<u64>) -> (Disk, tempfile::NamedTempFile) {
        let file = tempfile::NamedTempFile::new().expect("temporary file");
        let handle = file.reopen().expect("reopen");
        (Disk::new(handle, Limits { end, verify: false }), file)
    }

    #[test]
    fn segments_are_written_whole() {
        let (mut disk, file) = disk(None);
        disk.write(b"hello", 512, true).expect("write");
        disk.flush().expect("flush");
        let bytes = std::fs::read(file.path()).expect("read");
        assert_eq!(bytes.len(), SEGMENT);
        assert_eq!(&bytes[510..519], b"\0\0hello\0\0");
    }

    #[test]
    fn a_reset_keeps_only_full_streamed_segments() {
        let (mut disk, file) = disk(None);
        disk.write(&vec![7; SEGMENT + 9], 0, true).expect("write");
        disk.reset();
        disk.flush().expect("flush");
        let bytes = std::fs::read(file.path()).expect("read");
        assert_eq!(bytes, vec![7; SEGMENT]);
    }

    #[test]
    fn the_end_of_the_media_is_respected() {
        let (mut disk, file) = disk(Some(5120));
        disk.write(&[1; 6000], 0, false).expect("write");
        disk.flush().expect("flush");
        assert_eq!(std::fs::read(file.path()).expect("read").len(), 5120);
        disk.write(&[1; 10], SEGMENT as u64, false).expect("write");
        assert!(disk.flush().is_err());
    }
}
