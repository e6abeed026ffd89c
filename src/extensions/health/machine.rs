//! Where numbers come from: the kernel's files below a folder, file systems, addresses.
//! Owns how they are read; what they mean is the sets'.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

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
    /// A file's text, without the spaces around it.
    ///
    /// # Errors
    /// Its name, and why it cannot be read.
    pub fn text(&self, path: &str) -> Result<String, String> {
        match durable::read(&self.root.join(path), MOST_BYTES) {
            Ok(Some(bytes)) => Ok(String::from_utf8_lossy(&bytes).trim().to_owned()),
            Ok(None) => Err(format!("/{path} does not exist")),
            Err(error) => Err(format!("/{path}: {error}")),
        }
    }

    /// The same of an interface's file; empty when it cannot be read.
    pub fn interface(&self, name: &str, file: &str) -> String {
        let text = self.text(&format!("sys/class/net/{name}/{file}"));
        text.unwrap_or_default()
    }

    pub fn has_interface(&self, name: &str, file: &str) -> bool {
        let path = format!("sys/class/net/{name}/{file}");
        self.root.join(path).exists()
    }

    /// What is in a folder; nothing when there is none.
    pub fn names(&self, path: &str) -> Vec<String> {
        names(&self.root.join(path), MOST_NAMES).unwrap_or_default()
    }
}

/// Names in a folder, at most so many, in their order.
///
/// # Errors
/// The system's.
pub fn names(folder: &Path, most: usize) -> io::Result<Vec<String>> {
    let mut names: Vec<String> = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let place = names.partition_point(|other| *other < name);
        names.insert(place, name);
        if names.len() == most {
            break;
        }
    }
    Ok(names)
}

/// A text's lines as words.
pub fn rows(text: &str) -> Vec<Vec<&str>> {
    let lines = text.split('\n');
    lines
        .map(|line| line.split_ascii_whitespace().collect())
        .collect()
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
