//! Firmware kept on disk: across restarts, torn by power cuts, on disks too small, full or
//! read-only; and URLs that expire while it is on its way.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use devhub::Firmware;
use devhub::store::{Fault, Request, When};
use nix::sys::signal::Signal;

use crate::matrix::files;
use crate::rig::{Device, installers, standin};
use crate::stage::{Forged, Stage};

const KIB: u64 = 2500;
const PART: u64 = 1 << 20;
/// In the second part.
const MID: u64 = 1_400_000;

fn stage(strategy: &str, more: &[(&str, &str)]) -> Stage {
    let installer = installers().pop().expect("an installer");
    Stage::prepared(&installer, |_, device| {
        for (name, value) in [("FWUP_TASK", "switch"), ("UPDATER", strategy)] {
            device.set(name, value);
        }
        for (name, value) in more {
            device.set(name, value);
        }
    })
}

fn cache(stage: &Stage) -> PathBuf {
    stage.device.path("data/cache")
}

/// Kills the agent when the download stands at `MID`; what it asked for until then.
fn kill_in_mid_download(stage: &mut Stage, firmware: &Firmware) -> usize {
    stage.offer_halting_at(MID, firmware);
    // All that was sent is on the disk.
    let cache = cache(stage);
    let held = || -> u64 {
        let sizes = files(&cache)
            .into_iter()
            .filter(|name| !name.ends_with(".facts"));
        let sizes = sizes.filter(|name| !name.ends_with(".sums"));
        sizes
            .filter_map(|name| std::fs::metadata(cache.join(name)).ok())
            .map(|found| found.len())
            .sum()
    };
    let done = (0..400).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        held() >= MID
    });
    assert!(done, "{} bytes of {MID} are on the disk", held());
    stage.agent.signal(Signal::SIGKILL);
    stage.agent.wait_exit();
    stage.hub.store().release();
    stage.hub.store().requests_for(&firmware.path()).len()
}

fn restart_and_finish(stage: &mut Stage, forged: &Forged, firmware: &Firmware) {
    stage.hub.deploy(Some(firmware));
    stage.agent = stage.device.start();
    stage.expect_installed();
    forged.assert_on(&stage.device);
}

/// First bytes asked for and validators named, after the first `skip` requests.
fn asked(stage: &Stage, firmware: &Firmware, skip: usize) -> Vec<(String, bool)> {
    let requests = stage.hub.store().requests_for(&firmware.path());
    let what = |request: &Request| {
        let range = request.range().unwrap_or("whole").to_owned();
        (range, request.header("if-range").is_some())
    };
    requests[skip..].iter().map(what).collect()
}

fn damage(path: &Path, at: u64) {
    let file = OpenOptions::new().write(true).open(path).expect("file");
    file.write_all_at(b"torn by a power cut", at)
        .expect("write");
}

#[test]
fn caching_goes_on_after_a_crash_where_it_was() {
    let mut stage = stage("caching", &[]);
    let (forged, firmware) = stage.forge("forged.fw", KIB);
    let before = kill_in_mid_download(&mut stage, &firmware);
    restart_and_finish(&mut stage, &forged, &firmware);
    assert_eq!(
        asked(&stage, &firmware, before),
        [(format!("bytes={MID}-"), true)]
    );
}

#[test]
fn caching_finds_a_torn_tail_and_fetches_only_that_again() {
    let mut stage = stage("caching", &[]);
    let (forged, firmware) = stage.forge("forged.fw", KIB);
    let before = kill_in_mid_download(&mut stage, &firmware);
    let partial = cache(&stage).join(format!("{}.partial", firmware.uuid));
    damage(&partial, MID - 1000);
    restart_and_finish(&mut stage, &forged, &firmware);
    assert_eq!(
        asked(&stage, &firmware, before),
        [
            (format!("bytes={MID}-"), true),
            (format!("bytes={PART}-"), true)
        ]
    );
}

