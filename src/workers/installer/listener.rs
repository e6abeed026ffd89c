//! Thread `installer-out`: hears what a process says, and ends it when it is cancelled,
//! stalls or is overdue.
//!
//! A stall is no output *and* no input taken while some is offered. Keeps little of what it
//! hears and logs a bounded number of lines, however much the process says. What is outside
//! its group, a daemon it started, may hold its output open: nobody waits for that.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::process::{ChildStderr, ChildStdout, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::Installation;
use super::error::Problem;
use super::manners::{Manners, Speech, Watch};
use crate::core::event::{Event, InstallEvent, JobId};
use crate::say::say;
use crate::system::channel::Sender;
use crate::system::session::has_ended;
use crate::system::waker::timeout_until;
use crate::wire::fwup_frame::{Decoder, Message};
use crate::wire::installer_line::{Line, Lines};

/// How often a running process is looked at for stalls.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// What is kept of stderr for the failure's text.
const STDERR_KEPT: usize = 512;
/// Reads of what may stand in stderr when stdout has ended: a pipe's worth.
const STDERR_READS: u32 = 64;
/// Lines of one process that reach the log.
const LINES_LOGGED: u32 = 200;
/// Between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(2);
/// Silence after the process is gone: whoever still holds its output has nothing to say.
const QUIET: Duration = Duration::from_secs(1);
/// How long anybody is listened to once the process is gone or was killed.
pub(super) const LINGER: Duration = Duration::from_secs(3);

/// Signs of life, shared by writer and listener.
#[derive(Default)]
pub(super) struct Pulse {
    /// The writer has bytes that the process does not take, or the process has them all.
    pub(super) is_due: AtomicBool,
    /// Pieces of input taken so far.
    pub(super) taken: AtomicU64,
}

pub(super) fn kill_group(group: Pid, signal: Signal) {
    // It may be gone already.
    let _ = killpg(group, signal);
}

/// What the process said, all told.
#[derive(Default)]
pub(super) struct Heard {
    /// It said that it succeeded, or speaks a language without a word for that.
    ok: bool,
    error: Option<String>,
    stderr: Vec<u8>,
    problem: Option<Problem>,
}

impl Heard {
    pub(super) fn failed(problem: Problem) -> Self {
        Self {
            problem: Some(problem),
            ..Self::default()
        }
    }

    /// It was killed, or is about to be.
    pub(super) fn is_hopeless(&self) -> bool {
        self.problem.is_some()
    }

    /// `None`: it was killed and does not go away.
    pub(super) fn verdict(self, status: Option<ExitStatus>) -> Result<(), Problem> {
        if let Some(problem) = self.problem {
            return Err(problem);
        }
        let status = status.ok_or(Problem::Undead)?;
        if let Some(text) = self.error {
            return Err(Problem::Said(text));
        }
        if !status.success() {
            let stderr = String::from_utf8_lossy(&self.stderr).trim().to_owned();
            return Err(Problem::Ended { status, stderr });
        }
        if self.ok {
            Ok(())
        } else {
            Err(Problem::NoVerdict)
        }
    }
}

/// Bytes to messages.
enum Ear {
    Frames(Decoder),
    Lines(Lines),
}

pub(super) struct Listener {
    pub(super) group: Pid,
    job: JobId,
    inbox: Sender<Event>,
    manners: Manners,
    pulse: Arc<Pulse>,
    heard: Heard,
    /// The last one told.
    percent: Option<u8>,
    stderr_lines: Lines,
    /// Lines that may still be logged.
    log_budget: u32,
    last_life: Instant,
    taken: u64,
    kill_at: Option<Instant>,
    last_word: Instant,
    gone_since: Option<Instant>,
}

impl Listener {
    pub(super) fn new(
        site: &Installation,
        group: Pid,
        pulse: Arc<Pulse>,
        manners: Manners,
    ) -> Self {
        Self {
            group,
            job: site.job,
            inbox: site.inbox.clone(),
            heard: Heard {
                ok: manners.speech == Speech::Lines,
                ..Heard::default()
            },
            manners,
            pulse,
            percent: None,
            stderr_lines: Lines::default(),
            log_budget: LINES_LOGGED,
            last_life: Instant::now(),
            taken: 0,
            kill_at: None,
            last_word: Instant::now(),
            gone_since: None,
        }
    }

