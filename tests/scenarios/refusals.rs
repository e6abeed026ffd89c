//! Firmware that must not run: the reason at the hub, the disk as it was, no reboot, and a
//! device that takes the next update.

use std::time::Duration;

use devhub::{Firmware, zip};
use serde_json::Value;

use crate::rig::{self, Installer, RUNNING_UUID, data, demo, installers, public_key};
use crate::stage::{Forged, Stage};

const FAILED: [&str; 3] = ["received", "started", "failed"];

/// The demo firmware with its bytes changed, put into the store under the demo's name.
fn altered(stage: &Stage, change: impl FnOnce(&mut Vec<u8>)) -> Firmware {
    let mut bytes = std::fs::read(data("fw/demo-2.0.0.fw")).expect("demo");
    let meta = zip::firmware_meta(&bytes).expect("meta");
    change(&mut bytes);
    Firmware::from_bytes(meta, bytes, stage.hub.store())
}

#[test]
fn firmware_of_another_key_or_of_none_is_refused_before_a_byte_is_written() {
    let key = "fwup error: Firmware archive's meta.conf fails digital signature verification.";
    let none = "fwup error: Expecting signed firmware archive.";
    for installer in installers() {
        for (file, expected) in [("wrong-key-2.0.2.fw", key), ("unsigned-2.0.3.fw", none)] {
            let stage = Stage::new(&installer, &[]);
            stage.hub.offer(&stage.firmware(file));
            assert_eq!(stage.expect_failed(), expected, "{}", installer.name);
            assert_eq!(stage.statuses(), FAILED);
            stage.assert_untouched();
            stage.assert_takes_the_next();
        }
    }
}

#[test]
fn tampered_firmware_is_found_out_by_the_checksum_and_by_fwup() {
    for installer in installers() {
        let stage = Stage::new(&installer, &[]);
        let tampered = altered(&stage, |bytes| bytes[1_700_000] ^= 0x55);
        // The server was tampered with as a whole: its checksum fits.
        stage.hub.offer(&tampered);
        let reason = stage.expect_failed();
        assert!(
            reason.starts_with("fwup error: ZIP bad CRC"),
            "{}: {reason}",
            installer.name
        );
        // Only the store was: the file does not fit the offer.
        let genuine = tampered
            .clone()
            .with_checksum(Some(&checksum_of("demo-2.0.0.fw")));
        stage.hub.offer(&genuine);
        let reason = stage.expect_failed();
        assert!(
            reason.starts_with("checksum mismatch"),
            "{}: {reason}",
            installer.name
        );
        stage.hub.offer(&tampered.old_style());
        let reason = stage.expect_failed();
        assert!(
            reason.starts_with("fwup error: ZIP bad CRC"),
            "{}: {reason}",
            installer.name
        );
        assert_eq!(stage.statuses(), [FAILED, FAILED, FAILED].concat());
        stage.assert_takes_the_next();
    }
}

#[test]
fn a_file_that_is_not_the_offered_one_never_gets_to_the_last_step() {
    for installer in installers() {
        let stage = Stage::new(&installer, &[("FWUP_TASK", "switch")]);
        let forged = Forged::new(&stage.device.path("forged.fw"), 300);
        let mut bytes = std::fs::read(&forged.path).expect("archive");
        let meta = zip::firmware_meta(&bytes).expect("meta");
        // What follows the last file of an archive may be long: here by a comment.
        let comment: u16 = 65_000;
        let end = bytes.len();
        bytes[end - 2..].copy_from_slice(&comment.to_le_bytes());
        bytes.resize(end + usize::from(comment), b'#');
        let last = bytes.len() as u64 - 1;
        let firmware = Firmware::from_bytes(meta, bytes, stage.hub.store());
        // The last byte is late: an installer that could finish without it has the time to.
        stage.offer_halting_at(last, &firmware.clone().with_wrong_checksum());
        let early = |push: &Value| push["status"] == "failed";
        stage
            .hub
            .expect_none("device", "status_update", Duration::from_millis(500), early);
        stage.hub.store().release();
        let reason = stage.expect_failed();
        assert!(reason.starts_with("checksum mismatch"), "{reason}");
        assert!(!forged.is_finished_on(&stage.device), "{}", installer.name);
        stage.assert_unharmed();
        stage.hub.offer(&firmware);
        stage.expect_installed();
        forged.assert_on(&stage.device);
    }
}

fn checksum_of(file: &str) -> String {
    let text = std::fs::read_to_string(data("fw/fw.json")).expect("fw.json");
    let facts: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    facts[file]["sha256"].as_str().expect("hash").to_owned()
}

#[test]
fn truncated_firmware_fails() {
    for installer in installers() {
        let stage = Stage::new(&installer, &[("MAX_DISCONNECTS", "2")]);
        let whole = altered(&stage, |_| {});
        let half = altered(&stage, |bytes| bytes.truncate(2_000_000));
        // The file on the server is shorter than the offer says.
        stage.hub.offer(&whole);
        let reason = stage.expect_failed();
        assert!(
            reason.contains("the server has 2000000 bytes, the offer says"),
            "{reason}"
        );
        stage.assert_untouched();
        // The server knows nothing better.
        for offer in [half.clone(), half.old_style()] {
            stage.hub.offer(&offer);
            let reason = stage.expect_failed();
            assert!(
                reason.starts_with("fwup error: "),
                "{}: {reason}",
                installer.name
            );
            assert!(!reason.contains("killed"), "{}: {reason}", installer.name);
        }
        assert_eq!(stage.statuses(), [FAILED, FAILED, FAILED].concat());
        stage.assert_takes_the_next();
    }
}

