//! A ZIP writer that never goes back: sizes it cannot know yet follow the data.

use std::io::{Read, Result, Write};

use miniz_oxide::deflate::core::{CompressorOxide, create_comp_flags_from_zip_params};
use miniz_oxide::deflate::stream::deflate;
use miniz_oxide::{MZFlush, MZStatus};

const LIMIT: u64 = 0xffff_ffff;
const BUFFER: usize = 64 * 1024;
const LENGTH_AT_END: u16 = 8;

/// Name, time and what is known of the content of a new entry.
pub struct NewEntry<'a> {
    pub name: &'a str,
    /// Seconds since 1970; none leaves the earliest time the format has.
    pub mtime: Option<u32>,
    pub size: u64,
    pub crc: u32,
    /// Deflate with this level, or store.
    pub level: Option<u8>,
}

impl NewEntry<'_> {
    /// Whether its size needs eight bytes.
    fn is_wide(&self) -> bool {
        self.size >= LIMIT
    }

    /// Version, flags, method and the earliest date: the same in the header and the directory.
    fn head(&self) -> Vec<u8> {
        let deflated = self.level.is_some();
        let mut head = Vec::new();
        put16(&mut head, if self.is_wide() { 45 } else { 20 });
        put16(&mut head, if deflated { LENGTH_AT_END } else { 0 });
        put16(&mut head, if deflated { 8 } else { 0 });
        put32(&mut head, 0x21_0000);
        head
    }

    /// The local header. What deflate will make of the data is left open, as zeros.
    fn local_header(&self, head: &[u8]) -> Vec<u8> {
        let (crc, compressed) = match self.level {
            Some(_) => (0, 0),
            None => (self.crc, self.size),
        };
        let mut extra = time_extra(self.mtime);
        if self.is_wide() {
            put16(&mut extra, 1);
            put16(&mut extra, 16);
            put64(&mut extra, self.size);
            put64(&mut extra, compressed);
        }
        let shown = match self.is_wide() {
            true => LIMIT,
            false => compressed,
        };
        let mut local = b"PK\x03\x04".to_vec();
        local.extend_from_slice(head);
        put32(&mut local, crc);
        put32(&mut local, shown as u32);
        put32(&mut local, self.size.min(LIMIT) as u32);
        put16(&mut local, self.name.len() as u16);
        put16(&mut local, extra.len() as u16);
        local.extend_from_slice(self.name.as_bytes());
        local.extend_from_slice(&extra);
        local
    }
}

struct Written {
    head: Vec<u8>,
    extra: Vec<u8>,
    name: String,
    compressed: u64,
    size: u64,
    offset: u64,
}

/// Writes entries one after the other, then the directory.
pub struct ZipWriter<W: Write> {
    out: W,
    position: u64,
    entries: Vec<Written>,
}

