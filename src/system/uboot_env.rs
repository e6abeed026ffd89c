//! U-Boot environments: `fw_env.config`, one or two copies, CRC and flags.
//!
//! Owns the formats on disk and the choice of the copy that counts, as U-Boot's own tools
//! make it. Reads only; [`writer`] changes.

mod config;
mod medium;
mod mtd;
pub mod writer;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use config::BareSizes;
pub use config::{EnvConfig, Location, MAX_SIZE};
use medium::Medium;

const CRC_LEN: usize = 4;
/// Largest `fw_env.config` read, in bytes.
const MAX_CONFIG: u64 = 64 * 1024;

/// How the flag byte of two redundant copies tells the newer one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlagScheme {
    /// 1 is active, 0 obsolete: NOR flash, where bits can only be cleared.
    Boolean,
    /// Counts up, 255 is followed by 0: everything else.
    Incremental,
}

/// One copy as read.
#[derive(Clone, Debug)]
pub struct EnvCopy {
    pub location: Location,
    /// Only with two copies.
    pub flag: Option<u8>,
    /// The variables, without checksum and flag; empty when unreadable.
    data: Vec<u8>,
    state: CopyState,
}

/// Whether a copy can be trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopyState {
    Valid,
    /// The checksum stored is not the one computed.
    BadCrc {
        stored: u32,
        computed: u32,
    },
    /// It could not be read at all.
    Unreadable(String),
}

/// An environment: every copy, and which one counts.
#[derive(Clone, Debug)]
pub struct UbootEnv {
    pub config: EnvConfig,
    pub copies: Vec<EnvCopy>,
    pub scheme: FlagScheme,
    /// Index of the copy that counts.
    pub active: usize,
}

/// Why there is no environment.
#[derive(Debug)]
pub enum UbootEnvError {
    /// The configuration cannot be read.
    Config { path: PathBuf, error: io::Error },
    /// A line of it makes no sense; 0 stands for the whole file.
    Line {
        path: PathBuf,
        line: usize,
        problem: String,
    },
    /// No copy is valid.
    NoValidCopy(Vec<(Location, CopyState)>),
}

impl fmt::Display for UbootEnvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config { path, error } => write!(f, "cannot read {}: {error}", path.display()),
            Self::Line {
                path,
                line: 0,
                problem,
            } => write!(f, "{}: {problem}", path.display()),
            Self::Line {
                path,
                line,
                problem,
            } => write!(f, "{} line {line}: {problem}", path.display()),
            Self::NoValidCopy(copies) => {
                f.write_str("no valid U-Boot environment:")?;
                for (index, (location, state)) in copies.iter().enumerate() {
                    let comma = if index == 0 { "" } else { ";" };
                    write!(f, "{comma} {location} {state}")?;
                }
                f.write_str("; check fw_env.config, or let U-Boot save its environment once")
            }
        }
    }
}

impl std::error::Error for UbootEnvError {}

impl fmt::Display for CopyState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Valid => f.write_str("is valid"),
            Self::BadCrc { stored, computed } => {
                write!(f, "has CRC {stored:#010x} where {computed:#010x} is right")
            }
            Self::Unreadable(error) => write!(f, "cannot be read ({error})"),
        }
    }
}

impl UbootEnv {
    /// The environment that the `fw_env.config` at `path` describes.
    pub fn open(path: &Path) -> Result<Self, UbootEnvError> {
        let mut text = String::new();
        File::open(path)
            .and_then(|file| file.take(MAX_CONFIG).read_to_string(&mut text))
            .map_err(|error| UbootEnvError::Config {
                path: path.to_owned(),
                error,
            })?;
        let read = |bare| {
            EnvConfig::parse_as(&text, bare)
                .map_err(|(line, problem)| UbootEnvError::Line {
                    path: path.to_owned(),
                    line,
                    problem,
                })
                .and_then(Self::read)
        };
        // The first error is the one that U-Boot's own tools would have.
        read(BareSizes::Hex).or_else(|error| read(BareSizes::Decimal).map_err(|_| error))
    }

    /// Reads every copy and picks the one that counts.
    pub fn read(config: EnvConfig) -> Result<Self, UbootEnvError> {
        let redundant = config.copies.len() > 1;
        let copies: Vec<EnvCopy> = config
            .copies
            .iter()
            .map(|location| EnvCopy::read(location, redundant))
            .collect();
        let boolean = config
            .copies
            .iter()
            .all(|location| is_boolean_flash(&location.device));
        let scheme = if boolean {
            FlagScheme::Boolean
        } else {
            FlagScheme::Incremental
        };
        match pick(&copies, scheme) {
            Some(active) => Ok(Self {
                config,
                copies,
                scheme,
                active,
            }),
            None => Err(UbootEnvError::NoValidCopy(
                copies
                    .into_iter()
                    .map(|copy| (copy.location, copy.state))
                    .collect(),
            )),
        }
    }

