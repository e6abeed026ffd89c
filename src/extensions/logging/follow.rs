//! Follows a file that grows, is renamed and made anew, emptied, or not there yet.
//!
//! The kernel tells of changes (inotify); only where it cannot is the file looked at every
//! second.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};

use super::line::{Line, MESSAGE_MAX};
use super::ring::Intake;
use super::sources::{BUDGET, Source};
use super::splitter::Splitter;

/// Where the kernel tells nothing.
const LOOK: Duration = Duration::from_secs(1);

pub struct Follower {
    path: PathBuf,
    take: fn(&[u8]) -> Option<Line>,
    inotify: Option<Inotify>,
    /// The kernel tells of all that matters.
    is_told: bool,
    /// What is at the path now, as the kernel calls it.
    watch: Option<WatchDescriptor>,
    file: Option<Followed>,
    lines: Splitter,
    due: Option<Instant>,
    /// What was said of it last.
    complaint: String,
}

struct Followed {
    file: File,
    /// Read so far.
    offset: u64,
    watch: Option<WatchDescriptor>,
}

impl Follower {
    /// From the file's end on; one that appears later, from its beginning.
    pub fn new(path: PathBuf, take: fn(&[u8]) -> Option<Line>, now: Instant) -> Self {
        let mut follower = Self {
            path,
            take,
            inotify: Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).ok(),
            is_told: false,
            watch: None,
            file: None,
            // A little more than a message, for what stands before it.
            lines: Splitter::new(MESSAGE_MAX + 512),
            due: None,
            complaint: String::new(),
        };
        follower.watch();
        match follower.open() {
            Ok(mut followed) => {
                match followed.skip_all() {
                    Ok(true) => {}
                    // Nobody has seen the beginning of that line.
                    Ok(false) | Err(_) => follower.lines.skip(),
                }
                follower.file = Some(followed);
            }
            Err(error) => follower.complain(&error),
        }
        follower.plan(now, false);
        follower
    }

    fn open(&self) -> io::Result<Followed> {
        let mut options = OpenOptions::new();
        // One that is no file must not hold us up.
        let file = options
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(&self.path)?;
        match file.metadata()?.is_file() {
            true => Ok(Followed {
                file,
                offset: 0,
                watch: self.watch,
            }),
            false => Err(io::Error::other("not a regular file")),
        }
    }

    fn complain(&mut self, error: &io::Error) {
        let complaint = error.to_string();
        if self.complaint != complaint {
            warn!(
                "log source {}: {complaint}; waiting for it",
                self.path.display()
            );
            self.complaint = complaint;
        }
    }

    /// Has the kernel tell of the file at the path and of another in its place. What was
    /// watched before stays so until nothing is read from it any more.
    fn watch(&mut self) {
        let Some(inotify) = &self.inotify else {
            return;
        };
        let folder = self.path.parent().filter(|path| *path != Path::new(""));
        let folder = folder.unwrap_or(Path::new("."));
        let of_names = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_ONLYDIR;
        let of_bytes = AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_MOVE_SELF;
        let is_link = fs::symlink_metadata(&self.path).is_ok_and(|found| found.is_symlink());
        let names = inotify.add_watch(folder, of_names);
        let bytes = inotify.add_watch(&self.path, of_bytes);
        self.watch = bytes.ok();
        let is_known = matches!(bytes, Ok(_) | Err(Errno::ENOENT));
        // Another target of a link is made elsewhere.
        self.is_told = names.is_ok() && is_known && !is_link;
    }

    /// What the kernel has told is of no interest, only that it did.
    fn forget_told(&self) {
        if let Some(inotify) = &self.inotify {
            let mut told = [0; 4096];
            while nix::unistd::read(inotify, &mut told).is_ok_and(|length| length > 0) {}
        }
    }

    fn plan(&mut self, now: Instant, has_more: bool) {
        self.due = match (has_more, self.is_told) {
            (true, _) => Some(now),
            (false, true) => None,
            (false, false) => Some(now + LOOK),
        };
    }

    /// Whether there may be more.
    fn read(&mut self, intake: &Intake) -> io::Result<bool> {
        let take = self.take;
        let mut each = |line: &[u8]| {
            if let Some(line) = take(line) {
                intake.put(line);
            }
        };
        let mut buffer = [0; 16 * 1024];
        for _ in 0..BUDGET / buffer.len() {
            let Some(followed) = &mut self.file else {
                return Ok(false);
            };
            match followed.read(&mut buffer) {
                Ok(0) if followed.was_emptied()? => {
                    followed.offset = 0;
                    self.lines.finish(&mut each);
                }
                Ok(0) => match self.successor()? {
                    Some(next) => {
                        self.lines.finish(&mut each);
                        self.leave(next.watch);
                        self.file = Some(next);
                    }
                    None => return Ok(false),
                },
                Ok(length) => self.lines.feed(&buffer[..length], &mut each),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// What is read no more need not be told of.
    fn leave(&mut self, next: Option<WatchDescriptor>) {
        let followed = self.file.take();
        if let (Some(inotify), Some(Followed { watch, .. })) = (&self.inotify, followed)
            && let Some(watch) = watch.filter(|watch| Some(*watch) != next)
        {
            // Gone by itself where the file is.
            let _ = inotify.rm_watch(watch);
        }
    }

    /// Another file at the path, once there is something in it: until then its writer may
    /// still write to the old one.
    fn successor(&self) -> io::Result<Option<Followed>> {
        let Some(followed) = &self.file else {
            return Ok(None);
        };
        let identity = |found: &Metadata| (found.dev(), found.ino());
        let Ok(found) = fs::metadata(&self.path) else {
            return Ok(None);
        };
        if found.len() == 0 || identity(&found) == identity(&followed.file.metadata()?) {
            return Ok(None);
        }
        self.open().map(Some)
    }

    fn look(&mut self, intake: &Intake) -> io::Result<bool> {
        if self.file.is_none() {
            self.file = Some(self.open()?);
        }
        self.complaint.clear();
        self.read(intake)
    }
}

impl Source for Follower {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.inotify.as_ref().map(AsFd::as_fd)
    }

    fn due(&self) -> Option<Instant> {
        self.due
    }

    fn turn(&mut self, now: Instant, intake: &Intake) {
        self.forget_told();
        self.watch();
        let has_more = match self.look(intake) {
            Ok(has_more) => has_more,
            Err(error) => {
                self.complain(&error);
                false
            }
        };
        self.plan(now, has_more);
    }
}

impl Followed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.file.read_at(buffer, self.offset)?;
        self.offset += length as u64;
        Ok(length)
    }

    fn was_emptied(&self) -> io::Result<bool> {
        Ok(self.file.metadata()?.len() < self.offset)
    }

    /// Whether a line ends there.
    fn skip_all(&mut self) -> io::Result<bool> {
        self.offset = self.file.metadata()?.len();
        let mut last = [b'\n'];
        if let Some(before) = self.offset.checked_sub(1) {
            self.file.read_at(&mut last, before)?;
        }
        Ok(last == [b'\n'])
    }
}
