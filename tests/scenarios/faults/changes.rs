//! The file changes on the server in the middle of its download: never a mixture of both.

use devhub::store::Fault;
use devhub::store::When::{Always, Nth};
use devhub::{Firmware, zip};

use super::{KIB, MID, settings, starts};
use crate::rig::{Installer, installers};
use crate::stage::{Forged, Stage};

/// A stage where the first half comes of one archive, and all later answers of another one
/// of the same length.
struct Change {
    stage: Stage,
    before: Firmware,
    after: Firmware,
    /// What `after` makes of the disk.
    forged: Forged,
}

impl Change {
    fn new(installer: &Installer, faults: &[Fault]) -> Self {
        let stage = Stage::prepared(installer, |_, device| settings(device));
        let (old, before) = stage.forge("before.fw", KIB);
        // Compression makes some a little shorter.
        let forged = (10..99)
            .map(|n| Forged::new(&stage.device.path(&format!("new-{n}.fw")), KIB))
            .find(|new| new.size == old.size)
            .expect("one of the same length");
        let bytes = std::fs::read(&forged.path).expect("archive");
        let meta = zip::firmware_meta(&bytes).expect("meta");
        let after = Firmware::from_bytes(meta, bytes.clone(), stage.hub.store());
        let store = stage.hub.store();
        for fault in faults {
            store.fault(&before.path(), Always, fault.clone());
        }
        // Offered with the old uuid and name, whatever else is said about it.
        let after = after.with_url(&before.url).with_uuid(&before.uuid);
        Self {
            stage,
            before,
            after,
            forged,
        }
    }

    /// Offers it and swaps the files once half of the first one is sent.
    fn offer(&self, firmware: &Firmware) {
        let (store, path) = (self.stage.hub.store(), self.before.path());
        self.stage.offer_halting_at(MID, firmware);
        store.put(&path, std::fs::read(&self.forged.path).expect("archive"));
    }

    fn starts(&self) -> Vec<(u64, u16)> {
        let requests = self.stage.hub.store().requests_for(&self.before.path());
        starts(&requests, self.forged.size)
    }
}

#[test]
fn a_changed_file_is_fetched_from_its_start() {
    for installer in installers() {
        // Without a checksum the new file is as good as the old one.
        let change = Change::new(&installer, &[]);
        change.offer(&change.before.clone().old_style());
        change.stage.expect_installed();
        change.forged.assert_on(&change.stage.device);
        assert_eq!(change.starts(), [(0, 200), (MID, 200)]);
        // The server answers 206 although the tag does not match.
        let change = Change::new(&installer, &[Fault::IgnoreIfRange]);
        change.offer(&change.after);
        change.stage.expect_installed();
        change.forged.assert_on(&change.stage.device);
        assert_eq!(change.starts(), [(0, 200), (MID, 206), (0, 200)]);
    }
}

#[test]
fn without_tags_the_checksum_finds_the_mixture() {
    for installer in installers() {
        let change = Change::new(&installer, &[Fault::NoValidators]);
        change.offer(&change.after);
        change.stage.expect_installed();
        change.forged.assert_on(&change.stage.device);
        assert_eq!(change.starts(), [(0, 200), (MID, 206), (0, 200)]);
    }
}

#[test]
fn without_tags_and_checksum_fwup_finds_the_mixture() {
    for installer in installers() {
        let change = Change::new(&installer, &[Fault::NoValidators]);
        change.offer(&change.after.clone().old_style());
        let reason = change.stage.expect_failed();
        assert!(
            reason.starts_with("fwup error: "),
            "{}: {reason}",
            installer.name
        );
        assert!(!change.forged.is_finished_on(&change.stage.device));
        change.stage.assert_unharmed();
    }
}

#[test]
fn a_file_that_is_another_one_for_good_is_refused() {
    for installer in installers() {
        let change = Change::new(&installer, &[]);
        change.offer(&change.before);
        let reason = change.stage.expect_failed();
        assert!(reason.starts_with("checksum mismatch"), "{reason}");
        assert!(!change.forged.is_finished_on(&change.stage.device));
        assert_eq!(change.stage.statuses(), ["received", "started", "failed"]);
        change.stage.assert_unharmed();
    }
}

#[test]
fn a_file_that_shrank_is_fetched_from_its_start() {
    for installer in installers() {
        let stage = Stage::prepared(&installer, |_, device| settings(device));
        let (_, before) = stage.forge("before.fw", KIB);
        let small = Forged::new(&stage.device.path("small.fw"), 20);
        let (store, path) = (stage.hub.store(), before.path());
        for fault in [Fault::NoValidators, Fault::NoRange] {
            store.fault(&path, Always, fault);
        }
        store.fault(&path, Nth(1), Fault::NoLength);
        stage.offer_halting_at(MID, &before.old_style());
        store.put(&path, std::fs::read(&small.path).expect("archive"));
        stage.expect_installed();
        small.assert_on(&stage.device);
        let requests = store.requests_for(&path);
        assert_eq!(
            starts(&requests, small.size),
            [(0, 200), (MID, 200), (0, 200)]
        );
    }
}
