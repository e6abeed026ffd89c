//! Reads what the hub needs from a `.fw` archive (a ZIP): `meta.conf`, its meta-data and
//! the firmware uuid derived from it. Not a general ZIP reader.

use crate::blake2b::blake2b_256;
use std::collections::BTreeMap;

const LOCAL_HEADER: &[u8] = b"PK\x03\x04";
/// Name space in which firmware uuids are made: 2053dffb-d51e-4310-b93b-956da89f9f34.
const UUID_SPACE: [u8; 16] = [
    0x20, 0x53, 0xdf, 0xfb, 0xd5, 0x1e, 0x43, 0x10, 0xb9, 0x3b, 0x95, 0x6d, 0xa8, 0x9f, 0x9f, 0x34,
];

/// The meta-data of a firmware archive: `meta-*` keys without the prefix, and the uuid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    pub uuid: String,
    pub values: BTreeMap<String, String>,
}

/// Reads the meta-data of a `.fw` file held in memory.
pub fn firmware_meta(archive: &[u8]) -> Result<Meta, String> {
    let conf = entry(archive, "meta.conf")?;
    Ok(Meta {
        uuid: uuid(&conf),
        values: meta_values(&String::from_utf8_lossy(&conf)),
    })
}

/// The firmware uuid: BLAKE2b of the name space and `meta.conf`, marked as version 5.
fn uuid(conf: &[u8]) -> String {
    let mut hash = blake2b_256(&[&UUID_SPACE, conf]);
    hash[6] = (hash[6] & 0x0f) | 0x50;
    let hex: String = hash[..16]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

fn meta_values(conf: &str) -> BTreeMap<String, String> {
    conf.lines()
        .filter_map(|line| line.strip_prefix("meta-")?.split_once('='))
        .map(|(key, value)| (key.trim().into(), unquote(value.trim())))
        .collect()
}

fn unquote(value: &str) -> String {
    let inner = value
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    inner
        .unwrap_or(value)
        .replace("\\\"", "\"")
        .replace("\\\\", "\\")
}

/// The contents of the entry `name`; entries are walked by their local headers, as a
/// streaming reader does.
fn entry(archive: &[u8], name: &str) -> Result<Vec<u8>, String> {
    let mut at = 0;
    while archive.get(at..at + 4) == Some(LOCAL_HEADER) {
        let header = archive.get(at..at + 30).ok_or("truncated ZIP header")?;
        let short =
            |offset: usize| usize::from(header[offset]) | usize::from(header[offset + 1]) << 8;
        let long = |offset: usize| short(offset) | short(offset + 2) << 16;
        let (flags, method) = (short(6), short(8));
        let start = at + 30 + short(26) + short(28);
        let entry_name = archive
            .get(at + 30..at + 30 + short(26))
            .ok_or("truncated ZIP name")?;
        let size = match flags & 8 {
            0 => long(18),
            _ => size_from_directory(archive, entry_name)?,
        };
        let body = archive
            .get(start..start + size)
            .ok_or("truncated ZIP entry")?;
        if entry_name == name.as_bytes() {
            return inflate(body, method);
        }
        at = start + size;
        if flags & 8 != 0 {
            at += if archive.get(at..at + 4) == Some(b"PK\x07\x08") {
                16
            } else {
                12
            };
        }
    }
    Err(format!("no {name} in the archive: is it a .fw file?"))
}

fn inflate(body: &[u8], method: usize) -> Result<Vec<u8>, String> {
    match method {
        0 => Ok(body.to_vec()),
        8 => miniz_oxide::inflate::decompress_to_vec_with_limit(body, 1 << 20)
            .map_err(|error| format!("meta.conf does not inflate: {error}")),
        other => Err(format!("ZIP method {other} is not supported")),
    }
}

/// Entries written to a pipe carry their size behind the data; the directory has it too.
fn size_from_directory(archive: &[u8], name: &[u8]) -> Result<usize, String> {
    let mut at = 0;
    while let Some(found) = find(&archive[at..], b"PK\x01\x02") {
        let start = at + found;
        let header = archive
            .get(start..start + 46)
            .ok_or("truncated ZIP directory")?;
        let length = usize::from(header[28]) | usize::from(header[29]) << 8;
        if archive.get(start + 46..start + 46 + length) == Some(name) {
            return Ok(u32::from_le_bytes(header[20..24].try_into().expect("four bytes")) as usize);
        }
        at = start + 4;
    }
    Err("entry missing from the ZIP directory".into())
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}
