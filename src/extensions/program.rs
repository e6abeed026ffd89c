//! The integrator's own extensions: programs that speak in lines of JSON
//! (etc/doc/extensions.md).
//!
//! Owns the program's life from attach to detach: started in a session of its own, told
//! what the hub says, heard at a bounded pace, started again when it ends, killed with all
//! it has started. Must not know what it is for.

mod describe;
mod listener;

use std::io::{self, PipeReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::Value;

pub use describe::find;
use listener::Listener;

use super::{Extension, Link, Nudger, Site, Word};
use crate::system::{session, thread};
use crate::wire::json::json;

/// Pauses before it is started again.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// One that ran for so long has not failed at its start.
const STEADY: Duration = Duration::from_secs(60);
/// Between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_millis(500);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// One program, as it describes itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    pub path: PathBuf,
    pub name: String,
    /// Newest first.
    pub versions: Vec<String>,
}

/// Runs one program for as long as it is attached.
pub struct Runner {
    program: Program,
    identifier: String,
}

impl Runner {
    pub fn new(program: &Program, site: &Site) -> Self {
        Self {
            program: program.clone(),
            identifier: site.identifier.clone(),
        }
    }

    fn start(&self, link: &Link) -> Result<Running, String> {
        let path = self.program.path.display();
        let mut command = Command::new(&self.program.path);
        session::scrub(&mut command);
        command.env("NERVES_HUB_DEVICE_IDENTIFIER", &self.identifier);
        command.current_dir("/");
        let broken = |error: io::Error| format!("{path}: {error}");
        let (out, to_out) = io::pipe().map_err(broken)?;
        let (err, to_err) = io::pipe().map_err(broken)?;
        command.stdin(Stdio::piped()).stdout(to_out).stderr(to_err);
        session::detach(&mut command);
        let mut child = command.spawn().map_err(broken)?;
        // With it go our ends of what the program writes to.
        drop(command);
        let stdin = child.stdin.take();
        if let Some(stdin) = &stdin {
            // Were it refused, writes would wait in the kernel.
            let _ = fcntl(stdin, FcntlArg::F_SETFL(OFlag::O_NONBLOCK));
        }
        let leader = Pid::from_raw(child.id().cast_signed());
        let name = &self.program.name;
        info!("extension {name} started (pid {leader})");
        let mut running = Running {
            child,
            leader,
            stdin,
            since: Instant::now(),
            is_silent: Arc::default(),
        };
        running.listen(name, out, err, link).map_err(|error| {
            running.end();
            format!("no thread for its output: {error}")
        })?;
        Ok(running)
    }
}

impl Extension for Runner {
    fn run(&mut self, link: &mut Link) -> Result<(), String> {
        let (mut running, mut pause) = (None::<Running>, FIRST_PAUSE);
        let (mut status, mut due) = (json!({"status": "away"}), Some(Instant::now()));
        loop {
            let line = match link.next(due) {
                Word::Attached { version } => {
                    status = json!({"status": "attached", "version": version});
                    Some(status.clone())
                }
                Word::Away => {
                    status = json!({"status": "away"});
                    Some(status.clone())
                }
                Word::Said { event, payload, .. } => {
                    Some(json!({"event": event, "payload": payload}))
                }
                Word::Asked { question, .. } => {
                    link.answer(question, Err("it takes no questions".to_owned()));
                    None
                }
                Word::Nudged => {
                    if let Some(ended) = running.take_if(|running| running.is_silent()) {
                        let steady = ended.since.elapsed() >= STEADY;
                        pause = if steady { FIRST_PAUSE } else { pause };
                        let name = &self.program.name;
                        warn!("extension {name} has ended; it is started again in {pause:?}");
                        due = Some(Instant::now() + pause);
                        pause = LONGEST_PAUSE.min(pause * 2);
                    }
                    None
                }
                Word::Due => {
                    due = None;
                    running = Some(self.start(link)?);
                    Some(status.clone())
                }
                Word::Over => return Ok(()),
            };
            if let (Some(line), Some(running)) = (line, &mut running) {
                running.tell(&line)?;
            }
        }
    }
}

/// A program that runs. Dropping it ends it and all it has started.
struct Running {
    child: Child,
    leader: Pid,
    stdin: Option<ChildStdin>,
    since: Instant,
    /// Its output has ended.
    is_silent: Arc<AtomicBool>,
}

impl Running {
    fn listen(
        &mut self,
        name: &str,
        out: PipeReader,
        err: PipeReader,
        link: &Link,
    ) -> io::Result<()> {
        let mut listener = Listener::new(name, link.speaker());
        let (nudger, is_silent) = (link.nudger(), Arc::clone(&self.is_silent));
        let done = Silence(nudger, is_silent);
        let last_words = |panic: String| error!("extension's output: {panic}");
        thread::spawn("ext-out", last_words, move || {
            listener.hear(out, err);
            drop(done);
        })?;
        Ok(())
    }

    fn is_silent(&self) -> bool {
        self.is_silent.load(Ordering::SeqCst)
    }

    /// A program that has ended is found out by its silence.
    fn tell(&mut self, line: &Value) -> Result<(), String> {
        let Some(stdin) = &mut self.stdin else {
            return Ok(());
        };
        match stdin.write_all(format!("{line}\n").as_bytes()) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err("it does not read what it is told".to_owned())
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn end(&mut self) {
        self.stdin = None;
        let _ = killpg(self.leader, Signal::SIGTERM);
        let deadline = Instant::now() + GRACE;
        while !session::has_ended(self.leader) && Instant::now() < deadline {
            std::thread::sleep(LOOK_EVERY);
        }
        session::end(self.leader);
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// Tells, when dropped, that nothing more comes.
struct Silence(Nudger, Arc<AtomicBool>);

impl Drop for Silence {
    fn drop(&mut self) {
        self.1.store(true, Ordering::SeqCst);
        self.0.nudge();
    }
}

#[cfg(test)]
#[path = "program/tests.rs"]
mod tests;
