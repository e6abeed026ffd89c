//! Every strategy against a server that misbehaves at random and is good in the end: what
//! the installer gets is the file, byte by byte.

mod server;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crossbeam_channel::bounded;
use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::feed::{self, Drain, Feed};
use super::fetch::Means;
use super::patience::Failure;
use super::{caching, parts, streaming};
use crate::config::{
    CacheSettings, DownloadSettings, LinkTimeouts, Secret, Strategy as Updater, TlsSettings,
};
use crate::core::event::InstallEvent;
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
        if let InstallEvent::UrlRefused(_) = event {
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
    // Many attempts, or one that goes on and on.
    for (moods, rate_limit) in [(cuts, 0), (Vec::new(), 50_000)] {
        let server = Server::start(file(SMALL), moods);
        let settings = DownloadSettings {
            max_timeout: Duration::from_millis(200),
            rate_limit,
            ..settings()
        };
        let (ended, _, whole) = download(&server, (Updater::Streaming, 1), ALL, settings);
        assert!(!whole);
        let Err(Failure::Failed(reason)) = ended else {
            panic!("{ended:?}");
        };
        let expected = "download failed: not finished in 200ms";
        assert!(reason.starts_with(expected), "{reason}");
    }
}

#[test]
fn planted_links_are_not_followed() {
    let file = file(LARGE);
    for strategy in [(Updater::Caching, 1), (Updater::Parts, 1)] {
        let folder = tempfile::tempdir().expect("folder");
        let at = |name: &str| folder.path().join(name);
        fs::write(at("victim"), "precious").expect("victim");
        fs::create_dir_all(at("elsewhere")).expect("folder");
        fs::write(at("elsewhere/00000"), "precious").expect("victim");
        fs::create_dir(at("cache")).expect("folder");
        for name in ["new.partial", "new.facts", "new.sums", "new.facts.new"] {
            symlink(at("victim"), at("cache").join(name)).expect("link");
        }
        symlink(at("elsewhere"), at("cache/new.parts")).expect("link");
        let server = Server::start(file.clone(), Vec::new());
        let (ended, bytes, whole) = download_in(folder.path(), &server, strategy, ALL, settings());
        assert_eq!(ended, Ok(()), "{strategy:?}");
        assert!(whole && bytes == *file, "{strategy:?}");
        for victim in ["victim", "elsewhere/00000"] {
            assert_eq!(fs::read(at(victim)).expect("victim"), b"precious");
        }
        assert_eq!(fs::read_dir(at("elsewhere")).expect("folder").count(), 1);
    }
    // Nor those in the place of parts.
    let folder = tempfile::tempdir().expect("folder");
    let at = |name: &str| folder.path().join(name);
    fs::create_dir_all(at("cache/new.parts")).expect("folder");
    fs::write(at("victim"), "precious").expect("victim");
    for name in ["00000", "00000.new", "00001.new"] {
        symlink(at("victim"), at("cache/new.parts").join(name)).expect("link");
    }
    let server = Server::start(file.clone(), Vec::new());
    let (ended, bytes, whole) =
        download_in(folder.path(), &server, (Updater::Parts, 2), ALL, settings());
    assert_eq!(ended, Ok(()));
    assert!(whole && bytes == *file);
    assert_eq!(fs::read(at("victim")).expect("victim"), b"precious");
}

/// A power cut may leave zeros where the last bytes were written and not synced.
#[test]
fn a_torn_tail_is_doubted_where_nothing_proves_the_whole() {
    use std::os::unix::fs::FileExt as _;
    let file = file(LARGE);
    let cut = PART as usize + 900_000;
    let hasty = DownloadSettings {
        max_disconnects: 1,
        ..settings()
    };
    for checksum in [false, true] {
        let told = Told {
            size: true,
            checksum,
        };
        let folder = tempfile::tempdir().expect("folder");
        let strategy = (Updater::Caching, 1);
        let moods = vec![Mood::Cut(cut), Mood::Cut(0)];
        let server = Server::start(file.clone(), moods);
        let (ended, ..) = download_in(folder.path(), &server, strategy, told, hasty);
        assert!(ended.is_err(), "{ended:?}");
        let partial = folder.path().join("cache/new.partial");
        let kept = fs::OpenOptions::new()
            .write(true)
            .open(partial)
            .expect("partial");
        assert_eq!(kept.metadata().expect("partial").len(), cut as u64);
        kept.write_all_at(&[0; 4096], cut as u64 - 4096)
            .expect("torn");
        let (ended, bytes, whole) = download_in(folder.path(), &server, strategy, told, settings());
        assert_eq!(ended, Ok(()), "{checksum}");
        assert!(whole && bytes == *file, "{checksum}");
    }
}

#[test]
fn a_whole_file_is_not_doubted_over_a_restart() {
    let file = file(LARGE);
    let told = Told {
        size: true,
        checksum: false,
    };
    let folder = tempfile::tempdir().expect("folder");
    let server = Server::start(file.clone(), Vec::new());
    for _ in 0..2 {
        let (ended, bytes, whole) = download_in(
            folder.path(),
            &server,
            (Updater::Caching, 1),
            told,
            settings(),
        );
        assert_eq!(ended, Ok(()));
        assert!(whole && bytes == *file);
    }
    assert_eq!(server.retry_numbers().len(), 1, "fetched once");
    // Behind a note that nothing was written to since, it would be.
    let kept = fs::OpenOptions::new()
        .write(true)
        .open(folder.path().join("cache/new.partial"));
    let kept = kept.expect("partial");
    std::os::unix::fs::FileExt::write_all_at(&kept, b"torn", LARGE as u64 - 4).expect("torn");
    let (ended, bytes, whole) = download_in(
        folder.path(),
        &server,
        (Updater::Caching, 1),
        told,
        settings(),
    );
    assert_eq!(ended, Ok(()));
    assert!(whole && bytes == *file);
    assert_eq!(server.retry_numbers().len(), 2);
}
