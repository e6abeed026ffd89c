//! Every strategy under every fault of a download server: how it ends, what was fetched
//! twice, what the hub heard, what lies on the disk and what is left in the cache.

use std::path::Path;

use devhub::Firmware;
use devhub::store::When::{self, Always, Nth};
use devhub::store::{Fault, Request};

use crate::rig::{Device, installers};
use crate::stage::{Forged, Stage};

/// Two whole parts and a half.
pub const KIB: u64 = 2500;
pub const PART: u64 = 1 << 20;
/// In the second part.
const MID: u64 = 1_400_000;

/// Strategy, and how many requests for parts at once.
pub const STRATEGIES: [(&str, &str); 4] = [
    ("streaming", "1"),
    ("caching", "1"),
    ("parts", "1"),
    ("parts", "4"),
];

/// What the store does, for a file at this path of so many bytes.
type Faults = fn(&str, u64) -> Vec<(When, Fault)>;

/// How an update ends.
#[derive(Clone, Copy)]
enum End {
    Installed,
    /// `failed` with a reason that contains this.
    Failed(&'static str),
}
use End::{Failed, Installed};

/// Bytes sent beyond the file's size, in a download that succeeds.
#[derive(Clone, Copy)]
enum Waste {
    /// Not one.
    No,
    /// So many, exactly.
    Exactly(u64),
    /// The whole file.
    File,
    /// Whatever was on its way when a connection was given up: so many at most.
    UpTo(u64),
    /// The connection may end before all of it is sent.
    Any,
}

struct Row {
    name: &'static str,
    faults: Faults,
    offer: fn(Firmware) -> Firmware,
    end: End,
    /// For streaming, caching, parts. Which of four connections a fault meets is chance.
    waste: [Waste; 3],
}

fn good(name: &'static str, waste: [Waste; 3], faults: Faults) -> Row {
    Row {
        name,
        faults,
        offer: |firmware| firmware,
        end: Installed,
        waste,
    }
}

fn bad(name: &'static str, reason: &'static str, faults: Faults) -> Row {
    Row {
        end: Failed(reason),
        ..good(name, [Waste::Any; 3], faults)
    }
}

const NO: [Waste; 3] = [Waste::No; 3];

pub fn prepare(device: &mut Device, strategy: (&str, &str)) {
    for (name, value) in [
        ("FWUP_TASK", "switch"),
        ("MAX_DISCONNECTS", "3"),
        ("IDLE_TIMEOUT", "1s"),
        ("UPDATER", strategy.0),
        ("MAX_CONCURRENT_PARTS", strategy.1),
    ] {
        device.set(name, value);
    }
}

fn play(row: &Row, index: usize) {
    let strategy = STRATEGIES[index];
    // The real one where there is one.
    let installer = installers().pop().expect("an installer");
    let case = format!("{} / {} x{}", row.name, strategy.0, strategy.1);
    eprintln!("case: {case} ({})", installer.name);
    let stage = Stage::prepared(&installer, |_, device| prepare(device, strategy));
    let (forged, firmware) = stage.forge("forged.fw", KIB);
    let path = firmware.path();
    for (when, fault) in (row.faults)(&path, forged.size) {
        stage.hub.store().fault(&path, when, fault);
    }
    let uuid = firmware.uuid.clone();
    stage.hub.offer(&(row.offer)(firmware));
    match row.end {
        Installed => {
            stage.expect_installed();
            assert_eq!(
                stage.statuses(),
                ["received", "started", "completed"],
                "{case}"
            );
            forged.assert_on(&stage.device);
            if strategy.1 == "1" {
                assert_waste(&case, row.waste[index], sent(&stage, &path), forged.size);
            }
            assert_kept(&case, &stage, strategy.0, &uuid, &forged);
        }
        Failed(part) => {
            let reason = stage.expect_failed();
            assert!(reason.contains(part), "{case}: {reason}");
            assert_eq!(
                stage.statuses(),
                ["received", "started", "failed"],
                "{case}"
            );
            assert!(!forged.is_finished_on(&stage.device), "{case}");
            if strategy.0 != "streaming" {
                stage.assert_untouched();
            }
            stage.assert_unharmed();
        }
    }
    assert_numbered(&case, &stage.hub.store().requests_for(&path));
    stage.assert_log_has_no_secret();
}

/// Each attempt counts its predecessors; requests of one attempt, at once or by way of a
/// redirect, bear one number.
fn assert_numbered(case: &str, requests: &[Request]) {
    let number = |request: &Request| request.header("x-retry-number")?.parse::<usize>().ok();
    let mut numbers: Vec<_> = requests.iter().filter_map(number).collect();
    assert_eq!(numbers.len(), requests.len(), "{case}");
    assert!(numbers.is_sorted(), "{case}: {numbers:?}");
    numbers.dedup();
    let expected: Vec<_> = (0..numbers.len()).collect();
    assert_eq!(numbers, expected, "{case}");
}

fn sent(stage: &Stage, path: &str) -> u64 {
    let requests = stage.hub.store().requests_for(path);
    requests.iter().map(|request| request.sent).sum()
}

fn assert_waste(case: &str, waste: Waste, sent: u64, size: u64) {
    let wasted = sent.checked_sub(size);
    let fine = match waste {
        Waste::No => wasted == Some(0),
        Waste::Exactly(bytes) => wasted == Some(bytes),
        Waste::File => wasted == Some(size),
        Waste::UpTo(most) => wasted.is_some_and(|wasted| wasted <= most),
        Waste::Any => wasted.is_some(),
    };
    assert!(fine, "{case}: {sent} bytes sent of {size}");
}

/// What is kept until the reboot, so that a crash before it costs no byte.
pub fn assert_kept(case: &str, stage: &Stage, strategy: &str, uuid: &str, forged: &Forged) {
    let kept = files(&stage.device.path("data/cache"));
    let expected: Vec<String> = match strategy {
        "caching" => ["facts", "partial", "sums"]
            .iter()
            .map(|kind| format!("{uuid}.{kind}"))
            .collect(),
        "parts" => (0..forged.size.div_ceil(PART))
            .map(|part| format!("{uuid}.parts/{part:05}"))
            .collect(),
        _ => Vec::new(),
    };
    assert_eq!(kept, expected, "{case}");
}

/// How many bytes of firmware are kept.
pub fn kept(stage: &Stage) -> u64 {
    let cache = stage.device.path("data/cache");
    // Also on their way to their name.
    let others = [".facts", ".sums"];
    let is_firmware = |name: &&String| !others.iter().any(|part| name.contains(part));
    files(&cache)
        .iter()
        .filter(is_firmware)
        .map(|name| std::fs::metadata(cache.join(name)).expect("file").len())
        .sum()
}

/// Names below a folder, in order.
pub fn files(folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.expect("entry").path();
        let name = path
            .file_name()
            .expect("name")
            .to_string_lossy()
            .into_owned();
        match path.is_dir() {
            true => names.extend(
                files(&path)
                    .into_iter()
                    .map(|below| format!("{name}/{below}")),
            ),
            false => names.push(name),
        }
    }
    names.sort();
    names
}

