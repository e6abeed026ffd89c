//! Changing a U-Boot environment the way `fw_setenv` does.
//!
//! Owns the lock, the edit, which copy is written and in which order. With two copies only
//! the obsolete one is written, and it counts once it is whole: a power cut at any moment
//! leaves the old environment or the new one. With a single copy there is no such way; it
//! is written in place, in one call, and a power cut in the middle of it leaves a bad
//! checksum. Configure a second copy where that matters.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};

use super::config::Location;
use super::medium::Medium;
use super::{CRC_LEN, EnvCopy, FlagScheme, UbootEnv, UbootEnvError, crc32};

/// What `fw_printenv` and `fw_setenv` lock.
const LOCK: &str = "/var/lock/fw_printenv.lock";
/// How long another program may hold it.
const LOCK_WAIT: Duration = Duration::from_secs(10);
const LOCK_LOOK: Duration = Duration::from_millis(20);

/// A variable and its new value; `None` removes it.
pub type Change = (String, Option<String>);

/// Why an environment was not changed. Unless it says otherwise, the old one still counts.
#[derive(Debug)]
pub enum WriteError {
    /// There is no environment to change.
    Open(UbootEnvError),
    /// Another program does not let go of the lock.
    Locked { waited: Duration },
    /// Not a name or value that an environment can hold.
    Variable { key: String, problem: &'static str },
    /// The variables do not fit.
    TooLarge { needed: usize, room: usize },
    /// The two copies lie in the same place.
    Overlap { location: Location },
    /// The device refuses.
    Device {
        location: Location,
        error: io::Error,
    },
    /// What was read back is not what was written.
    NotKept { location: Location, redundant: bool },
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(error) => write!(f, "{error}"),
            Self::Locked { waited } => write!(
                f,
                "another program has held {LOCK} for {} s; end it and try again",
                waited.as_secs()
            ),
            Self::Variable { key, problem } => {
                write!(f, "U-Boot variable {key:?} {problem}")
            }
            Self::TooLarge { needed, room } => write!(
                f,
                "the U-Boot environment needs {needed} bytes for its variables and has {room}; \
                 remove some with fw_setenv"
            ),
            Self::Overlap { location } => write!(
                f,
                "the second copy of the U-Boot environment overlaps the first ({location}); \
                 correct fw_env.config"
            ),
            Self::Device { location, error } => write!(
                f,
                "cannot write the U-Boot environment on {location}: {error}"
            ),
            Self::NotKept {
                location,
                redundant,
            } => {
                write!(f, "{location} did not keep what was written to it; ")?;
                f.write_str(match redundant {
                    true => "the old environment still counts, check the device",
                    false => "the environment may be lost, check the device",
                })
            }
        }
    }
}

impl std::error::Error for WriteError {}

/// An environment that nobody else changes meanwhile.
pub struct Editor {
    env: UbootEnv,
    _lock: Option<Flock<File>>,
}

impl Editor {
    /// Locks, then reads the environment that the `fw_env.config` at `path` describes.
    ///
    /// # Errors
    /// As [`UbootEnv::open`], or the lock is held for too long.
    pub fn open(path: &Path) -> Result<Self, WriteError> {
        let lock = lock(Path::new(LOCK), LOCK_WAIT)?;
        let env = UbootEnv::open(path).map_err(WriteError::Open)?;
        Ok(Self { env, _lock: lock })
    }

    /// The variables as they are.
    pub fn values(&self) -> BTreeMap<String, String> {
        self.env.values()
    }

    /// Makes the changes, reads them back and tells whether there were any: what is
    /// already so is not written, which spares flash.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub fn write(self, changes: &[Change]) -> Result<bool, WriteError> {
        let Some(draft) = Draft::new(&self.env, changes)? else {
            return Ok(false);
        };
        refuse_overlap(&self.env.config.copies)?;
        self.store(&draft)?;
        Ok(true)
    }

    fn store(&self, draft: &Draft) -> Result<(), WriteError> {
        let location = &self.env.copies[draft.target].location;
        let device = |location: &Location| {
            let location = location.clone();
            move |error| WriteError::Device { location, error }
        };
        let medium = Medium::open_for_writing(location).map_err(device(location))?;
        medium.write(&draft.image).map_err(device(location))?;
        if medium.read().map_err(device(location))? != draft.image {
            return Err(WriteError::NotKept {
                location: location.clone(),
                redundant: self.env.copies.len() > 1,
            });
        }
        drop(medium);
        if draft.retire_other {
            // Until here both are active and either may count; both are whole.
            let old = &self.env.copies[self.env.active].location;
            Medium::open_for_writing(old)
                .and_then(|medium| medium.write_byte(CRC_LEN as u64, 0))
                .map_err(device(old))?;
        }
        Ok(())
    }
}

