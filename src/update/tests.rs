//! Every strategy against a server that misbehaves at random and is good in the end: what
//! the installer gets is the file, byte by byte.

mod kept;
mod server;

use std::fs;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::feed::{self, Drain, Feed};
use super::fetch::{Ended, Fetcher, Time};
use super::means::Means;
use super::patience::Failure;
use super::progress::Progress;
use super::{caching, parts, streaming};
use crate::config::{
    CacheSettings, DownloadSettings, LinkTimeouts, Secret, Strategy as Updater, TlsSettings,
};
use crate::core::event::InstallEvent;
use crate::system::channel::bounded;
use crate::system::dial::Dialer;
use crate::system::http::Cancel;
use crate::system::tls;
use crate::wire::{Offer, PART};
use server::{Mood, Server};

/// Longer than what the strategies hold back, so that the installer is in the middle of it.
const SMALL: usize = 200_000;

/// A file no two places of which look alike.
fn file(size: usize) -> Arc<Vec<u8>> {
    let mut state = 0x2545_f491_u32;
    let mut byte = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 24) as u8
    };
    Arc::new((0..size).map(|_| byte()).collect())
}

/// What the hub says of the file.
#[derive(Clone, Copy, Debug)]
struct Told {
    size: bool,
    checksum: bool,
}

const ALL: Told = Told {
    size: true,
    checksum: true,
};

fn offer(file: &[u8], told: Told, url: &Secret) -> Offer {
    Offer {
        uuid: "new".into(),
        version: "2.0.0".into(),
        product: "demo".into(),
        url: url.clone(),
        size: told.size.then_some(file.len() as u64),
        checksum: told.checksum.then(|| Sha256::digest(file).into()),
        partials: file
            .chunks(PART as usize)
            .map(|part| Sha256::digest(part).into())
            .collect(),
    }
}

fn dialer() -> Arc<Dialer> {
    static DIALER: OnceLock<Arc<Dialer>> = OnceLock::new();
    DIALER.get_or_init(|| Arc::new(new_dialer())).clone()
}

fn new_dialer() -> Dialer {
    let timeout = Duration::from_secs(10);
    let trust = TlsSettings {
        ca_file: None,
        ca_only: false,
        server_name: None,
    };
    Dialer {
        tls: tls::client_config(&trust, None).expect("TLS"),
        proxy: None,
        timeouts: LinkTimeouts {
            dns: timeout,
            connect: timeout,
            tls: timeout,
            upgrade: timeout,
            join: timeout,
        },
        server_name: None,
    }
}

fn settings() -> DownloadSettings {
    DownloadSettings {
        max_disconnects: 12,
        idle_timeout: Duration::from_secs(10),
        max_timeout: Duration::from_secs(60),
        time_between_retries: Duration::ZERO,
        worst_case_speed: 30_000,
        rate_limit: 0,
    }
}

/// What an installer that begins anew when told to has got, and whether that was all.
fn installed(drain: &Drain) -> (Vec<u8>, bool) {
    let mut bytes = Vec::new();
    loop {
        match drain.pieces().recv() {
            Ok(Feed::Chunk(chunk)) => {
                bytes.extend_from_slice(chunk.payload());
                drain.give_back(chunk);
            }
            Ok(Feed::Restart) => bytes.clear(),
            Ok(Feed::End) => return (bytes, true),
            Ok(Feed::File { path, .. }) => return (fs::read(path).expect("file"), true),
            Err(_) => return (bytes, false),
        }
    }
}

/// Runs one download to its end: what came of it, and what the installer has got.
fn download(
    server: &Server,
    strategy: (Updater, usize),
    told: Told,
    settings: DownloadSettings,
) -> (Result<(), Failure>, Vec<u8>, bool) {
    let folder = tempfile::tempdir().expect("folder");
    download_in(folder.path(), server, strategy, told, settings)
}

