//! Sleeping until a descriptor is ready, a deadline passes or another thread knocks.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

/// Knocks at a thread that sleeps in [`wait`]. Clones knock at the same door.
#[derive(Clone, Debug)]
pub struct Waker(Arc<EventFd>);

impl Waker {
    /// # Errors
    /// No file descriptor left.
    pub fn new() -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Self(Arc::new(EventFd::from_value_and_flags(0, flags)?)))
    }

    /// Wakes the sleeper, now or at its next sleep.
    pub fn wake(&self) {
        // A full counter means that a knock is already pending.
        let _ = self.0.write(1);
    }

    /// Takes back all knocks so far.
    pub fn reset(&self) {
        let _ = self.0.read();
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Why [`wait`] came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    Ready,
    Knocked,
    DeadlinePassed,
}

/// Sleeps until `fd` has one of `events`, the waker is knocked at, or the deadline passes.
/// Readiness wins over a knock.
///
/// # Errors
/// `poll(2)` failed for another reason than a signal.
pub fn wait(
    fd: BorrowedFd<'_>,
    events: PollFlags,
    deadline: Option<Instant>,
    waker: &Waker,
) -> io::Result<Woken> {
    loop {
        let mut fds = [
            PollFd::new(fd, events),
            PollFd::new(waker.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, timeout_until(deadline)) {
            Ok(0) if deadline.is_some_and(|at| Instant::now() >= at) => {
                return Ok(Woken::DeadlinePassed);
            }
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) if fds[0].any().unwrap_or(true) => return Ok(Woken::Ready),
            Ok(_) => return Ok(Woken::Knocked),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Milliseconds until the deadline, rounded up so that a sleep never ends just before it.
pub fn timeout_until(deadline: Option<Instant>) -> PollTimeout {
    let Some(at) = deadline else {
        return PollTimeout::NONE;
    };
    let left = at.saturating_duration_since(Instant::now()) + Duration::from_micros(999);
    PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
}
