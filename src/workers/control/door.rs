//! The control socket in the file system: made so that nobody can connect before its owner
//! and mode are right, and taken away at the end.
//!
//! A lock beside it says that an agent is using it, for as long as that agent lives however
//! it ends; only with the lock in hand a socket left behind is replaced.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket,
};
use nix::unistd::{Gid, Group, chown};

use crate::config::ControlSettings;

/// Connections that wait to be let in.
const BACKLOG: i32 = 16;

/// The listening socket. Dropping it removes its name.
pub(super) struct Door {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode: what is removed is what was made.
    made: (u64, u64),
    _lock: Flock<File>,
}

impl Door {
    /// # Errors
    /// What keeps the socket from being there, and what to do about it.
    pub fn open(settings: &ControlSettings) -> Result<Self, String> {
        let path = &settings.path;
        let address = UnixAddr::new(path).map_err(|error| match error {
            Errno::ENAMETOOLONG => "its path is too long: about 100 bytes are possible".to_owned(),
            error => plain(error),
        })?;
        let lock = lock(path)?;
        remove_stale(path, &address)?;
        let fd = new_socket().map_err(plain)?;
        bind(fd.as_raw_fd(), &address).map_err(plain)?;
        // Nobody can connect before it listens.
        let made = fs::symlink_metadata(path).map_err(|error| error.to_string())?;
        let door = Self {
            listener: UnixListener::from(fd),
            path: path.clone(),
            made: (made.dev(), made.ino()),
            _lock: lock,
        };
        door.protect(settings)?;
        let backlog = Backlog::new(BACKLOG).map_err(plain)?;
        listen(&door.listener, backlog).map_err(plain)?;
        Ok(door)
    }

    fn protect(&self, settings: &ControlSettings) -> Result<(), String> {
        if let Some(name) = &settings.group {
            let gid = group(name)?;
            chown(&self.path, None, Some(gid))
                .map_err(|error| format!("cannot be given to group {name}: {}", plain(error)))?;
        }
        fs::set_permissions(&self.path, Permissions::from_mode(settings.mode))
            .map_err(|error| format!("cannot get mode {:04o}: {error}", settings.mode))
    }

    /// The next stranger, not blocking.
    ///
    /// # Errors
    /// `WouldBlock` when there is none.
    pub fn accept(&self) -> io::Result<UnixStream> {
        let (stream, _) = self.listener.accept()?;
        stream.set_nonblocking(true)?;
        Ok(stream)
    }
}

impl AsFd for Door {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        let there = fs::symlink_metadata(&self.path);
        if there.is_ok_and(|there| (there.dev(), there.ino()) == self.made) {
            // The next agent would replace it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn plain(error: Errno) -> String {
    io::Error::from(error).to_string()
}

fn new_socket() -> Result<OwnedFd, Errno> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    socket(AddressFamily::Unix, SockType::Stream, flags, None)
}

fn lock(path: &Path) -> Result<Flock<File>, String> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let name = PathBuf::from(name);
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .custom_flags(OFlag::O_NOFOLLOW.bits())
        .open(&name)
        .map_err(|error| format!("{}: {error}", name.display()))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| match error {
        Errno::EWOULDBLOCK => "another agent is using it: give each its own".to_owned(),
        error => format!("{}: {}", name.display(), plain(error)),
    })
}

/// Makes room where an agent that is gone left its socket; nothing else is touched.
fn remove_stale(path: &Path, address: &UnixAddr) -> Result<(), String> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.to_string()),
        Ok(there) if !there.file_type().is_socket() => {
            return Err("there is something else, which is left alone".to_owned());
        }
        Ok(_) => {}
    }
    let probe = new_socket().map_err(plain)?;
    match connect(probe.as_raw_fd(), address) {
        Err(Errno::ECONNREFUSED) => {
            fs::remove_file(path).map_err(|error| format!("cannot be replaced: {error}"))
        }
        Ok(()) | Err(_) => Err("another program is listening there".to_owned()),
    }
}

fn group(name: &str) -> Result<Gid, String> {
    if let Ok(number) = name.parse() {
        return Ok(Gid::from_raw(number));
    }
    match Group::from_name(name) {
        Ok(Some(group)) => Ok(group.gid),
        Ok(None) => Err(format!(
            "there is no group {name:?} (see NERVES_HUB_CONTROL_GROUP)"
        )),
        Err(error) => Err(format!("group {name:?}: {}", plain(error))),
    }
}
