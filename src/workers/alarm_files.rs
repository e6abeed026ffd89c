//! Thread `alarm-files`: alarms that scripts raise by writing files into a folder, and clear by
//! removing them. Sleeps in inotify.
//!
//! Owns which files count: regular, small, not hidden, and so many of them. Must not judge
//! names and descriptions: what an alarm may be called is the core's.

use std::fs::{DirBuilder, DirEntry};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::time::Duration;

use crate::system::channel::Sender;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use crate::core::event::Event;
use crate::system::durable;

/// Of one file. Longer descriptions are none, and what is larger was not meant for here.
const LARGEST: usize = 4096;
/// Files looked at, alarms or not.
const MOST: usize = 64;
/// A folder that was watched and cannot be looked at is tried again after this.
const AGAIN: Duration = Duration::from_secs(60);
/// Between two looks, however busy the folder is.
const PAUSE: Duration = Duration::from_millis(100);

/// A file and its alarm's description; `None`: it cannot be one, which has been said.
type Found = (String, Option<String>);

/// Runs until the dispatcher is gone.
///
/// # Errors
/// The folder could never be made or watched.
pub fn run(folder: &Path, inbox: &Sender<Event>) -> Result<(), String> {
    watch(folder, AGAIN, inbox)
}

fn watch(folder: &Path, again: Duration, inbox: &Sender<Event>) -> Result<(), String> {
    let mut known = Vec::new();
    let mut is_up = false;
    let failed = |error: io::Error| {
        let path = folder.display();
        format!("{path}: {error}; alarms in files do not count any more (NERVES_HUB_ALARM_DIR)")
    };
    loop {
        let ended = follow(folder, &mut known, &mut is_up, inbox);
        if let Err(error) = &ended
            && is_up
        {
            // Descriptors run out, media stumble: no alarm is over for that.
            let (path, seconds) = (folder.display(), again.as_secs());
            warn!("{path}: {error}; alarms in files stay as they are, next look in {seconds} s");
            std::thread::sleep(again);
            continue;
        }
        // Nothing is in a folder that is not there.
        let is_heard = tell_changes(Vec::new(), &mut known, inbox);
        ended.map_err(failed)?;
        if !is_heard {
            return Ok(());
        }
    }
}

/// Until the folder is removed, or renamed, or nobody listens.
fn follow(
    folder: &Path,
    known: &mut Vec<Found>,
    is_up: &mut bool,
    inbox: &Sender<Event>,
) -> io::Result<()> {
    // Scripts of other users may be meant to read it, and write if its owner lets them.
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(folder)?;
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC)?;
    let gone = AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_MOVE_SELF;
    let changes = AddWatchFlags::IN_CLOSE_WRITE
        | AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_MOVED_FROM
        | AddWatchFlags::IN_DELETE;
    inotify.add_watch(folder, changes | gone | AddWatchFlags::IN_ONLYDIR)?;
    *is_up = true;
    let is_over = gone | AddWatchFlags::IN_IGNORED;
    loop {
        // What changes from here on is another event.
        let found = match look(folder, known) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            found => found?,
        };
        if !tell_changes(found, known, inbox) {
            return Ok(());
        }
        let events = inotify.read_events()?;
        std::thread::sleep(PAUSE);
        if events.iter().any(|event| event.mask.intersects(is_over)) {
            return Ok(());
        }
    }
}

fn look(folder: &Path, known: &[Found]) -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    let counts = |entry: &io::Result<DirEntry>| {
        let is_hidden = |entry: &DirEntry| entry.file_name().as_encoded_bytes().starts_with(b".");
        !entry.as_ref().is_ok_and(is_hidden)
    };
    for entry in std::fs::read_dir(folder)?.filter(counts).take(MOST) {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        match durable::read(&entry.path(), LARGEST) {
            Ok(Some(bytes)) => {
                let text = String::from_utf8_lossy(&bytes);
                let line = text.lines().next().unwrap_or_default().trim();
                found.push((name, Some(line.to_owned())));
            }
            // Removed meanwhile.
            Ok(None) => {}
            Err(error) => {
                let is_news = !known.contains(&(name.clone(), None));
                if is_news {
                    let path = entry.path();
                    warn!("{} is no alarm: {error}", path.display());
                }
                found.push((name, None));
            }
        }
    }
    Ok(found)
}

/// False when nobody listens any more.
fn tell_changes(now: Vec<Found>, known: &mut Vec<Found>, inbox: &Sender<Event>) -> bool {
    let before = std::mem::replace(known, now);
    let mut is_heard = true;
    let mut tell = |name: &str, description: Option<&String>| {
        let (name, description) = (name.to_owned(), description.cloned());
        is_heard &= inbox.send(Event::AlarmFile { name, description }).is_ok();
    };
    let is_alarm = |found: &[Found], name: &str| {
        let same = |(other, description): &Found| other == name && description.is_some();
        found.iter().any(same)
    };
    for (name, description) in &before {
        if description.is_some() && !is_alarm(known, name) {
            tell(name, None);
        }
    }
    for found in known.iter().filter(|found| !before.contains(found)) {
        if found.1.is_some() {
            tell(&found.0, found.1.as_ref());
        }
    }
    is_heard
}