#[test]
fn what_is_no_firmware_at_all_fails() {
    for installer in installers() {
        let stage = Stage::new(&installer, &[]);
        let junk = altered(&stage, |bytes| *bytes = vec![b'x'; 70_000]);
        stage.hub.offer(&junk);
        assert_eq!(
            stage.expect_failed(),
            "fwup error: Unrecognized archive format"
        );
        let empty = altered(&stage, Vec::clear);
        stage.hub.offer(&empty.old_style());
        let reason = stage.expect_failed();
        assert!(
            reason.starts_with("fwup error: "),
            "{}: {reason}",
            installer.name
        );
        assert_eq!(stage.statuses(), [FAILED, FAILED].concat());
        stage.assert_untouched();
        stage.assert_takes_the_next();
    }
}

#[test]
fn a_task_that_fails_is_reported_with_its_own_words() {
    for installer in installers() {
        let stage = Stage::new(&installer, &[("FWUP_TASK", "upgrade-fails")]);
        for _ in 0..2 {
            stage.hub.offer(&demo(&stage.hub));
            assert_eq!(stage.expect_failed(), "fwup error: this task always fails");
        }
        assert_eq!(stage.statuses(), [FAILED, FAILED].concat());
        stage.assert_untouched();
        stage.assert_unharmed();
    }
}

#[test]
fn a_task_that_is_not_there_is_reported() {
    for installer in installers() {
        let stage = Stage::new(&installer, &[("FWUP_TASK", "nope")]);
        stage.hub.offer(&demo(&stage.hub));
        let reason = stage.expect_failed();
        let expected = "fwup error: Couldn't find applicable task 'nope'.";
        assert!(reason.starts_with(expected), "{}: {reason}", installer.name);
        stage.assert_untouched();
        stage.assert_unharmed();
    }
}

#[test]
fn a_device_that_cannot_be_opened_is_reported() {
    for installer in installers() {
        let stage = Stage::new(&installer, &[("FWUP_DEVPATH", "/nonexistent/dev")]);
        for _ in 0..2 {
            stage.hub.offer(&stage.firmware("small-2.0.1.fw"));
            let reason = stage.expect_failed();
            let expected = "fwup error: Cannot create '/nonexistent/dev'.";
            assert!(reason.starts_with(expected), "{}: {reason}", installer.name);
        }
        assert_eq!(stage.statuses(), [FAILED, FAILED].concat());
        stage.assert_untouched();
        stage.assert_unharmed();
    }
}

#[test]
fn without_a_device_to_write_to_nothing_is_started() {
    let stage = Stage::prepared(&rig::standin(), |_, device| {
        let text = std::fs::read_to_string(device.path("metadata")).expect("metadata");
        let kept = text
            .lines()
            .filter(|line| !line.starts_with("nerves_fw_devpath"));
        let kept: Vec<&str> = kept.collect();
        std::fs::write(device.path("metadata"), kept.join("\n")).expect("metadata");
    });
    let firmware = demo(&stage.hub);
    stage.hub.offer(&firmware);
    let reason = stage.expect_failed();
    assert!(reason.contains("NERVES_HUB_FWUP_DEVPATH"), "{reason}");
    assert_eq!(stage.statuses(), ["received", "failed"]);
    assert_eq!(stage.hub.store().requests().len(), 0);
    stage.assert_unharmed();
}

#[test]
fn without_any_key_nothing_is_even_downloaded() {
    let no_keys = |installer: &Installer| {
        Stage::prepared(installer, |_, device| {
            device.unset("FWUP_PUBLIC_KEYS");
        })
    };
    let stage = no_keys(&rig::standin());
    let firmware = demo(&stage.hub);
    // Nothing usable in it: does not count as keys.
    let junk = serde_json::json!({"keys": ["", "not base64"]});
    stage.hub.push("device", "fwup_public_keys", junk);
    stage.hub.offer(&firmware);
    assert_eq!(stage.expect_failed(), "no public keys available");
    assert_eq!(stage.statuses(), ["received", "failed"]);
    assert_eq!(stage.hub.store().requests().len(), 0);
    stage.assert_untouched();
    let keys = serde_json::json!({"keys": [public_key()]});
    stage.hub.push("device", "fwup_public_keys", keys);
    stage.assert_takes_the_next();
}

#[test]
fn the_running_firmware_is_ignored_with_a_reason() {
    let stage = Stage::new(&rig::standin(), &[]);
    let running = demo(&stage.hub).with_uuid(RUNNING_UUID);
    stage.hub.offer(&running);
    let report = stage.hub.expect_status("ignored");
    let reason = report["reason"].as_str().expect("a reason");
    assert!(reason.contains("already running"), "{reason}");
    assert_eq!(stage.statuses(), ["received", "ignored"]);
    assert_eq!(stage.hub.store().requests().len(), 0);
    stage.assert_untouched();
    stage.assert_takes_the_next();
}
