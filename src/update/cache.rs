//! The folder that firmware is kept in until it is installed.
//!
//! Owns its names, its limits and its tidiness: one firmware at a time, never more than
//! allowed, never more than there is room for. What is in the files is the strategies'.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::sys::statvfs::statvfs;

use super::patience::Failure;
use crate::config::CacheSettings;
use crate::system::durable;

/// Room that must be left beside a download, in bytes.
const MARGIN: u64 = 256 * 1024;

/// The names of one firmware's files.
#[derive(Clone, Debug)]
pub struct Names {
    pub folder: PathBuf,
    uuid: String,
}

impl Names {
    /// `uuid` is letters, digits and dashes (see [`crate::wire::Offer`]).
    pub fn new(settings: &CacheSettings, uuid: &str) -> Self {
        Self {
            folder: settings.folder.clone(),
            uuid: uuid.to_owned(),
        }
    }

    /// The file so far.
    pub fn partial(&self) -> PathBuf {
        self.named("partial")
    }

    /// What is known about the file: size, checksum, validators.
    pub fn facts(&self) -> PathBuf {
        self.named("facts")
    }

    /// SHA-256 of each whole part that is safely on the disk.
    pub fn sums(&self) -> PathBuf {
        self.named("sums")
    }

    /// The folder of parts.
    pub fn parts(&self) -> PathBuf {
        self.named("parts")
    }

    fn named(&self, kind: &str) -> PathBuf {
        self.folder.join(format!("{}.{kind}", self.uuid))
    }

    fn owns(&self, name: &str) -> bool {
        name.strip_prefix(&self.uuid)
            .is_some_and(|rest| rest.starts_with('.'))
    }
}

/// Makes the folder and removes every other firmware's files from it.
///
/// # Errors
/// The folder cannot be made or read.
pub fn claim(names: &Names) -> Result<(), Failure> {
    let folder = &names.folder;
    fs::create_dir_all(folder).map_err(|error| unusable("make", folder, &error))?;
    for name in listed(folder).map_err(|error| unusable("read", folder, &error))? {
        if is_ours(&name) && !names.owns(&name) {
            log::info!(
                "removing {name} of another firmware from {}",
                folder.display()
            );
            remove(&folder.join(name))?;
        }
    }
    Ok(())
}

/// Removes what is kept of a firmware that is no longer needed: it runs.
pub fn forget(settings: &CacheSettings, uuid: &str) {
    let names = Names::new(settings, uuid);
    for path in [names.partial(), names.facts(), names.sums(), names.parts()] {
        if path.exists() {
            // Left over at worst, until another firmware comes.
            let _ = remove(&path);
        }
    }
}

/// Refuses what is over the limit or more than fits.
///
/// # Errors
/// Both numbers and the way out.
pub fn make_sure_of_room(settings: &CacheSettings, size: u64, missing: u64) -> Result<(), Failure> {
    let folder = settings.folder.display();
    if size > settings.max {
        return Err(Failure::Failed(format!(
            "the firmware has {size} bytes, NERVES_HUB_CACHE_MAX allows {}; raise it or set \
             NERVES_HUB_UPDATER=streaming",
            settings.max
        )));
    }
    // Where the system cannot tell, the writes will.
    let Ok(space) = statvfs(&settings.folder) else {
        return Ok(());
    };
    // Of types that differ between machines.
    #[allow(clippy::useless_conversion)]
    let free = u64::from(space.blocks_available()).saturating_mul(u64::from(space.fragment_size()));
    if free < missing.saturating_add(MARGIN) {
        return Err(Failure::Failed(format!(
            "not enough space in {folder}: {missing} bytes are missing, {free} are free; make \
             room, or set NERVES_HUB_CACHE_DIR or NERVES_HUB_UPDATER=streaming"
        )));
    }
    Ok(())
}

/// A file or folder of ours that cannot be used.
pub fn unusable(what: &str, path: &Path, error: &dyn fmt::Display) -> Failure {
    Failure::Failed(format!(
        "cannot {what} {}: {error}; see NERVES_HUB_CACHE_DIR",
        path.display()
    ))
}

/// Removes a file or a folder with all that is in it.
///
/// # Errors
/// What was not there is fine; what stays is not.
pub fn remove(path: &Path) -> Result<(), Failure> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(unusable("remove", path, &error))
        }
        _ => Ok(()),
    }
}

/// Makes what was created in or removed from a folder last.
///
/// # Errors
/// The system's.
pub fn sync(folder: &Path) -> Result<(), Failure> {
    durable::sync_folder(folder).map_err(|error| unusable("sync", folder, &error))
}

fn listed(folder: &Path) -> io::Result<Vec<String>> {
    fs::read_dir(folder)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect()
}

/// Anything else in the folder is somebody else's.
fn is_ours(name: &str) -> bool {
    let name = name.strip_suffix(".new").unwrap_or(name);
    [".partial", ".facts", ".sums", ".parts"]
        .iter()
        .any(|kind| name.ends_with(kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(folder: &Path) -> CacheSettings {
        CacheSettings {
            folder: folder.to_owned(),
            max: 1000,
            ..CacheSettings::default()
        }
    }

    #[test]
    fn only_other_firmware_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let names = Names::new(&settings(folder.path()), "a-1");
        for name in [
            "a-1.partial",
            "a-12.partial",
            "b.facts",
            "b.facts.new",
            "notes",
        ] {
            fs::write(folder.path().join(name), "x").unwrap();
        }
        fs::create_dir(folder.path().join("b.parts")).unwrap();
        fs::write(folder.path().join("b.parts/00000"), "x").unwrap();
        claim(&names).unwrap();
        let mut left = listed(folder.path()).unwrap();
        left.sort();
        assert_eq!(left, ["a-1.partial", "notes"]);
        forget(&settings(folder.path()), "a-1");
        assert_eq!(listed(folder.path()).unwrap(), ["notes"]);
    }

    #[test]
    fn limits_are_told_with_their_numbers() {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(folder.path());
        assert!(make_sure_of_room(&settings, 1000, 1000).is_ok());
        let Err(Failure::Failed(text)) = make_sure_of_room(&settings, 1001, 1) else {
            panic!("allowed");
        };
        assert!(
            text.contains("1001 bytes, NERVES_HUB_CACHE_MAX allows 1000"),
            "{text}"
        );
        let Err(Failure::Failed(text)) = make_sure_of_room(&settings, 1000, 1 << 60) else {
            panic!("allowed");
        };
        assert!(text.starts_with("not enough space in "), "{text}");
    }
}