#[cfg(test)]
mod tests {
    use crate::system::channel::{Receiver, bounded};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// The next that is told.
    fn next(told: &Receiver<Event>) -> (String, Option<String>) {
        match told.recv_timeout(PATIENCE) {
            Ok(Event::AlarmFile { name, description }) => (name, description),
            other => panic!("{other:?}"),
        }
    }

    fn set(name: &str, text: &str) -> (String, Option<String>) {
        (name.to_owned(), Some(text.to_owned()))
    }

    fn cleared(name: &str) -> (String, Option<String>) {
        (name.to_owned(), None)
    }

    #[test]
    fn files_come_change_and_go() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("a/alarms");
        let (inbox, told) = bounded(16);
        let path = folder.clone();
        std::thread::spawn(move || run(&path, &inbox));
        // Whole at once: a look in between would find it empty.
        let write = |name: &str, text: &[u8]| {
            std::fs::write(folder.join(".new"), text)?;
            std::fs::rename(folder.join(".new"), folder.join(name))
        };
        let deadline = std::time::Instant::now() + PATIENCE;
        while write("Hot", b"81 C\nand more\n").is_err() {
            assert!(std::time::Instant::now() < deadline, "no folder");
        }
        assert_eq!(next(&told), set("Hot", "81 C"));
        write("Hot", b"82 C").unwrap();
        assert_eq!(next(&told), set("Hot", "82 C"));
        // What is no alarm is passed over.
        write(".hidden", b"x").unwrap();
        write("Large", &[b'x'; LARGEST + 1]).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", folder.join("Link")).unwrap();
        std::fs::create_dir(folder.join("Folder")).unwrap();
        nix::unistd::mkfifo(&folder.join("Pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::fs::rename(folder.join(".hidden"), folder.join("Wet")).unwrap();
        assert_eq!(next(&told), set("Wet", "x"));
        std::fs::remove_file(folder.join("Hot")).unwrap();
        assert_eq!(next(&told), cleared("Hot"));
        // One that becomes too large is none any more.
        write("Wet", &[b'x'; LARGEST + 1]).unwrap();
        assert_eq!(next(&told), cleared("Wet"));
        write("Wet", b"").unwrap();
        assert_eq!(next(&told), set("Wet", ""));
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(next(&told), cleared("Wet"));
        // It is made again.
        while write("Late", b"y").is_err() {
            assert!(std::time::Instant::now() < deadline, "no folder");
        }
        assert_eq!(next(&told), set("Late", "y"));
    }

    #[test]
    fn what_is_there_at_the_start_counts_and_a_crowd_is_cut_short() {
        let folder = tempfile::tempdir().unwrap();
        for index in 0..MOST + 10 {
            std::fs::write(folder.path().join(format!("A{index}")), "x").unwrap();
            // What is hidden takes nobody's place.
            std::fs::write(folder.path().join(format!(".{index}")), "x").unwrap();
        }
        let found = look(folder.path(), &[]).unwrap();
        assert_eq!(found.len(), MOST);
        let (inbox, told) = bounded(MOST);
        let mut known = Vec::new();
        assert!(tell_changes(found.clone(), &mut known, &inbox));
        assert_eq!(told.try_iter().count(), MOST);
        assert!(tell_changes(found, &mut known, &inbox));
        assert_eq!(told.try_iter().count(), 0);
        drop(told);
        assert!(!tell_changes(Vec::new(), &mut known, &inbox));
    }

    #[test]
    fn a_folder_that_cannot_be_looked_at_for_a_while_clears_nothing() {
        let root = tempfile::tempdir().unwrap();
        let (real, link) = (root.path().join("real"), root.path().join("link"));
        let point = |target: &Path| {
            let new = root.path().join("new");
            std::os::unix::fs::symlink(target, &new)?;
            std::fs::rename(new, &link)
        };
        std::fs::create_dir(&real).unwrap();
        std::fs::write(real.join("Hot"), "1").unwrap();
        point(&real).unwrap();
        let (inbox, told) = bounded(16);
        let path = link.join(".");
        std::thread::spawn(move || watch(&path, Duration::from_millis(50), &inbox));
        assert_eq!(next(&told), set("Hot", "1"));
        // A link to itself.
        point(&link).unwrap();
        std::fs::write(real.join("Wet"), "2").unwrap();
        assert!(told.recv_timeout(Duration::from_millis(500)).is_err());
        point(&real).unwrap();
        assert_eq!(next(&told), set("Wet", "2"));
        std::fs::remove_file(real.join("Hot")).unwrap();
        assert_eq!(next(&told), cleared("Hot"));
    }

    #[test]
    fn a_folder_that_cannot_be_is_an_error_that_names_it() {
        let (inbox, _told) = bounded(1);
        let problem = run(Path::new("/proc/alarms"), &inbox).unwrap_err();
        assert!(problem.contains("/proc/alarms: "), "{problem}");
        assert!(problem.contains("NERVES_HUB_ALARM_DIR"), "{problem}");
    }
}
