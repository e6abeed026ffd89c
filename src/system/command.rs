//! Runs a short command and takes its output, within a deadline and a size.
//!
//! Owns the child's process group: at the deadline, or when it says too much, the whole
//! group is killed, and the child is always reaped. Blocks: not for the dispatcher thread,
//! and not for long-running children such as fwup or shells.

use std::fmt;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::config::table::SETTINGS;

/// How long a killed child may take to go away before it is left to the kernel.
const REAP: Duration = Duration::from_secs(1);
/// How often the child's exit is looked for while something else holds its output open.
const TICK: Duration = Duration::from_millis(50);

/// Why there is no output.
#[derive(Debug)]
pub enum CommandError {
    /// It did not start. `NotFound` means there is no such program.
    Start { program: String, error: io::Error },
    /// It was killed.
    Deadline { program: String, after: Duration },
    /// It was killed because its standard output exceeded this many bytes.
    TooLong { program: String, cap: usize },
    /// It was killed because nobody wants its answer any more.
    Stopped { program: String },
    /// Its pipes failed.
    Io { program: String, error: io::Error },
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start { program, error } => write!(f, "{program} did not start: {error}"),
            Self::Deadline { program, after } => {
                write!(f, "{program} did not end within {after:?} and was killed")
            }
            Self::TooLong { program, cap } => {
                write!(f, "{program} printed more than {cap} bytes and was killed")
            }
            Self::Stopped { program } => write!(f, "{program} was stopped"),
            Self::Io { program, error } => {
                write!(f, "reading what {program} printed failed: {error}")
            }
        }
    }
}

impl std::error::Error for CommandError {}

/// `/bin/sh -c TEXT`, with the agent's secrets taken out of its environment.
pub fn shell(text: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(text);
    without_secrets(&mut command);
    command
}

/// Takes every secret setting out of the child's environment.
pub fn without_secrets(command: &mut Command) {
    for setting in SETTINGS.iter().filter(|setting| setting.secret) {
        // Proxies are other programs' too.
        if setting.name.starts_with("NERVES_HUB_") {
            command.env_remove(setting.name);
        }
    }
}

/// Whether a command succeeded.
///
/// # Errors
/// It did not: its status, and what it said on standard error.
pub fn verdict(output: &Output) -> Result<(), String> {
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{}: {}", output.status, said.trim()))
}

/// Runs `command` to its end, with nothing on its standard input.
///
/// `deadline` covers start to exit. Standard output beyond `cap` bytes is an error, of
/// standard error the first `cap` bytes are kept. An exit status other than zero is not
/// an error here: see [`verdict`].
pub fn capture(
    command: &mut Command,
    deadline: Duration,
    cap: usize,
) -> Result<Output, CommandError> {
    capture_until(command, deadline, cap, &|| false)
}

/// Hears standard error as it comes.
pub type Hear<'a> = &'a mut dyn FnMut(&[u8]);

/// As [`capture`], but kills the command soon after `is_over` says so.
pub fn capture_until(
    command: &mut Command,
    deadline: Duration,
    cap: usize,
    is_over: &dyn Fn() -> bool,
) -> Result<Output, CommandError> {
    execute(command.stdin(Stdio::null()), deadline, cap, is_over, None)
}

/// As [`capture_until`], with the standard input that `command` has; nothing is kept of
/// standard error, all of it is heard.
pub fn converse(
    command: &mut Command,
    deadline: Duration,
    cap: usize,
    is_over: &dyn Fn() -> bool,
    hear: Hear,
) -> Result<Output, CommandError> {
    execute(command, deadline, cap, is_over, Some(hear))
}

fn execute(
    command: &mut Command,
    deadline: Duration,
    cap: usize,
    is_over: &dyn Fn() -> bool,
    hear: Option<Hear>,
) -> Result<Output, CommandError> {
    let end = Instant::now() + deadline;
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|error| CommandError::Start {
            program: program.clone(),
            error,
        })?;
    let result = collect(&mut child, end, cap, is_over, hear);
    if result.is_err() {
        kill(&mut child);
    }
    result.map_err(|stop| match stop {
        Stop::Deadline => CommandError::Deadline {
            program,
            after: deadline,
        },
        Stop::TooLong => CommandError::TooLong { program, cap },
        Stop::Over => CommandError::Stopped { program },
        Stop::Io(error) => CommandError::Io { program, error },
    })
}

