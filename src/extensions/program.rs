//! The integrator's own extensions: programs that speak in lines of JSON
//! (etc/doc/extensions.md).
//!
//! Owns the program's life from attach to detach: started in a session of its own, told
//! what the hub says, heard at a bounded pace, started again when it ends, killed with all
//! it has started. Must not know what it is for.

use std::io::{self, PipeReader, Read as _, Write as _};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::Value;

use super::{Extension, Link, Nudger, Site, Speaker, Word};
use crate::system::hook::is_anyones;
use crate::system::{command, session, thread};
use crate::wire::json::json;

/// How long `--describe` may take.
const DESCRIPTION: Duration = Duration::from_secs(5);
/// Bytes of a description.
const DESCRIPTION_MAX: usize = 4096;
/// Programs that are looked at.
const MOST: usize = 16;
const NAME_MAX: usize = 32;
/// Versions of one program.
const VERSIONS_MAX: usize = 8;
/// Longest line taken, in bytes.
const LINE_MAX: usize = 64 * 1024;
/// Lines that may come at once, and how long each takes in the long run.
const BURST: u32 = 50;
const PACE: Duration = Duration::from_millis(100);
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

/// The programs in `folder`, by file name; which are none, and why, is logged. Waits for
/// their descriptions.
pub fn find(folder: &Path) -> Vec<Program> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = Vec::new();
    for path in entries
        .map(|entry| entry.path())
        .filter(|path| is_program(path))
    {
        let place = paths.partition_point(|other| *other < path);
        paths.insert(place, path);
    }
    paths.truncate(MOST);
    let described = thread::each("describe", &mut paths, |path| {
        let found = describe(path);
        found.map_err(|reason| format!("extension {}: {reason}", path.display()))
    });
    let mut programs: Vec<Program> = Vec::new();
    for found in described {
        match found {
            Ok(program) if programs.iter().any(|other| other.name == program.name) => {
                let path = program.path.display();
                error!(
                    "extension {path}: another one is called {:?} too",
                    program.name
                );
            }
            Ok(program) => programs.push(program),
            Err(problem) => error!("{problem}"),
        }
    }
    programs
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata()
        .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

fn describe(path: &Path) -> Result<Program, String> {
    if is_anyones(path) {
        return Err("can be written by everybody: not run (chmod o-w)".to_owned());
    }
    let mut program = Command::new(path);
    session::scrub(program.arg("--describe"));
    let output = command::capture(&mut program, DESCRIPTION, DESCRIPTION_MAX)
        .map_err(|error| error.to_string())?;
    command::verdict(&output)?;
    let (name, versions) = understand(&output.stdout)?;
    Ok(Program {
        path: path.to_owned(),
        name,
        versions,
    })
}