fn play_all(rows: &[Row]) {
    for row in rows {
        for index in 0..STRATEGIES.len() {
            play(row, index);
        }
    }
}

#[test]
fn cut_connections() {
    play_all(&[
        good("cut at 0", NO, |_, _| vec![(Nth(1), Fault::CutAt(0))]),
        good("cut at 1", NO, |_, _| vec![(Nth(1), Fault::CutAt(1))]),
        good("cut inside a part", NO, |_, _| {
            vec![(Nth(1), Fault::CutAt(MID))]
        }),
        good("cut between parts", NO, |_, _| {
            vec![(Nth(1), Fault::CutAt(PART))]
        }),
        good("cut before the last byte", NO, |_, size| {
            vec![(Nth(1), Fault::CutAt(size - 1))]
        }),
        good("cut five times", NO, |_, size| {
            [1, PART - 1, MID, MID + 1, size - 1]
                .into_iter()
                .zip(1..)
                .map(|(byte, nth)| (Nth(nth), Fault::CutAt(byte)))
                .collect()
        }),
    ]);
}

#[test]
fn silent_and_slow_connections() {
    play_all(&[
        good("silent inside a part", NO, |_, _| {
            vec![(Nth(1), Fault::StallAt(MID))]
        }),
        good("silent at once", NO, |_, _| {
            vec![(Nth(1), Fault::StallAt(0))]
        }),
        good("no answer", NO, |_, _| {
            vec![(Nth(1), Fault::HangBeforeHeaders)]
        }),
        good("slow", NO, |_, _| vec![(Always, Fault::Slow(5_000_000))]),
        bad("silent at one byte for ever", "no data for 1 s", |_, _| {
            vec![(Always, Fault::StallAt(MID))]
        }),
    ]);
}

