//! Archives: fetched, verified, placed and told about once, whatever comes in between.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use devhub::store::{Fault, When};
use devhub::{Firmware, Hub};
use nix::sys::signal::Signal;
use serde_json::json;

use crate::rig::{self, Device, JOINED, PATIENCE, data, demo, installers, public_key, standin};
use crate::stage::Stage;

const MIB: u64 = 1024 * 1024;

fn other_key() -> String {
    let key = std::fs::read_to_string(data("fw/other-key.pub")).expect("key");
    key.trim().to_owned()
}

/// Takes archives, and writes down what the ready command is told.
fn take_archives(device: &mut Device) {
    let told = device.path("told").display().to_string();
    let words = ["UUID", "VERSION", "PLATFORM", "ARCHITECTURE", "PATH"]
        .map(|word| format!("$NERVES_HUB_ARCHIVE_{word}"))
        .join(" ");
    device
        .set("ARCHIVES", "download")
        .set("ARCHIVE_PUBLIC_KEYS", &public_key())
        .set(
            "ARCHIVE_READY_COMMAND",
            &format!("echo \"{words}\" >> {told}"),
        );
}

/// The hub sends this on each join from now on.
fn hand_out(hub: &Hub, archive: &Firmware) {
    let payload = archive.archive_payload();
    hub.behaviour(|behaviour| behaviour.archive = Some(payload));
}

/// For what only the disk tells.
fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A device that takes archives, and a hub that hands out the demo one.
fn stage(installer: &rig::Installer, prepare: impl FnOnce(&Hub, &mut Device)) -> Stage {
    Stage::prepared(installer, |hub, device| {
        take_archives(device);
        hand_out(hub, &demo(hub));
        prepare(hub, device);
    })
}

impl Stage {
    fn folder(&self) -> PathBuf {
        self.device.path("data/archives")
    }

    /// The archives' folder, sorted.
    fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder()).into_iter().flatten();
        let mut names: Vec<String> = entries
            .map(|entry| {
                let name = entry.expect("entry").file_name();
                name.to_string_lossy().into_owned()
            })
            .collect();
        names.sort();
        names
    }

    /// What the ready command was told, line by line.
    fn told(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.device.path("told")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn requests(&self, archive: &Firmware) -> Vec<devhub::store::Request> {
        self.hub.store().requests_for(&archive.path())
    }

    fn wait_handled(&self, archive: &Firmware) {
        let line = format!("archive {} handled", archive.uuid);
        self.agent.wait_log(&line);
    }

    /// Only this archive is there, whole, and it was told about once.
    fn assert_handled(&self, archive: &Firmware, file: &str) {
        self.wait_handled(archive);
        let name = format!("{}.fw", archive.uuid);
        assert_eq!(self.files(), [name.as_str()]);
        let placed = self.folder().join(name);
        let bytes = std::fs::read(&placed).expect("placed");
        assert!(bytes == std::fs::read(data("fw").join(file)).expect("data"));
        let told = self.told();
        let mine: Vec<_> = told
            .iter()
            .filter(|line| line.starts_with(&archive.uuid))
            .collect();
        assert_eq!(mine.len(), 1, "{told:?}");
        assert!(mine[0].ends_with(&placed.display().to_string()), "{told:?}");
    }

    /// A new agent on the same device, joined; its log is its own.
    fn restart(&mut self) {
        self.agent = self.device.start();
        self.hub.expect_join("device");
        self.agent.wait_log(JOINED);
    }

    fn kill(&mut self) {
        self.agent.signal(Signal::SIGKILL);
        self.agent.wait_exit();
    }

    /// Waits until so many bytes of the archive are on the disk.
    fn wait_held(&self, archive: &Firmware, bytes: u64) {
        let path = self.folder().join(format!("{}.download", archive.uuid));
        wait_for("the bytes", || {
            std::fs::metadata(&path).is_ok_and(|found| found.len() >= bytes)
        });
    }
}

