//! A board with two slots and the part of a bootloader that matters: the marks it keeps,
//! and which slot it starts. The test plays its boots.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::rig::{Device, RUNNING_UUID};

/// What a slot holds before anything is written to it.
pub static OLD_SLOT: [u8; 96 * 1024] = [0xA5; 96 * 1024];

/// The bootloader's view of a device. Its environment is the device's key-value store.
pub struct Board<'a>(pub &'a Device);

impl Board<'_> {
    /// Slot a runs, marked valid or not; slot b is empty and takes updates.
    pub fn begin(&self, validated: bool) {
        let mark = if validated { "1" } else { "0" };
        std::fs::write(self.slot_a(), OLD_SLOT).expect("slot a");
        std::fs::write(self.slot_b(), OLD_SLOT).expect("slot b");
        self.0.write_metadata(RUNNING_UUID, "1.0.0", "");
        self.set(&[("a.nerves_fw_validated", mark)]);
    }

    pub fn slot_a(&self) -> PathBuf {
        self.0.path("slot-a.img")
    }

    /// Where [`Device::assert_image_of`] looks.
    pub fn slot_b(&self) -> PathBuf {
        self.0.disk()
    }

    /// The mark of one slot.
    pub fn mark(&self, slot: &str) -> Option<String> {
        self.read().remove(&format!("{slot}.nerves_fw_validated"))
    }

    /// After an update of slot b: it is tried, unmarked.
    pub fn try_b(&self, uuid: &str) {
        let slot_a = self.slot_a().display().to_string();
        self.set(&[
            ("nerves_fw_active", "b"),
            ("nerves_fw_devpath", &slot_a),
            ("b.nerves_fw_uuid", uuid),
            ("b.nerves_fw_product", "demo"),
            ("b.nerves_fw_version", "2.0.0"),
            ("b.nerves_fw_platform", "demo-board"),
            ("b.nerves_fw_architecture", "x86_64"),
            ("b.nerves_fw_validated", "0"),
        ]);
    }

    /// After a boot of slot b that nobody marked: back to slot a, the mark stays as it is.
    pub fn revert(&self) {
        assert_eq!(self.mark("b").as_deref(), Some("0"));
        let slot_b = self.slot_b().display().to_string();
        self.set(&[("nerves_fw_active", "a"), ("nerves_fw_devpath", &slot_b)]);
    }

    pub fn set(&self, pairs: &[(&str, &str)]) {
        let mut values = self.read();
        for (key, value) in pairs {
            values.insert((*key).to_owned(), (*value).to_owned());
        }
        self.write(&values);
    }

    // The environment's form: nothing else here knows it.

    fn read(&self) -> BTreeMap<String, String> {
        let text = std::fs::read_to_string(self.0.path("metadata")).expect("environment");
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        pairs
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect()
    }

    fn write(&self, values: &BTreeMap<String, String>) {
        let lines = values.iter().map(|(key, value)| format!("{key}={value}\n"));
        // Whole or not at all: the agent may read it at any time.
        let new = self.0.path("board.new");
        std::fs::write(&new, lines.collect::<String>()).expect("environment");
        std::fs::rename(new, self.0.path("metadata")).expect("environment");
    }

    /// Makes the environment readable only, or writable again.
    pub fn lock(&self, locked: bool) {
        // In the way of the file that replaces it.
        let obstacle = self.0.path("metadata.new");
        match locked {
            true => std::fs::create_dir(obstacle),
            false => std::fs::remove_dir(obstacle),
        }
        .expect("environment");
    }
}