    pub(super) fn listen(mut self, mut stdout: ChildStdout, mut stderr: ChildStderr) -> Heard {
        let mut ear = match self.manners.speech {
            Speech::Frames => Ear::Frames(Decoder::default()),
            Speech::Lines => Ear::Lines(Lines::default()),
        };
        let mut stderr_open = true;
        loop {
            let ready = self.wait_for_output(&stdout, stderr_open.then_some(&stderr));
            let (out, err) = match ready {
                Ok(ready) => ready,
                Err(error) => {
                    self.fail(Problem::Broken(format!("cannot listen: {error}")));
                    return self.heard;
                }
            };
            if err {
                stderr_open = self.read_stderr(&mut stderr);
            }
            if out && !self.read_stdout(&mut stdout, &mut ear) {
                if stderr_open {
                    self.read_last_words(&mut stderr);
                }
                return self.heard;
            }
            self.look_after(out);
            if self.is_over(out || err) {
                return self.heard;
            }
        }
    }

    /// Nothing more is to be heard, although somebody holds its output open.
    fn is_over(&mut self, said_something: bool) -> bool {
        let now = Instant::now();
        if said_something {
            self.last_word = now;
        }
        if self.gone_since.is_none() && has_ended(self.group) {
            self.gone_since = Some(now);
        }
        let silent = now.duration_since(self.last_word) >= QUIET;
        let past = |since: Option<Instant>| since.is_some_and(|at| now >= at + LINGER);
        let gone = self.gone_since.is_some_and(|at| now >= at + QUIET);
        let over = (gone && silent) || past(self.gone_since) || past(self.kill_at);
        if over {
            warn!(
                "{}: something else holds its output open",
                self.manners.name
            );
        }
        over
    }

    /// Sleeps until there is output, a cancellation or it is time to look; says which of
    /// stdout and stderr is ready.
    fn wait_for_output(
        &self,
        stdout: &ChildStdout,
        stderr: Option<&ChildStderr>,
    ) -> io::Result<(bool, bool)> {
        let mut fds = vec![PollFd::new(stdout.as_fd(), PollFlags::POLLIN)];
        fds.extend(stderr.map(|stderr| PollFd::new(stderr.as_fd(), PollFlags::POLLIN)));
        let cancel = self.manners.cancel.as_ref();
        // Once heard it would only wake us again.
        let cancel = cancel.filter(|_| self.kill_at.is_none());
        fds.extend(cancel.map(|cancel| PollFd::new(cancel.waker.as_fd(), PollFlags::POLLIN)));
        match poll(&mut fds, timeout_until(Some(Instant::now() + LOOK_EVERY))) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready = |index: usize| fds[index].any().unwrap_or(false);
        Ok((ready(0), stderr.is_some() && ready(1)))
    }

    /// False at the end.
    fn read_stdout(&mut self, stdout: &mut ChildStdout, ear: &mut Ear) -> bool {
        let mut buffer = [0; 4096];
        let bytes = match stdout.read(&mut buffer) {
            Ok(count) => &buffer[..count],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return true,
            Err(_) => &[],
        };
        let more = !bytes.is_empty();
        match ear {
            Ear::Frames(decoder) => more && self.hear_frames(decoder, bytes),
            Ear::Lines(lines) => {
                let mut heard = lines.feed(bytes);
                heard.extend(if more { None } else { lines.end() });
                heard
                    .iter()
                    .for_each(|text| self.hear_line(Line::parse(text)));
                more
            }
        }
    }

    /// False when it is not fwup that speaks.
    fn hear_frames(&mut self, decoder: &mut Decoder, bytes: &[u8]) -> bool {
        decoder.feed(bytes);
        loop {
            match decoder.next_message() {
                Ok(Some(Message::Unknown(kind))) => {
                    debug!("fwup: message of unknown type {kind:?}");
                }
                Ok(Some(Message::Ok { .. })) => self.heard.ok = true,
                Ok(Some(Message::Error { text, .. })) => self.hear_line(Line::Error(&text)),
                Ok(Some(Message::Warning { text, .. })) => self.hear_line(Line::Warning(&text)),
                Ok(Some(Message::Progress(percent))) => self.hear_line(Line::Progress(percent)),
                Ok(None) => return true,
                Err(error) => {
                    self.fail(Problem::Broken(error.0));
                    return false;
                }
            }
        }
    }