/// The same, keeping what it keeps in this folder.
fn download_in(
    folder: &Path,
    server: &Server,
    (updater, connections): (Updater, usize),
    told: Told,
    settings: DownloadSettings,
) -> (Result<(), Failure>, Vec<u8>, bool) {
    let cache = CacheSettings {
        strategy: updater,
        folder: folder.join("cache"),
        max: u64::MAX,
        part_attempts: 3,
        concurrent_parts: connections,
    };
    let url = Secret::new(server.url());
    let (renew, fresh_urls) = bounded(1);
    let tell = |event| {
        if let InstallEvent::UrlRefused { .. } = event {
            renew.send(url.clone()).expect("the download waits");
        }
    };
    let offer = offer(&server.file, told, &url);
    let (filler, drain) = feed::channel();
    let cancel = Cancel::new().expect("waker");
    std::thread::scope(|scope| {
        let installer = scope.spawn(|| installed(&drain));
        let means = Means {
            settings,
            dialer: dialer(),
            allow_insecure: true,
            cancel: &cancel,
            feed: &filler,
            tell: &tell,
            fresh_urls,
        };
        let ended = match updater {
            Updater::Streaming => streaming::run(&offer, &means),
            Updater::Caching => caching::run(&offer, &cache, &means),
            Updater::Parts => parts::run(&offer, &cache, &means),
        };
        drop(means);
        drop(filler);
        let (bytes, whole) = installer.join().expect("installer");
        (ended, bytes, whole)
    })
}

/// Misbehaviour at random, for a file of so many bytes.
fn moods(size: usize) -> impl Strategy<Value = Vec<Mood>> {
    let at = 0..=size;
    let mood = prop_oneof![
        4 => at.clone().prop_map(Mood::Cut),
        2 => at.prop_map(Mood::WholeThenCut),
        1 => Just(Mood::Whole),
        2 => prop_oneof![Just(500_u16), Just(503), Just(404), Just(416), Just(403)]
            .prop_map(Mood::Status),
        2 => (1..5000_usize).prop_map(Mood::Shifted),
        1 => (0..4_u8).prop_map(Mood::OtherTag),
        1 => (0..4_u8).prop_map(Mood::OtherTagAllTheSame),
        1 => Just(Mood::Untagged),
        1 => Just(Mood::Garbage),
    ];
    // A server that refuses every URL is given up, but not by the download.
    prop::collection::vec(mood, 0..9)
}

