//! Thread `script`: runs one support script to its end or its deadline.
//!
//! Owns the script's file, its session and what it prints. When this is over, nothing of
//! the session runs any more and the file is gone. Must not judge how it went.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, PipeReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::wait::WaitStatus;
use nix::unistd::{Pid, geteuid};

use crate::core::effect::ScriptOrder;
use crate::core::event::Event;
use crate::core::event::{ScriptEnd, ScriptHow, ScriptId};
use crate::system::channel::Sender;
use crate::system::http::Cancel;
use crate::system::session;
use crate::wire::script_text::{OUTPUT_MAX, printed, shebang, with_plain_line_ends};

/// How often the script's exit is looked for while it is silent.
const TICK: Duration = Duration::from_millis(20);
/// Once nothing of it is kept any more, output is read at this pace (25 MB/s): throwing it
/// away must not take a processor that an update could use.
const FLOOD_PAUSE: Duration = Duration::from_millis(10);
const FLOOD_READ: usize = 256 * 1024;
/// How long a killed script may take to go away before it is answered for without it.
const REAP: Duration = Duration::from_millis(200);
/// How long its remains are looked after beyond that.
const BURIAL: Duration = Duration::from_secs(60);
/// Where programs are found when the agent was started without a PATH.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What every script of this device is run with.
#[derive(Clone, Debug, Default)]
pub struct Site {
    pub interpreter: PathBuf,
    /// Private folders for scripts, the first that can be used is.
    pub folders: Vec<PathBuf>,
    pub environment: Vec<(&'static str, String)>,
}

/// Runs one script; how it ended is its only event.
///
/// # Errors
/// None; failures are in [`ScriptEnd`].
pub fn run(
    id: ScriptId,
    order: &ScriptOrder,
    site: &Site,
    cancel: &Cancel,
    inbox: &Sender<Event>,
) -> Result<(), String> {
    let (end, remains) = perform(id, order, site, cancel).unwrap_or_else(|reason| {
        let (output, how) = (String::new(), ScriptHow::Failed(reason));
        (ScriptEnd { output, how }, None)
    });
    // The dispatcher is gone only when the process leaves.
    let _ = inbox.send(Event::ScriptEnded(id, end));
    if let Some(remains) = remains {
        remains.bury();
    }
    Ok(())
}

/// Removes what an earlier run left; to be called before the first script.
pub fn tidy(site: &Site) {
    for folder in &site.folders {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        for entry in entries.filter(|_| is_private(folder)) {
            if let Err(error) = fs::remove_file(entry.path()) {
                warn!("cannot remove {}: {error}", entry.path().display());
            }
        }
    }
}

fn perform(
    id: ScriptId,
    order: &ScriptOrder,
    site: &Site,
    cancel: &Cancel,
) -> Result<(ScriptEnd, Option<Remains>), String> {
    let deadline = Instant::now() + order.limit;
    let text = with_plain_line_ends(&order.text);
    let script = Placed::new(&site.folders, id, &text)?;
    let mut command = command(&text, &script.0, site);
    let broken = |error: io::Error| format!("cannot read what the script prints: {error}");
    let (output, input) = io::pipe().map_err(broken)?;
    fcntl(&output, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(|error| broken(error.into()))?;
    let both = input.try_clone().map_err(broken)?;
    command.stdin(Stdio::null()).stdout(both).stderr(input);
    session::detach(&mut command);
    let child = command.spawn().map_err(|error| {
        let program = command.get_program().to_string_lossy();
        format!("{program} does not start: {error}")
    })?;
    // With it goes our end of what the script writes to.
    drop(command);
    let leader = Pid::from_raw(child.id().cast_signed());
    let mut run = Run {
        child,
        leader,
        output: Some(output),
        first: Vec::new(),
        total: 0,
    };
    let over = run.watch(deadline, cancel);
    Ok(run.end(over))
}

/// Through its interpreter, so that it runs where nothing may be executed.
fn command(text: &str, file: &Path, site: &Site) -> Command {
    let mut command = match shebang(text) {
        Some((program, argument)) => {
            let mut command = Command::new(program);
            command.args(argument);
            command
        }
        None => Command::new(&site.interpreter),
    };
    command.arg(file).current_dir("/");
    session::scrub(&mut command);
    if std::env::var_os("PATH").is_none_or(|path| path.is_empty()) {
        command.env("PATH", PATH);
    }
    let environment = site.environment.iter();
    command.envs(environment.map(|(name, value)| (name, value)));
    command
}

/// Why the watch was over.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Over {
    Exited,
    TimedOut,
    /// The agent leaves.
    Cancelled,
}

struct Run {
    child: Child,
    leader: Pid,
    /// `None` after its end.
    output: Option<PipeReader>,
    first: Vec<u8>,
    total: u64,
}

impl Run {
    fn watch(&mut self, deadline: Instant, cancel: &Cancel) -> Over {
        loop {
            // What was printed before the exit is in the pipe by then.
            let exited = session::has_ended(self.leader);
            let flooded = self.read();
            if exited {
                return Over::Exited;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Over::TimedOut;
            }
            if cancel.is_cancelled() {
                return Over::Cancelled;
            }
            match flooded {
                true => std::thread::sleep(FLOOD_PAUSE.min(left)),
                false => self.sleep(TICK.min(left), cancel),
            }
        }
    }