#[test]
fn caching_finds_damage_in_what_it_knew_to_be_safe() {
    for (without_parts, at) in [(true, 0), (false, 0), (true, 500_000)] {
        let mut stage = stage("caching", &[]);
        let (forged, mut firmware) = stage.forge("forged.fw", KIB);
        if without_parts {
            firmware = firmware.with_partials(None);
        }
        let before = kill_in_mid_download(&mut stage, &firmware);
        damage(
            &cache(&stage).join(format!("{}.partial", firmware.uuid)),
            at,
        );
        restart_and_finish(&mut stage, &forged, &firmware);
        assert_eq!(
            asked(&stage, &firmware, before),
            [("whole".to_owned(), false)]
        );
    }
}

#[test]
fn caching_does_not_go_on_with_another_file() {
    let mut stage = stage("caching", &[]);
    let (_, firmware) = stage.forge("forged.fw", KIB);
    kill_in_mid_download(&mut stage, &firmware);
    // The same uuid, other content.
    let (forged, other) = stage.forge("other.fw", KIB + 1);
    let other = other.with_uuid(&firmware.uuid);
    restart_and_finish(&mut stage, &forged, &other);
    assert_eq!(asked(&stage, &other, 0), [("whole".to_owned(), false)]);
}

#[test]
fn parts_repeat_no_proven_part_after_a_crash() {
    let mut stage = stage("parts", &[]);
    let (forged, firmware) = stage.forge("forged.fw", KIB);
    let before = kill_in_mid_download(&mut stage, &firmware);
    restart_and_finish(&mut stage, &forged, &firmware);
    let rest = format!("bytes={PART}-{}", forged.size - 1);
    assert_eq!(asked(&stage, &firmware, before), [(rest, false)]);
}

#[test]
fn parts_find_a_torn_part() {
    let mut stage = stage("parts", &[]);
    let (forged, firmware) = stage.forge("forged.fw", KIB);
    let before = kill_in_mid_download(&mut stage, &firmware);
    let parts = cache(&stage).join(format!("{}.parts", firmware.uuid));
    damage(&parts.join("00000"), 77);
    // Neither of these is a part.
    std::fs::write(parts.join("00009"), b"x").expect("file");
    std::fs::write(parts.join("1"), b"x").expect("file");
    restart_and_finish(&mut stage, &forged, &firmware);
    let whole = format!("bytes=0-{}", forged.size - 1);
    assert_eq!(asked(&stage, &firmware, before), [(whole, false)]);
    assert_eq!(files(&parts), ["00000", "00001", "00002"]);
}

#[test]
fn a_retry_of_the_same_firmware_needs_no_byte_and_another_one_takes_its_place() {
    for strategy in ["caching", "parts"] {
        let stage = stage(strategy, &[("FWUP_TASK", "no-such-task")]);
        let (forged, firmware) = stage.forge("forged.fw", KIB);
        stage.hub.offer(&firmware);
        assert!(stage.expect_failed().starts_with("fwup error"));
        stage.hub.offer(&firmware);
        stage.hub.expect_status("started");
        stage.expect_failed();
        let requests = stage.hub.store().requests_for(&firmware.path());
        let sent: u64 = requests.iter().map(|request| request.sent).sum();
        assert_eq!(sent, forged.size, "{strategy}");
        let (_, other) = stage.forge("other.fw", 100);
        stage.hub.offer(&other);
        stage.hub.expect_status("started");
        stage.expect_failed();
        let kept = files(&cache(&stage));
        assert!(!kept.is_empty());
        assert!(
            kept.iter().all(|name| name.starts_with(&other.uuid)),
            "{kept:?}"
        );
    }
}

#[test]
fn firmware_that_runs_is_no_longer_kept() {
    let mut stage = stage("caching", &[]);
    let (_, firmware) = stage.forge("forged.fw", KIB);
    stage.hub.offer(&firmware);
    stage.expect_installed();
    assert!(!files(&cache(&stage)).is_empty());
    assert_eq!(stage.agent.stop(), 0);
    stage.device.write_metadata(&firmware.uuid, "3.0.0", "");
    stage.agent = stage.device.start();
    stage.hub.expect_join("device");
    assert_eq!(files(&cache(&stage)), Vec::<String>::new());
}

