//! Threads `fwup` and `fwup-out`: one fwup process, fed on stdin, heard on stdout.
//!
//! `fwup` writes and reaps; `fwup-out` listens, and kills the process (as a group) when it
//! is cancelled or stalls. A stall is no output *and* no input taken while some is offered.

mod error;
mod listener;

use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, select};
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

use crate::config::FwupSettings;
use crate::core::effect::InstallOrder;
use crate::core::event::{Event, InstallEvent, JobId};
use crate::system::http::Cancel;
use crate::system::thread;
use crate::update::feed::{Drain, Feed};
use crate::wire::fwup_frame::END_OF_INPUT;
use error::FwupError;
use listener::{Heard, Listener, Pulse, kill_group};

/// Bytes that fwup may be behind; kernel memory, and the most an unprivileged user may ask.
const PIPE: i32 = 1024 * 1024;
/// Pause between looks at a process that has closed its output.
const EXIT_LOOK: Duration = Duration::from_millis(2);

/// Runs fwup until the feed ends, failing or not; `Finished` is the last event.
///
/// # Errors
/// None; failures are in [`InstallEvent::Finished`].
pub fn run(
    job: JobId,
    settings: &FwupSettings,
    order: &InstallOrder,
    feed: Drain,
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
    fn run(&self, feed: &Drain) -> Result<(), FwupError> {
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
        // Fewer turns between the two processes; a kernel that refuses costs only those.
        let _ = fcntl(&stdin, FcntlArg::F_SETPIPE_SZ(PIPE));
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
    fn feed(&mut self, feed: &Drain) -> Fed {
        loop {
            // A process that ends is noticed even though the download brings no byte.
            let fed = select! {
                recv(feed.pieces()) -> fed => fed,
                recv(self.listening) -> heard => {
                    self.heard = heard.ok();
                    self.input_refused = true;
                    return Fed::Stopped;
                }
            };
            let written = match fed {
                Ok(Feed::Chunk(mut chunk)) => {
                    let written = self.write(chunk.framed());
                    feed.give_back(chunk);
                    written
                }
                Ok(Feed::Restart) => return Fed::Restart,
                Ok(Feed::End) => {
                    let written = self.write(&END_OF_INPUT);
                    // From here on fwup owes us its verdict.
                    self.pulse.fwup_is_due.store(true, Ordering::SeqCst);
                    self.stdin = None;
                    self.input_refused = written.is_err();
                    return Fed::Everything;
                }
                Ok(Feed::File { .. }) | Err(_) => return Fed::Stopped,
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
