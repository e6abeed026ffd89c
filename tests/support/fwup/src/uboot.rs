//! The U-Boot environment: CRC32, an optional counter byte for redundant copies, `key=value` pairs.

use std::collections::BTreeMap;

use crate::conf::{Section, parse_number};
use crate::disk::{BLOCK, Disk};
use crate::failure::{Result, fail};
use crate::zipheader::le32;

/// Where an environment lives and what is in it.
pub struct Environment {
    offset: u64,
    redundant: Option<u64>,
    size: usize,
    counter: u8,
    write_primary: bool,
    write_secondary: bool,
    pub vars: BTreeMap<String, String>,
}

/// Bytes a change counts for in the progress.
pub fn progress_units(section: &Section) -> u64 {
    let copies = if number(section, "block-offset-redund").is_some() {
        2
    } else {
        1
    };
    number(section, "block-count").unwrap_or(0) * copies * BLOCK
}

fn number(section: &Section, key: &str) -> Option<u64> {
    section.get(key).and_then(parse_number)
}

impl Environment {
    /// An empty environment at the place the section names; every copy of it will be written.
    pub fn empty(section: &Section) -> Result<Environment> {
        let count = number(section, "block-count").unwrap_or(0);
        if count == 0 || count >= 0xffff {
            return fail("invalid u-boot environment block count");
        }
        let redundant = number(section, "block-offset-redund");
        Ok(Environment {
            offset: number(section, "block-offset").unwrap_or(0),
            redundant,
            size: (count * BLOCK) as usize,
            counter: 0,
            write_primary: true,
            write_secondary: redundant.is_some(),
            vars: BTreeMap::new(),
        })
    }

    /// Reads the newest good copy; the other one is written next.
    pub fn read(&mut self, disk: &mut Disk) -> Result<()> {
        let first = self.load(disk, self.offset)?;
        let Some(place) = self.redundant else {
            self.vars = self.decode(&first)?;
            return Ok(());
        };
        let second = self.load(disk, place)?;
        // A counter that wraps: the copy that is ahead by less than half a turn is the newer one.
        let second_newer = (1..128).contains(&second[4].wrapping_sub(first[4]));
        let (newer, older) = match second_newer {
            true => (&second, &first),
            false => (&first, &second),
        };
        if let Ok(vars) = self.decode(newer) {
            self.vars = vars;
            self.counter = newer[4];
            self.write_primary = second_newer;
            self.write_secondary = !second_newer;
            return Ok(());
        }
        self.counter = older[4];
        self.vars = self.decode(older)?;
        self.write_primary = !second_newer;
        self.write_secondary = second_newer;
        Ok(())
    }

    pub fn write(&self, disk: &mut Disk) -> Result<()> {
        let bytes = self.encode()?;
        if self.write_primary {
            disk.write(&bytes, self.offset * BLOCK, false)?;
        }
        match self.redundant {
            Some(place) if self.write_secondary => disk.write(&bytes, place * BLOCK, false),
            _ => Ok(()),
        }
    }

    fn load(&self, disk: &mut Disk, block: u64) -> Result<Vec<u8>> {
        let mut bytes = vec![0; self.size];
        disk.read(&mut bytes, block * BLOCK)?;
        Ok(bytes)
    }

    fn data_start(&self) -> usize {
        if self.redundant.is_some() { 5 } else { 4 }
    }

    fn decode(&self, bytes: &[u8]) -> Result<BTreeMap<String, String>> {
        let data = &bytes[self.data_start()..];
        let (expected, actual) = (le32(bytes, 0) as u32, crc32fast::hash(data));
        if expected != actual {
            return fail(format!(
                "U-boot environment (block {}) CRC32 mismatch (expected 0x{expected:08x}; got \
                 0x{actual:08x})",
                self.offset
            ));
        }
        let mut vars = BTreeMap::new();
        for pair in data.split(|byte| *byte == 0) {
            if pair.is_empty() {
                return Ok(vars);
            }
            let text = String::from_utf8_lossy(pair);
            match text.split_once('=') {
                Some((name, value)) => vars.insert(name.to_string(), value.to_string()),
                None => return fail("Invalid U-boot environment"),
            };
        }
        Ok(vars)
    }

    fn encode(&self) -> Result<Vec<u8>> {
        let start = self.data_start();
        let mut bytes = vec![0; start];
        for (name, value) in &self.vars {
            if bytes.len() + name.len() + 1 + value.len() >= self.size - 2 {
                return fail("Not enough room in U-boot environment");
            }
            bytes.extend_from_slice(format!("{name}={value}\0").as_bytes());
        }
        bytes.push(0);
        bytes.resize(self.size, 0xff);
        let crc = crc32fast::hash(&bytes[start..]);
        bytes[..4].copy_from_slice(&crc.to_le_bytes());
        if self.redundant.is_some() {
            bytes[4] = self.counter.wrapping_add(1);
        }
        Ok(bytes)
    }
}
