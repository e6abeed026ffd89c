//! What downloads keep on disk: over restarts and power cuts, and beside what others put
//! there.

use std::os::unix::fs::{FileExt as _, symlink};

use super::*;

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
    kept.write_all_at(b"torn", LARGE as u64 - 4).expect("torn");
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
