//! Downloads that go wrong, as a table: what the store does, what the device asks for next,
//! how it ends.

mod answers;
mod away;
mod changes;
mod cuts;
mod hopeless;
mod redirects;

use devhub::Firmware;
use devhub::store::{Fault, Request, When};

use crate::rig::{Device, Installer, installers};
use crate::stage::{Forged, Stage};

const KIB: u64 = 200;
const MID: u64 = 100_000;
/// Long enough for a busy machine, short enough to wait for.
const SILENCE: &str = "1s";

/// How an update ends.
enum End {
    Installed,
    /// `failed` with a reason that contains this.
    Failed(&'static str),
}
use End::{Failed, Installed};

/// One line of a table.
struct Row {
    name: &'static str,
    /// The store's faults, for a file of so many bytes.
    faults: fn(u64) -> Vec<(When, Fault)>,
    offer: fn(Firmware) -> Firmware,
    /// First byte asked for and status of each request; `LAST` stands for size - 1.
    requests: &'static [(u64, u16)],
    end: End,
}

const LAST: u64 = u64::MAX;
/// Stands for the size itself.
const END: u64 = u64::MAX - 1;

fn as_it_is(firmware: Firmware) -> Firmware {
    firmware
}

/// What a request asked for and got: first byte and status.
fn asked(request: &Request, size: u64) -> (u64, u16) {
    let first = request.range().map_or(0, |range| {
        let range = range.strip_prefix("bytes=").expect("bytes");
        range
            .strip_suffix('-')
            .and_then(|first| first.parse().ok())
            .expect("open range")
    });
    let first = match first {
        first if first == size - 1 => LAST,
        first if first == size => END,
        first => first,
    };
    (first, request.status)
}

fn starts(requests: &[Request], size: u64) -> Vec<(u64, u16)> {
    requests.iter().map(|one| asked(one, size)).collect()
}

fn settings(device: &mut Device) {
    for (name, value) in [
        ("FWUP_TASK", "switch"),
        ("MAX_DISCONNECTS", "3"),
        ("IDLE_TIMEOUT", SILENCE),
        ("LOG", "trace"),
    ] {
        device.set(name, value);
    }
}

/// Plays one row; the stage is left for further questions.
fn play(row: &Row, installer: &Installer) -> (Stage, Forged, Vec<Request>) {
    eprintln!("row: {} ({})", row.name, installer.name);
    let stage = Stage::prepared(installer, |_, device| settings(device));
    let (forged, firmware) = stage.forge("forged.fw", KIB);
    let path = firmware.path();
    for (when, fault) in (row.faults)(forged.size) {
        stage.hub.store().fault(&path, when, fault);
    }
    stage.hub.offer(&(row.offer)(firmware));
    match row.end {
        Installed => {
            stage.expect_installed();
            assert_eq!(stage.statuses(), ["received", "started", "completed"]);
            forged.assert_on(&stage.device);
        }
        Failed(part) => {
            let reason = stage.expect_failed();
            assert!(reason.contains(part), "{}: {reason}", row.name);
            assert_eq!(stage.statuses(), ["received", "started", "failed"]);
            assert!(!forged.is_finished_on(&stage.device), "{}", row.name);
            stage.assert_unharmed();
        }
    }
    let requests = stage.hub.store().requests_for(&path);
    assert_eq!(starts(&requests, forged.size), row.requests, "{}", row.name);
    assert_courteous(&requests);
    stage.assert_log_has_no_secret();
    (stage, forged, requests)
}

/// Each request counts its predecessors and names its sender.
fn assert_courteous(requests: &[Request]) {
    for (index, request) in requests.iter().enumerate() {
        let number = index.to_string();
        assert_eq!(request.header("x-retry-number"), Some(&*number));
        let agent = request.header("user-agent").expect("a user agent");
        assert!(agent.starts_with("nerveshub-agent/"), "{agent}");
    }
}

fn play_all(rows: &[Row]) {
    for installer in installers() {
        for row in rows {
            play(row, &installer);
        }
    }
}

fn sent(requests: &[Request]) -> u64 {
    requests.iter().map(|request| request.sent).sum()
}
