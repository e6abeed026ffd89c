//! Thread `log-sources`: waits for all sources but the agent's own log, and reads them.
//!
//! Owns its sleep: nothing but a source that has something, or is to be tried again, wakes
//! it. A flood is read at a pace that leaves the processor to others.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, poll};

use super::ring::Intake;
use crate::system::thread;
use crate::system::waker::{Waker, timeout_until};

/// Bytes read of a source at a time.
pub const BUDGET: usize = 64 * 1024;
/// Pause between two reads, so 3 MB/s: what has come meanwhile is read at once.
const PAUSE: Duration = Duration::from_millis(20);
/// How long the thread may take to end; a program is killed by then.
const LEAVE: Duration = Duration::from_secs(3);

/// Where lines come from.
pub trait Source: Send {
    /// Readable when there is something.
    fn descriptor(&self) -> Option<BorrowedFd<'_>>;
    /// When it wants a turn without that.
    fn due(&self) -> Option<Instant>;
    /// Reads what there is, about [`BUDGET`] bytes at most. Never blocks.
    fn turn(&mut self, now: Instant, intake: &Intake);
}

/// The thread; its end is this one's.
pub struct Sources {
    waker: Waker,
    thread: JoinHandle<()>,
    has_failed: Arc<AtomicBool>,
}

impl Sources {
    /// # Errors
    /// The system has no thread or descriptor left.
    pub fn start(
        mut sources: Vec<Box<dyn Source>>,
        intake: Arc<Intake>,
    ) -> Result<Option<Self>, String> {
        if sources.is_empty() {
            return Ok(None);
        }
        let scarce = |error: io::Error| format!("no thread for log sources: {error}");
        let waker = Waker::new().map_err(scarce)?;
        let has_failed = Arc::new(AtomicBool::new(false));
        let (knocked, failed, mourner) = (waker.clone(), has_failed.clone(), has_failed.clone());
        let last_words = move |panic| {
            mourner.store(true, Ordering::SeqCst);
            error!("log sources: {panic}");
        };
        let thread = thread::spawn("log-sources", last_words, move || {
            if let Err(error) = serve(&mut sources, &knocked, &intake) {
                failed.store(true, Ordering::SeqCst);
                error!("log sources: {error}");
            }
        });
        let thread = thread.map_err(scarce)?;
        Ok(Some(Self {
            waker,
            thread,
            has_failed,
        }))
    }
}

impl Drop for Sources {
    fn drop(&mut self) {
        self.waker.wake();
        let end = Instant::now() + LEAVE;
        while !self.thread.is_finished() && !self.has_failed.load(Ordering::SeqCst) {
            if Instant::now() >= end {
                return warn!("log sources do not end");
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

fn serve(sources: &mut [Box<dyn Source>], waker: &Waker, intake: &Intake) -> io::Result<()> {
    loop {
        let due = sources.iter().filter_map(|source| source.due()).min();
        let ready = match wait(sources, waker, due)? {
            Some(ready) => ready,
            None => return Ok(()),
        };
        let now = Instant::now();
        for (index, source) in sources.iter_mut().enumerate() {
            let is_due = source.due().is_some_and(|due| due <= now);
            if is_due || ready & (1 << index) != 0 {
                source.turn(now, intake);
            }
        }
        if wait(&[], waker, Some(now + PAUSE))?.is_none() {
            return Ok(());
        }
    }
}

/// The sources that have something, as bits; `None` when it is over. There are few.
fn wait(
    sources: &[Box<dyn Source>],
    waker: &Waker,
    until: Option<Instant>,
) -> io::Result<Option<u32>> {
    let mut places = vec![0];
    let mut fds = vec![PollFd::new(waker.as_fd(), PollFlags::POLLIN)];
    for (index, source) in sources.iter().enumerate() {
        if let Some(descriptor) = source.descriptor() {
            places.push(index);
            fds.push(PollFd::new(descriptor, PollFlags::POLLIN));
        }
    }
    match poll(&mut fds, timeout_until(until)) {
        Ok(_) | Err(nix::Error::EINTR) => {}
        Err(error) => return Err(error.into()),
    }
    let mut ready = 0;
    for (fd, place) in fds.iter().zip(places).skip(1) {
        ready |= u32::from(fd.any().unwrap_or(true)) << place;
    }
    Ok((fds[0].any() != Some(true)).then_some(ready))
}
