//! Files on their way to the page, frame by frame.

use super::*;
use std::cell::RefCell;

/// Says yes to everything, or only so often.
struct Free(usize);

impl Pace for Free {
    fn wait(&mut self, _bytes: usize) -> bool {
        self.0 = self.0.saturating_sub(1);
        self.0 > 0
    }
}

fn file(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.txt");
    std::fs::write(&path, bytes).unwrap();
    (folder, path)
}

/// What went out, and how it ended.
fn sent(path: &Path, pace: &mut dyn Pace) -> (Vec<FilePush>, Result<u64, SendError>) {
    let mut frames = Vec::new();
    let mut push = |frame| {
        frames.push(frame);
        Ok(())
    };
    let result = send(path, pace, &mut push, &mut |_, _| {});
    (frames, result)
}

#[test]
fn a_file_goes_out_in_numbered_chunks_between_start_and_stop() {
    for size in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 5 * CHUNK + 7] {
        let bytes: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
        let (_folder, path) = file(&bytes);
        let (frames, result) = sent(&path, &mut Free(usize::MAX));
        assert_eq!(result.unwrap(), size as u64);
        let [
            FilePush::Start { name },
            chunks @ ..,
            FilePush::Stop { name: last },
        ] = &frames[..]
        else {
            panic!("{frames:?}");
        };
        assert_eq!((name.as_str(), last.as_str()), ("log.txt", "log.txt"));
        let mut all = Vec::new();
        for (number, frame) in chunks.iter().enumerate() {
            let FilePush::Data {
                name,
                chunk,
                bytes: data,
            } = frame
            else {
                panic!("{frame:?}");
            };
            assert_eq!((name.as_str(), *chunk), ("log.txt", number as u64));
            assert!(data.len() == CHUNK || number + 1 == chunks.len());
            all.extend_from_slice(data);
        }
        assert_eq!(all, bytes);
    }
}

#[test]
fn progress_is_told_and_ends_with_all() {
    let (_folder, path) = file(&[7; 2 * CHUNK + 1]);
    let told = RefCell::new(Vec::new());
    let mut progress = |sent, all| told.borrow_mut().push((sent, all));
    send(&path, &mut Free(usize::MAX), &mut |_| Ok(()), &mut progress).unwrap();
    assert_eq!(
        told.into_inner(),
        [(1024, 2049), (2048, 2049), (2049, 2049)]
    );
}

#[test]
fn what_is_no_file_or_too_large_sends_nothing() {
    let (folder, path) = file(b"");
    let fifo = folder.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(FILE_MAX)
        .unwrap();
    for (path, why) in [
        (path.as_path(), "10485760 bytes"),
        (folder.path(), "not a regular file"),
        (&fifo, "not a regular file"),
        (Path::new("/dev/zero"), "not a regular file"),
        (Path::new("/no/such"), "cannot open /no/such"),
    ] {
        let (frames, result) = sent(path, &mut Free(usize::MAX));
        let reason = result.expect_err("refused").to_string();
        assert!(reason.contains(why), "{reason}");
        assert_eq!(frames, []);
    }
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(FILE_MAX - 1)
        .unwrap();
    assert!(sent(&path, &mut Free(usize::MAX)).1.is_ok());
}

#[test]
fn a_file_that_was_not_sent_to_its_end_has_no_stop() {
    let (_folder, path) = file(&[7; 4 * CHUNK]);
    let (frames, result) = sent(&path, &mut Free(3));
    assert!(matches!(result, Err(SendError::Cancelled)), "{result:?}");
    assert_eq!(frames.len(), 3);
    assert!(!matches!(frames[2], FilePush::Stop { .. }));

    let mut room = 2;
    let mut push = |_| {
        room -= 1;
        if room < 0 {
            Err("the console is gone".to_owned())
        } else {
            Ok(())
        }
    };
    let result = send(&path, &mut Free(usize::MAX), &mut push, &mut |_, _| {});
    let reason = result.expect_err("not sent").to_string();
    assert_eq!(reason, "not sent: the console is gone");

    // Grows or shrinks while it is sent.
    for size in [CHUNK as u64, 3 * CHUNK as u64] {
        let (_folder, path) = file(&[7; 2 * CHUNK]);
        let file = File::options().write(true).open(&path).unwrap();
        let mut push = |_| {
            file.set_len(size).unwrap();
            Ok(())
        };
        let result = send(&path, &mut Free(usize::MAX), &mut push, &mut |_, _| {});
        match size > 2 * CHUNK as u64 {
            // What came later is not part of it.
            true => assert_eq!(result.unwrap(), 2 * CHUNK as u64),
            false => assert!(matches!(result, Err(SendError::Changed { .. }))),
        }
    }
}

#[test]
fn the_pace_is_kept_without_catching_up() {
    let mut slept = Duration::ZERO;
    let mut sleep = |time| {
        slept += time;
        true
    };
    // Sleeping takes no time here, so that all of it is asked for.
    let mut pace = Steady::new(1024, &mut sleep);
    for _ in 0..5 {
        assert!(pace.wait(1024));
    }
    // 0 + 1 + 2 + 3 + 4 seconds, less the time that the test took.
    let expected = Duration::from_secs(10);
    assert!(slept > expected * 9 / 10 && slept <= expected, "{slept:?}");
    let mut cancelled = |_| false;
    let mut pace = Steady::new(1024, &mut cancelled);
    assert!(!pace.wait(1));
}