    /// The variables of the copy that counts; bytes that are not UTF-8 become `U+FFFD`.
    pub fn values(&self) -> BTreeMap<String, String> {
        let mut values = BTreeMap::new();
        // One by one: collecting would bring in a whole sort.
        values.extend(
            variables(&self.copies[self.active].data)
                .map(|(key, value)| (lossy(key), lossy(value))),
        );
        values
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl EnvCopy {
    fn read(location: &Location, redundant: bool) -> Self {
        let mut copy = Self {
            location: location.clone(),
            flag: None,
            data: Vec::new(),
            state: CopyState::Valid,
        };
        match Medium::open(location).and_then(|medium| medium.read()) {
            Ok(image) => copy.check(&image, redundant),
            Err(error) => copy.state = CopyState::Unreadable(error.to_string()),
        }
        copy
    }

    /// `crc32 (of what follows the flag) · flag when redundant · variables`.
    fn check(&mut self, image: &[u8], redundant: bool) {
        let (stored, rest) = image.split_at(CRC_LEN);
        let (flag, data) = rest.split_at(usize::from(redundant));
        // The boot loader writes in the machine's own byte order.
        let stored = stored.try_into().map_or(0, u32::from_ne_bytes);
        let computed = crc32(data);
        self.flag = flag.first().copied();
        if stored == computed {
            self.data = data.to_vec();
        } else {
            self.state = CopyState::BadCrc { stored, computed };
        }
    }

    /// Whether this copy can be trusted.
    pub fn state(&self) -> &CopyState {
        &self.state
    }
}

/// NOR and DataFlash clear the flag of the obsolete copy; all others count.
fn is_boolean_flash(device: &Path) -> bool {
    // Names such as /dev/mtd/by-name/env are links.
    let device = std::fs::canonicalize(device).unwrap_or_default();
    let name = device.file_name().unwrap_or_default().to_string_lossy();
    let Some(number) = name.strip_prefix("mtd") else {
        return false;
    };
    if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
        return false;
    }
    let kind = std::fs::read_to_string(format!("/sys/class/mtd/{name}/type"));
    matches!(kind.as_deref().map(str::trim), Ok("nor" | "dataflash"))
}

/// Index of the copy that counts: the only valid one, else by the flags.
fn pick(copies: &[EnvCopy], scheme: FlagScheme) -> Option<usize> {
    let valid = |copy: &EnvCopy| copy.state == CopyState::Valid;
    match copies {
        [first, second] if valid(first) && valid(second) => Some(newer(
            first.flag.unwrap_or_default(),
            second.flag.unwrap_or_default(),
            scheme,
        )),
        _ => copies.iter().position(valid),
    }
}

/// 0 or 1: the same choice as `fw_printenv` makes.
fn newer(first: u8, second: u8, scheme: FlagScheme) -> usize {
    let second_wins = match (scheme, first, second) {
        (FlagScheme::Boolean, 0, 1) => true,
        (FlagScheme::Boolean, 1, 0) => false,
        // Erased flash reads 255: a copy that was never made obsolete.
        (FlagScheme::Boolean, first, second) => first != 255 && second == 255,
        (FlagScheme::Incremental, 255, 0) => true,
        (FlagScheme::Incremental, 0, 255) => false,
        (FlagScheme::Incremental, first, second) => second > first,
    };
    usize::from(second_wins)
}

/// `key=value` up to the empty entry; entries without a key or a `=` are passed over, as
/// U-Boot does.
fn variables(data: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    data.split(|byte| *byte == 0)
        .take_while(|entry| !entry.is_empty())
        .filter_map(|entry| {
            let equals = entry.iter().position(|byte| *byte == b'=')?;
            (equals > 0).then(|| (&entry[..equals], &entry[equals + 1..]))
        })
}

/// CRC-32 (IEEE), four bits at a time: a table of sixteen words is small and fast enough.
pub fn crc32(data: &[u8]) -> u32 {
    const TABLE: [u32; 16] = {
        let mut table = [0; 16];
        let mut index = 0;
        while index < 16 {
            let mut value = index as u32;
            let mut bit = 0;
            while bit < 4 {
                value = if value & 1 == 1 {
                    0xedb8_8320 ^ (value >> 1)
                } else {
                    value >> 1
                };
                bit += 1;
            }
            table[index] = value;
            index += 1;
        }
        table
    };
    !data.iter().fold(!0, |crc, byte| {
        let crc = crc ^ u32::from(*byte);
        let crc = TABLE[(crc & 15) as usize] ^ (crc >> 4);
        TABLE[(crc & 15) as usize] ^ (crc >> 4)
    })
}

#[cfg(test)]
mod tests;