#[test]
fn an_expired_url_is_renewed_and_no_byte_is_lost() {
    for strategy in ["streaming", "caching", "parts"] {
        for status in [401, 403, 410] {
            let stage = stage(strategy, &[("FRESH_OFFER_TIMEOUT", "20s")]);
            let (forged, firmware) = stage.forge("forged.fw", KIB);
            let store = stage.hub.store();
            store.fault(&firmware.path(), When::Nth(1), Fault::CutAt(MID));
            store.fault(&firmware.path(), When::Nth(2), Fault::Status(status));
            stage.hub.deploy(Some(&firmware));
            stage.hub.offer(&firmware);
            stage.expect_installed();
            forged.assert_on(&stage.device);
            let statuses = ["received", "started", "received", "started", "completed"];
            assert_eq!(stage.statuses(), statuses, "{strategy}");
            let requests = store.requests_for(&firmware.path());
            assert_eq!(requests.len(), 3);
            let range = requests[2].range().expect("a range");
            assert!(
                range.starts_with(&format!("bytes={MID}-")),
                "{strategy}: {range}"
            );
            assert_eq!(stage.agent.logged("fwup started").len(), 1);
            stage.assert_log_has_no_secret();
        }
    }
}

#[test]
fn a_url_that_stays_refused_is_given_up() {
    let stage = stage("caching", &[("FRESH_OFFER_TIMEOUT", "20s")]);
    let (_, firmware) = stage.forge("forged.fw", 100);
    let store = stage.hub.store();
    store.fault(&firmware.path(), When::Always, Fault::Status(403));
    stage.hub.deploy(Some(&firmware));
    stage.hub.offer(&firmware);
    let report = stage.hub.expect_status("failed");
    assert_eq!(
        report["reason"],
        "download failed: HTTP 403, after 3 fresh offers"
    );
    assert_eq!(store.requests_for(&firmware.path()).len(), 4);
}

#[test]
fn another_firmware_offered_for_a_refused_one_is_taken_up() {
    let stage = stage("streaming", &[("FRESH_OFFER_TIMEOUT", "20s")]);
    let (_, first) = stage.forge("first.fw", KIB);
    let (forged, second) = stage.forge("second.fw", KIB + 1);
    let store = stage.hub.store();
    store.fault(&first.path(), When::Nth(1), Fault::CutAt(MID));
    store.fault(&first.path(), When::From(2), Fault::Status(403));
    stage.hub.deploy(Some(&second));
    stage.hub.offer(&first);
    stage.expect_installed();
    forged.assert_on(&stage.device);
    assert!(!stage.statuses().contains(&"failed".to_owned()));
}

#[test]
fn the_rate_limit_is_kept() {
    for (strategy, at_once) in [("streaming", "1"), ("parts", "3")] {
        let limit = [
            ("DOWNLOAD_RATE_LIMIT", "2M"),
            ("MAX_CONCURRENT_PARTS", at_once),
        ];
        let stage = stage(strategy, &limit);
        let (forged, firmware) = stage.forge("forged.fw", KIB);
        let begin = std::time::Instant::now();
        stage.hub.offer(&firmware);
        stage.expect_installed();
        forged.assert_on(&stage.device);
        // 2.4 MiB at 2 MiB a second.
        assert!(begin.elapsed() >= std::time::Duration::from_millis(1100));
    }
}

#[test]
fn what_is_larger_than_allowed_is_refused() {
    for (old_style, requests) in [(false, 0), (true, 1)] {
        let stage = stage("caching", &[("CACHE_MAX", "1M")]);
        let (_, mut firmware) = stage.forge("forged.fw", KIB);
        if old_style {
            firmware = firmware.old_style();
        }
        stage.hub.offer(&firmware);
        let reason = stage.expect_failed();
        assert!(
            reason.contains("NERVES_HUB_CACHE_MAX allows 1048576"),
            "{reason}"
        );
        assert_eq!(
            stage.hub.store().requests_for(&firmware.path()).len(),
            requests
        );
        let held: u64 = files(&cache(&stage))
            .iter()
            .map(|name| {
                std::fs::metadata(cache(&stage).join(name))
                    .expect("file")
                    .len()
            })
            .sum();
        assert_eq!(held, 0, "space is released");
        stage.assert_unharmed();
    }
}

