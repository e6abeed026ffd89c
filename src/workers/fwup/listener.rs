//! Thread `fwup-out`: hears what fwup says, and ends it when it is cancelled or stalls.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::process::{ChildStderr, ChildStdout, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::error::FwupError;
use crate::core::event::{Event, InstallEvent, JobId};
use crate::system::http::Cancel;
use crate::system::waker::timeout_until;
use crate::wire::fwup_frame::{Decoder, Message};

/// How often a running installation is looked at for stalls.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// What is kept of stderr for the failure's text.
const STDERR_KEPT: usize = 512;
/// Between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(2);

/// Signs of life, shared by writer and listener.
#[derive(Default)]
pub(super) struct Pulse {
    /// The writer has bytes that fwup does not take, or fwup has them all.
    pub(super) fwup_is_due: AtomicBool,
    /// Pieces of input taken so far.
    pub(super) taken: AtomicU64,
}

pub(super) fn kill_group(group: Pid, signal: Signal) {
    // It may be gone already.
    let _ = killpg(group, signal);
}

/// What fwup said, all told.
#[derive(Default)]
pub(super) struct Heard {
    pub(super) ok: bool,
    pub(super) error: Option<String>,
    pub(super) stderr: Vec<u8>,
    pub(super) problem: Option<FwupError>,
}

impl Heard {
    pub(super) fn verdict(self, status: ExitStatus) -> Result<(), FwupError> {
        if let Some(problem) = self.problem {
            return Err(problem);
        }
        if let Some(text) = self.error {
            return Err(FwupError::Said(text));
        }
        if !status.success() {
            let stderr = String::from_utf8_lossy(&self.stderr).trim().to_owned();
            return Err(FwupError::Ended { status, stderr });
        }
        if self.ok {
            Ok(())
        } else {
            Err(FwupError::NoVerdict)
        }
    }
}

pub(super) struct Listener {
    pub(super) job: JobId,
    pub(super) group: Pid,
    pub(super) inbox: Sender<Event>,
    pub(super) cancel: Cancel,
    pub(super) pulse: Arc<Pulse>,
    pub(super) stall: Duration,
    pub(super) heard: Heard,
}

/// What the listener keeps track of between looks.
struct Watch {
    last_life: Instant,
    taken: u64,
    kill_at: Option<Instant>,
}

impl Listener {
    pub(super) fn listen(mut self, mut stdout: ChildStdout, mut stderr: ChildStderr) -> Heard {
        let mut decoder = Decoder::default();
        let mut watch = Watch {
            last_life: Instant::now(),
            taken: 0,
            kill_at: None,
        };
        let mut stderr_open = true;
        loop {
            let ready = wait_for_output(
                &stdout,
                stderr_open.then_some(&stderr),
                &self.cancel,
                watch.kill_at.is_some(),
            );
            let (out, err) = match ready {
                Ok(ready) => ready,
                Err(error) => {
                    self.fail(FwupError::Unframed(format!("cannot listen: {error}")));
                    return self.heard;
                }
            };
            if err {
                stderr_open = self.read_stderr(&mut stderr);
            }
            if out {
                watch.last_life = Instant::now();
                if !self.read_stdout(&mut stdout, &mut decoder) {
                    return self.heard;
                }
            }
            self.look_after(&mut watch);
        }
    }

    /// False at the end.
    fn read_stdout(&mut self, stdout: &mut ChildStdout, decoder: &mut Decoder) -> bool {
        let mut buffer = [0; 4096];
        match stdout.read(&mut buffer) {
            Ok(0) => return false,
            Ok(count) => decoder.feed(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
        loop {
            match decoder.next_message() {
                Ok(Some(message)) => self.hear(message),
                Ok(None) => return true,
                Err(error) => {
                    self.fail(FwupError::Unframed(error.0));
                    return false;
                }
            }
        }
    }

    /// False at the end.
    fn read_stderr(&mut self, stderr: &mut ChildStderr) -> bool {
        let mut buffer = [0; 1024];
        let Ok(count @ 1..) = stderr.read(&mut buffer) else {
            return false;
        };
        let kept = &mut self.heard.stderr;
        kept.extend_from_slice(&buffer[..count]);
        let excess = kept.len().saturating_sub(STDERR_KEPT);
        kept.drain(..excess);
        true
    }

    fn hear(&mut self, message: Message) {
        match message {
            Message::Ok { .. } => self.heard.ok = true,
            Message::Error { text, .. } => {
                log::error!("fwup: {text}");
                self.heard.error.get_or_insert(text);
            }
            Message::Warning { text, .. } => log::info!("fwup: {text}"),
            Message::Progress(percent) => {
                // The dispatcher is gone only when the process leaves.
                let _ = self
                    .inbox
                    .send(Event::Install(self.job, InstallEvent::Progress(percent)));
            }
            Message::Unknown(kind) => log::debug!("fwup: message of unknown type {kind:?}"),
        }
    }

    fn fail(&mut self, problem: FwupError) {
        self.heard.problem.get_or_insert(problem);
        kill_group(self.group, Signal::SIGKILL);
    }

    fn look_after(&mut self, watch: &mut Watch) {
        let taken = self.pulse.taken.load(Ordering::SeqCst);
        if taken != watch.taken || !self.pulse.fwup_is_due.load(Ordering::SeqCst) {
            watch.taken = taken;
            watch.last_life = Instant::now();
        }
        match watch.kill_at {
            Some(at) if Instant::now() >= at => kill_group(self.group, Signal::SIGKILL),
            Some(_) => {}
            None if self.cancel.is_cancelled() => {
                self.heard.problem.get_or_insert(FwupError::Cancelled);
                kill_group(self.group, Signal::SIGTERM);
                watch.kill_at = Some(Instant::now() + GRACE);
            }
            None if watch.last_life.elapsed() >= self.stall => {
                self.heard
                    .problem
                    .get_or_insert(FwupError::Stalled(self.stall));
                kill_group(self.group, Signal::SIGKILL);
                watch.kill_at = Some(Instant::now());
            }
            None => {}
        }
    }
}

/// Sleeps until there is output, a cancellation or it is time to look; says what is ready.
fn wait_for_output(
    stdout: &ChildStdout,
    stderr: Option<&ChildStderr>,
    cancel: &Cancel,
    cancelled: bool,
) -> io::Result<(bool, bool)> {
    let mut fds = vec![PollFd::new(stdout.as_fd(), PollFlags::POLLIN)];
    fds.extend(stderr.map(|stderr| PollFd::new(stderr.as_fd(), PollFlags::POLLIN)));
    if !cancelled {
        fds.push(PollFd::new(cancel.waker.as_fd(), PollFlags::POLLIN));
    }
    match poll(&mut fds, timeout_until(Some(Instant::now() + LOOK_EVERY))) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(error) => return Err(error.into()),
    }
    let ready = |index: usize| fds[index].any().unwrap_or(false);
    Ok((ready(0), stderr.is_some() && ready(1)))
}
