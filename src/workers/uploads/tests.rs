//! The uploads folder, with everything planted in it that could lead elsewhere.

use super::*;
use crate::system::channel::bounded;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

/// Which file, and where it is or why it is not.
type Told = (u64, Result<(PathBuf, u64), String>);

/// A folder, and a file outside of it that must stay as it is.
struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("outside"), "precious").unwrap();
        Self { dir }
    }

    fn outside(&self) -> PathBuf {
        self.dir.path().join("outside")
    }

    fn folder(&self) -> PathBuf {
        self.dir.path().join("data/uploads")
    }

    fn made(&self) -> PathBuf {
        fs::create_dir_all(self.folder()).unwrap();
        self.folder()
    }

    /// Lets the worker take these steps; what it told.
    fn take(&self, steps: Vec<UploadStep>) -> Vec<Told> {
        let (queue, receiver) = queue();
        for step in steps {
            queue.push(step).unwrap();
        }
        drop(queue);
        let (inbox, events) = bounded(100);
        run(&self.folder(), &receiver, &inbox).unwrap();
        drop(inbox);
        let ended = std::iter::from_fn(|| events.recv().ok()).map(|event| match event {
            Event::UploadEnded(upload, result) => (upload.0, result),
            other => panic!("{other:?}"),
        });
        let ended = ended.collect();
        assert_eq!(fs::read_to_string(self.outside()).unwrap(), "precious");
        ended
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder()).unwrap().flatten();
        let mut names: Vec<String> = entries
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn opened(id: u64, name: &str) -> UploadStep {
    UploadStep::Open {
        upload: UploadId(id),
        name: name.to_owned(),
    }
}

fn appended(id: u64, bytes: &[u8]) -> UploadStep {
    UploadStep::Append {
        upload: UploadId(id),
        bytes: bytes.to_vec(),
    }
}

fn finished(id: u64) -> UploadStep {
    UploadStep::Finish(UploadId(id))
}

/// One whole file.
fn whole(id: u64, name: &str) -> Vec<UploadStep> {
    vec![opened(id, name), appended(id, b"new"), finished(id)]
}

fn refusal(ended: &[Told]) -> &str {
    match ended {
        [(_, Err(reason))] => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn files_are_placed_whole_and_in_order_however_they_are_mixed() {
    let bench = Bench::new();
    let ended = bench.take(vec![
        opened(1, "a"),
        opened(2, "b"),
        appended(1, b"1"),
        appended(2, b"2"),
        appended(1, b"3"),
        appended(2, b""),
        finished(1),
        finished(2),
    ]);
    let (a, b) = (bench.folder().join("a"), bench.folder().join("b"));
    assert_eq!(ended, [(1, Ok((a.clone(), 2))), (2, Ok((b.clone(), 1)))]);
    assert_eq!(fs::read(&a).unwrap(), b"13");
    assert_eq!(fs::read(b).unwrap(), b"2");
    assert_eq!(bench.names(), ["a", "b"]);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&a), mode(&bench.folder())), (0o600, 0o700));
}

#[test]
fn a_file_of_that_name_is_replaced_only_by_a_whole_one() {
    let bench = Bench::new();
    fs::write(bench.made().join("a"), "old").unwrap();
    bench.take(vec![opened(1, "a"), appended(1, b"ne")]);
    assert_eq!(fs::read(bench.folder().join("a")).unwrap(), b"old");
    bench.take(vec![
        opened(1, "a"),
        appended(1, b"ne"),
        UploadStep::Discard(UploadId(1)),
    ]);
    assert_eq!(fs::read(bench.folder().join("a")).unwrap(), b"old");
    assert_eq!(bench.names(), ["a"]);
    bench.take(whole(1, "a"));
    assert_eq!(fs::read(bench.folder().join("a")).unwrap(), b"new");
}

#[test]
fn a_link_under_the_name_is_replaced_and_not_followed() {
    let bench = Bench::new();
    symlink(bench.outside(), bench.made().join("soft")).unwrap();
    fs::hard_link(bench.outside(), bench.folder().join("hard")).unwrap();
    for name in ["soft", "hard"] {
        bench.take(whole(1, name));
        let found = fs::symlink_metadata(bench.folder().join(name)).unwrap();
        assert!(found.is_file() && found.nlink() == 1);
        assert_eq!(fs::read(bench.folder().join(name)).unwrap(), b"new");
    }
}