    /// Reads what there is, within limits; true when there may be more, and none is kept.
    fn read(&mut self) -> bool {
        let mut buffer = [0; 16 * 1024];
        for _ in 0..FLOOD_READ / buffer.len() {
            let Some(output) = &mut self.output else {
                return false;
            };
            match output.read(&mut buffer) {
                Ok(0) => self.output = None,
                Ok(count) => {
                    self.total += count as u64;
                    let room = (OUTPUT_MAX - self.first.len()).min(count);
                    self.first.extend_from_slice(&buffer[..room]);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    warn!("cannot read what a support script prints: {error}");
                    self.output = None;
                }
            }
        }
        self.first.len() == OUTPUT_MAX
    }

    fn sleep(&self, time: Duration, cancel: &Cancel) {
        let mut fds = vec![PollFd::new(cancel.waker.as_fd(), PollFlags::POLLIN)];
        let output = self.output.as_ref().map(AsFd::as_fd);
        fds.extend(output.map(|output| PollFd::new(output, PollFlags::POLLIN)));
        let timeout = PollTimeout::try_from(time).unwrap_or(PollTimeout::ZERO);
        // Whatever it was, the caller looks at everything.
        let _ = poll(&mut fds, timeout);
    }

    /// What there is to tell, within limits; and what is not over by then.
    fn end(mut self, over: Over) -> (ScriptEnd, Option<Remains>) {
        // Known even if others of its session take long to die.
        let ended = session::peek(self.leader);
        let is_over = session::end(self.leader);
        self.read();
        let status = match is_over {
            true => reap(&mut self.child, Instant::now() + REAP),
            false => None,
        };
        let how = match (over, status) {
            (Over::TimedOut, _) => ScriptHow::TimedOut,
            (Over::Cancelled, _) => ScriptHow::Failed("killed: the agent ends".to_owned()),
            (Over::Exited, Some(status)) => match (status.code(), status.signal()) {
                (Some(code), _) => ScriptHow::Exited(code),
                (None, signal) => ScriptHow::Killed(signal.unwrap_or(0)),
            },
            (Over::Exited, None) => match ended {
                Ok(WaitStatus::Exited(_, code)) => ScriptHow::Exited(code),
                Ok(WaitStatus::Signaled(_, signal, _)) => ScriptHow::Killed(signal as i32),
                _ => ScriptHow::Failed("its exit status is lost".to_owned()),
            },
        };
        let output = printed(&self.first, self.total);
        let (child, leader) = (self.child, self.leader);
        let remains = status.is_none().then_some(Remains { child, leader });
        (ScriptEnd { output, how }, remains)
    }
}

fn reap(child: &mut Child, until: Instant) -> Option<ExitStatus> {
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if Instant::now() < until => std::thread::sleep(Duration::from_millis(2)),
            Ok(None) | Err(_) => return None,
        }
    }
}

/// A session that took longer to die than the hub waits for an answer.
struct Remains {
    child: Child,
    leader: Pid,
}

impl Remains {
    fn bury(mut self) {
        let until = Instant::now() + BURIAL;
        let is_over = || session::end(self.leader) || Instant::now() >= until;
        while !is_over() {}
        if reap(&mut self.child, until).is_none() {
            warn!("support script {} does not die", self.leader);
        }
    }
}

/// A script in a file; removed in the end.
struct Placed(PathBuf);

impl Placed {
    fn new(folders: &[PathBuf], id: ScriptId, text: &str) -> Result<Self, String> {
        let mut reasons = Vec::new();
        for folder in folders {
            match Self::place(folder, id, text) {
                Ok(placed) => return Ok(placed),
                Err(error) => reasons.push(format!("{}: {error}", folder.display())),
            }
        }
        Err(format!("no place for the script: {}", reasons.join("; ")))
    }

    fn place(folder: &Path, id: ScriptId, text: &str) -> io::Result<Self> {
        if let Some(parent) = folder.parent() {
            fs::create_dir_all(parent)?;
        }
        let mut private = DirBuilder::new();
        private.recursive(true).mode(0o700).create(folder)?;
        if !is_private(folder) {
            return Err(io::Error::other("not a folder of this user's alone"));
        }
        let path = folder.join(format!("script-{}-{}", std::process::id(), id.0));
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o700)
            .open(&path)?;
        let placed = Self(path);
        file.write_all(text.as_bytes())?;
        Ok(placed)
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            warn!("cannot remove {}: {error}", self.0.display());
        }
    }
}

/// A real folder that nobody else can put anything into.
fn is_private(folder: &Path) -> bool {
    fs::symlink_metadata(folder).is_ok_and(|found| {
        found.is_dir() && found.uid() == geteuid().as_raw() && found.mode() & 0o022 == 0
    })
}

#[cfg(test)]
mod tests;