/// `{"name": "x", "version": "0.0.1"}`; `version` may be a list, newest first.
fn understand(text: &[u8]) -> Result<(String, Vec<String>), String> {
    let wrong = |what: &str| {
        format!("--describe {what}; expected {{\"name\": \"…\", \"version\": \"0.0.1\"}}")
    };
    let value: Value = serde_json::from_slice(text)
        .map_err(|error| wrong(&format!("printed no JSON ({error})")))?;
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    let name = value["name"].as_str().unwrap_or_default();
    if name.is_empty() || name.len() > NAME_MAX || !name.bytes().all(is_plain) {
        return Err(wrong(&format!(
            "printed a \"name\" that is not 1 to {NAME_MAX} of a-z, 0-9 and _"
        )));
    }
    let versions: Vec<String> = match &value["version"] {
        Value::String(version) => vec![version.clone()],
        Value::Array(list) => {
            let texts = list.iter().filter_map(Value::as_str);
            texts.take(VERSIONS_MAX).map(str::to_owned).collect()
        }
        _ => Vec::new(),
    };
    match versions.is_empty() {
        true => Err(wrong("printed no \"version\"")),
        false => Ok((name.to_owned(), versions)),
    }
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
        let mut listener = Listener {
            name: name.to_owned(),
            speaker: link.speaker(),
            allowance: BURST,
            since: Instant::now(),
        };
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

/// Thread `ext-out`: what the program prints. A program that says too much waits: its pipe
/// is not read meanwhile.
struct Listener {
    name: String,
    speaker: Speaker,
    allowance: u32,
    since: Instant,
}

impl Listener {
    /// Until its standard output ends.
    fn hear(&mut self, mut out: PipeReader, mut err: PipeReader) {
        let (mut lines, mut complaints) = (Lines::default(), Lines::default());
        let mut hears_err = true;
        loop {
            let mut doors = [
                PollFd::new(out.as_fd(), PollFlags::POLLIN),
                PollFd::new(err.as_fd(), PollFlags::POLLIN),
            ];
            let watched = if hears_err {
                &mut doors[..]
            } else {
                &mut doors[..1]
            };
            if poll(watched, PollTimeout::NONE).is_err() {
                continue;
            }
            let ready = |door: &PollFd| door.revents().is_some_and(|found| !found.is_empty());
            let (on_out, on_err) = (ready(&doors[0]), hears_err && ready(&doors[1]));
            if on_err && !complaints.read(&mut err, &mut |line| self.complain(line)) {
                hears_err = false;
            }
            if on_out && !lines.read(&mut out, &mut |line| self.say(line)) {
                return;
            }
        }
    }

    fn say(&mut self, line: &[u8]) {
        self.wait();
        let value: Value = serde_json::from_slice(line).unwrap_or_default();
        match (value["event"].as_str(), &value["payload"]) {
            (Some(event), payload @ (Value::Object(_) | Value::Null)) if !event.is_empty() => {
                let payload = match payload {
                    Value::Null => json!({}),
                    other => other.clone(),
                };
                self.speaker.push(event, payload);
            }
            _ => warn!(
                "extension {}: not {{\"event\": \"…\", \"payload\": {{…}}}}: {:.80}",
                self.name,
                String::from_utf8_lossy(line)
            ),
        }
    }

    fn complain(&mut self, line: &[u8]) {
        self.wait();
        info!(
            "extension {}: {:.400}",
            self.name,
            String::from_utf8_lossy(line)
        );
    }

    /// Until one more line may be taken.
    fn wait(&mut self) {
        while self.allowance == 0 {
            let elapsed = self.since.elapsed();
            let gained = (elapsed.as_millis() / PACE.as_millis()) as u32;
            if gained > 0 {
                self.allowance = BURST.min(gained);
                self.since = Instant::now();
            } else {
                std::thread::sleep(PACE.saturating_sub(elapsed));
            }
        }
        self.allowance -= 1;
    }
}

/// Bytes to lines. One that is too long is left out.
#[derive(Default)]
struct Lines {
    begun: Vec<u8>,
    is_too_long: bool,
}

impl Lines {
    /// False at the end.
    fn read(&mut self, from: &mut PipeReader, each: &mut dyn FnMut(&[u8])) -> bool {
        let mut buffer = [0; 4096];
        let count = match from.read(&mut buffer) {
            Ok(0) => return false,
            Ok(count) => count,
            Err(error) => return error.kind() == io::ErrorKind::Interrupted,
        };
        let mut rest = &buffer[..count];
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            self.take(&rest[..end]);
            if std::mem::take(&mut self.is_too_long) {
                warn!("a line of an extension is longer than {LINE_MAX} bytes: left out");
            } else if !self.begun.is_empty() {
                each(&self.begun);
            }
            self.begun.clear();
            rest = &rest[end + 1..];
        }
        self.take(rest);
        true
    }

    fn take(&mut self, bytes: &[u8]) {
        self.is_too_long |= self.begun.len() + bytes.len() > LINE_MAX;
        if self.is_too_long {
            self.begun.clear();
        } else {
            self.begun.extend_from_slice(bytes);
        }
    }
}

#[cfg(test)]
#[path = "program/tests.rs"]
mod tests;
