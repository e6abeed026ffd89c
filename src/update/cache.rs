//! The folders that firmware is kept in until it is installed, and archives for good.
//!
//! Owns their names, limits and tidiness: one download at a time, never more than allowed,
//! never more than there is room for. What is in the files is the strategies'.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::sys::statvfs::statvfs;

use super::patience::Failure;
use crate::config::{ArchiveSettings, CacheSettings};
use crate::system::durable;
use crate::wire::is_uuid;

/// Room that must be left beside a download, in bytes.
const MARGIN: u64 = 256 * 1024;

/// How messages speak of a folder, and what is in it.
#[derive(Debug)]
struct Words {
    file: &'static str,
    folder_setting: &'static str,
    max_setting: &'static str,
    /// Another way out of limits.
    detour: &'static str,
    /// Ending of the file so far.
    partial: &'static str,
    /// Endings of what a download leaves behind.
    endings: &'static [&'static str],
}

const FIRMWARE: Words = Words {
    file: "firmware",
    folder_setting: "NERVES_HUB_CACHE_DIR",
    max_setting: "NERVES_HUB_CACHE_MAX",
    detour: " or set NERVES_HUB_UPDATER=streaming",
    partial: "partial",
    endings: &[".partial", ".facts", ".sums", ".parts"],
};

const ARCHIVE: Words = Words {
    file: "archive",
    folder_setting: "NERVES_HUB_ARCHIVE_DIR",
    max_setting: "NERVES_HUB_ARCHIVE_MAX",
    detour: "",
    partial: "download",
    endings: &[".download", ".facts", ".sums", ".doubt"],
};

/// A folder to keep files in.
#[derive(Clone, Debug)]
pub struct Shelf {
    pub folder: PathBuf,
    /// Most bytes of one file.
    pub max: u64,
    words: &'static Words,
}

impl Shelf {
    /// Refuses what is over the limit or more than fits.
    ///
    /// # Errors
    /// Both numbers and the way out.
    pub fn make_sure_of_room(&self, size: u64, missing: u64) -> Result<(), Failure> {
        self.allows(size).map_err(Failure::Failed)?;
        // Where the system cannot tell, the writes will.
        let Some(free) = free(&self.folder) else {
            return Ok(());
        };
        if free < missing.saturating_add(MARGIN) {
            let folder = self.folder.display();
            return Err(Failure::Failed(format!(
                "not enough space in {folder}: {missing} bytes are missing, {free} are free; \
                 make room, or set {}{}",
                self.words.folder_setting, self.words.detour
            )));
        }
        Ok(())
    }

    /// Refuses what is over the limit.
    ///
    /// # Errors
    /// Both numbers and the way out.
    pub fn allows(&self, size: u64) -> Result<(), String> {
        if size <= self.max {
            return Ok(());
        }
        let Words {
            file,
            max_setting,
            detour,
            ..
        } = self.words;
        Err(format!(
            "the {file} has {size} bytes, {max_setting} allows {}; raise it{detour}",
            self.max
        ))
    }

    /// A file or folder of ours that cannot be used.
    pub fn unusable(&self, what: &str, path: &Path, error: &dyn fmt::Display) -> Failure {
        self.words.unusable(what, path, error)
    }

    /// Removes a file or a folder with all that is in it.
    ///
    /// # Errors
    /// What was not there is fine; what stays is not.
    pub fn remove(&self, path: &Path) -> Result<(), Failure> {
        remove_all(path).map_err(|error| self.unusable("remove", path, &error))
    }

    /// Removes what is there instead of a regular file: nothing of ours.
    ///
    /// # Errors
    /// It stays.
    pub fn clear_way(&self, path: &Path) -> Result<(), Failure> {
        match fs::symlink_metadata(path) {
            Ok(found) if !found.is_file() => self.remove(path),
            _ => Ok(()),
        }
    }

    /// Makes what was created in or removed from the folder last.
    ///
    /// # Errors
    /// The system's.
    pub fn sync(&self) -> Result<(), Failure> {
        durable::sync_folder(&self.folder)
            .map_err(|error| self.unusable("sync", &self.folder, &error))
    }
}

impl Words {
    fn unusable(&self, what: &str, path: &Path, error: &dyn fmt::Display) -> Failure {
        Failure::Failed(format!(
            "cannot {what} {}: {error}; see {}",
            path.display(),
            self.folder_setting
        ))
    }

    /// Anything else in the folder is somebody else's.
    fn is_ours(&self, name: &str) -> bool {
        let name = name.strip_suffix(".new").unwrap_or(name);
        let mut stems = self
            .endings
            .iter()
            .filter_map(|kind| name.strip_suffix(kind));
        stems.any(is_uuid)
    }
}

/// The names of one download's files.
#[derive(Clone, Debug)]
pub struct Names {
    pub shelf: Shelf,
    uuid: String,
}

impl Names {
    /// Of firmware. `uuid` is letters, digits and dashes (see [`crate::wire::Offer`]).
    pub fn new(settings: &CacheSettings, uuid: &str) -> Self {
        Self {
            shelf: Shelf {
                folder: settings.folder.clone(),
                max: settings.max,
                words: &FIRMWARE,
            },
            uuid: uuid.to_owned(),
        }
    }