#[test]
fn wrong_bytes() {
    let once = [Waste::File, Waste::File, Waste::Exactly(PART)];
    play_all(&[
        good("a wrong byte once", once, |_, _| {
            vec![(Nth(1), Fault::WrongByteAt(MID))]
        }),
        bad("a wrong byte for ever", "checksum mismatch", |_, _| {
            vec![(Always, Fault::WrongByteAt(MID))]
        }),
        good("extra bytes behind the body", NO, |_, _| {
            vec![(Always, Fault::Extra(b"more".to_vec()))]
        }),
        good(
            "a wrong length once",
            [Waste::UpTo(2 * KIB * 1024); 3],
            |_, _| vec![(Nth(1), Fault::LengthOff(100))],
        ),
        Row {
            offer: |firmware| {
                let size = firmware.size.expect("a size");
                firmware.with_size(Some(size + 1))
            },
            ..bad("an offer of another size", "bytes", |_, _| vec![])
        },
        Row {
            offer: |firmware| firmware.with_wrong_checksum(),
            ..bad(
                "an offer of another checksum",
                "checksum mismatch",
                |_, _| vec![],
            )
        },
    ]);
}

#[test]
fn answers_other_than_asked_for() {
    // The connection is given up in mid-answer.
    let given_up = [Waste::UpTo(2 * KIB * 1024); 3];
    let again = [Waste::Exactly(MID); 3];
    play_all(&[
        good("200 for 206", again, |_, _| {
            vec![(Always, Fault::NoRange), (Nth(1), Fault::CutAt(MID))]
        }),
        good("a Content-Range of another place", given_up, |_, _| {
            let range = "bytes 5-9/10".to_owned();
            vec![
                (Nth(1), Fault::CutAt(MID)),
                (Nth(2), Fault::ContentRange(range)),
            ]
        }),
        good("a range that begins later", given_up, |_, _| {
            vec![(Nth(1), Fault::CutAt(MID)), (Nth(2), Fault::ShiftRange(10))]
        }),
        good(
            "another ETag after a cut",
            [again[0], again[1], Waste::No],
            |_, _| {
                let old = Fault::Etag("\"old\"".to_owned());
                vec![(Nth(1), Fault::CutAt(MID)), (Nth(1), old)]
            },
        ),
        good("404 to a range", again, |_, _| {
            vec![(Nth(1), Fault::CutAt(MID)), (Nth(2), Fault::Status(404))]
        }),
        good("416 to a range", again, |_, _| {
            vec![(Nth(1), Fault::CutAt(MID)), (Nth(2), Fault::Status(416))]
        }),
        good("500 once, then 503", NO, |_, _| {
            let wait = vec![("Retry-After".to_owned(), "0".to_owned())];
            vec![
                (Nth(1), Fault::Status(500)),
                (Nth(2), Fault::StatusWith(503, wait)),
            ]
        }),
        good("garbage once", NO, |_, _| {
            vec![(Nth(1), Fault::Garbage(b"\x00\x01 no HTTP\r\n\r\n".to_vec()))]
        }),
    ]);
}

/// Servers behind a balancer that agree on nothing.
fn a_tag_for_each(others: &[(When, Fault)]) -> Vec<(When, Fault)> {
    let tags = (1..=30).map(|nth| (Nth(nth), Fault::Etag(format!("\"{nth}\""))));
    tags.chain(others.iter().cloned()).collect()
}

#[test]
fn another_etag_with_every_answer() {
    const LATER: u64 = MID + PART / 2;
    let again = Waste::Exactly(MID + LATER);
    // Two answers are given up in the middle.
    let given_up = Waste::UpTo(2 * (KIB + 10) * 1024);
    play_all(&[
        // Parts prove themselves, whatever the tag.
        good("a tag for each", [again, again, Waste::No], |_, _| {
            a_tag_for_each(&[(Nth(1), Fault::CutAt(MID)), (Nth(2), Fault::CutAt(LATER))])
        }),
        good(
            "a tag for each, If-Range ignored",
            [given_up, given_up, Waste::No],
            |_, _| {
                a_tag_for_each(&[
                    (Always, Fault::IgnoreIfRange),
                    (Nth(1), Fault::CutAt(MID)),
                    (Nth(3), Fault::CutAt(LATER)),
                ])
            },
        ),
        bad(
            "a tag for each, and never further than once",
            "(3 attempts without progress)",
            |_, _| a_tag_for_each(&[(Always, Fault::CutAt(MID))]),
        ),
    ]);
}

#[test]
fn refusals_for_ever() {
    play_all(&[
        bad(
            "404",
            "HTTP 404, and the hub made no fresh offer",
            |_, _| vec![(Always, Fault::Status(404))],
        ),
        bad(
            "403",
            "HTTP 403, and the hub made no fresh offer",
            |_, _| vec![(Always, Fault::Status(403))],
        ),
        bad("503", "HTTP 503", |_, _| vec![(Always, Fault::Status(503))]),
        bad("a redirect in circles", "too many redirects", |path, _| {
            vec![(Always, Fault::Redirect(302, path.to_owned()))]
        }),
    ]);
}
