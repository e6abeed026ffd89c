//! What must outlive the agent about an update in hand: that an installer is at work, and
//! that a reboot is owed.
//!
//! Owns one small file, valid within one boot of the machine. It says nothing about bytes
//! downloaded: those speak for themselves.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::system::durable;

/// Most bytes of the file.
const CAP: usize = 4096;
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The file and the boot it must be of.
#[derive(Clone, Debug)]
pub struct Journal {
    path: PathBuf,
    boot: Option<String>,
    /// The running slot.
    slot: Option<String>,
}

/// An update in hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub stage: Stage,
    pub uuid: String,
    /// The slot that is running.
    pub slot: Option<String>,
}

impl Entry {
    /// The firmware whose reboot is owed.
    pub fn installed(self) -> Option<String> {
        (self.stage == Stage::Installed).then_some(self.uuid)
    }
}

/// How far it had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The installer ran; its verdict was not heard.
    Applying,
    /// The installer succeeded; the reboot was not ordered yet.
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
        let boot = std::fs::read_to_string(BOOT_ID).ok();
        Self {
            path: data_path.join("update"),
            boot: boot.map(|boot| boot.trim().to_owned()),
            slot: None,
        }
    }

    /// To be noted with what is written.
    pub fn in_slot(self, slot: Option<String>) -> Self {
        Self { slot, ..self }
    }

    /// What the agent's last run left in this boot. A reboot settles everything.
    pub fn read(&self) -> Option<Entry> {
        let bytes = durable::read(&self.path, CAP).unwrap_or_else(|error| {
            log::warn!("{}: {error}; not used", self.path.display());
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
        let text = |name: &str| value[name].as_str().map(str::to_owned);
        if text("boot")? != *self.boot.as_ref()? {
            return None;
        }
        let name = text("stage")?;
        let stage = [Stage::Applying, Stage::Installed]
            .into_iter()
            .find(|stage| stage.name() == name)?;
        Some(Entry {
            stage,
            uuid: text("uuid")?,
            slot: text("slot"),
        })
    }

    /// Notes it durably. A disk that takes no note must not keep a device from its update,
    /// so a failure is only logged.
    pub fn write(&self, stage: Stage, uuid: &str) {
        let value = json!({
            "stage": stage.name(),
            "uuid": uuid,
            "slot": self.slot,
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
            log::warn!("{path}: {error}; an update would not be continued after a crash");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_last_for_one_boot() {
        let folder = tempfile::tempdir().unwrap();
        let journal = |boot: &str| Journal {
            path: folder.path().join("update"),
            boot: Some(boot.to_owned()),
            slot: Some("a".to_owned()),
        };
        assert_eq!(journal("1").read(), None);
        for stage in [Stage::Applying, Stage::Installed] {
            journal("1").write(stage, "u-1");
            let entry = Entry {
                stage,
                uuid: "u-1".into(),
                slot: Some("a".into()),
            };
            assert_eq!(journal("1").read(), Some(entry));
        }
        assert_eq!(journal("2").read(), None);
        assert_eq!(journal("1").read(), None, "gone for good");
        journal("1").write(Stage::Applying, "u-1");
        journal("1").clear();
        assert_eq!(journal("1").read(), None);
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
