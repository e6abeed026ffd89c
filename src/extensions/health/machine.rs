//! Where numbers come from: the kernel's files below a folder, file systems, addresses.
//! Owns how they are read; what they mean is the sets'.

use std::net::IpAddr;
use std::path::PathBuf;

use nix::sys::statvfs::{FsFlags, statvfs};

use crate::system::{durable, interface};

/// Of one of the kernel's files.
const MOST_BYTES: usize = 256 * 1024;
/// Of one of its folders.
const MOST_NAMES: usize = 256;

/// The machine, or what stands for one in a test.
pub struct Machine {
    /// Above `proc` and `sys`.
    pub root: PathBuf,
    pub usage: fn(&str) -> Result<Usage, String>,
    pub addresses: fn() -> Vec<(String, IpAddr)>,
}

/// What is on a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    pub total_kb: u64,
    pub used_kb: u64,
    /// To the agent's user.
    pub available_kb: u64,
    pub is_read_only: bool,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            root: "/".into(),
            usage,
            addresses: interface::addresses,
        }
    }
}

impl Machine {
    /// A file's text.
    ///
    /// # Errors
    /// Its name, and why it cannot be read.
    pub fn text(&self, path: &str) -> Result<String, String> {
        match durable::read(&self.root.join(path), MOST_BYTES) {
            Ok(Some(bytes)) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Ok(None) => Err(format!("/{path} does not exist")),
            Err(error) => Err(format!("/{path}: {error}")),
        }
    }

    pub fn has(&self, path: &str) -> bool {
        self.root.join(path).exists()
    }

    /// What is in a folder; nothing when there is none.
    pub fn names(&self, path: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.root.join(path));
        let entries = entries.into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        names.take(MOST_NAMES).collect()
    }
}

fn usage(path: &str) -> Result<Usage, String> {
    let found = statvfs(path).map_err(|error| format!("{path}: {}", error.desc()))?;
    // Their widths differ between machines.
    let unit = found.fragment_size() as u64;
    let kb = |blocks: u64| blocks.saturating_mul(unit) / 1024;
    let (blocks, free) = (found.blocks() as u64, found.blocks_free() as u64);
    Ok(Usage {
        total_kb: kb(blocks),
        used_kb: kb(blocks.saturating_sub(free)),
        available_kb: kb(found.blocks_available() as u64),
        is_read_only: found.flags().contains(FsFlags::ST_RDONLY),
    })
}
