//! Threads `fwup` and `fwup-out`: one fwup process, fed on stdin, heard on stdout.
//!
//! `fwup` writes and reaps; `fwup-out` listens, and kills the process (as a group) when it
//! is cancelled or stalls. A stall is no output *and* no input taken while some is offered.

use std::fmt;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, select};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

use crate::config::FwupSettings;
use crate::core::effect::InstallOrder;
use crate::core::event::{Event, InstallEvent, JobId};
use crate::system::http::Cancel;
use crate::system::thread;
use crate::system::waker::timeout_until;
use crate::update::feed::Feed;
use crate::wire::fwup_frame::{Decoder, END_OF_INPUT, Message};

/// How often a running installation is looked at for stalls.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// What is kept of stderr for the failure's text.
const STDERR_KEPT: usize = 512;
/// Pause between looks at a process that has closed its output.
const EXIT_LOOK: Duration = Duration::from_millis(2);
/// Between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(2);

/// Runs fwup until the feed ends, failing or not; `Finished` is the last event.
///
/// # Errors
/// None; failures are in [`InstallEvent::Finished`].
pub fn run(
    job: JobId,
    settings: &FwupSettings,
    order: &InstallOrder,
    feed: Receiver<Feed>,
    cancel: &Cancel,
    inbox: &Sender<Event>,
) -> Result<(), String> {
    let installation = Installation {
        job,
        settings,
        order,
        cancel,
        inbox,
    };
    let verdict = installation.run(&feed);
    // A download that waits for room in the feed must end, too.
    drop(feed);
    cancel.cancel();
    let result = verdict.map_err(|error| error.to_string());
    // The dispatcher is gone only when the process leaves.
    let _ = inbox.send(Event::Install(job, InstallEvent::Finished(result)));
    Ok(())
}

/// Why fwup did not succeed. The text starts with "fwup error", which the hub recognises.
#[derive(Debug)]
enum FwupError {
    Start {
        path: String,
        error: io::Error,
    },
    /// fwup's own words.
    Said(String),
    Ended {
        status: ExitStatus,
        stderr: String,
    },
    NoVerdict,
    Stalled(Duration),
    Unframed(String),
    Cancelled,
}

impl fmt::Display for FwupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("fwup error: ")?;
        match self {
            Self::Start { path, error } => write!(f, "cannot start {path}: {error}"),
            Self::Said(text) => f.write_str(text),
            Self::Ended { status, stderr } => {
                match (status.code(), status.signal()) {
                    (Some(code), _) => write!(f, "exit status {code}")?,
                    (None, signal) => write!(f, "killed by signal {}", signal.unwrap_or(0))?,
                }
                if stderr.is_empty() {
                    Ok(())
                } else {
                    write!(f, ": {stderr}")
                }
            }
            Self::NoVerdict => f.write_str("ended without saying whether it succeeded"),
            Self::Stalled(limit) => {
                write!(f, "no sign of life for {} s; killed", limit.as_secs_f64())
            }
            Self::Unframed(text) => f.write_str(text),
            Self::Cancelled => f.write_str("cancelled"),
        }
    }
}

struct Installation<'a> {
    job: JobId,
    settings: &'a FwupSettings,
    order: &'a InstallOrder,
    cancel: &'a Cancel,
    inbox: &'a Sender<Event>,
}

/// What made the writer stop.
enum Fed {
    Everything,
    Restart,
    /// fwup closed its input, or the download was given up.
    Stopped,
}

impl Installation<'_> {
    fn run(&self, feed: &Receiver<Feed>) -> Result<(), FwupError> {
        loop {
            let mut process = self.start()?;
            let fed = process.feed(feed);
            if matches!(fed, Fed::Restart) {
                log::info!("fwup starts over");
                kill_group(process.group, Signal::SIGKILL);
                // Its verdict on half a file is of no interest.
                let _ = process.finish();
                continue;
            }
            if matches!(fed, Fed::Stopped) && !process.input_refused {
                // The download is gone; the listener ends fwup.
                self.cancel.cancel();
            }
            return process.finish();
        }
    }

    fn start(&self) -> Result<Process, FwupError> {
        let path = &self.settings.path;
        let wrap = |error: io::Error| FwupError::Start {
            path: path.display().to_string(),
            error,
        };
        let mut child = self.command().spawn().map_err(wrap)?;
        let (stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(stdin), Some(stdout), Some(stderr)) = (stdin, stdout, stderr) else {
            return Err(wrap(io::ErrorKind::BrokenPipe.into()));
        };
        let group = Pid::from_raw(child.id().cast_signed());
        log::info!(
            "fwup started (pid {group}), task {}, device {}",
            self.settings.task,
            self.order.devpath.display()
        );
        let pulse = Arc::new(Pulse::default());
        let (report, heard) = bounded(1);
        let listener = Listener {
            job: self.job,
            group,
            inbox: self.inbox.clone(),
            cancel: self.cancel.clone(),
            pulse: pulse.clone(),
            stall: self.settings.stall_timeout,
            heard: Heard::default(),
        };
        let obituary = report.clone();
        let last_words = move |panic| {
            kill_group(group, Signal::SIGKILL);
            let problem = Some(FwupError::Unframed(panic));
            // Room for one, and the listener itself has sent nothing.
            let _ = obituary.try_send(Heard {
                problem,
                ..Heard::default()
            });
        };
        let listen = move || {
            // The writer waits for it, or has gone with the process.
            let _ = report.send(listener.listen(stdout, stderr));
        };
        thread::spawn("fwup-out", last_words, listen).map_err(|error| {
            kill_group(group, Signal::SIGKILL);
            let _ = child.wait();
            wrap(error)
        })?;
        Ok(Process {
            child,
            group,
            stdin: Some(stdin),
            listening: heard,
            heard: None,
            pulse,
            input_refused: false,
            stall: self.settings.stall_timeout,
        })
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.settings.path);
        command
            .args(["--framing", "--apply", "--no-unmount", "-d"])
            .arg(&self.order.devpath);
        command.args(["--task", &self.settings.task]);
        for key in &self.order.public_keys {
            command.args(["--public-key", key]);
        }
        command.args(&self.settings.extra_options);
        crate::system::command::without_secrets(&mut command);
        command.envs(self.settings.env.iter().map(|(key, value)| (key, value)));
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        command
    }
}