fn assert_delivered(
    file: &Arc<Vec<u8>>,
    moods: &[Mood],
    strategy: (Updater, usize),
    told: Told,
) -> Result<(), TestCaseError> {
    let server = Server::start(file.clone(), moods.to_vec());
    let (ended, bytes, whole) = download(&server, strategy, told, settings());
    prop_assert_eq!(ended, Ok(()));
    prop_assert!(whole);
    // Not compared by a macro that would print both.
    prop_assert!(bytes == **file, "{} bytes of {}", bytes.len(), file.len());
    let numbers = server.retry_numbers();
    match strategy {
        (Updater::Parts, 2..) => prop_assert!(numbers.is_sorted(), "{:?}", numbers),
        _ => {
            // Each answer but the last is one of the bad ones: no good one is wasted.
            prop_assert!(numbers.len() <= moods.len() + 1, "{:?}", numbers);
            let count = u32::try_from(numbers.len()).expect("few");
            prop_assert_eq!(numbers, (0..count).collect::<Vec<_>>());
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_stream_is_the_file(moods in moods(SMALL), size: bool, checksum: bool) {
        let told = Told { size, checksum };
        assert_delivered(&file(SMALL), &moods, (Updater::Streaming, 1), told)?;
    }

    #[test]
    fn a_kept_file_is_the_file(moods in moods(SMALL), size: bool, checksum: bool) {
        let told = Told { size, checksum };
        assert_delivered(&file(SMALL), &moods, (Updater::Caching, 1), told)?;
    }
}

/// Two parts and a little.
const LARGE: usize = 2 * PART as usize + 1234;

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 24,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn parts_are_the_file(moods in moods(LARGE), connections in 1..4_usize) {
        assert_delivered(&file(LARGE), &moods, (Updater::Parts, connections), ALL)?;
    }
}

#[test]
fn a_whole_file_is_read_off_to_where_the_parts_are() {
    let middle = PART as usize + 500_000;
    let file = file(LARGE);
    let server = Server::start(file.clone(), vec![Mood::Cut(middle), Mood::Whole]);
    let (ended, bytes, whole) = download(&server, (Updater::Parts, 1), ALL, settings());
    assert_eq!(ended, Ok(()));
    assert!(whole && bytes == *file);
    assert_eq!(server.retry_numbers(), [0, 1]);
}

#[test]
fn another_tag_with_every_answer_ends_all_the_same() {
    let file = file(SMALL);
    let strategies = [(Updater::Streaming, 1), (Updater::Caching, 1)];
    let all = strategies.into_iter().flat_map(|strategy| {
        [true, false].map(|honours| [0, 10_000].map(|step| (strategy, honours, step)))
    });
    for (strategy, honours, step) in all.flatten() {
        let moods = (1..=200).map(|nth| Mood::NewTag {
            nth,
            honours,
            cut: 1000 + nth * step,
        });
        let server = Server::start(file.clone(), moods.collect());
        let (ended, bytes, whole) = download(&server, strategy, ALL, settings());
        let case = format!("{strategy:?} {honours} {step}: {ended:?}");
        if step == 0 {
            // Never further than the first time.
            let Err(Failure::Failed(reason)) = ended else {
                panic!("{case}");
            };
            assert!(reason.contains("(12 attempts without progress)"), "{case}");
            assert!(!whole);
        } else {
            assert!(ended.is_ok() && whole && bytes == *file, "{case}");
        }
        assert!(server.retry_numbers().len() < 60, "{case}");
    }
}

#[test]
fn a_download_that_takes_too_long_says_so() {
    let cuts: Vec<Mood> = (0..10_000).map(|nth| Mood::Cut(nth * 2 + 1)).collect();
    let streaming = (Updater::Streaming, 1);
    // Many attempts; one that goes on and on; one that is never answered; what is held is
    // read off a slow answer.
    for (moods, rate_limit, strategy) in [
        (cuts, 0, streaming),
        (Vec::new(), 50_000, streaming),
        (vec![Mood::Silent], 0, streaming),
        (vec![Mood::Silent], 0, (Updater::Parts, 2)),
        (vec![Mood::Cut(150_000), Mood::Trickle], 0, streaming),
        (
            vec![Mood::Cut(150_000), Mood::Trickle],
            0,
            (Updater::Parts, 1),
        ),
        (
            vec![Mood::Cut(150_000), Mood::Whole],
            200_000,
            (Updater::Caching, 1),
        ),
    ] {
        let case = format!("{:?} {rate_limit} {strategy:?}", moods.last());
        let server = Server::start(file(SMALL), moods);
        let settings = DownloadSettings {
            max_timeout: Duration::from_millis(800),
            rate_limit,
            ..settings()
        };
        let begin = Instant::now();
        let (ended, _, whole) = download(&server, strategy, ALL, settings);
        assert!(!whole, "{case}: {ended:?} after {:?}", begin.elapsed());
        let Err(Failure::Failed(reason)) = ended else {
            panic!("{case}: {ended:?}");
        };
        let expected = "download failed: not finished in 800ms";
        assert!(reason.starts_with(expected), "{case}: {reason}");
        assert!(begin.elapsed() < Duration::from_secs(3), "{case}");
    }
}

#[test]
fn what_is_read_off_counts_for_the_rate() {
    let file = file(SMALL);
    let server = Server::start(file.clone(), vec![Mood::Cut(150_000), Mood::Whole]);
    let settings = DownloadSettings {
        rate_limit: 200_000,
        ..settings()
    };
    let begin = Instant::now();
    let (ended, bytes, whole) = download(&server, (Updater::Streaming, 1), ALL, settings);
    assert_eq!(ended, Ok(()));
    assert!(whole && bytes == *file);
    // 150 kB, and then all of the 200 kB.
    assert!(
        begin.elapsed() > Duration::from_millis(1600),
        "{:?}",
        begin.elapsed()
    );
}

#[test]
fn a_fresh_url_is_not_waited_for_for_ever() {
    let (filler, _drain) = feed::channel();
    let (_urls, fresh_urls) = bounded(1);
    let cancel = Cancel::new().expect("waker");
    let means = Means {
        settings: settings(),
        dialer: dialer(),
        allow_insecure: true,
        cancel: &cancel,
        feed: &filler,
        tell: &|_| {},
        fresh_urls,
    };
    let ends = Instant::now() + Duration::from_millis(50);
    let Err(Failure::Failed(reason)) = means.fresh_url("HTTP 403".to_owned(), 0, ends) else {
        panic!("no failure");
    };
    assert_eq!(reason, "download failed: HTTP 403, and no fresh URL came");
    let progress = Progress::new(means.tell, None, 0);
    let minute = Instant::now() + Duration::from_secs(60);
    let fetcher = Fetcher::new(&means, &progress, 1, minute);
    // The whole download has a minute, and the attempt has had its share.
    let time = Time {
        until: Instant::now(),
        limit: Duration::from_secs(300),
    };
    let cut = std::io::Error::other("cut");
    let Ended::Final(Failure::Failed(reason)) = fetcher.broken(0, &cut, &time) else {
        panic!("no failure");
    };
    let expected = "download failed: too slow: one attempt took longer than 300s";
    assert_eq!(reason, expected);
}