enum Stop {
    Deadline,
    TooLong,
    Over,
    Io(io::Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<nix::Error> for Stop {
    fn from(error: nix::Error) -> Self {
        Self::Io(error.into())
    }
}

fn collect(
    child: &mut Child,
    end: Instant,
    cap: usize,
    is_over: &dyn Fn() -> bool,
    mut hear: Option<Hear>,
) -> Result<Output, Stop> {
    let mut stdout = Pipe::new(child.stdout.take())?;
    let mut stderr = Pipe::new(child.stderr.take())?;
    loop {
        let status = child.try_wait()?;
        // What was printed before the exit is in the pipes by now.
        stdout.read_available(cap)?;
        stderr.read_available(cap)?;
        if let Some(hear) = &mut hear {
            hear(&stderr.bytes);
            stderr.bytes.clear();
        }
        if stdout.overflowed {
            return Err(Stop::TooLong);
        }
        if let Some(status) = status {
            return Ok(Output {
                status,
                stdout: stdout.bytes,
                stderr: stderr.bytes,
            });
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Stop::Deadline);
        }
        if is_over() {
            return Err(Stop::Over);
        }
        wait_for_output(&stdout, &stderr, left)?;
    }
}

/// Sleeps until there is output, the pipes end, or it is time to look for the exit.
fn wait_for_output(
    stdout: &Pipe<impl AsFd>,
    stderr: &Pipe<impl AsFd>,
    left: Duration,
) -> nix::Result<()> {
    let mut fds: Vec<PollFd> = [
        stdout.source.as_ref().map(AsFd::as_fd),
        stderr.source.as_ref().map(AsFd::as_fd),
    ]
    .into_iter()
    .flatten()
    .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
    .collect();
    // Both ended: the exit follows at once.
    let tick = if fds.is_empty() {
        Duration::from_millis(2)
    } else {
        TICK
    };
    let timeout = PollTimeout::try_from(tick.min(left)).unwrap_or(PollTimeout::ZERO);
    match poll(&mut fds, timeout) {
        Ok(_) | Err(nix::Error::EINTR) => Ok(()),
        Err(error) => Err(error),
    }
}

/// One end of the child's output, read without blocking.
struct Pipe<R> {
    /// `None` after its end.
    source: Option<R>,
    bytes: Vec<u8>,
    overflowed: bool,
}

impl<R: Read + AsFd> Pipe<R> {
    fn new(source: Option<R>) -> nix::Result<Self> {
        if let Some(source) = &source {
            fcntl(source, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        Ok(Self {
            source,
            bytes: Vec::new(),
            overflowed: false,
        })
    }

    /// At most a few reads at a time, so that a flood cannot hold up the deadline.
    fn read_available(&mut self, cap: usize) -> io::Result<()> {
        let mut buffer = [0; 4096];
        for _ in 0..64 {
            let Some(source) = &mut self.source else {
                return Ok(());
            };
            match source.read(&mut buffer) {
                Ok(0) => self.source = None,
                Ok(count) => {
                    let room = cap.saturating_sub(self.bytes.len()).min(count);
                    self.bytes.extend_from_slice(&buffer[..room]);
                    self.overflowed |= room < count;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Kills the group and reaps the child. The child is its group's leader and not reaped
/// yet, so the number still is its own.
fn kill(child: &mut Child) {
    if let Ok(pid) = i32::try_from(child.id()) {
        let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
    }
    let end = Instant::now() + REAP;
    while let Ok(None) = child.try_wait() {
        if Instant::now() >= end {
            warn!("killed process {} does not go away", child.id());
            return;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn sh(text: &str, deadline: Duration, cap: usize) -> Result<Output, CommandError> {
        capture(&mut shell(text), deadline, cap)
    }

    #[test]
    fn output_and_status() {
        let output = sh("echo out; echo err >&2; exit 3", 10 * SECOND, 100).unwrap();
        assert_eq!(output.status.code(), Some(3));
        assert_eq!(output.stdout, b"out\n");
        assert_eq!(output.stderr, b"err\n");
    }

    #[test]
    fn all_of_a_long_output_up_to_the_cap() {
        let text = "head -c 65536 /dev/zero; head -c 100000 /dev/zero >&2";
        let output = sh(text, 10 * SECOND, 65_536).unwrap();
        assert_eq!(output.stdout.len(), 65_536);
        assert_eq!(output.stderr.len(), 65_536);
        let error = sh("yes", 10 * SECOND, 65_536).unwrap_err();
        assert!(matches!(error, CommandError::TooLong { .. }), "{error}");
    }

    #[test]
    fn the_group_is_killed_at_the_deadline() {
        let folder = tempfile::tempdir().unwrap();
        let pids = folder.path().join("pids");
        let text = format!(
            "trap '' TERM; sleep 1000 & echo $! $$ > {}; wait",
            pids.display()
        );
        let begin = Instant::now();
        let error = sh(&text, SECOND / 2, 100).unwrap_err();
        assert!(matches!(error, CommandError::Deadline { .. }), "{error}");
        assert!(begin.elapsed() < 5 * SECOND);
        for pid in std::fs::read_to_string(pids).unwrap().split_whitespace() {
            // The grandchild is init's to reap: a zombie, as soon as the kernel gets to it.
            let is_there = || {
                let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
                stat.is_ok_and(|stat| !stat.contains(") Z "))
            };
            let end = Instant::now() + 10 * SECOND;
            while is_there() {
                assert!(Instant::now() < end, "{pid} lives");
                std::thread::yield_now();
            }
        }
    }

    #[test]
    fn nobody_waits_for_an_answer_that_is_not_wanted() {
        let begin = Instant::now();
        let is_over = || begin.elapsed() > SECOND / 10;
        let error = capture_until(&mut shell("sleep 1000"), 60 * SECOND, 100, &is_over);
        assert!(matches!(error, Err(CommandError::Stopped { .. })));
        assert!(begin.elapsed() < 5 * SECOND);
    }

    #[test]
    fn a_background_process_holding_the_pipes_does_not_hold_us() {
        let begin = Instant::now();
        let output = sh("sleep 3 & echo done", 10 * SECOND, 100).unwrap();
        assert_eq!(output.stdout, b"done\n");
        assert!(begin.elapsed() < 2 * SECOND);
    }

    #[test]
    fn a_missing_program_says_so() {
        let error = capture(&mut Command::new("/no/such"), SECOND, 1).unwrap_err();
        assert_eq!(
            error.to_string(),
            "/no/such did not start: No such file or directory (os error 2)"
        );
    }

    #[test]
    fn secrets_are_taken_out_of_the_environment() {
        let mut command = Command::new("env");
        command.env("NERVES_HUB_PRODUCT_SECRET", "hunter2");
        without_secrets(&mut command);
        let output = capture(&mut command, 10 * SECOND, 65_536).unwrap();
        assert!(!String::from_utf8_lossy(&output.stdout).contains("hunter2"));
    }
}
