//! Small files that survive a power cut: a reader finds the old content or the new one,
//! never a mixture. Also how files in the agent's folders are opened: never through a
//! symbolic link that somebody else may have put there.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

/// Makes a folder and those above it, for their owner only; one that is there is fine.
///
/// # Errors
/// The system's.
pub fn make_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Opens a regular file that is there, or that `options` create, and nothing else: what
/// else has its name must neither be followed nor waited for.
///
/// # Errors
/// The system's, or it is something else.
pub fn open(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    options.mode(0o600).custom_flags(flags.bits());
    let file = options.open(path).map_err(|error| {
        match error.raw_os_error() == Some(nix::errno::Errno::ELOOP as i32) {
            true => io::Error::other("it is a symbolic link; remove it"),
            false => error,
        }
    })?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is not a regular file; remove it")),
    }
}

/// Creates a file for writing, in place of whatever has its name.
///
/// # Errors
/// The system's.
pub fn create(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    open(path, OpenOptions::new().write(true).create_new(true))
}

/// Replaces the file at `path`: temporary file beside it, fsync, rename, fsync of the
/// folder. The folder is made when it is missing; both are for their owner only.
///
/// # Errors
/// The system's; the old content is then still there.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = folder_of(path);
    make_folder(folder)?;
    let temporary = beside(path);
    let written = create(&temporary)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // What cannot be used must not take up a full disk; it may not exist at all.
        let _ = fs::remove_file(&temporary);
    }
    written?;
    sync_folder(folder)
}

/// The content, at most `cap` bytes; `None` when there is no such file.
///
/// # Errors
/// The system's, or the file is larger.
pub fn read(path: &Path, cap: usize) -> io::Result<Option<Vec<u8>>> {
    let file = match open(path, OpenOptions::new().read(true)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(cap as u64 + 1).read_to_end(&mut bytes)?;
    match bytes.len() <= cap {
        true => Ok(Some(bytes)),
        false => Err(io::Error::other(format!("larger than {cap} bytes"))),
    }
}

/// Removes a file for good; one that is not there is fine.
///
/// # Errors
/// The system's.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Ok(()) => sync_folder(folder_of(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Makes renames and removals in a folder last.
///
/// # Errors
/// The system's.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_replaced_read_back_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/er/state");
        assert_eq!(read(&path, 10).unwrap(), None);
        write(&path, b"one").unwrap();
        write(&path, b"two").unwrap();
        assert_eq!(read(&path, 3).unwrap().as_deref(), Some(&b"two"[..]));
        assert!(read(&path, 2).is_err());
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert_eq!(read(&path, 10).unwrap(), None);
    }

    #[test]
    fn what_cannot_be_written_leaves_the_old_content_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        fs::create_dir(&path).unwrap();
        assert!(write(&path, b"x").is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn nothing_is_written_or_read_through_a_link() {
        use std::os::unix::fs::{MetadataExt as _, symlink};
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("victim"), "precious").unwrap();
        for name in ["state", "state.new"] {
            symlink(at("victim"), at(name)).unwrap();
        }
        let error = read(&at("state"), 100).unwrap_err();
        assert_eq!(error.to_string(), "it is a symbolic link; remove it");
        write(&at("state"), b"new").unwrap();
        assert_eq!(
            read(&at("state"), 100).unwrap().as_deref(),
            Some(&b"new"[..])
        );
        assert_eq!(fs::read(at("victim")).unwrap(), b"precious");
        nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        for other in [at("pipe"), folder.path().to_owned()] {
            let error = read(&other, 100).unwrap_err();
            assert_eq!(error.to_string(), "it is not a regular file; remove it");
        }
        make_folder(&at("deep/er")).unwrap();
        assert_eq!(fs::metadata(at("deep")).unwrap().mode() & 0o777, 0o700);
    }
}