#[test]
fn archives_are_ignored_by_default() {
    let stage = Stage::prepared(&standin(), |hub, _| hand_out(hub, &demo(hub)));
    assert_eq!(stage.join.params.get("archive_public_keys"), None);
    stage
        .agent
        .wait_log("ignored: NERVES_HUB_ARCHIVES is ignore");
    assert_eq!(stage.requests(&demo(&stage.hub)).len(), 0);
}

#[test]
fn an_archive_is_verified_placed_and_told_about_once_over_joins_and_restarts() {
    for installer in installers() {
        let mut stage = stage(&installer, |_, _| {});
        let archive = demo(&stage.hub);
        stage.assert_handled(&archive, "demo-2.0.0.fw");
        assert!(stage.told()[0].contains(" 2.0.0 demo-board x86_64 "));
        stage.hub.close(1000);
        stage.agent.wait_log("is here already");
        assert_eq!(stage.agent.stop(), 0);
        stage.restart();
        stage.agent.wait_log("is here already");
        assert_eq!(stage.requests(&archive).len(), 1);
        assert_eq!(stage.told().len(), 1);
        // A newer one takes its place.
        let newer = stage.firmware("small-2.0.1.fw");
        stage.hub.push("device", "archive", newer.archive_payload());
        stage.assert_handled(&newer, "small-2.0.1.fw");
        stage.assert_log_has_no_secret();
    }
}

#[test]
fn a_cut_download_goes_on_and_repeats_nothing() {
    let stage = stage(&standin(), |hub, _| {
        let path = demo(hub).path();
        hub.store()
            .fault(&path, When::Nth(1), Fault::CutAt(1_500_000));
    });
    let archive = demo(&stage.hub);
    stage.assert_handled(&archive, "demo-2.0.0.fw");
    let requests = stage.requests(&archive);
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[1].range(), Some("bytes=1500000-"));
    assert!(requests[1].header("if-range").is_some());
}

#[test]
fn a_killed_agent_goes_on_from_what_is_safe() {
    for installer in installers() {
        let mut stage = stage(&installer, |hub, _| {
            let path = demo(hub).path();
            hub.store()
                .fault(&path, When::Nth(1), Fault::StallAt(2_500_000));
        });
        let archive = demo(&stage.hub);
        stage.wait_held(&archive, 2_500_000);
        stage.kill();
        stage.restart();
        stage.assert_handled(&archive, "demo-2.0.0.fw");
        let requests = stage.requests(&archive);
        let range = format!("bytes={}-", 2 * MIB);
        assert_eq!(requests[1].range(), Some(range.as_str()));
        assert!(requests[1].header("if-range").is_some());
    }
}

#[test]
fn what_was_placed_but_not_remembered_is_verified_again_and_not_fetched() {
    for installer in installers() {
        let stage = stage(&installer, |hub, device| {
            let folder = device.path("data/archives");
            std::fs::create_dir_all(&folder).expect("folder");
            let placed = folder.join(format!("{}.fw", demo(hub).uuid));
            std::fs::copy(data("fw/demo-2.0.0.fw"), placed).expect("copied");
        });
        let archive = demo(&stage.hub);
        stage.assert_handled(&archive, "demo-2.0.0.fw");
        assert_eq!(stage.requests(&archive).len(), 0);
    }
}

#[test]
fn a_damaged_file_in_its_place_is_fetched_again() {
    let stage = stage(&standin(), |hub, device| {
        let folder = device.path("data/archives");
        std::fs::create_dir_all(&folder).expect("folder");
        let placed = folder.join(format!("{}.fw", demo(hub).uuid));
        std::fs::write(placed, "half").expect("written");
    });
    let archive = demo(&stage.hub);
    stage.agent.wait_log("failed: verification failed");
    assert_eq!(stage.requests(&archive).len(), 0);
    stage.hub.close(1000);
    stage.assert_handled(&archive, "demo-2.0.0.fw");
    assert_eq!(stage.requests(&archive).len(), 1);
}

