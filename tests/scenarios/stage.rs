//! One device under update: hub, device and agent together, archives made to measure, and
//! the checks every update scenario ends with.

use std::path::{Path, PathBuf};

use devhub::store::{Fault, When};
use devhub::{Dir, Firmware, Hub, Join};
use fwup_standin::archive::{Builder, Content, read_private_key};

use crate::rig::{self, Agent, Device, Installer, PATIENCE, data};
use crate::terminal::expect_no_children;

/// What stands on the disk before an update: the running slot.
static OLD_DISK: [u8; 96 * 1024] = [0xA5; 96 * 1024];
/// How the agent logs the start of fwup.
const FWUP_STARTED: &str = "fwup started (pid ";
const BLOCK: u64 = 512;
/// What the last step of a forged archive's task leaves behind the image.
const MARK: u8 = 0x5A;

/// Dropped in this order: the agent leaves before its hub.
pub struct Stage {
    pub agent: Agent,
    pub device: Device,
    pub hub: Hub,
    /// The agent's first join.
    pub join: Join,
}

impl Stage {
    /// A joined device with these settings.
    pub fn new(installer: &Installer, settings: &[(&str, &str)]) -> Self {
        Self::prepared(installer, |_, device| {
            for (name, value) in settings {
                device.set(name, value);
            }
        })
    }

    /// A joined device; `prepare` changes what it likes before the agent starts.
    pub fn prepared(installer: &Installer, prepare: impl FnOnce(&Hub, &mut Device)) -> Self {
        Self::on(rig::hub().deadline(PATIENCE).start(), installer, prepare)
    }

    /// As [`Stage::prepared`], with a hub of the caller's.
    pub fn on(hub: Hub, installer: &Installer, prepare: impl FnOnce(&Hub, &mut Device)) -> Self {
        let mut device = Device::new(&hub);
        device.use_installer(installer);
        device.set("TIME_BETWEEN_RETRIES", "10ms");
        std::fs::write(device.disk(), OLD_DISK).expect("disk");
        prepare(&hub, &mut device);
        let agent = device.start();
        let join = hub.expect_join("device");
        Self {
            agent,
            device,
            hub,
            join,
        }
    }

    /// A file of the test data, on offer.
    pub fn firmware(&self, file: &str) -> Firmware {
        self.hub.firmware(data("fw").join(file))
    }

    /// A forged archive, on offer.
    pub fn forge(&self, name: &str, kib: u64) -> (Forged, Firmware) {
        let forged = Forged::new(&self.device.path(name), kib);
        let firmware = self.hub.firmware(&forged.path);
        (forged, firmware)
    }

    /// Offers it from a store that falls silent at this byte until it is released, and
    /// waits for that.
    pub fn offer_halting_at(&self, byte: u64, firmware: &Firmware) {
        let (store, path) = (self.hub.store(), firmware.path());
        store.fault(&path, When::Nth(1), Fault::StallAt(byte));
        self.hub.offer(firmware);
        store.wait("the silence", |requests| {
            requests
                .iter()
                .any(|request| request.path == path && request.sent == byte)
        });
    }

    /// Every `status_update` so far.
    pub fn statuses(&self) -> Vec<String> {
        let transcript = self.hub.transcript();
        let word = |payload: &serde_json::Value| payload["status"].as_str().map(str::to_owned);
        transcript
            .pushes("device", "status_update")
            .filter_map(word)
            .collect()
    }

    /// Waits until an update has ended in success and the reboot command has run.
    pub fn expect_installed(&self) {
        self.hub.expect_status("completed");
        self.agent.wait_log("reboot command accepted");
        assert_eq!(self.device.reboots(), 1);
        expect_no_children(&self.agent);
    }

    /// Waits for `failed` and until the device is free for the next offer; the reason.
    pub fn expect_failed(&self) -> String {
        let report = self.hub.expect_status("failed");
        self.hub.wait_until("the device's peace", |transcript| {
            let failed = transcript.entries.iter().rposition(|entry| {
                entry
                    .from_device("device", "status_update")
                    .is_some_and(|frame| frame.payload["status"] == "failed")
            });
            let after = &transcript.entries[failed.unwrap_or(0)..];
            after.iter().any(|entry| {
                let frame = entry.frame.as_ref().filter(|_| entry.dir == Dir::Server);
                frame.is_some_and(|frame| frame.topic == "phoenix" && frame.event == "phx_reply")
            })
        });
        report["reason"].as_str().expect("a reason").to_owned()
    }

