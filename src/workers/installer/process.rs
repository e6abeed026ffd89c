//! One process of an installation: started in a group of its own, fed, and reaped.
//!
//! Owns the child and its input; `listener` hears it and ends it. Whatever happens, the
//! whole group is killed when [`Process::finish`] returns, and no wait is without an end:
//! a daemon may hold the pipes, and the kernel a process. A pipe to it is closed only after
//! its last byte was written or when it is gone, so that nobody takes a cut for the end.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getpid, getppid};

use super::Installation;
use super::error::Problem;
use super::listener::{Heard, LINGER, Listener, Pulse, kill_group};
use super::manners::{Input, Manners, Speech};
use crate::system::channel::{Either, Receiver, bounded, either};
use crate::system::http::Cancel;
use crate::system::session::has_ended;
use crate::system::thread;
use crate::system::waker::timeout_until;
use crate::update::feed::{CHUNK, Chunk, Drain, Feed};
use crate::wire::fwup_frame::END_OF_INPUT;

/// Bytes that the process may be behind; kernel memory, and the most an unprivileged user
/// may ask.
const PIPE: i32 = 1024 * 1024;
/// Pause between looks at a process that has closed its output.
const EXIT_LOOK: Duration = Duration::from_millis(2);
/// How often a writer that waits for room looks whether anybody will ever read.
const ROOM_LOOK: Duration = Duration::from_millis(500);

/// How a process ended that was fed.
pub(super) enum Fate {
    /// Its input was void; it is gone and its verdict of no interest.
    StartOver,
    Ended {
        verdict: Result<(), Problem>,
        /// The feed was seen to its end.
        everything: bool,
    },
}

/// An installer left behind by an agent that was killed must not go on writing: the next
/// agent could not know.
fn die_with_us(command: &mut Command) {
    let us = getpid();
    let last_breath = move || {
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        // We may have gone before the kernel was told.
        match getppid() == us {
            true => Ok(()),
            false => Err(Errno::ESRCH.into()),
        }
    };
    // SAFETY: between fork and exec only prctl(2) and getppid(2) are called, which are
    // async-signal-safe and allocate nothing.
    unsafe { command.pre_exec(last_breath) };
}

/// What made the writer stop.
#[derive(PartialEq, Eq)]
enum Fed {
    Everything,
    Restart,
    /// The process takes no more.
    Refused,
    /// The download was given up.
    Abandoned,
}

/// The agent's environment without its secrets, and what the integrator adds to it.
pub(super) fn environment(command: &mut Command, site: &Installation) {
    crate::system::command::without_secrets(command);
    command.envs(site.settings.env.iter().map(|(key, value)| (key, value)));
}

pub(super) struct Process {
    child: Child,
    group: Pid,
    stdin: Option<ChildStdin>,
    /// The listener's report, sent when the process has said its last.
    listening: Receiver<Heard>,
    heard: Option<Heard>,
    pulse: Arc<Pulse>,
    speech: Speech,
    /// How long it may take to go once its output has ended.
    limit: Duration,
}

impl Process {
    pub(super) fn start(
        site: &Installation,
        mut command: Command,
        manners: Manners,
    ) -> Result<Self, Problem> {
        let path = command.get_program().to_string_lossy().into_owned();
        let wrap = |error: io::Error| Problem::Start {
            path: path.clone(),
            error,
        };
        let input = match manners.input {
            Input::Pipe => Stdio::piped(),
            Input::Nothing => Stdio::null(),
        };
        command.stdin(input).stdout(Stdio::piped());
        command.stderr(Stdio::piped()).process_group(0);
        die_with_us(&mut command);
        let mut child = command.spawn().map_err(wrap)?;
        let group = Pid::from_raw(child.id().cast_signed());
        info!("{} started (pid {group})", manners.name);
        let stdin = child.stdin.take();
        if let Some(stdin) = &stdin {
            // Fewer turns between the two processes; a kernel that refuses costs only those.
            let _ = fcntl(stdin, FcntlArg::F_SETPIPE_SZ(PIPE));
            // Our end only. Were it refused, writes would wait in the kernel.
            let _ = fcntl(stdin, FcntlArg::F_SETFL(OFlag::O_NONBLOCK));
        }
        let pulse = Arc::new(Pulse::default());
        // Without input there is nothing else to wait for.
        pulse.is_due.store(stdin.is_none(), Ordering::SeqCst);
        let (speech, limit) = (manners.speech, manners.watch.limit());
        let listener = Listener::new(site, group, pulse.clone(), manners);
        let listening = listen(listener, &mut child).map_err(|error| {
            kill_group(group, Signal::SIGKILL);
            let _ = child.wait();
            wrap(error)
        })?;
        Ok(Self {
            child,
            group,
            stdin,
            listening,
            heard: None,
            pulse,
            speech,
            limit,
        })
    }

    /// Feeds it `first` and the rest of the feed, and waits for its end.
    pub(super) fn take_in(mut self, first: Chunk, feed: &Drain, cancel: &Cancel) -> Fate {
        let fed = self.feed(first, feed);
        if fed == Fed::Restart {
            kill_group(self.group, Signal::SIGKILL);
            let _ = self.finish();
            return Fate::StartOver;
        }
        if fed == Fed::Abandoned {
            // The listener ends the process.
            cancel.cancel();
        }
        Fate::Ended {
            verdict: self.finish(),
            everything: fed == Fed::Everything,
        }
    }