#[test]
fn a_verification_that_fails_for_once_costs_no_download() {
    for in_place in [false, true] {
        let stage = stage(&standin(), |hub, device| {
            let path = device.path("fwup.sh");
            // The first verification runs out of something.
            let text = format!(
                "#!/bin/sh\ncase \"$1\" in -V) [ -e {mark} ] || {{ : > {mark}; exit 1; }} ;; esac\n\
                 exec {fwup} \"$@\"\n",
                mark = device.path("once").display(),
                fwup = standin().path.display()
            );
            std::fs::write(&path, text).expect("script");
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(&path, mode).expect("mode");
            device.set("FWUP_PATH", &path.display().to_string());
            if in_place {
                let folder = device.path("data/archives");
                std::fs::create_dir_all(&folder).expect("folder");
                let placed = folder.join(format!("{}.fw", demo(hub).uuid));
                std::fs::copy(data("fw/demo-2.0.0.fw"), placed).expect("copied");
            }
        });
        let archive = demo(&stage.hub);
        stage.agent.wait_log("failed: verification failed");
        stage.hub.close(1000);
        stage.assert_handled(&archive, "demo-2.0.0.fw");
        assert_eq!(stage.requests(&archive).len(), usize::from(!in_place));
    }
}

#[test]
fn a_wrong_signature_is_removed_and_not_fetched_in_a_loop() {
    for installer in installers() {
        for file in ["wrong-key-2.0.2.fw", "unsigned-2.0.3.fw"] {
            let stage = stage(&installer, |hub, _| {
                hand_out(hub, &hub.firmware(data("fw").join(file)));
            });
            let archive = stage.firmware(file);
            stage.agent.wait_log("failed: verification failed");
            stage.hub.close(1000);
            stage.agent.wait_log("refused: verification failed");
            stage.hub.close(1000);
            stage.agent.wait_log("left alone: it was refused before");
            assert_eq!(stage.requests(&archive).len(), 1);
            assert_eq!(stage.files(), [""; 0]);
            assert_eq!(stage.told(), [""; 0]);
            let good = stage.firmware("small-2.0.1.fw");
            stage.hub.push("device", "archive", good.archive_payload());
            stage.assert_handled(&good, "small-2.0.1.fw");
        }
    }
}

#[test]
fn without_any_key_an_archive_is_refused() {
    let stage = stage(&standin(), |_, device| {
        device.unset("ARCHIVE_PUBLIC_KEYS");
        device.unset("FWUP_PUBLIC_KEYS");
    });
    stage.agent.wait_log("refused: no public keys available");
    assert_eq!(stage.requests(&demo(&stage.hub)).len(), 0);
}

#[test]
fn the_firmwares_keys_will_do() {
    let stage = stage(&standin(), |_, device| {
        device.unset("ARCHIVE_PUBLIC_KEYS");
    });
    assert_eq!(stage.join.params["archive_public_keys"], "on_connect");
    assert_eq!(stage.join.params.get("fwup_public_keys"), None);
    stage.assert_handled(&demo(&stage.hub), "demo-2.0.0.fw");
}

#[test]
fn archive_keys_from_the_hub_are_used_when_asked_for() {
    let hub = rig::hub().public_keys(&[], &[&public_key()]).start();
    let stage = Stage::on(hub, &standin(), |hub, device| {
        take_archives(device);
        device.set("ARCHIVE_PUBLIC_KEYS", &other_key());
        device.set("REQUEST_ARCHIVE_PUBLIC_KEYS", "1");
        hand_out(hub, &demo(hub));
    });
    stage.assert_handled(&demo(&stage.hub), "demo-2.0.0.fw");
}