    /// The disk holds what it held before.
    pub fn assert_untouched(&self) {
        let disk = std::fs::read(self.device.disk()).expect("disk");
        assert!(disk == OLD_DISK, "the disk was written to");
    }

    /// After a failure: no reboot, nothing left running, still connected.
    pub fn assert_unharmed(&self) {
        assert_eq!(self.device.reboots(), 0);
        expect_no_children(&self.agent);
        assert_eq!(self.hub.online(), 1);
        assert_eq!(self.hub.connections(), 1);
        let transcript = self.hub.transcript();
        assert_eq!(transcript.pushes("device", "rebooting").count(), 0);
    }

    /// As [`Stage::assert_unharmed`], and the next good offer is taken to its end.
    pub fn assert_takes_the_next(&self) {
        self.assert_unharmed();
        let before = self.statuses().len();
        self.hub.offer(&self.firmware("small-2.0.1.fw"));
        self.expect_installed();
        assert_eq!(
            self.statuses()[before..],
            ["received", "started", "completed"]
        );
        self.device.assert_image_of("small-2.0.1.fw");
    }

    /// The query of no URL is in the log.
    pub fn assert_log_has_no_secret(&self) {
        self.barrier();
        let log = self.agent.log();
        let line = log.lines().find(|line| line.contains("secret-"));
        assert_eq!(line, None);
    }

    /// The log so far is known to be whole: a status line was asked for and has come.
    pub fn barrier(&self) {
        let seen = self.agent.log().matches("status: identifier").count();
        self.agent.signal(nix::sys::signal::Signal::SIGUSR1);
        self.agent.wait_log_times("status: identifier", seen + 1);
    }

    /// The pid of the running fwup, once it has started.
    pub fn fwup_pid(&self) -> i32 {
        self.agent.wait_log(FWUP_STARTED);
        *self.fwup_pids().last().expect("logged")
    }

    /// The pid of every fwup so far.
    pub fn fwup_pids(&self) -> Vec<i32> {
        let log = self.agent.log();
        let starts = log.split(FWUP_STARTED).skip(1);
        let pids = starts.filter_map(|rest| rest.split_once(')')?.0.parse().ok());
        pids.collect()
    }
}

/// Whether there is such a process, zombies included.
pub fn is_there(pid: i32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// An archive made for one scenario: signed, stored, with a task `switch` that writes an
/// image and, as its very last step, a mark behind it.
pub struct Forged {
    pub path: PathBuf,
    pub size: u64,
    image_size: u64,
    image_sha256: String,
}

impl Forged {
    pub fn new(path: &Path, kib: u64) -> Self {
        let mark = kib * 1024 / BLOCK + 1;
        let key = read_private_key(data("fw/signing-key.priv")).expect("key");
        let task = format!(
            "task \"switch\" {{\non-resource \"rootfs.img\" {{\nfunlist={{2,raw_write,0}}\n}}\n\
             on-finish {{\nfunlist={{4,raw_memset,{mark},1,{MARK}}}\n}}\n}}\n"
        );
        let name = path.file_name().expect("a name").to_string_lossy();
        let summary = Builder::new("3.0.0")
            .misc(&name)
            .resource(Content::Random {
                seed: name
                    .bytes()
                    .fold(kib, |seed, byte| (seed << 1) ^ u64::from(byte)),
                len: kib * 1024,
            })
            .sign_with(&key)
            .extra_conf(&task)
            .write_to(path)
            .expect("archive");
        Self {
            path: path.to_owned(),
            size: summary.size,
            image_size: summary.image_size,
            image_sha256: summary.image_sha256,
        }
    }

    /// The last step of the task was taken.
    pub fn is_finished_on(&self, device: &Device) -> bool {
        use std::os::unix::fs::FileExt;
        let disk = std::fs::File::open(device.disk()).expect("disk");
        let mut block = [0; BLOCK as usize];
        let read = disk.read_exact_at(&mut block, self.image_size + BLOCK);
        read.is_ok() && block == [MARK; BLOCK as usize]
    }

    /// The image is whole and right, and the task went to its end.
    pub fn assert_on(&self, device: &Device) {
        assert_eq!(device.image_hash(self.image_size), self.image_sha256);
        assert!(self.is_finished_on(device), "the last step is missing");
    }
}