    fn hear_line(&mut self, line: Line) {
        match line {
            Line::Progress(percent) => self.tell(percent),
            Line::Info(text) => self.log(log::Level::Info, text),
            Line::Warning(text) => self.log(log::Level::Warn, text),
            Line::Error(text) => {
                self.log(log::Level::Error, text);
                self.heard.error.get_or_insert_with(|| text.to_owned());
            }
            Line::Other(text) => self.log(log::Level::Debug, text),
        }
    }

    fn tell(&mut self, percent: u8) {
        if self.percent != Some(percent) {
            self.percent = Some(percent);
            // The dispatcher is gone only when the process leaves.
            let _ = self
                .inbox
                .send(Event::Install(self.job, InstallEvent::Progress(percent)));
        }
    }

    fn log(&mut self, level: log::Level, text: &str) {
        let name = &self.manners.name;
        match self.log_budget {
            0 => return,
            1 => warn!("{name} says too much; the rest is not logged"),
            _ => say(level, module_path!(), format_args!("{name}: {text}")),
        }
        self.log_budget -= 1;
    }

    /// False at the end.
    fn read_stderr(&mut self, stderr: &mut ChildStderr) -> bool {
        let mut buffer = [0; 1024];
        let count = stderr.read(&mut buffer).unwrap_or(0);
        let kept = &mut self.heard.stderr;
        kept.extend_from_slice(&buffer[..count]);
        let excess = kept.len().saturating_sub(STDERR_KEPT);
        kept.drain(..excess);
        let mut lines = self.stderr_lines.feed(&buffer[..count]);
        if count == 0 {
            lines.extend(self.stderr_lines.end());
        }
        for line in lines {
            self.log(log::Level::Info, &line);
        }
        count > 0
    }

    /// Its stdout ended first; what stands in stderr by now is often why.
    fn read_last_words(&mut self, stderr: &mut ChildStderr) {
        for _ in 0..STDERR_READS {
            let mut fds = [PollFd::new(stderr.as_fd(), PollFlags::POLLIN)];
            let ready = poll(&mut fds, PollTimeout::ZERO).is_ok_and(|count| count > 0);
            if !ready || !self.read_stderr(stderr) {
                return;
            }
        }
    }

    fn fail(&mut self, problem: Problem) {
        self.heard.problem.get_or_insert(problem);
        kill_group(self.group, Signal::SIGKILL);
    }

    fn look_after(&mut self, said_something: bool) {
        let taken = self.pulse.taken.load(Ordering::SeqCst);
        let is_due = self.pulse.is_due.load(Ordering::SeqCst);
        if matches!(self.manners.watch, Watch::Stall(_))
            && (said_something || taken != self.taken || !is_due)
        {
            self.taken = taken;
            self.last_life = Instant::now();
        }
        let cancel = self.manners.cancel.as_ref();
        match self.kill_at {
            Some(at) if Instant::now() >= at => kill_group(self.group, Signal::SIGKILL),
            Some(_) => {}
            None if cancel.is_some_and(|cancel| cancel.is_cancelled()) => {
                self.heard.problem.get_or_insert(Problem::Cancelled);
                kill_group(self.group, Signal::SIGTERM);
                self.kill_at = Some(Instant::now() + GRACE);
            }
            None => {
                let problem = match self.manners.watch {
                    Watch::Stall(limit) if self.last_life.elapsed() >= limit => {
                        Problem::Stalled(limit)
                    }
                    Watch::Deadline(limit) if self.last_life.elapsed() >= limit => {
                        Problem::Overdue(limit)
                    }
                    Watch::Stall(_) | Watch::Deadline(_) => return,
                };
                self.fail(problem);
                self.kill_at = Some(Instant::now());
            }
        }
    }
}
