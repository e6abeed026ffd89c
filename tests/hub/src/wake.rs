//! Wakes a thread that sleeps in `poll(2)`: one byte through a socket pair.

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

/// The side that wakes; cheap to clone.
#[derive(Debug, Clone)]
pub struct Waker(Arc<UnixStream>);

/// The side that sleeps.
#[derive(Debug)]
pub struct Sleeper(UnixStream);

/// Makes a connected pair.
pub fn pair() -> io::Result<(Waker, Sleeper)> {
    let (waker, sleeper) = UnixStream::pair()?;
    waker.set_nonblocking(true)?;
    sleeper.set_nonblocking(true)?;
    Ok((Waker(Arc::new(waker)), Sleeper(sleeper)))
}

impl Waker {
    /// A full pipe means the sleeper has been woken already.
    pub fn wake(&self) {
        let _ = (&*self.0).write(&[0]);
    }
}

/// What ended the sleep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Woken {
    Command,
    Ready,
    Timeout,
}

impl Sleeper {
    /// Sleeps until woken, until `fd` (if any) is ready, or for `timeout`.
    pub fn sleep(
        &self,
        fd: Option<(BorrowedFd, PollFlags)>,
        timeout: Option<Duration>,
    ) -> io::Result<Woken> {
        let timeout = timeout.map_or(PollTimeout::NONE, |left| {
            let millis = i32::try_from(left.as_millis() + 1).unwrap_or(i32::MAX);
            PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)
        });
        let mut fds = vec![PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        fds.extend(fd.map(|(fd, flags)| PollFd::new(fd, flags)));
        match poll(&mut fds, timeout) {
            Ok(0) => Ok(Woken::Timeout),
            Ok(_) if fds[0].any() == Some(true) => {
                self.drain();
                Ok(Woken::Command)
            }
            Ok(_) => Ok(Woken::Ready),
            Err(nix::errno::Errno::EINTR) => Ok(Woken::Command),
            Err(error) => Err(error.into()),
        }
    }

    fn drain(&self) {
        let mut buffer = [0; 64];
        while matches!((&self.0).read(&mut buffer), Ok(64)) {}
    }
}
