//! What must outlive the agent about an update in hand: that an installer is at work, and
//! that a reboot is owed.
//!
//! Owns one small file, valid within one boot of the machine. It says nothing about bytes
//! downloaded: those speak for themselves. What to make of an entry is for `agent::left`.
//!
//! A boot is known by the kernel's id of it and by the start of process 1, so that a
//! container that was started again counts as one. An entry goes when what it says has been
//! settled, never because a command has said that it will be.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::system::durable;
use crate::system::slots::Record;
use crate::wire::json::json;

/// Most bytes of the file.
const CAP: usize = 4096;
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const INIT: &str = "/proc/1/stat";
/// Where process 1's start stands in [`INIT`], behind the name in brackets.
const START: usize = 19;

/// The file and the boot it must be of.
#[derive(Clone, Debug)]
pub struct Journal {
    path: PathBuf,
    boot: Option<String>,
    /// The running slot.
    slot: Option<String>,
    /// Runs of the agent before this one that ordered the reboot that is owed.
    orders: u64,
}

/// An update in hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub stage: Stage,
    pub uuid: String,
    /// The slot that was running.
    pub slot: Option<String>,
    /// What was on record when the installer had succeeded; `None`: that is not known.
    pub record: Option<Record>,
    /// Runs of the agent that ordered the reboot.
    pub orders: u64,
    /// The last order's command succeeded.
    pub accepted: bool,
}

/// How far it had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The installer ran; its verdict was not heard, or what it did could not be undone.
    Applying,
    /// The installer succeeded; the machine has not rebooted yet.
    Installed,
}

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Self::Applying => "applying",
            Self::Installed => "installed",
        }
    }
}

impl Journal {
    /// The journal of the running boot.
    pub fn new(data_path: &Path) -> Self {
        Self {
            path: data_path.join("update"),
            boot: boot(),
            slot: None,
            orders: 0,
        }
    }

    /// To be noted with what is written.
    pub fn in_slot(self, slot: Option<String>) -> Self {
        Self { slot, ..self }
    }

    /// Goes on with the reboot that earlier runs ordered.
    pub fn after(self, entry: Option<&Entry>) -> Self {
        let orders = entry.map_or(0, |entry| entry.orders);
        Self { orders, ..self }
    }

    /// What the agent's last run left in this boot. A reboot settles everything.
    pub fn read(&self) -> Option<Entry> {
        let bytes = durable::read(&self.path, CAP).unwrap_or_else(|error| {
            warn!("{}: {error}; not used", self.path.display());
            None
        })?;
        let entry = self.parse(&bytes);
        if entry.is_none() {
            self.clear();
        }
        entry
    }

    fn parse(&self, bytes: &[u8]) -> Option<Entry> {
        let value: Value = serde_json::from_slice(bytes).ok()?;
        let text = |value: &Value, name: &str| value[name].as_str().map(str::to_owned);
        if text(&value, "boot")? != *self.boot.as_ref()? {
            return None;
        }
        let name = text(&value, "stage")?;
        let stage = [Stage::Applying, Stage::Installed]
            .into_iter()
            .find(|stage| stage.name() == name)?;
        let record = &value["record"];
        Some(Entry {
            stage,
            uuid: text(&value, "uuid")?,
            slot: text(&value, "slot"),
            record: record["reverted"].as_bool().map(|reverted| Record {
                active: text(record, "active"),
                uuid: text(record, "uuid"),
                reverted,
            }),
            orders: value["orders"].as_u64().unwrap_or(0),
            accepted: value["accepted"].as_bool().unwrap_or(false),
        })
    }

    /// An installer is about to be started.
    pub fn applying(&self, uuid: &str) {
        self.write(&self.entry(Stage::Applying, uuid));
    }

    /// It succeeded; this is on record now.
    pub fn installed(&self, uuid: &str, record: Option<Record>) {
        self.write(&Entry {
            record,
            ..self.entry(Stage::Installed, uuid)
        });
    }

    /// The reboot command is about to be run, for whatever reason.
    pub fn reboot_ordered(&self) {
        self.note_order(false);
    }

    /// It succeeded.
    pub fn reboot_accepted(&self) {
        self.note_order(true);
    }

    fn note_order(&self, accepted: bool) {
        if let Some(entry) = self.read().filter(|left| left.stage == Stage::Installed) {
            self.write(&Entry {
                orders: self.orders + 1,
                accepted,
                ..entry
            });
        }
    }

    fn entry(&self, stage: Stage, uuid: &str) -> Entry {
        Entry {
            stage,
            uuid: uuid.to_owned(),
            slot: self.slot.clone(),
            record: None,
            orders: self.orders,
            accepted: false,
        }
    }

