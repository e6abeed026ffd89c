//! Thread `send-file`: reads a file for the hub's console page, which saves it.
//!
//! Owns the limits and the order of the chunks. Must not push by itself: the dispatcher does,
//! one frame at a time, so that a file never stands before a heartbeat.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;

use crate::core::event::{Event, SendEvent, SendId};
use crate::system::channel::{Receiver, Sender};
use crate::system::http::Cancel;
use crate::wire::FilePush;

/// What the page takes in one frame.
pub const CHUNK: usize = 1024;
/// The page holds the whole file in its memory.
pub const FILE_MAX: u64 = 10 * 1024 * 1024;
/// Bytes of a file per second, so that other messages get through.
pub const RATE: u64 = 64 * 1024;

/// A frame that the kernel does not take costs the connection before this.
const RECEIPT_PATIENCE: Duration = Duration::from_secs(60);
/// How often progress is told.
const TELL_EVERY: Duration = Duration::from_millis(250);

/// Sends one file; how that ended is its last event.
///
/// # Errors
/// None; failures are in that event.
pub fn run(
    id: SendId,
    path: &Path,
    cancel: &Cancel,
    receipts: &Receiver<()>,
    inbox: &Sender<Event>,
) -> Result<(), String> {
    let tell = |event| {
        // The dispatcher is gone only when the process leaves.
        let _ = inbox.send(Event::SendFile(id, event));
    };
    let mut push = |frame| {
        tell(SendEvent::Frame(frame));
        let receipt = receipts.recv_timeout(RECEIPT_PATIENCE);
        receipt.map_err(|_| "the connection takes nothing".to_owned())
    };
    let mut told = Instant::now();
    let mut progress = |sent, size| {
        if told.elapsed() >= TELL_EVERY {
            told = Instant::now();
            tell(SendEvent::Progress { sent, size });
        }
    };
    let mut sleep = |time| {
        cancel.sleep_until(Instant::now() + time);
        !cancel.is_cancelled()
    };
    let mut pace = Steady::new(RATE, &mut sleep);
    let result = send(path, &mut pace, &mut push, &mut progress);
    tell(SendEvent::Ended(result.map_err(|error| error.to_string())));
    Ok(())
}

/// Why a file did not go out.
#[derive(Debug)]
pub enum SendError {
    Open {
        path: PathBuf,
        error: io::Error,
    },
    NotAFile {
        path: PathBuf,
    },
    TooLarge {
        path: PathBuf,
        size: u64,
    },
    Read {
        path: PathBuf,
        error: io::Error,
    },
    /// Shorter or longer than when it was opened.
    Changed {
        path: PathBuf,
    },
    /// Nobody wants it any more.
    Cancelled,
    /// The console is gone; the text says more.
    NotSent(String),
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open { path, error } => write!(f, "cannot open {}: {error}", path.display()),
            Self::NotAFile { path } => write!(
                f,
                "{} is not a regular file; only those are sent, a folder as an archive of it",
                path.display()
            ),
            Self::TooLarge { path, size } => write!(
                f,
                "{} has {size} bytes; the hub's page takes less than {FILE_MAX}: compress or \
                 split it",
                path.display()
            ),
            Self::Read { path, error } => write!(f, "cannot read {}: {error}", path.display()),
            Self::Changed { path } => write!(
                f,
                "{} changed while it was sent; send a copy of it",
                path.display()
            ),
            Self::Cancelled => f.write_str("cancelled"),
            Self::NotSent(reason) => write!(f, "not sent: {reason}"),
        }
    }
}

impl std::error::Error for SendError {}

/// Says when the next bytes may go.
pub trait Pace {
    /// Waits until so many more bytes may be sent; false: not any more.
    fn wait(&mut self, bytes: usize) -> bool;
}

/// So many bytes per second, with no burst of more than a few frames.
pub struct Steady<'a> {
    rate: u64,
    /// When the next bytes are due.
    next: Instant,
    /// Sleeps that long; false when it was cancelled meanwhile.
    sleep: &'a mut dyn FnMut(Duration) -> bool,
}

impl<'a> Steady<'a> {
    pub fn new(rate: u64, sleep: &'a mut dyn FnMut(Duration) -> bool) -> Self {
        Self {
            rate: rate.max(1),
            next: Instant::now(),
            sleep,
        }
    }
}

impl Pace for Steady<'_> {
    fn wait(&mut self, bytes: usize) -> bool {
        let now = Instant::now();
        let left = self.next.saturating_duration_since(now);
        // Time that was lost is not made up for: that would be a burst.
        self.next =
            self.next.max(now) + Duration::from_micros(bytes as u64 * 1_000_000 / self.rate);
        (self.sleep)(left)
    }
}

/// Sends the file; how many bytes it had.
///
/// `push` takes each frame in order, or says why no more can go. `progress` hears of the
/// bytes sent and of all.
///
/// # Errors
/// See [`SendError`]. The page then gets no end, which would make it save what it has; the
/// beginning of the next file makes it forget this one.
pub fn send(
    path: &Path,
    pace: &mut dyn Pace,
    push: &mut dyn FnMut(FilePush) -> Result<(), String>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<u64, SendError> {
    let (mut file, size) = open(path)?;
    let name = path.file_name().unwrap_or_default();
    let name = name.to_string_lossy().into_owned();
    let mut push = |frame| push(frame).map_err(SendError::NotSent);
    push(FilePush::Start { name: name.clone() })?;
    let mut buffer = [0; CHUNK];
    let (mut sent, mut chunk) = (0, 0);
    while sent < size {
        let read = fill(&mut file, &mut buffer).map_err(|error| SendError::Read {
            path: path.to_owned(),
            error,
        })?;
        sent += read as u64;
        if read == 0 || sent > size {
            let path = path.to_owned();
            return Err(SendError::Changed { path });
        }
        if !pace.wait(read) {
            return Err(SendError::Cancelled);
        }
        push(FilePush::Data {
            name: name.clone(),
            chunk,
            bytes: buffer[..read].to_vec(),
        })?;
        chunk += 1;
        progress(sent, size);
    }
    push(FilePush::Stop { name })?;
    Ok(size)
}

/// A pipe or a device in the file's place must not hold us up.
fn open(path: &Path) -> Result<(File, u64), SendError> {
    use std::os::unix::fs::OpenOptionsExt;
    let wrong = |error| SendError::Open {
        path: path.to_owned(),
        error,
    };
    let mut options = File::options();
    let options = options.read(true).custom_flags(OFlag::O_NONBLOCK.bits());
    let file = options.open(path).map_err(wrong)?;
    let found = file.metadata().map_err(wrong)?;
    let path = path.to_owned();
    match found.len() {
        _ if !found.is_file() => Err(SendError::NotAFile { path }),
        size if size >= FILE_MAX => Err(SendError::TooLarge { path, size }),
        size => Ok((file, size)),
    }
}

/// Whole chunks, except for the last.
fn fill(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests;