/// Signs of life, shared by writer and listener.
#[derive(Default)]
struct Pulse {
    /// The writer has bytes that fwup does not take, or fwup has them all.
    fwup_is_due: AtomicBool,
    /// Pieces of input taken so far.
    taken: AtomicU64,
}

struct Process {
    child: Child,
    group: Pid,
    stdin: Option<ChildStdin>,
    /// The listener's report, sent when the process has said its last.
    listening: Receiver<Heard>,
    heard: Option<Heard>,
    pulse: Arc<Pulse>,
    input_refused: bool,
    stall: Duration,
}

impl Process {
    fn feed(&mut self, feed: &Receiver<Feed>) -> Fed {
        loop {
            // A process that ends is noticed even though the download brings no byte.
            let fed = select! {
                recv(feed) -> fed => fed,
                recv(self.listening) -> heard => {
                    self.heard = heard.ok();
                    self.input_refused = true;
                    return Fed::Stopped;
                }
            };
            let written = match fed {
                Ok(Feed::Chunk(mut chunk)) => self.write(chunk.framed()),
                Ok(Feed::Restart) => return Fed::Restart,
                Ok(Feed::End) => {
                    let written = self.write(&END_OF_INPUT);
                    // From here on fwup owes us its verdict.
                    self.pulse.fwup_is_due.store(true, Ordering::SeqCst);
                    self.stdin = None;
                    self.input_refused = written.is_err();
                    return Fed::Everything;
                }
                Err(_) => return Fed::Stopped,
            };
            if let Err(error) = written {
                log::debug!("fwup takes no more input: {error}");
                self.input_refused = true;
                self.pulse.fwup_is_due.store(true, Ordering::SeqCst);
                return Fed::Stopped;
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(stdin) = &mut self.stdin else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        self.pulse.fwup_is_due.store(true, Ordering::SeqCst);
        let written = stdin.write_all(bytes);
        self.pulse.fwup_is_due.store(false, Ordering::SeqCst);
        self.pulse.taken.fetch_add(1, Ordering::SeqCst);
        written
    }

    /// Waits for the process's end and weighs what it said against how it ended.
    fn finish(mut self) -> Result<(), FwupError> {
        self.stdin = None;
        // Without a report there is no OK either, which is a verdict.
        let heard = self
            .heard
            .take()
            .or_else(|| self.listening.recv().ok())
            .unwrap_or_default();
        self.await_exit();
        // Whatever fwup started must not outlive it; its own pid is not reaped yet, so the
        // group is still ours.
        kill_group(self.group, Signal::SIGKILL);
        let status = self
            .child
            .wait()
            .map_err(|error| FwupError::Unframed(error.to_string()))?;
        heard.verdict(status)
    }

    /// Output has ended; the process has only to go. It gets as long as for anything else.
    fn await_exit(&self) {
        let deadline = Instant::now() + self.stall;
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT | WaitPidFlag::WNOHANG;
        while let Ok(WaitStatus::StillAlive) = waitid(Id::Pid(self.group), flags) {
            if Instant::now() >= deadline {
                return;
            }
            std::thread::sleep(EXIT_LOOK);
        }
    }
}

fn kill_group(group: Pid, signal: Signal) {
    // It may be gone already.
    let _ = killpg(group, signal);
}

/// What fwup said, all told.
#[derive(Default)]
struct Heard {
    ok: bool,
    error: Option<String>,
    stderr: Vec<u8>,
    problem: Option<FwupError>,
}

impl Heard {
    fn verdict(self, status: ExitStatus) -> Result<(), FwupError> {
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

struct Listener {
    job: JobId,
    group: Pid,
    inbox: Sender<Event>,
    cancel: Cancel,
    pulse: Arc<Pulse>,
    stall: Duration,
    heard: Heard,
}

/// What the listener keeps track of between looks.
struct Watch {
    last_life: Instant,
    taken: u64,
    kill_at: Option<Instant>,
}

impl Listener {
    fn listen(mut self, mut stdout: ChildStdout, mut stderr: ChildStderr) -> Heard {
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
