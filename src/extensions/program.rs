//! The integrator's own extensions: programs that speak in lines of JSON
//! (etc/doc/extensions.md).
//!
//! Owns the program's life from attach to detach: started in a session of its own, told
//! what the hub says, heard at a bounded pace, started again when it ends, killed with all
//! it has started. Must not know what it is for.

mod describe;
mod listener;

use std::collections::VecDeque;
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
use listener::{LINE_MAX, Listener};

use super::{Extension, Link, Nudger, Site, Word};
use crate::system::http::Cancel;
use crate::system::{session, thread};
use crate::wire::json::json;

/// Pauses before it is started again.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// One that ran for so long has not failed at its start.
const STEADY: Duration = Duration::from_secs(60);
/// Things the hub says that are kept for a program that is not running.
const WAITING: usize = 16;
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
        let deaf = Cancel::new().map_err(broken)?;
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
            deaf,
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
        let mut life = Life {
            running: None,
            status: json!({"status": "away"}),
            waiting: VecDeque::new(),
            due: Some(Instant::now()),
            pause: FIRST_PAUSE,
        };
        loop {
            self.tend(&mut life, link)?;
            match link.next(life.due) {
                Word::Attached { version } => {
                    life.tell_status(json!({"status": "attached", "version": version}))?;
                }
                Word::Away => life.tell_status(json!({"status": "away"}))?,
                Word::Said { event, payload, .. } => {
                    let line = json!({"event": event, "payload": payload}).to_string();
                    self.keep(&mut life, line);
                }
                Word::Asked { question, .. } => {
                    link.answer(question, Err("it takes no questions".to_owned()));
                }
                Word::Nudged | Word::Due => {}
                Word::Over => return Ok(()),
            }
        }
    }
}

impl Runner {
    fn keep(&self, life: &mut Life, line: String) {
        let name = &self.program.name;
        if line.len() >= LINE_MAX {
            return warn!("extension {name}: what the hub says is too long: left out");
        }
        if life.waiting.len() == WAITING {
            warn!("extension {name} does not run: something the hub said is left out");
            life.waiting.pop_front();
        }
        life.waiting.push_back(line);
    }

    /// What follows from the state as it is now.
    fn tend(&self, life: &mut Life, link: &Link) -> Result<(), String> {
        let name = &self.program.name;
        if let Some(ended) = life.running.take_if(|running| running.is_silent()) {
            if ended.since.elapsed() >= STEADY {
                life.pause = FIRST_PAUSE;
            }
            warn!("extension {name} has ended");
            life.start_later(name);
        }
        if life.due.is_some_and(|due| due <= Instant::now()) {
            life.due = None;
            match self.start(link) {
                Ok(running) => {
                    life.running = Some(running);
                    life.tell_status(life.status.clone())?;
                }
                Err(reason) => {
                    warn!("extension {name}: {reason}");
                    life.start_later(name);
                }
            }
        }
        if let Some(running) = &mut life.running {
            while let Some(line) = life.waiting.front()
                && running.tell(line)?
            {
                life.waiting.pop_front();
            }
        }
        Ok(())
    }
}

/// A program from attach to detach, whether it runs now or not.
struct Life {
    running: Option<Running>,
    /// What each run is told first.
    status: Value,
    /// What the hub has said and the program has not heard.
    waiting: VecDeque<String>,
    /// When it is started.
    due: Option<Instant>,
    /// Before the next start.
    pause: Duration,
}

impl Life {
    fn tell_status(&mut self, status: Value) -> Result<(), String> {
        self.status = status;
        match &mut self.running {
            // Each run is told first.
            Some(running) => running.tell(&self.status.to_string()).map(|_| ()),
            None => Ok(()),
        }
    }

    fn start_later(&mut self, name: &str) {
        info!("extension {name} is started again in {:?}", self.pause);
        self.due = Some(Instant::now() + self.pause);
        self.pause = LONGEST_PAUSE.min(self.pause * 2);
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
    /// Ends the thread that listens to it.
    deaf: Cancel,
}

impl Running {
    fn listen(
        &mut self,
        name: &str,
        out: PipeReader,
        err: PipeReader,
        link: &Link,
    ) -> io::Result<()> {
        let mut listener = Listener::new(name, link.speaker(), self.deaf.clone());
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

    /// False when it listens no more: it has ended, as its silence will tell.
    fn tell(&mut self, line: &str) -> Result<bool, String> {
        let Some(stdin) = &mut self.stdin else {
            return Ok(false);
        };
        match stdin.write_all(format!("{line}\n").as_bytes()) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err("it does not read what it is told".to_owned())
            }
            told => Ok(told.is_ok()),
        }
    }

    fn end(&mut self) {
        // What it still has to say is not the next run's.
        self.deaf.cancel();
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