/// What to write where.
pub(super) struct Draft {
    /// Index of the copy.
    pub target: usize,
    pub image: Vec<u8>,
    /// The other copy's flag has to be cleared afterwards.
    pub retire_other: bool,
}

impl Draft {
    /// `None` when the changes change nothing.
    pub fn new(env: &UbootEnv, changes: &[Change]) -> Result<Option<Self>, WriteError> {
        for (key, value) in changes {
            validate(key, value.as_deref())?;
        }
        let active = &env.copies[env.active];
        let Some(data) = edited(&active.data, changes)? else {
            return Ok(None);
        };
        let redundant = env.copies.len() > 1;
        let mut image = crc32(&data).to_ne_bytes().to_vec();
        if redundant {
            image.push(next_flag(active, env.scheme));
        }
        image.extend(data);
        Ok(Some(Self {
            target: if redundant { 1 - env.active } else { 0 },
            image,
            retire_other: redundant && env.scheme == FlagScheme::Boolean,
        }))
    }
}

fn next_flag(active: &EnvCopy, scheme: FlagScheme) -> u8 {
    match scheme {
        FlagScheme::Boolean => 1,
        FlagScheme::Incremental => active.flag.unwrap_or_default().wrapping_add(1),
    }
}

fn validate(key: &str, value: Option<&str>) -> Result<(), WriteError> {
    let problem = if key.is_empty() {
        "has no name"
    } else if key.contains(['=', '\0']) {
        "has = or a zero byte in its name"
    } else if value.is_some_and(|value| value.contains('\0')) {
        "has a zero byte in its value"
    } else {
        return Ok(());
    };
    Err(WriteError::Variable {
        key: key.to_owned(),
        problem,
    })
}

/// The variables with the changes made, padded; `None` when that is what is there. What
/// is there keeps its place and its bytes, what is new comes last.
fn edited(data: &[u8], changes: &[Change]) -> Result<Option<Vec<u8>>, WriteError> {
    let mut new = Vec::with_capacity(data.len());
    let mut done = vec![false; changes.len()];
    let entries = data.split(|byte| *byte == 0);
    for entry in entries.take_while(|entry| !entry.is_empty()) {
        let key = entry.iter().position(|byte| *byte == b'=');
        let is_key = |name: &str| key.is_some_and(|end| &entry[..end] == name.as_bytes());
        match changes.iter().position(|(name, _)| is_key(name)) {
            None => {
                new.extend_from_slice(entry);
                new.push(0);
            }
            // A second entry of the same name would win over the change.
            Some(index) if done[index] => {}
            Some(index) => {
                done[index] = true;
                put(&mut new, &changes[index]);
            }
        }
    }
    for (change, done) in changes.iter().zip(done) {
        if !done {
            put(&mut new, change);
        }
    }
    if data.starts_with(&new) && data.get(new.len()).is_none_or(|end| *end == 0) {
        return Ok(None);
    }
    // The empty entry that ends the list.
    let needed = new.len().max(1) + 1;
    if needed > data.len() {
        let room = data.len();
        return Err(WriteError::TooLarge { needed, room });
    }
    new.resize(data.len(), 0);
    Ok(Some(new))
}

fn put(data: &mut Vec<u8>, (key, value): &Change) {
    if let Some(value) = value {
        data.extend_from_slice(key.as_bytes());
        data.push(b'=');
        data.extend_from_slice(value.as_bytes());
        data.push(0);
    }
}

/// Copies in one place would be destroyed together.
fn refuse_overlap(copies: &[Location]) -> Result<(), WriteError> {
    let [first, second] = copies else {
        return Ok(());
    };
    let distance = first.offset.abs_diff(second.offset);
    let same_end = (first.offset < 0) == (second.offset < 0);
    if first.device == second.device && same_end && distance < first.size as u64 {
        let location = first.clone();
        return Err(WriteError::Overlap { location });
    }
    Ok(())
}

/// The lock of U-Boot's own tools. Where it cannot be made (read-only or missing folder,
/// no right to) they go without it, and so do we.
fn lock(path: &Path, patience: Duration) -> Result<Option<Flock<File>>, WriteError> {
    let opened = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path);
    let mut file = match opened {
        Ok(file) => file,
        Err(error) => {
            debug!("{} cannot be locked: {error}", path.display());
            return Ok(None);
        }
    };
    let begin = Instant::now();
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(Some(lock)),
            Err((back, nix::Error::EWOULDBLOCK | nix::Error::EINTR)) => file = back,
            Err((_, error)) => {
                debug!("{} cannot be locked: {error}", path.display());
                return Ok(None);
            }
        }
        let waited = begin.elapsed();
        if waited >= patience {
            return Err(WriteError::Locked { waited });
        }
        std::thread::sleep(LOCK_LOOK);
    }
}

#[cfg(test)]
mod tests;