#[test]
fn a_link_in_place_of_the_folder_is_not_followed() {
    let bench = Bench::new();
    let elsewhere = bench.dir.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::create_dir_all(bench.folder().parent().unwrap()).unwrap();
    symlink(&elsewhere, bench.folder()).unwrap();
    let ended = bench.take(whole(1, "a"));
    assert!(
        refusal(&ended).contains("NERVES_HUB_UPLOAD_DIR"),
        "{ended:?}"
    );
    fs::write(elsewhere.join(".upload-1-0"), "").unwrap();
    tidy(&bench.folder());
    assert_eq!(fs::read_dir(elsewhere).unwrap().count(), 1);
}

#[test]
fn links_in_place_of_the_temporary_file_are_not_written_to() {
    let bench = Bench::new();
    symlink(bench.outside(), bench.made().join(".upload-1-0")).unwrap();
    symlink("/no/such", bench.folder().join(".upload-1-1")).unwrap();
    let ended = bench.take(whole(1, "a"));
    assert_eq!(ended, [(1, Ok((bench.folder().join("a"), 3)))]);
    let found = fs::symlink_metadata(bench.folder().join("a")).unwrap();
    assert!(found.is_file());
    assert_eq!(bench.names(), [".upload-1-0", ".upload-1-1", "a"]);
    for attempt in 2..TRIES {
        symlink(
            bench.outside(),
            bench.folder().join(format!(".upload-1-{attempt}")),
        )
        .unwrap();
    }
    assert!(refusal(&bench.take(whole(1, "b"))).contains("exists"));
}

#[test]
fn a_folder_under_the_name_stays() {
    let bench = Bench::new();
    fs::create_dir(bench.made().join("a")).unwrap();
    assert!(refusal(&bench.take(whole(1, "a"))).contains("a folder has that name"));
    assert_eq!(bench.names(), ["a"]);
}

#[test]
fn the_longest_name_has_room_for_what_is_unfinished() {
    let bench = Bench::new();
    let name = "x".repeat(255);
    assert!(bench.take(whole(1, &name))[0].1.is_ok());
    assert_eq!(bench.names(), [name]);
}

#[test]
fn what_is_unfinished_is_removed_now_or_at_the_next_start() {
    let bench = Bench::new();
    fs::write(bench.made().join(".upload-7-0"), "half").unwrap();
    fs::write(bench.folder().join("kept"), "whole").unwrap();
    tidy(&bench.folder());
    assert_eq!(bench.names(), ["kept"]);
    bench.take(vec![opened(1, "a"), appended(1, b"half")]);
    assert_eq!(bench.names(), ["kept"]);
    tidy(Path::new("/no/such/folder"));
}

#[test]
fn a_disk_that_is_full_is_told_and_nothing_stays() {
    // Every write to it fails; it is reached through the folder's own descriptor only.
    let bench = Bench::new();
    let folder = OwnedFd::from(File::open(bench.made()).unwrap());
    let (temporary, _) = create(&folder, UploadId(1)).unwrap();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut desk = Desk {
        path: &bench.folder(),
        folder: Some(folder),
        files: vec![Unfinished {
            upload: UploadId(1),
            name: "a".to_owned(),
            temporary,
            file: full,
            size: 0,
            look_at: u64::MAX,
        }],
    };
    let Some((UploadId(1), Err(reason))) = desk.take(appended(1, b"x")) else {
        panic!("not told");
    };
    assert!(reason.contains("No space left"), "{reason}");
    assert!(desk.take(finished(1)).is_none());
    assert_eq!(bench.names(), Vec::<String>::new());
}

#[test]
fn room_is_left_for_what_else_the_disk_is_for() {
    let folder = tempfile::tempdir().unwrap();
    let folder = OwnedFd::from(File::open(folder.path()).unwrap());
    assert_eq!(has_room(&folder, 1000), Ok(()));
    let reason = has_room(&folder, 1 << 60).unwrap_err();
    assert!(reason.contains("no room"), "{reason}");
}

#[test]
fn a_disk_that_is_behind_stops_files_and_not_their_ends() {
    let (queue, steps) = queue();
    let bytes = vec![0; BACKLOG / 2];
    queue.push(appended(1, &bytes)).unwrap();
    assert_eq!(queue.push(appended(2, &bytes)), Err(UploadId(2)));
    for _ in 0..BACKLOG / 2 / STEP - 1 {
        queue.push(opened(3, "x")).unwrap();
    }
    assert_eq!(queue.push(opened(3, "x")), Err(UploadId(3)));
    queue.push(UploadStep::Discard(UploadId(1))).unwrap();
    queue.push(finished(2)).unwrap();
    // What was taken makes room.
    drop(queue);
    let folder = tempfile::tempdir().unwrap();
    let (inbox, _events) = unbounded();
    run(&folder.path().join("file/x"), &steps, &inbox).unwrap();
    assert_eq!(steps.waiting.load(Ordering::SeqCst), 0);
}