#[test]
fn an_offer_whose_parts_do_not_fit_its_size() {
    // With a checksum of the whole the file can still be proven, as one part.
    let stage = stage("parts", &[]);
    let (forged, firmware) = stage.forge("forged.fw", KIB);
    let sums = firmware.partials.clone().expect("parts");
    let short = Some(sums[1..].to_vec());
    stage
        .hub
        .offer(&firmware.clone().with_partials(short.clone()));
    stage.expect_installed();
    forged.assert_on(&stage.device);
    let refused = self::stage("parts", &[]);
    let (_, firmware) = refused.forge("forged.fw", KIB);
    refused
        .hub
        .offer(&firmware.with_partials(short).with_checksum(None));
    let reason = refused.expect_failed();
    assert!(
        reason.contains("there are 2 checksums of parts"),
        "{reason}"
    );
}

/// A file system of one MiB for the cache, where mounting one is allowed.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn new(device: &mut Device, options: &str) -> Option<Self> {
        let folder = device.path("disk");
        std::fs::create_dir(&folder).expect("folder");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "none"])
            .arg(&folder)
            .output();
        device.set("CACHE_DIR", &folder.join("cache").display().to_string());
        if mount.is_ok_and(|mount| mount.status.success()) {
            return Some(Self(folder));
        }
        eprintln!("SKIPPED: no file system may be mounted here; small disks were not tried");
        None
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

/// Plays one update on a disk mounted so; false where that is not possible.
fn on_disk(options: &str, play: impl Fn(&Stage, &Path)) -> bool {
    let mut disk = None;
    for strategy in ["caching", "parts"] {
        let stage = Stage::prepared(&standin(), |_, device| {
            device.set("UPDATER", strategy);
            disk = SmallDisk::new(device, options);
        });
        let Some(disk) = disk.take() else {
            return false;
        };
        play(&stage, &disk.0.join("cache"));
    }
    true
}

#[test]
fn a_disk_too_small_is_told_before_a_byte_is_fetched() {
    on_disk("size=1m", |stage, _| {
        let (_, firmware) = stage.forge("forged.fw", KIB);
        stage.hub.offer(&firmware);
        let reason = stage.expect_failed();
        assert!(reason.contains("not enough space in "), "{reason}");
        assert_eq!(stage.hub.store().requests_for(&firmware.path()).len(), 0);
        stage.assert_untouched();
        stage.assert_takes_the_next();
    });
}

#[test]
fn a_disk_that_fills_up_is_told_and_freed() {
    on_disk("size=1m", |stage, cache| {
        let (_, firmware) = stage.forge("forged.fw", KIB);
        // Its size is not known before.
        let store = stage.hub.store();
        store.fault(&firmware.path(), When::Always, Fault::NoLength);
        stage.hub.offer(&firmware.old_style());
        let reason = stage.expect_failed();
        assert!(reason.contains("No space left on device"), "{reason}");
        assert_eq!(files(cache), Vec::<String>::new());
        stage.assert_untouched();
        stage.assert_takes_the_next();
    });
}

#[test]
fn a_read_only_disk_is_told() {
    on_disk("size=1m,ro", |stage, _| {
        stage.hub.offer(&stage.firmware("small-2.0.1.fw"));
        let reason = stage.expect_failed();
        assert!(reason.contains("Read-only file system"), "{reason}");
        assert!(reason.contains("NERVES_HUB_CACHE_DIR"), "{reason}");
        stage.assert_untouched();
        stage.assert_unharmed();
    });
    // The same kind of failure where nothing may be mounted.
    let stage = stage("caching", &[("CACHE_DIR", "/dev/null/cache")]);
    stage.hub.offer(&stage.firmware("small-2.0.1.fw"));
    let reason = stage.expect_failed();
    assert!(reason.contains("cannot make /dev/null/cache: "), "{reason}");
    stage.assert_unharmed();
}
