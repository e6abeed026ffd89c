//! `fw_env.config`: where the copies of a U-Boot environment are.
//!
//! Owns that file's syntax. Pure: opens nothing.

use std::fmt;
use std::path::PathBuf;

/// Largest copy read, in bytes.
pub const MAX_SIZE: usize = 1 << 20;
/// A checksum, a flag and a pair of bytes.
const MIN_SIZE: usize = 16;

/// What an `fw_env.config` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvConfig {
    /// One, or two redundant ones of equal size.
    pub copies: Vec<Location>,
}

/// Where one copy is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    pub device: PathBuf,
    /// Bytes from the start, or when negative from the end.
    pub offset: i64,
    /// Bytes, checksum and flag included.
    pub size: usize,
    /// Bytes of an erase block; MTD devices only.
    pub sector_size: Option<u64>,
    /// Erase blocks the copy may use; MTD devices only.
    pub sectors: Option<u64>,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.offset < 0 { "-" } else { "" };
        let offset = self.offset.unsigned_abs();
        write!(f, "{} at {sign}{offset:#x}", self.device.display())
    }
}

/// How sizes without `0x` are read. U-Boot's tools take them as hexadecimal, others
/// (Nerves among them) as decimal; the checksum tells who is right.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum BareSizes {
    Hex,
    Decimal,
}

impl EnvConfig {
    /// Reads sizes without `0x` in hexadecimal, as `fw_printenv` does.
    pub fn parse(text: &str) -> Result<Self, (usize, String)> {
        Self::parse_as(text, BareSizes::Hex)
    }

    pub(super) fn parse_as(text: &str, bare: BareSizes) -> Result<Self, (usize, String)> {
        let mut copies: Vec<Location> = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            copies.push(Location::parse(line, bare).map_err(|problem| (index + 1, problem))?);
        }
        match copies.as_slice() {
            [] => Err((0, "it names no environment".to_owned())),
            [_] => Ok(Self { copies }),
            [a, b] if a.size == b.size => Ok(Self { copies }),
            [_, _] => Err((0, "its two copies differ in size".to_owned())),
            _ => Err((0, "it names more than two copies".to_owned())),
        }
    }
}

impl Location {
    fn parse(line: &str, bare: BareSizes) -> Result<Self, String> {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [device, offset, size, rest @ ..] = fields.as_slice() else {
            return Err("it needs a device, an offset and a size".to_owned());
        };
        let number =
            |text: &str| size_number(text, bare).ok_or_else(|| format!("{text:?} is not a number"));
        let offset = offset_number(offset).ok_or_else(|| format!("{offset:?} is not an offset"))?;
        let size = usize::try_from(number(size)?).unwrap_or(usize::MAX);
        if !(MIN_SIZE..=MAX_SIZE).contains(&size) {
            return Err(format!("size {size:#x} is not within 0x10 and 0x100000"));
        }
        Ok(Self {
            device: PathBuf::from(device),
            offset,
            size,
            sector_size: rest.first().map(|text| number(text)).transpose()?,
            sectors: rest.get(1).map(|text| number(text)).transpose()?,
        })
    }
}

fn offset_number(text: &str) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let value = i64::try_from(size_number(digits, BareSizes::Decimal)?).ok()?;
    Some(if negative { -value } else { value })
}

fn size_number(text: &str, bare: BareSizes) -> Option<u64> {
    let hex = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    let (digits, radix) = match (hex, bare) {
        (Some(digits), _) => (digits, 16),
        (None, BareSizes::Hex) => (text, 16),
        (None, BareSizes::Decimal) => (text, 10),
    };
    if digits.starts_with('+') {
        return None;
    }
    u64::from_str_radix(digits, radix).ok()
}