    /// Notes it durably. A disk that takes no note must not keep a device from its update,
    /// so a failure is only logged.
    fn write(&self, entry: &Entry) {
        let record = entry.record.as_ref().map(|record| {
            json!({
                "active": record.active,
                "uuid": record.uuid,
                "reverted": record.reverted,
            })
        });
        let value = json!({
            "stage": entry.stage.name(),
            "uuid": entry.uuid,
            "slot": entry.slot,
            "record": record,
            "orders": entry.orders,
            "accepted": entry.accepted,
            "boot": self.boot,
        });
        self.complain(durable::write(&self.path, value.to_string().as_bytes()));
    }

    /// Nothing is owed any more.
    pub fn clear(&self) {
        self.complain(durable::remove(&self.path));
    }

    fn complain(&self, done: io::Result<()>) {
        if let Err(error) = done {
            let path = self.path.display();
            warn!("{path}: {error}; an update would not be continued after a crash");
        }
    }
}

/// Process 1 may be hidden from us: then the kernel's id has to do.
fn boot() -> Option<String> {
    let id = std::fs::read_to_string(BOOT_ID).ok()?;
    let stat = std::fs::read_to_string(INIT).unwrap_or_default();
    Some(format!("{} {}", id.trim(), start(&stat)))
}

/// Its name may hold anything, brackets and spaces too.
fn start(stat: &str) -> &str {
    let fields = stat.rsplit_once(") ").map(|(_, fields)| fields);
    fields
        .and_then(|fields| fields.split(' ').nth(START))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journal(folder: &Path, boot: &str) -> Journal {
        Journal {
            path: folder.join("update"),
            boot: Some(boot.to_owned()),
            slot: Some("a".to_owned()),
            orders: 0,
        }
    }

    #[test]
    fn entries_last_for_one_boot() {
        let folder = tempfile::tempdir().unwrap();
        let journal = |boot: &str| journal(folder.path(), boot);
        let record = Record {
            active: Some("b".into()),
            uuid: Some("u-1".into()),
            reverted: true,
        };
        assert_eq!(journal("1").read(), None);
        for (stage, record) in [
            (Stage::Applying, None),
            (Stage::Installed, None),
            (Stage::Installed, Some(record)),
        ] {
            match stage {
                Stage::Applying => journal("1").applying("u-1"),
                Stage::Installed => journal("1").installed("u-1", record.clone()),
            }
            let entry = Entry {
                stage,
                uuid: "u-1".into(),
                slot: Some("a".into()),
                record,
                orders: 0,
                accepted: false,
            };
            assert_eq!(journal("1").read(), Some(entry));
        }
        assert_eq!(journal("2").read(), None);
        assert_eq!(journal("1").read(), None, "gone for good");
        journal("1").applying("u-1");
        journal("1").clear();
        assert_eq!(journal("1").read(), None);
    }

    #[test]
    fn runs_that_order_a_reboot_are_counted_once_each() {
        let folder = tempfile::tempdir().unwrap();
        let journal = journal(folder.path(), "1");
        let noted = || {
            let entry = journal.read()?;
            Some((entry.stage, entry.orders, entry.accepted))
        };
        // Reboots for other reasons are not promised.
        journal.reboot_ordered();
        assert_eq!(noted(), None);
        journal.applying("u-1");
        journal.reboot_accepted();
        assert_eq!(noted(), Some((Stage::Applying, 0, false)));
        journal.installed("u-1", None);
        for run in 1..=3 {
            let entry = journal.read();
            let journal = journal.clone().after(entry.as_ref());
            for _ in 0..2 {
                journal.reboot_ordered();
                assert_eq!(noted(), Some((Stage::Installed, run, false)));
                journal.reboot_accepted();
                assert_eq!(noted(), Some((Stage::Installed, run, true)));
            }
        }
    }

    #[test]
    fn the_start_of_process_1_is_found_behind_any_name() {
        let numbers: Vec<String> = (4..53).map(|field| field.to_string()).collect();
        for name in ["init", "a) S (b", "(sd-pam)"] {
            let stat = format!("1 ({name}) S {}\n", numbers.join(" "));
            assert_eq!(start(&stat), "22");
        }
        assert_eq!(start(""), "");
        let boot = boot().unwrap();
        let (_, start) = boot.split_once(' ').unwrap();
        assert!(start.parse::<u64>().is_ok(), "{boot}");
    }

    #[test]
    fn nonsense_is_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::new(folder.path());
        for text in ["", "{}", "[1]", "{\"stage\":\"installed\"}", "\0\0\0"] {
            std::fs::write(folder.path().join("update"), text).unwrap();
            assert_eq!(journal.read(), None, "{text}");
        }
    }
}
