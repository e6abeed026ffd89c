//! Which archives were verified, and whether the integrator has been told: over restarts.
//!
//! One small file, replaced as a whole. An archive is handled once its ready command has
//! ended. The command's starts are counted before they happen: after a power cut it runs
//! again, but one that itself ends in a reboot does not do so for ever.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::core::archive::REMEMBERED;
use crate::system::durable;
use crate::wire::is_uuid;
use crate::wire::json::json;

const FILE: &str = "archives.json";
const MAX_BYTES: usize = 64 * 1024;
/// Starts of the ready command for one archive.
const MAX_STARTS: u64 = 3;

/// The archives, the one verified last at the end.
pub struct Ledger {
    path: PathBuf,
    entries: Vec<Entry>,
}

struct Entry {
    uuid: String,
    starts: u64,
    is_told: bool,
}

impl Ledger {
    /// What cannot be read counts as empty: archives are then verified once more.
    pub fn open(data_path: &Path) -> Self {
        let path = data_path.join(FILE);
        let entries = read(&path).unwrap_or_else(|error| {
            warn!("{}: {error}; beginning anew", path.display());
            Vec::new()
        });
        Self { path, entries }
    }

    /// The ready command may start (again).
    pub fn may_start(&self, uuid: &str) -> bool {
        let mine = self.entries.iter().find(|entry| entry.uuid == uuid);
        mine.is_none_or(|entry| entry.starts < MAX_STARTS)
    }

    /// Archives that nothing is to be done about any more.
    pub fn handled(&self) -> Vec<String> {
        let done = |entry: &&Entry| entry.is_told || entry.starts >= MAX_STARTS;
        let uuids = self.entries.iter().filter(done);
        uuids.map(|entry| entry.uuid.clone()).collect()
    }

    /// Every archive that was verified, except this one.
    pub fn others<'a>(&'a self, uuid: &'a str) -> impl Iterator<Item = &'a str> {
        let uuids = self.entries.iter().map(|entry| entry.uuid.as_str());
        uuids.filter(move |other| *other != uuid)
    }

    /// It is about to be put in its place.
    ///
    /// # Errors
    /// Names the file.
    pub fn note_verified(&mut self, uuid: &str) -> Result<(), String> {
        self.change(uuid, |_| {})
    }

    /// The ready command is about to start.
    ///
    /// # Errors
    /// Names the file.
    pub fn note_start(&mut self, uuid: &str) -> Result<(), String> {
        self.change(uuid, |entry| entry.starts += 1)
    }

    /// The ready command has ended, or there is none.
    ///
    /// # Errors
    /// Names the file.
    pub fn note_told(&mut self, uuid: &str) -> Result<(), String> {
        self.change(uuid, |entry| entry.is_told = true)
    }

    fn change(&mut self, uuid: &str, change: impl FnOnce(&mut Entry)) -> Result<(), String> {
        let place = self.entries.iter().position(|entry| entry.uuid == uuid);
        let mut entry = place.map_or_else(
            || Entry {
                uuid: uuid.to_owned(),
                starts: 0,
                is_told: false,
            },
            |place| self.entries.remove(place),
        );
        change(&mut entry);
        self.entries.push(entry);
        let excess = self.entries.len().saturating_sub(REMEMBERED);
        self.entries.drain(..excess);
        let entries = self.entries.iter().map(
            |entry| json!({"uuid": entry.uuid, "starts": entry.starts, "told": entry.is_told}),
        );
        let text = json!({"archives": entries.collect::<Vec<_>>()}).to_string();
        durable::write(&self.path, text.as_bytes()).map_err(|error| {
            let path = self.path.display();
            format!("cannot write {path}: {error}; see NERVES_HUB_DATA_PATH")
        })
    }
}

fn read(path: &Path) -> io::Result<Vec<Entry>> {
    let Some(bytes) = durable::read(path, MAX_BYTES)? else {
        return Ok(Vec::new());
    };
    let whole: Value = serde_json::from_slice(&bytes)?;
    let list = whole["archives"].as_array();
    let entries = list.into_iter().flatten().filter_map(|entry| {
        // It names files.
        let uuid = entry["uuid"].as_str().filter(|uuid| is_uuid(uuid))?;
        Some(Entry {
            uuid: uuid.to_owned(),
            starts: entry["starts"].as_u64().unwrap_or(0),
            is_told: entry["told"] == true,
        })
    });
    Ok(entries.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_or_started_often_enough_is_handled_over_restarts() {
        let folder = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(folder.path());
        ledger.note_verified("placed").unwrap();
        ledger.note_told("told").unwrap();
        for _ in 0..MAX_STARTS {
            assert!(ledger.may_start("reboots"));
            assert_eq!(ledger.handled(), ["told"]);
            ledger.note_start("reboots").unwrap();
        }
        let ledger = Ledger::open(folder.path());
        assert_eq!(ledger.handled(), ["told", "reboots"]);
        assert!(!ledger.may_start("reboots"));
        assert_eq!(
            ledger.others("told").collect::<Vec<_>>(),
            ["placed", "reboots"]
        );
    }

    #[test]
    fn it_is_bounded_and_nonsense_is_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(folder.path());
        for number in 0..=REMEMBERED {
            ledger.note_told(&format!("a-{number}")).unwrap();
        }
        let handled = Ledger::open(folder.path()).handled();
        assert_eq!((handled.len(), handled[0].as_str()), (REMEMBERED, "a-1"));
        for nonsense in [
            "",
            "{",
            "[]",
            r#"{"archives":[7,{"uuid":1},{"uuid":"../x","told":true}]}"#,
        ] {
            std::fs::write(folder.path().join(FILE), nonsense).unwrap();
            assert_eq!(Ledger::open(folder.path()).handled(), [""; 0]);
        }
    }
}
