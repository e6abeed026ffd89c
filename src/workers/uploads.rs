//! Thread `uploads`: writes files from the hub into the uploads folder. Lives while there
//! are any.
//!
//! Owns the folder's safety: everything is done relative to one descriptor of it, no link
//! is followed anywhere in it, a temporary file is new or not used at all, and a file gets
//! its name by a rename, which replaces a link instead of following it. Must not judge
//! names or sizes: the core has.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{Mode, fstatat, mkdirat};
use nix::sys::statvfs::fstatvfs;
use nix::unistd::{UnlinkatFlags, fsync, unlinkat};

use crate::core::effect::UploadStep;
use crate::core::event::Event;
use crate::core::event::UploadId;
use crate::core::operator::TEMPORARY;
use crate::system::channel::{Receiver, Sender, unbounded};

/// Bytes that may wait for the disk, with what each step takes besides.
const BACKLOG: usize = 4 * 1024 * 1024;
const STEP: usize = 256;
/// Free space is looked at after so many bytes.
const LOOK_EVERY: u64 = 256 * 1024;
/// Left free on the file system: so much, or a tenth of a small one.
const RESERVE: u64 = 16 * 1024 * 1024;
/// Names tried for a temporary file.
const TRIES: u32 = 16;

/// The dispatcher's end of the queue. Dropping it ends the thread once it has done all.
#[derive(Debug)]
pub struct Queue {
    steps: Sender<UploadStep>,
    waiting: Arc<AtomicUsize>,
}

/// The thread's end.
#[derive(Debug)]
pub struct Steps {
    steps: Receiver<UploadStep>,
    waiting: Arc<AtomicUsize>,
}

pub fn queue() -> (Queue, Steps) {
    // Bounded by what `Queue::push` takes.
    let (sender, steps) = unbounded();
    let waiting = Arc::new(AtomicUsize::new(0));
    let queue = Queue {
        steps: sender,
        waiting: waiting.clone(),
    };
    (queue, Steps { steps, waiting })
}

impl Queue {
    /// # Errors
    /// The disk is behind, and the step was not taken. The end of a file always is.
    pub fn push(&self, step: UploadStep) -> Result<(), UploadId> {
        let cost = cost(&step);
        match &step {
            UploadStep::Open { upload, .. } | UploadStep::Append { upload, .. } => {
                if self.waiting.load(Ordering::SeqCst) + cost > BACKLOG {
                    return Err(*upload);
                }
            }
            UploadStep::Finish(_) | UploadStep::Discard(_) => {}
        }
        self.waiting.fetch_add(cost, Ordering::SeqCst);
        // A thread that is gone is heard of otherwise.
        let _ = self.steps.send(step);
        Ok(())
    }
}

fn cost(step: &UploadStep) -> usize {
    match step {
        UploadStep::Append { bytes, .. } => STEP + bytes.len(),
        UploadStep::Open { .. } | UploadStep::Finish(_) | UploadStep::Discard(_) => STEP,
    }
}

/// Takes steps until there are no more to come.
///
/// # Errors
/// None; failures are each file's own.
pub fn run(folder: &Path, steps: &Steps, inbox: &Sender<Event>) -> Result<(), String> {
    let mut desk = Desk {
        path: folder,
        folder: None,
        files: Vec::new(),
    };
    while let Ok(step) = steps.steps.recv() {
        let cost = cost(&step);
        let ended = desk.take(step);
        steps.waiting.fetch_sub(cost, Ordering::SeqCst);
        if let Some((upload, result)) = ended {
            // The dispatcher is gone only when the process leaves.
            let _ = inbox.send(Event::UploadEnded(upload, result));
        }
    }
    desk.clear();
    Ok(())
}

/// Removes what an earlier run left unfinished; to be called before the first file.
pub fn tidy(path: &Path) {
    let Ok(folder) = open_folder(path) else {
        // None yet, or none to be trusted: then there is nothing of ours in it.
        return;
    };
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    for entry in entries {
        let name = entry.file_name();
        if name.to_string_lossy().starts_with(TEMPORARY) {
            remove(&folder, &name.to_string_lossy());
        }
    }
}

type Ended = (UploadId, Result<(PathBuf, u64), String>);

struct Desk<'a> {
    path: &'a Path,
    folder: Option<OwnedFd>,
    files: Vec<Unfinished>,
}

struct Unfinished {
    upload: UploadId,
    name: String,
    temporary: String,
    file: File,
    size: u64,
    /// Free space is looked at when the file is so long.
    look_at: u64,
}