    /// Feeds it a file, as far as it wants to read it, and waits for its end.
    pub(super) fn pour_in(mut self, file: File, path: &Path) -> Result<(), Problem> {
        if let Err(error) = self.pour(file) {
            kill_group(self.group, Signal::SIGKILL);
            let _ = self.finish();
            let path = path.to_owned();
            return Err(Problem::Read { path, error });
        }
        self.finish()
    }

    fn feed(&mut self, first: Chunk, feed: &Drain) -> Fed {
        let mut piece = Feed::Chunk(first);
        loop {
            match piece {
                Feed::Chunk(mut chunk) => {
                    let written = match self.speech {
                        Speech::Frames => self.write(chunk.framed()),
                        Speech::Lines => self.write(chunk.payload()),
                    };
                    feed.give_back(chunk);
                    if !written {
                        return Fed::Refused;
                    }
                }
                Feed::Restart => return Fed::Restart,
                Feed::End => {
                    self.end_input();
                    return Fed::Everything;
                }
                // Nothing may follow pieces but pieces.
                Feed::File { .. } => return Fed::Abandoned,
            }
            // A process that ends is noticed even though the download brings no byte.
            piece = match either(feed.pieces(), &self.listening) {
                Either::First(Some(next)) => next,
                Either::First(None) => return Fed::Abandoned,
                Either::Second(heard) => {
                    self.heard = heard;
                    return Fed::Refused;
                }
            };
        }
    }

    fn pour(&mut self, mut file: File) -> io::Result<()> {
        let mut buffer = vec![0; CHUNK];
        loop {
            match file.read(&mut buffer) {
                Ok(0) => {
                    self.end_input();
                    return Ok(());
                }
                Ok(count) if !self.write(&buffer[..count]) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// From here on the process owes us its verdict.
    fn end_input(&mut self) {
        if self.speech == Speech::Frames {
            self.write(&END_OF_INPUT);
        }
        self.pulse.is_due.store(true, Ordering::SeqCst);
        self.stdin = None;
    }

    /// False when the process takes no more.
    fn write(&mut self, bytes: &[u8]) -> bool {
        self.pulse.is_due.store(true, Ordering::SeqCst);
        match self.write_all(bytes) {
            Ok(()) => {
                self.pulse.is_due.store(false, Ordering::SeqCst);
                true
            }
            Err(error) => {
                debug!("the installer takes no more input: {error}");
                false
            }
        }
    }

    fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let stdin = self.stdin.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        while !bytes.is_empty() {
            match stdin.write(bytes) {
                Ok(count) => {
                    bytes = &bytes[count..];
                    self.pulse.taken.fetch_add(1, Ordering::SeqCst);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let mut fds = [PollFd::new(stdin.as_fd(), PollFlags::POLLOUT)];
                    let _ = poll(&mut fds, timeout_until(Some(Instant::now() + ROOM_LOOK)));
                    // Somebody else may hold the other end of the pipe.
                    if !self.listening.is_empty() {
                        return Err(io::ErrorKind::BrokenPipe.into());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Waits for the process's end and weighs what it said against how it ended.
    pub(super) fn finish(mut self) -> Result<(), Problem> {
        // Without a report there is no OK either, which is a verdict.
        let heard = self
            .heard
            .take()
            .or_else(|| self.listening.recv().ok())
            .unwrap_or_default();
        // Output has ended; the process has only to go, with as long as for anything else.
        self.await_exit(match heard.is_hopeless() {
            true => Duration::ZERO,
            false => self.limit,
        });
        // Whatever it started must not outlive it; its own pid is not reaped yet, so the
        // group is still ours.
        kill_group(self.group, Signal::SIGKILL);
        self.await_exit(LINGER);
        let status = self.reap()?;
        heard.verdict(status)
    }

    fn await_exit(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        while !has_ended(self.group) && Instant::now() < deadline {
            std::thread::sleep(EXIT_LOOK);
        }
    }

    /// `None`: it hangs in the kernel, perhaps in a flash that does not answer.
    fn reap(&mut self) -> Result<Option<ExitStatus>, Problem> {
        let status = self.child.try_wait();
        let status = status.map_err(|error| Problem::Broken(error.to_string()))?;
        if status.is_none() {
            error!("process {} was killed and does not go away", self.group);
        }
        Ok(status)
    }
}

/// Starts the listener's thread; its report comes when the process has said its last.
fn listen(listener: Listener, child: &mut Child) -> io::Result<Receiver<Heard>> {
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(io::ErrorKind::BrokenPipe.into());
    };
    let (report, heard) = bounded(1);
    let (obituary, group) = (report.clone(), listener.group);
    let last_words = move |panic| {
        kill_group(group, Signal::SIGKILL);
        // Room for one, and the listener itself has sent nothing.
        let _ = obituary.try_send(Heard::failed(Problem::Broken(panic)));
    };
    let work = move || {
        // The writer waits for it, or has gone with the process.
        let _ = report.send(listener.listen(stdout, stderr));
    };
    thread::spawn("installer-out", last_words, work)?;
    Ok(heard)
}