#[test]
fn an_update_goes_first_and_the_archive_is_finished_after_the_reboot() {
    for installer in installers() {
        let mut stage = stage(&installer, |hub, _| {
            let path = demo(hub).path();
            hub.store()
                .fault(&path, When::Nth(1), Fault::StallAt(2_500_000));
        });
        let archive = demo(&stage.hub);
        stage.wait_held(&archive, 2_500_000);
        let update = stage.firmware("small-2.0.1.fw");
        stage.hub.offer(&update);
        stage.expect_installed();
        stage.device.assert_image_of("small-2.0.1.fw");
        stage.agent.wait_log("interrupted: an update is in hand");
        assert_eq!(stage.requests(&archive).len(), 1);
        stage.kill();
        stage.device.write_metadata(&update.uuid, "2.0.1", "");
        stage.restart();
        stage.assert_handled(&archive, "demo-2.0.0.fw");
        let range = format!("bytes={}-", 2 * MIB);
        assert_eq!(stage.requests(&archive)[1].range(), Some(range.as_str()));
    }
}

#[test]
fn after_a_failed_update_the_archive_goes_on_at_once() {
    let stage = stage(&standin(), |hub, _| {
        let path = demo(hub).path();
        hub.store()
            .fault(&path, When::Nth(1), Fault::StallAt(1_500_000));
    });
    let archive = demo(&stage.hub);
    stage.wait_held(&archive, 1_500_000);
    stage.hub.offer(&stage.firmware("wrong-key-2.0.2.fw"));
    stage.expect_failed();
    stage.assert_handled(&archive, "demo-2.0.0.fw");
    let range = format!("bytes={MIB}-");
    assert_eq!(stage.requests(&archive)[1].range(), Some(range.as_str()));
    assert_eq!(stage.device.reboots(), 0);
}

#[test]
fn an_expired_url_is_renewed_and_the_bytes_are_kept() {
    let stage = stage(&standin(), |hub, _| {
        let (store, path) = (hub.store(), demo(hub).path());
        store.fault(&path, When::Nth(1), Fault::CutAt(2_500_000));
        store.fault(&path, When::Nth(2), Fault::Status(403));
    });
    let archive = demo(&stage.hub);
    stage.assert_handled(&archive, "demo-2.0.0.fw");
    stage.agent.wait_log_times(JOINED, 2);
    assert_eq!(stage.hub.connections(), 1);
    let range = format!("bytes={}-", 2 * MIB);
    assert_eq!(stage.requests(&archive)[2].range(), Some(range.as_str()));
    stage.assert_log_has_no_secret();
}

#[test]
fn urls_that_are_always_refused_are_not_asked_for_without_end() {
    let stage = stage(&standin(), |hub, _| {
        hub.store()
            .fault(&demo(hub).path(), When::Always, Fault::Status(403));
    });
    stage
        .agent
        .wait_log("after 3 fresh URLs; waiting until the hub sends it again");
    stage.barrier();
    assert_eq!(stage.agent.logged(JOINED).len(), 4);
    assert_eq!(stage.requests(&demo(&stage.hub)).len(), 4);
}

#[test]
fn an_archive_over_the_limit_is_refused() {
    let stage = stage(&standin(), |_, device| {
        device.set("ARCHIVE_MAX", "1M");
    });
    let archive = demo(&stage.hub);
    stage
        .agent
        .wait_log("NERVES_HUB_ARCHIVE_MAX allows 1048576");
    assert_eq!(stage.requests(&archive).len(), 0);
    // The same when only the server's answer tells the size.
    let mut unsized_archive = archive.clone().with_uuid("unsized").archive_payload();
    unsized_archive["size"] = json!(null);
    stage.hub.push("device", "archive", unsized_archive);
    stage
        .agent
        .wait_log("archive unsized failed: the archive has");
    assert_eq!(stage.files(), ["unsized.download", "unsized.sums"]);
    let held = std::fs::metadata(stage.folder().join("unsized.download"));
    assert_eq!(held.expect("file").len(), 0);
}