impl Desk<'_> {
    fn take(&mut self, step: UploadStep) -> Option<Ended> {
        match step {
            UploadStep::Open { upload, name } => {
                let opened = self.open(upload, name);
                opened.err().map(|reason| (upload, Err(reason)))
            }
            UploadStep::Append { upload, bytes } => {
                let folder = self.folder.as_ref()?;
                let file = self.files.iter_mut().find(|file| file.upload == upload)?;
                let reason = file.append(&bytes, folder).err()?;
                self.discard(upload);
                Some((upload, Err(reason)))
            }
            UploadStep::Finish(upload) => {
                let index = self.files.iter().position(|file| file.upload == upload)?;
                let file = self.files.swap_remove(index);
                Some((upload, self.finish(file)))
            }
            UploadStep::Discard(upload) => {
                self.discard(upload);
                None
            }
        }
    }

    fn open(&mut self, upload: UploadId, name: String) -> Result<(), String> {
        let wrong = |error: io::Error| {
            let path = self.path.display();
            format!("cannot write into {path}: {error}; see NERVES_HUB_UPLOAD_DIR")
        };
        if self.folder.is_none() {
            make_folder(self.path).map_err(wrong)?;
        }
        let folder = match self.folder.take() {
            Some(folder) => folder,
            None => open_folder(self.path).map_err(wrong)?,
        };
        let created = create(&folder, upload);
        let folder = self.folder.insert(folder);
        let (temporary, file) = created.map_err(wrong)?;
        let mut file = Unfinished {
            upload,
            name,
            temporary,
            file,
            size: 0,
            look_at: 0,
        };
        let room = file.append(&[], folder);
        self.files.push(file);
        room.inspect_err(|_| self.discard(upload))
    }

    fn finish(&self, unfinished: Unfinished) -> Result<(PathBuf, u64), String> {
        let Some(folder) = &self.folder else {
            return Err("its folder is gone".to_owned());
        };
        let Unfinished {
            name, temporary, ..
        } = &unfinished;
        let placed = unfinished.file.sync_all().and_then(|()| {
            refuse_folder(folder, name)?;
            renameat(folder, temporary.as_str(), folder, name.as_str())?;
            Ok(fsync(folder)?)
        });
        match placed {
            Ok(()) => Ok((self.path.join(name), unfinished.size)),
            Err(error) => {
                remove(folder, temporary);
                Err(format!("cannot be made to last: {error}"))
            }
        }
    }

    fn discard(&mut self, upload: UploadId) {
        if let Some(index) = self.files.iter().position(|file| file.upload == upload) {
            let file = self.files.swap_remove(index);
            if let Some(folder) = &self.folder {
                remove(folder, &file.temporary);
            }
        }
    }

    fn clear(&mut self) {
        while let Some(file) = self.files.last() {
            self.discard(file.upload);
        }
    }
}

impl Unfinished {
    fn append(&mut self, bytes: &[u8], folder: &OwnedFd) -> Result<(), String> {
        self.size += bytes.len() as u64;
        if self.size >= self.look_at {
            has_room(folder, bytes.len() as u64)?;
            self.look_at = self.size + LOOK_EVERY;
        }
        let written = self.file.write_all(bytes);
        written.map_err(|error| format!("cannot be written: {error}"))
    }
}

/// What else the file system is for must go on working.
fn has_room(folder: &OwnedFd, more: u64) -> Result<(), String> {
    let room = fstatvfs(folder).map_err(|error| format!("free space unknown: {error}"))?;
    // Their widths differ between machines.
    let unit = room.fragment_size() as u64;
    let free = (room.blocks_available() as u64).saturating_mul(unit);
    let whole = (room.blocks() as u64).saturating_mul(unit);
    let reserve = RESERVE.min(whole / 10);
    match free < reserve.saturating_add(more + LOOK_EVERY) {
        true => Err(format!(
            "no room: {free} bytes are free, of which {reserve} are not for files"
        )),
        false => Ok(()),
    }
}

/// Folders above it may be links: those are the integrator's.
fn make_folder(path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let made = mkdirat(nix::fcntl::AT_FDCWD, path, Mode::S_IRWXU);
    match made {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn open_folder(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Ok(openat(nix::fcntl::AT_FDCWD, path, flags, Mode::empty())?)
}

/// A new file under a name that was free; never one that somebody has put there.
fn create(folder: &OwnedFd, upload: UploadId) -> io::Result<(String, File)> {
    let flags =
        OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    for attempt in 0..TRIES {
        let name = format!("{TEMPORARY}{}-{attempt}", upload.0);
        match openat(folder, name.as_str(), flags, Mode::S_IRUSR | Mode::S_IWUSR) {
            Ok(descriptor) => return Ok((name, File::from(descriptor))),
            Err(Errno::EEXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// The rename would refuse it, too, but with words that help nobody.
fn refuse_folder(folder: &OwnedFd, name: &str) -> io::Result<()> {
    let found = fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW);
    match found.is_ok_and(|found| found.st_mode & nix::libc::S_IFMT == nix::libc::S_IFDIR) {
        true => Err(io::Error::other("a folder has that name")),
        false => Ok(()),
    }
}

fn remove(folder: &OwnedFd, name: &str) {
    if let Err(error) = unlinkat(folder, name, UnlinkatFlags::NoRemoveDir) {
        warn!("cannot remove {name} from the uploads folder: {error}");
    }
}

#[cfg(test)]
mod tests;