impl<W: Write> ZipWriter<W> {
    pub fn new(out: W) -> Self {
        ZipWriter {
            out,
            position: 0,
            entries: Vec::new(),
        }
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.position += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    pub fn add(&mut self, entry: &NewEntry, content: &mut dyn Read) -> Result<()> {
        let offset = self.position;
        let mut head = entry.head();
        self.put(&entry.local_header(&head))?;
        let compressed = match entry.level {
            Some(level) => self.deflate(content, level)?,
            None => self.store(content)?,
        };
        if entry.level.is_some() {
            self.descriptor(entry, compressed, entry.is_wide())?;
        }
        put32(&mut head, entry.crc);
        self.entries.push(Written {
            head,
            extra: time_extra(entry.mtime),
            name: entry.name.to_string(),
            compressed,
            size: entry.size,
            offset,
        });
        Ok(())
    }

    fn descriptor(&mut self, entry: &NewEntry, compressed: u64, wide: bool) -> Result<()> {
        let mut tail = b"PK\x07\x08".to_vec();
        put32(&mut tail, entry.crc);
        for size in [compressed, entry.size] {
            match wide {
                true => put64(&mut tail, size),
                false => put32(&mut tail, size as u32),
            }
        }
        self.put(&tail)
    }

    fn store(&mut self, content: &mut dyn Read) -> Result<u64> {
        let mut buffer = vec![0; BUFFER];
        let mut total = 0;
        loop {
            let count = content.read(&mut buffer)?;
            if count == 0 {
                return Ok(total);
            }
            total += count as u64;
            self.put(&buffer[..count])?;
        }
    }

    fn deflate(&mut self, content: &mut dyn Read, level: u8) -> Result<u64> {
        // A negative window size is the way to ask for no zlib header.
        let flags = create_comp_flags_from_zip_params(i32::from(level), -15, 0);
        let mut compressor = CompressorOxide::new(flags);
        let (mut buffer, mut packed) = (vec![0; BUFFER], vec![0; BUFFER]);
        let mut total = 0;
        loop {
            let count = content.read(&mut buffer)?;
            let flush = match count {
                0 => MZFlush::Finish,
                _ => MZFlush::None,
            };
            let mut input = &buffer[..count];
            loop {
                let step = deflate(&mut compressor, input, &mut packed, flush);
                input = &input[step.bytes_consumed..];
                total += step.bytes_written as u64;
                self.put(&packed[..step.bytes_written])?;
                match step.status {
                    Ok(MZStatus::StreamEnd) => return Ok(total),
                    // Without input there may still be output; an error means there is none now.
                    Ok(_) if !input.is_empty() || count == 0 => {}
                    _ => break,
                }
            }
        }
    }

    /// Writes the directory and gives the writer back.
    pub fn finish(mut self) -> Result<W> {
        let start = self.position;
        let entries = std::mem::take(&mut self.entries);
        for entry in &entries {
            self.put(&directory_record(entry))?;
        }
        let size = self.position - start;
        let count = entries.len() as u64;
        let mut tail = Vec::new();
        if start >= LIMIT || size >= LIMIT {
            tail.extend_from_slice(b"PK\x06\x06");
            put64(&mut tail, 44);
            put32(&mut tail, 45 << 16 | 0x031e);
            put64(&mut tail, 0);
            for value in [count, count, size, start] {
                put64(&mut tail, value);
            }
            tail.extend_from_slice(b"PK\x06\x07\0\0\0\0");
            put64(&mut tail, self.position);
            put32(&mut tail, 1);
        }
        tail.extend_from_slice(b"PK\x05\x06\0\0\0\0");
        put16(&mut tail, count as u16);
        put16(&mut tail, count as u16);
        put32(&mut tail, size.min(LIMIT) as u32);
        put32(&mut tail, start.min(LIMIT) as u32);
        put16(&mut tail, 0);
        self.put(&tail)?;
        self.out.flush()?;
        Ok(self.out)
    }
}

fn directory_record(entry: &Written) -> Vec<u8> {
    let fields = [entry.size, entry.compressed];
    let mut wide = Vec::new();
    for value in fields.into_iter().chain([entry.offset]) {
        if value >= LIMIT {
            put64(&mut wide, value);
        }
    }
    let mut extra = entry.extra.clone();
    if !wide.is_empty() {
        put16(&mut extra, 1);
        put16(&mut extra, wide.len() as u16);
        extra.extend_from_slice(&wide);
    }
    let mut record = b"PK\x01\x02\x1e\x03".to_vec();
    record.extend_from_slice(&entry.head);
    put32(&mut record, entry.compressed.min(LIMIT) as u32);
    put32(&mut record, entry.size.min(LIMIT) as u32);
    put16(&mut record, entry.name.len() as u16);
    put16(&mut record, extra.len() as u16);
    record.extend_from_slice(&[0; 6]);
    put32(&mut record, 0o100_644 << 16);
    put32(&mut record, entry.offset.min(LIMIT) as u32);
    record.extend_from_slice(entry.name.as_bytes());
    record.extend_from_slice(&extra);
    record
}

fn time_extra(mtime: Option<u32>) -> Vec<u8> {
    let mut extra = Vec::new();
    if let Some(mtime) = mtime {
        put16(&mut extra, 0x5455);
        put16(&mut extra, 5);
        extra.push(1);
        put32(&mut extra, mtime);
    }
    extra
}

fn put16(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn put32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn put64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}