    /// Of an archive; its `uuid` is as harmless.
    pub fn of_archive(settings: &ArchiveSettings, uuid: &str) -> Self {
        Self {
            shelf: Shelf {
                folder: settings.folder.clone(),
                max: settings.max,
                words: &ARCHIVE,
            },
            uuid: uuid.to_owned(),
        }
    }

    /// The file so far.
    pub fn partial(&self) -> PathBuf {
        self.named(self.shelf.words.partial)
    }

    /// The file once it is whole and verified.
    pub fn placed(&self) -> PathBuf {
        self.named("fw")
    }

    /// What is known about the file: size, checksum, validators.
    pub fn facts(&self) -> PathBuf {
        self.named("facts")
    }

    /// It was found to be bad, once.
    pub fn doubt(&self) -> PathBuf {
        self.named("doubt")
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
        self.shelf.folder.join(format!("{}.{kind}", self.uuid))
    }

    fn owns(&self, name: &str) -> bool {
        name.strip_prefix(&self.uuid)
            .is_some_and(|rest| rest.starts_with('.'))
    }
}

/// Bytes for the taking on the file system that a folder is on.
pub fn free(folder: &Path) -> Option<u64> {
    let space = statvfs(folder).ok()?;
    // Of types that differ between machines.
    #[allow(clippy::useless_conversion)]
    let (blocks, size) = (
        u64::from(space.blocks_available()),
        u64::from(space.fragment_size()),
    );
    Some(blocks.saturating_mul(size))
}

/// Makes the folder and removes what every other download left in it.
///
/// # Errors
/// The folder cannot be made or read.
pub fn claim(names: &Names) -> Result<(), Failure> {
    let Shelf { folder, words, .. } = &names.shelf;
    durable::make_folder(folder).map_err(|error| words.unusable("make", folder, &error))?;
    for name in listed(folder).map_err(|error| words.unusable("read", folder, &error))? {
        if words.is_ours(&name) && !names.owns(&name) {
            let (file, folder) = (words.file, folder.display());
            info!("removing {name} of another {file} from {folder}");
            names.shelf.remove(&names.shelf.folder.join(name))?;
        }
    }
    Ok(())
}

/// Removes what is kept of a firmware that is no longer needed: it runs.
pub fn forget(settings: &CacheSettings, uuid: &str) {
    // It comes from the device's metadata, and names files here.
    if !is_uuid(uuid) {
        return;
    }
    let names = Names::new(settings, uuid);
    for path in [names.partial(), names.facts(), names.sums(), names.parts()] {
        if fs::symlink_metadata(&path).is_ok() {
            // Left over at worst, until another firmware comes.
            let _ = remove(&path);
        }
    }
}

/// As [`Shelf::make_sure_of_room`], for firmware.
///
/// # Errors
/// Both numbers and the way out.
pub fn make_sure_of_room(settings: &CacheSettings, size: u64, missing: u64) -> Result<(), Failure> {
    let shelf = Names::new(settings, "").shelf;
    shelf.make_sure_of_room(size, missing)
}

/// As [`Shelf::unusable`], for firmware.
pub fn unusable(what: &str, path: &Path, error: &dyn fmt::Display) -> Failure {
    FIRMWARE.unusable(what, path, error)
}

/// Makes the folder of parts, in place of anything else of its name.
///
/// # Errors
/// The system's.
pub fn make_parts(folder: &Path) -> Result<(), Failure> {
    if fs::symlink_metadata(folder).is_ok_and(|found| !found.is_dir()) {
        remove(folder)?;
    }
    durable::make_folder(folder).map_err(|error| unusable("make", folder, &error))
}

/// As [`Shelf::remove`], for firmware.
///
/// # Errors
/// What was not there is fine; what stays is not.
pub fn remove(path: &Path) -> Result<(), Failure> {
    remove_all(path).map_err(|error| unusable("remove", path, &error))
}

fn remove_all(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn listed(folder: &Path) -> io::Result<Vec<String>> {
    fs::read_dir(folder)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect()
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
            "my.notes.facts",
            ".sums",
            "b.partials",
        ] {
            fs::write(folder.path().join(name), "x").unwrap();
        }
        fs::create_dir(folder.path().join("b.parts")).unwrap();
        fs::write(folder.path().join("b.parts/00000"), "x").unwrap();
        claim(&names).unwrap();
        let mut left = listed(folder.path()).unwrap();
        left.sort();
        let theirs = [".sums", "b.partials", "my.notes.facts", "notes"];
        assert_eq!(left[1], "a-1.partial");
        left.remove(1);
        assert_eq!(left, theirs);
        forget(&settings(folder.path()), "a-1");
        assert_eq!(listed(folder.path()).unwrap().len(), theirs.len());
        let deep = folder.path().join("deep");
        fs::create_dir(&deep).unwrap();
        forget(&settings(&deep), "../my.notes");
        assert!(folder.path().join("my.notes.facts").exists());
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
