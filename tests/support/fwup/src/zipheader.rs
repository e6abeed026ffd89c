//! ZIP local headers: their fixed fields, their extra fields, and what can be told from them.

use crate::failure::{Result, fail};

const ENCRYPTED: u16 = 1;
const LENGTH_AT_END: u16 = 8;

/// What a local file header says.
#[derive(Debug, Clone, Default)]
pub struct Entry {
    pub name: String,
    /// Seconds since 1970, when the header carries a time.
    pub mtime: i64,
    pub size: u64,
    pub flags: u16,
    pub method: u16,
    pub compressed: u64,
    pub crc: u32,
    /// Sizes in the descriptor have eight bytes.
    pub zip64: bool,
}

impl Entry {
    pub fn length_at_end(&self) -> bool {
        self.flags & LENGTH_AT_END != 0
    }

    /// Whether `size` means anything yet.
    pub fn size_is_set(&self) -> bool {
        !self.length_at_end() || self.size > 0
    }

    pub fn encrypted(&self) -> bool {
        self.flags & ENCRYPTED != 0
    }

    /// Takes over what the extra field has to say.
    pub fn read_extra(&mut self, mut extra: &[u8]) -> Result<()> {
        if extra.len() < 4 && extra.iter().any(|byte| *byte != 0) {
            return fail(format!(
                "Too-small extra data: Need at least 4 bytes, but only found {} bytes",
                extra.len()
            ));
        }
        while extra.len() >= 4 {
            let (tag, length) = (le16(extra, 0), le16(extra, 2));
            let Some(body) = extra.get(4..4 + length) else {
                return fail(format!(
                    "Extra data overflow: Need {length} bytes but only found {} bytes",
                    extra.len() - 4
                ));
            };
            match tag {
                0x0001 => self.read_zip64(body),
                0x5455 if body.len() >= 5 && body[0] & 1 != 0 => {
                    self.mtime = i64::from(le32(body, 1) as u32 as i32);
                }
                _ => {}
            }
            extra = &extra[4 + length..];
        }
        Ok(())
    }

    fn read_zip64(&mut self, mut body: &[u8]) {
        self.zip64 = true;
        for field in [&mut self.size, &mut self.compressed] {
            if *field == 0xffff_ffff && body.len() >= 8 {
                *field = le64(body, 0);
                body = &body[8..];
            }
        }
    }
}

/// The fixed part of a local header, 30 bytes.
pub fn read_head(head: &[u8]) -> Entry {
    Entry {
        flags: le16(head, 6) as u16,
        // Only the low byte counts, as in libarchive.
        method: le16(head, 8) as u16 & 0xff,
        mtime: dos_time(le16(head, 12) as u32, le16(head, 10) as u32),
        crc: le32(head, 14) as u32,
        compressed: le32(head, 18),
        size: le32(head, 22),
        ..Entry::default()
    }
}

/// What is said about a compression method that cannot be read.
pub fn unsupported(method: u16) -> String {
    let name = match method {
        1 => "compressed",
        6 => "imploded",
        9 => "deflation-64-bit",
        12 => "bzip",
        14 => "lzma",
        93 => "zstd",
        95 => "xz",
        98 => "ppmd-1",
        99 => "aes",
        _ => "??",
    };
    format!("Unsupported ZIP compression method ({method}: {name})")
}

/// Whether bytes begin like a ZIP archive.
pub fn is_zip(start: &[u8]) -> bool {
    let known: [&[u8]; 6] = [
        b"PK\x01\x02",
        b"PK\x03\x04",
        b"PK\x05\x06",
        b"PK\x06\x06",
        b"PK\x07\x08",
        b"PK00",
    ];
    known.iter().any(|magic| start.starts_with(magic))
}

/// MS-DOS date and time, taken as UTC.
fn dos_time(date: u32, time: u32) -> i64 {
    let (year, month, day) = (1980 + (date >> 9), (date >> 5) & 15, date & 31);
    let days = days_from_civil(i64::from(year), i64::from(month), i64::from(day));
    let (hour, minute, second) = (time >> 11, (time >> 5) & 63, (time & 31) * 2);
    days * 86_400 + i64::from(hour * 3600 + minute * 60 + second)
}

/// Days since 1970-01-01 of a date in the Gregorian calendar.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year - era * 400;
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

pub fn le16(bytes: &[u8], at: usize) -> usize {
    usize::from(bytes[at]) | usize::from(bytes[at + 1]) << 8
}

pub fn le32(bytes: &[u8], at: usize) -> u64 {
    le16(bytes, at) as u64 | (le16(bytes, at + 2) as u64) << 16
}

pub fn le64(bytes: &[u8], at: usize) -> u64 {
    le32(bytes, at) | le32(bytes, at + 4) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dos_times_count_from_1970() {
        assert_eq!(dos_time(0x21, 0), 315_532_800);
    }
}
