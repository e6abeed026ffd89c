//! One agent for each data folder.
//!
//! Owns the file `lock` in it, which is locked for as long as the agent lives, however it
//! ends, and holds its process id. Must not decide what a start without it means.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::durable;

/// How often a lock that is held is tried.
const LOOK: Duration = Duration::from_millis(100);
/// A process id and its end of line.
const ID: usize = 16;

/// Held until it is dropped.
pub struct Lock {
    _file: Flock<File>,
}

/// Tries for that long: a predecessor may be about to leave. `None` where no lock can be
/// made, which is no reason not to start.
///
/// # Errors
/// Another agent has it still: who, and the way out.
pub fn take(folder: &Path, patience: Duration) -> Result<Option<Lock>, String> {
    let path = folder.join("lock");
    let unlocked = |error: io::Error| {
        let path = path.display();
        warn!("{path}: {error}; starting without a lock against a second agent on this folder");
        Ok(None)
    };
    let mut file = match open(&path) {
        Ok(file) => file,
        Err(error) => return unlocked(error),
    };
    let begin = Instant::now();
    let mut is_said = false;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut lock) => {
                // Who has it is good to know, and no more than that.
                let _ = note_owner(&mut lock);
                return Ok(Some(Lock { _file: lock }));
            }
            Err((back, Errno::EWOULDBLOCK | Errno::EINTR)) => file = back,
            Err((_, error)) => return unlocked(error.into()),
        }
        if begin.elapsed() >= patience {
            return Err(format!("{}; given up", in_use(folder, &path)));
        }
        if !is_said {
            let seconds = patience.as_secs();
            warn!("{}; waiting {seconds} s for its end", in_use(folder, &path));
            is_said = true;
        }
        std::thread::sleep(LOOK);
    }
}

fn open(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        durable::make_folder(folder)?;
    }
    // What is in it is the owner's: nothing is cut off before it is ours.
    let mut options = OpenOptions::new();
    durable::open(path, options.write(true).create(true).truncate(false))
}

fn note_owner(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.write_all(format!("{}\n", std::process::id()).as_bytes())
}

fn in_use(folder: &Path, path: &Path) -> String {
    let noted = durable::read(path, ID).ok().flatten().unwrap_or_default();
    let id: u32 = String::from_utf8_lossy(&noted).trim().parse().unwrap_or(0);
    let folder = folder.display();
    format!(
        "another agent (process {id}) is using {folder}: each needs a NERVES_HUB_DATA_PATH of its own"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_one_agent_s_until_it_lets_go() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("data");
        let lock = take(&folder, Duration::ZERO).unwrap();
        assert!(lock.is_some());
        let refused = take(&folder, Duration::ZERO).err().unwrap();
        let owner = format!("process {})", std::process::id());
        for part in [&*owner, "NERVES_HUB_DATA_PATH", &*folder.to_string_lossy()] {
            assert!(refused.contains(part), "{refused}");
        }
        let waiting = {
            let folder = folder.clone();
            std::thread::spawn(move || take(&folder, Duration::from_secs(20)).unwrap().is_some())
        };
        drop(lock);
        assert!(waiting.join().unwrap());
    }

    #[test]
    fn where_no_lock_can_be_made_there_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(take(&file, Duration::ZERO).unwrap().is_none());
        let link = folder.path().join("lock");
        std::os::unix::fs::symlink(&file, link).unwrap();
        assert!(take(folder.path(), Duration::ZERO).unwrap().is_none());
    }
}
