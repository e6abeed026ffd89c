//! A program whose output is log lines: run, read, and run again when it ends.

use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;

use super::retry::Retry;
use super::ring::Intake;
use super::sources::{BUDGET, Source};
use super::splitter::Splitter;
use crate::system::session;

/// How long a killed program may take to go away before it is left to the kernel.
const REAP: Duration = Duration::from_secs(1);

pub struct Program {
    name: &'static str,
    command: Command,
    /// What becomes of a line.
    take: fn(&[u8], &Intake),
    lines: Splitter,
    running: Option<Running>,
    retry: Retry,
    due: Option<Instant>,
}

impl Program {
    /// Runs with the first turn, on whose thread's life its own depends.
    pub fn new(
        name: &'static str,
        mut command: Command,
        longest: usize,
        take: fn(&[u8], &Intake),
    ) -> Self {
        session::scrub(&mut command);
        session::detach(&mut command);
        // What it says on standard error may come back as a line of the journal.
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .current_dir("/");
        Self {
            name,
            command,
            take,
            lines: Splitter::new(longest),
            running: None,
            retry: Retry::default(),
            due: Some(Instant::now()),
        }
    }

    fn start(&mut self, now: Instant) {
        self.due = None;
        match Running::new(&mut self.command) {
            Ok(running) => {
                self.retry.begin(now);
                self.running = Some(running);
            }
            Err(error) => self.plan(now, &format!("does not start: {error}")),
        }
    }

    fn plan(&mut self, now: Instant, what: &str) {
        let due = self.retry.again(now);
        self.due = Some(due);
        let program = self.command.get_program().to_string_lossy();
        let (name, delay) = (self.name, due - now);
        warn!("log source {name}: {program} {what}; run again in {delay:?}");
    }

    fn on_end(&mut self, now: Instant, intake: &Intake) {
        let take = self.take;
        self.lines.finish(&mut |line| take(line, intake));
        if let Some(running) = self.running.take() {
            self.plan(now, &running.end());
        }
    }
}

impl Source for Program {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.running.as_ref().map(|running| running.output.as_fd())
    }

    fn due(&self) -> Option<Instant> {
        self.due
    }

    fn turn(&mut self, now: Instant, intake: &Intake) {
        if self.due.is_some_and(|due| due <= now) {
            self.start(now);
        }
        let take = self.take;
        let mut buffer = [0; 16 * 1024];
        for _ in 0..BUDGET / buffer.len() {
            let Some(running) = &mut self.running else {
                return;
            };
            match running.output.read(&mut buffer) {
                Ok(0) => return self.on_end(now, intake),
                Ok(length) => {
                    let each = &mut |line: &[u8]| take(line, intake);
                    self.lines.feed(&buffer[..length], each);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return self.on_end(now, intake),
            }
        }
    }
}

/// The program's session, which ends with this.
struct Running {
    child: Child,
    output: ChildStdout,
}

impl Running {
    fn new(command: &mut Command) -> io::Result<Self> {
        let mut child = command.spawn()?;
        let Some(output) = child.stdout.take() else {
            return Err(io::Error::other("no pipe"));
        };
        let running = Self { child, output };
        fcntl(&running.output, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok(running)
    }

    /// How it ended, if it has; it is left to be reaped.
    fn end(&self) -> String {
        match session::peek(self.leader()) {
            Ok(WaitStatus::Exited(_, code)) => format!("ended with status {code}"),
            Ok(WaitStatus::Signaled(_, signal, _)) => format!("was ended by {signal}"),
            _ => "closed its output".to_owned(),
        }
    }

    fn leader(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let leader = self.leader();
        session::end(leader);
        let end = Instant::now() + REAP;
        while let Ok(None) = self.child.try_wait() {
            if Instant::now() >= end {
                return warn!("log source: process {leader} does not go away");
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}
