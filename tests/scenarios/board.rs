//! A board with two slots and the part of a bootloader that matters: its environment with
//! the marks it keeps, and which slot it starts. The test plays its boots.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, IntoRawFd};
use std::path::{Path, PathBuf};

use nerveshub_agent::system::uboot_env::UbootEnv;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::rig::{Device, RUNNING_UUID};
use crate::slots::write_environment;

/// What a slot holds before anything is written to it.
pub static OLD_SLOT: [u8; 96 * 1024] = [0xA5; 96 * 1024];

/// The bootloader's view of a device. Its environment is the device's key-value store.
pub struct Board<'a>(pub &'a Device);

/// Has a device keep its values in a U-Boot environment.
pub fn with_environment(device: &mut Device) {
    let source = format!("uboot:{}", device.path("fw_env.config").display());
    device.set("FIRMWARE_METADATA", &source);
    // Whatever this machine has.
    let none = device.path("no-ops.fw").display().to_string();
    device.set("OPS_FW", &none);
}

/// What an update of slot b changes.
fn switch_to_b(uuid: &str) -> [(&str, &str); 7] {
    [
        ("nerves_fw_active", "b"),
        ("b.nerves_fw_uuid", uuid),
        ("b.nerves_fw_product", "demo"),
        ("b.nerves_fw_version", "2.0.0"),
        ("b.nerves_fw_platform", "demo-board"),
        ("b.nerves_fw_architecture", "x86_64"),
        ("b.nerves_fw_validated", "0"),
    ]
}

impl Board<'_> {
    /// Slot a runs, marked valid or not; slot b is empty and takes updates.
    pub fn begin(&self, validated: bool) {
        let mark = if validated { "1" } else { "0" };
        std::fs::write(self.slot_a(), OLD_SLOT).expect("slot a");
        std::fs::write(self.slot_b(), OLD_SLOT).expect("slot b");
        self.0.write_metadata(RUNNING_UUID, "1.0.0", "");
        let text = std::fs::read_to_string(self.0.path("metadata")).expect("values");
        write_environment(&self.environment(), &self.configuration(), &text);
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
        self.value(&format!("{slot}.nerves_fw_validated"))
    }

    /// After an update of slot b: it is tried, unmarked.
    pub fn try_b(&self, uuid: &str) {
        let slot_a = self.slot_a().display().to_string();
        self.set(&switch_to_b(uuid));
        self.set(&[("nerves_fw_devpath", &slot_a)]);
    }

    /// The environment that an update leaves behind, for somebody else to put in place.
    pub fn write_switched(&self, path: &Path, uuid: &str) {
        let mut values = self.read();
        let switched = switch_to_b(uuid).map(|(key, value)| (key.to_owned(), value.to_owned()));
        values.extend(switched);
        self.write_aside(path, &values);
    }

    /// The slot recorded as active.
    pub fn active(&self) -> String {
        self.value("nerves_fw_active").expect("a slot")
    }

    pub fn value(&self, key: &str) -> Option<String> {
        self.read().remove(key)
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

    fn configuration(&self) -> PathBuf {
        self.0.path("fw_env.config")
    }

    pub fn environment(&self) -> PathBuf {
        self.0.path("environment")
    }

    fn read(&self) -> BTreeMap<String, String> {
        let environment = UbootEnv::open(&self.configuration());
        environment.expect("environment").values()
    }

    fn write(&self, values: &BTreeMap<String, String>) {
        // Whole or not at all: the agent may read it at any time.
        let new = self.0.path("environment.new");
        self.write_aside(&new, values);
        std::fs::rename(new, self.environment()).expect("environment");
    }

    fn write_aside(&self, path: &Path, values: &BTreeMap<String, String>) {
        let lines = values.iter().map(|(key, value)| format!("{key}={value}\n"));
        let aside = self.0.path("configuration.new");
        write_environment(path, &aside, &lines.collect::<String>());
    }

    /// Makes the environment readable only, even for root, or writable again.
    pub fn lock(&self, locked: bool) {
        let path = match locked {
            false => self.environment(),
            true => {
                let flags = MFdFlags::MFD_ALLOW_SEALING;
                let sealed = memfd_create("environment", flags).expect("file");
                let path = format!("/proc/{}/fd/{}", std::process::id(), sealed.as_raw_fd());
                std::fs::copy(self.environment(), &path).expect("environment");
                fcntl(&sealed, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_WRITE)).expect("seal");
                // Open for as long as this process lives.
                let _ = sealed.into_raw_fd();
                PathBuf::from(path)
            }
        };
        let text = std::fs::read_to_string(self.configuration()).expect("configuration");
        let lines = text.lines().map(|line| {
            let (_, rest) = line.split_once(' ').expect("a device");
            format!("{} {rest}\n", path.display())
        });
        std::fs::write(self.configuration(), lines.collect::<String>()).expect("configuration");
    }
}
