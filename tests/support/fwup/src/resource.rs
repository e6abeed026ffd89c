//! One `file-resource`: its length map, its hash, and reading its data out of the archive.

use crate::conf::{Section, parse_number};
use crate::failure::{Result, fail};
use crate::zip::ZipReader;

/// Lengths of data and holes, in turn; a plain file has one.
#[derive(Debug, Clone, Default)]
pub struct Map(Vec<u64>);

impl Map {
    pub fn of(resource: &Section) -> Map {
        let mut lengths: Vec<u64> = resource
            .list("length")
            .iter()
            .filter_map(|text| parse_number(text))
            .collect();
        if lengths.is_empty() {
            lengths.push(0);
        }
        Map(lengths)
    }

    /// Whether it is a file without holes.
    pub fn is_plain(&self) -> bool {
        self.0.len() == 1
    }

    pub fn data_size(&self) -> u64 {
        self.0.iter().step_by(2).sum()
    }

    pub fn size(&self) -> u64 {
        self.0.iter().sum()
    }

    pub fn ending_hole(&self) -> u64 {
        match self.0.len() % 2 {
            0 => self.0.last().copied().unwrap_or(0),
            _ => 0,
        }
    }
}

/// The expected hash, when it has the right length.
pub fn expected_hash(resource: &Section) -> Option<&str> {
    resource.get("blake2b-256").filter(|hash| hash.len() == 64)
}

pub fn hasher() -> blake2b_simd::State {
    blake2b_simd::Params::new().hash_length(32).to_state()
}

/// The resource name of an archive entry: `data/x` is `x`, anything else is absolute.
pub fn name_of(entry: &str) -> String {
    match entry.strip_prefix("data/") {
        Some(name) => name.to_string(),
        None => format!("/{entry}"),
    }
}

/// A place in a resource while it is read.
#[derive(Debug, Default)]
pub struct Cursor {
    map: Map,
    index: usize,
    in_piece: u64,
    offset: u64,
    /// The part of the last piece that lies beyond a hole.
    leftover: Vec<u8>,
}

impl Cursor {
    pub fn new(map: Map) -> Cursor {
        let mut cursor = Cursor {
            map,
            ..Cursor::default()
        };
        cursor.cross_holes();
        cursor
    }

    fn cross_holes(&mut self) {
        while self.index < self.map.0.len() && self.in_piece == self.map.0[self.index] {
            self.in_piece = 0;
            self.index += 1;
            if let Some(hole) = self.map.0.get(self.index) {
                self.offset += hole;
                self.index += 1;
            }
        }
    }

    /// Hands the next data to `sink` with its place in the file; false when there is no more.
    ///
    /// No more is read from the archive than the map has room for.
    pub fn next(
        &mut self,
        zip: &mut ZipReader,
        sink: &mut dyn FnMut(&[u8], u64) -> Result<()>,
    ) -> Result<bool> {
        if self.index >= self.map.0.len() {
            return Ok(false);
        }
        if !self.leftover.is_empty() {
            let bytes = std::mem::take(&mut self.leftover);
            return self.take(&bytes, sink);
        }
        match zip.data()? {
            Some(bytes) => self.take(bytes, sink),
            None => Ok(false),
        }
    }

    fn take(
        &mut self,
        bytes: &[u8],
        sink: &mut dyn FnMut(&[u8], u64) -> Result<()>,
    ) -> Result<bool> {
        let room = self.map.0[self.index] - self.in_piece;
        let count = room.min(bytes.len() as u64) as usize;
        sink(&bytes[..count], self.offset)?;
        self.leftover = bytes[count..].to_vec();
        self.offset += count as u64;
        self.in_piece += count as u64;
        self.cross_holes();
        Ok(true)
    }
}

/// Checks that the archive holds as many bytes as `meta.conf` says.
pub fn check_size(
    name: &str,
    in_archive: Option<u64>,
    on_resource: &Section,
    map: &Map,
) -> Result<()> {
    let expected = map.data_size();
    let Some(size) = in_archive.filter(|size| map.is_plain() && *size != expected) else {
        return Ok(());
    };
    let delta = ["delta-source-raw-offset", "delta-source-fat-offset"];
    if delta.iter().any(|key| on_resource.get(key).is_some()) {
        return fail(format!(
            "'{name}' is an xdelta3 patch, which fwup-standin cannot apply"
        ));
    }
    fail(format!(
        "File '{name}' isn't expected size ({} vs {}) and xdelta3 patch support not enabled on \
         it. (Add delta-source-raw-offset / delta-source-raw-count or delta-source-fat-offset / \
         delta-source-fat-path)",
        size as i32, expected as i32
    ))
}