#[test]
fn a_uuid_that_leads_out_of_the_folder_is_refused() {
    let stage = Stage::prepared(&standin(), |hub, device| {
        take_archives(device);
        let mut payload = demo(hub).archive_payload();
        payload["uuid"] = json!("../../evil");
        hub.behaviour(|behaviour| behaviour.archive = Some(payload));
    });
    stage.agent.wait_log("archive: no usable uuid");
    assert_eq!(stage.requests(&demo(&stage.hub)).len(), 0);
    assert!(!stage.device.path("evil.download").exists());
}

#[test]
fn a_ready_command_that_fails_is_logged_and_gets_no_secret() {
    let mut stage = stage(&standin(), |_, device| {
        let dump = device.path("environment").display().to_string();
        device.set(
            "ARCHIVE_READY_COMMAND",
            &format!("env > {dump}; echo why >&2; exit 3"),
        );
    });
    stage
        .agent
        .wait_log("NERVES_HUB_ARCHIVE_READY_COMMAND: \"env");
    stage.wait_handled(&demo(&stage.hub));
    assert_eq!(stage.agent.logged("exit status: 3: why").len(), 1);
    let environment = std::fs::read_to_string(stage.device.path("environment")).expect("dump");
    assert!(!environment.contains(rig::PRODUCT_SECRET));
    assert!(environment.contains("NERVES_HUB_ARCHIVE_DESCRIPTION=Test firmware"));
    assert_eq!(stage.agent.stop(), 0);
    stage.restart();
    stage.agent.wait_log("is here already");
}

#[test]
fn a_ready_command_that_was_cut_short_runs_again() {
    let mut stage = stage(&standin(), |_, device| {
        let told = device.path("told").display().to_string();
        // Until the test lets it go; the first never ends by itself.
        let gate = device.path("gate").display().to_string();
        device.set(
            "ARCHIVE_READY_COMMAND",
            &format!("echo run >> {told}; test -e {gate} || exec sleep 300"),
        );
    });
    stage.agent.wait_log("is ready: ");
    wait_for("the ready command", || !stage.told().is_empty());
    let command = stage.agent.children();
    stage.kill();
    for pid in command {
        let pid = nix::unistd::Pid::from_raw(pid.parse().expect("pid"));
        // It may have gone by itself.
        let _ = nix::sys::signal::kill(pid, Signal::SIGKILL);
    }
    std::fs::write(stage.device.path("gate"), "").expect("gate");
    stage.restart();
    stage.wait_handled(&demo(&stage.hub));
    assert_eq!(stage.told(), ["run", "run"]);
    assert_eq!(stage.requests(&demo(&stage.hub)).len(), 1);
}

#[test]
fn keys_from_the_hub_are_there_after_a_restart_when_that_is_wanted() {
    let hub = rig::hub()
        .public_keys(&[&public_key()], &[&public_key()])
        .start();
    let mut stage = Stage::on(hub, &standin(), |_, device| {
        device.unset("FWUP_PUBLIC_KEYS");
        device.set("PERSIST_PUBLIC_KEYS", "1");
    });
    stage.agent.wait_log("1 archive public key(s) from the hub");
    stage.agent.wait_log_times("public keys kept", 2);
    assert_eq!(stage.agent.stop(), 0);
    stage.hub.behaviour(|behaviour| {
        behaviour.fwup_keys.clear();
        behaviour.archive_keys.clear();
    });
    take_archives(&mut stage.device);
    stage.device.unset("ARCHIVE_PUBLIC_KEYS");
    stage.restart();
    for event in ["fwup_public_keys", "archive_public_keys"] {
        stage.hub.push("device", event, json!({"keys": []}));
    }
    stage.agent.wait_log_times("keeping 1", 2);
    let archive = demo(&stage.hub);
    stage
        .hub
        .push("device", "archive", archive.archive_payload());
    stage.assert_handled(&archive, "demo-2.0.0.fw");
    stage.hub.offer(&stage.firmware("small-2.0.1.fw"));
    stage.expect_installed();
}
