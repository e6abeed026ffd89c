//! Runs one hook to its end: finds it, gives it its input, logs what it says, and kills it
//! with all it started when it takes too long or prints too much.
//!
//! Blocks: not for the dispatcher thread. Decides nothing: what an answer means, and what
//! none means, is the core's.

use std::io::{ErrorKind, Seek as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::memfd::{MFdFlags, memfd_create};

use super::command::{self, CommandError};
use crate::config::{Hook, HookSettings};
use crate::core::event::HookEnd;

/// More on standard output is no answer.
const OUTPUT_MAX: usize = 64 * 1024;
/// Lines of standard error that are logged of one run, and bytes of one of them.
const LINES_MAX: usize = 50;
const LINE_MAX: usize = 400;
/// A file that is just being written cannot be run: tried again so often, after a pause.
const BUSY_TRIES: u32 = 20;
const BUSY_PAUSE: Duration = Duration::from_millis(10);

/// One run of a hook.
pub struct Call<'a> {
    pub hook: Hook,
    /// For its standard input.
    pub input: &'a str,
    pub argument: Option<&'a Path>,
    pub environment: &'a [(&'a str, &'a str)],
    /// How many times the usual time it may take.
    pub patience: u32,
}

impl Call<'_> {
    pub fn new(hook: Hook) -> Self {
        Self {
            hook,
            input: "{}\n",
            argument: None,
            environment: &[],
            patience: 1,
        }
    }
}

/// Where hooks are, and what they are told of the device.
#[derive(Clone, Default)]
pub struct Site {
    settings: HookSettings,
    environment: Vec<(&'static str, String)>,
    is_over: Arc<AtomicBool>,
}

impl Site {
    pub fn new(settings: HookSettings, environment: Vec<(&'static str, String)>) -> Self {
        Self {
            settings,
            environment,
            is_over: Arc::default(),
        }
    }

    /// The agent leaves: every hook that runs is killed.
    pub fn stop(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    pub fn is_stopped(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// The file that a setting names for it.
    pub fn named(&self, hook: Hook) -> Option<PathBuf> {
        let (path, is_expected) = self.settings.path(hook)?;
        is_expected.then_some(path)
    }

    /// The hook's file; `None` when there is none.
    pub fn find(&self, hook: Hook) -> Option<PathBuf> {
        let (path, is_expected) = self.settings.path(hook)?;
        match path.metadata() {
            Err(error) if is_missing(error.kind()) && is_expected => {
                error!("hook {}: {} does not exist", hook.name(), path.display());
                None
            }
            Err(error) if is_missing(error.kind()) => None,
            // Running it tells better what is wrong.
            Err(_) | Ok(_) => Some(path),
        }
    }

    /// Runs the hook to its end; its standard error goes into the log.
    pub fn run(&self, call: &Call) -> HookEnd {
        let name = call.hook.name();
        self.run_saying(call, &mut |line| info!("hook {name}: {line}"))
    }

    /// The same; `say` gets each line of standard error.
    pub fn run_saying(&self, call: &Call, say: &mut dyn FnMut(&str)) -> HookEnd {
        let Some(path) = self.find(call.hook) else {
            return HookEnd::Absent;
        };
        if is_anyones(&path) {
            let path = path.display();
            let reason = format!("{path} can be written by everybody: not run (chmod o-w)");
            return HookEnd::Failed(reason);
        }
        let mut lines = Lines::new(say);
        let output = self.capture(call, &path, &mut |bytes| lines.hear(bytes));
        lines.end_line();
        match output {
            Ok(output) => match output.status.code() {
                Some(code) => HookEnd::Exited {
                    code,
                    output: String::from_utf8_lossy(&output.stdout).into_owned(),
                },
                None => HookEnd::Failed(format!("{} ended by {}", path.display(), output.status)),
            },
            Err(error) => HookEnd::Failed(in_words(&path, &error)),
        }
    }

    fn capture(
        &self,
        call: &Call,
        path: &Path,
        hear: command::Hear,
    ) -> Result<Output, CommandError> {
        let mut program = Command::new(path);
        command::without_secrets(&mut program);
        program.args(call.argument);
        program.env("NERVES_HUB_HOOK", call.hook.name());
        program.envs(self.environment.iter().map(|(name, value)| (name, value)));
        program.envs(call.environment.iter().copied());
        let timeout = self.settings.timeout * call.patience;
        let is_over = || self.is_stopped();
        let mut tries = 0;
        loop {
            let stdin = in_memory(call.input).map_err(|error| CommandError::Start {
                program: path.display().to_string(),
                error,
            })?;
            program.stdin(stdin);
            match command::converse(&mut program, timeout, OUTPUT_MAX, &is_over, hear) {
                Err(CommandError::Start { error, .. })
                    if error.kind() == ErrorKind::ExecutableFileBusy && tries < BUSY_TRIES =>
                {
                    tries += 1;
                    std::thread::sleep(BUSY_PAUSE);
                }
                output => return output,
            }
        }
    }
}

/// Hooks run as the agent does: whoever can change one has the device.
pub fn is_anyones(path: &Path) -> bool {
    let found = path.metadata();
    found.is_ok_and(|found| found.permissions().mode() & 0o002 != 0)
}

fn is_missing(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// A file that is read from like a pipe, but never full, and nobody needs to fill it.
fn in_memory(text: &str) -> std::io::Result<Stdio> {
    let mut file = std::fs::File::from(memfd_create("hook", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(text.as_bytes())?;
    file.rewind()?;
    Ok(file.into())
}

fn in_words(path: &Path, error: &CommandError) -> String {
    let CommandError::Start { error: start, .. } = error else {
        return error.to_string();
    };
    let is_executable = path
        .metadata()
        .is_ok_and(|found| found.permissions().mode() & 0o111 != 0);
    let path = path.display();
    match start.kind() {
        ErrorKind::PermissionDenied if !is_executable => {
            format!("{path} is not executable (chmod +x)")
        }
        ErrorKind::NotFound => format!("{path}: what its first line names does not exist"),
        _ => error.to_string(),
    }
}

/// Standard error, line by line, into the log.
struct Lines<'a> {
    say: &'a mut dyn FnMut(&str),
    line: Vec<u8>,
    count: usize,
}

impl<'a> Lines<'a> {
    fn new(say: &'a mut dyn FnMut(&str)) -> Self {
        Self {
            say,
            line: Vec::new(),
            count: 0,
        }
    }

    fn hear(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match byte {
                b'\n' => self.end_line(),
                _ if self.line.len() < LINE_MAX => self.line.push(*byte),
                _ => {}
            }
        }
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        let text = String::from_utf8_lossy(&line);
        let text: String = text.chars().map(plain).collect();
        if text.trim().is_empty() {
            return;
        }
        self.count += 1;
        match self.count {
            ..=LINES_MAX => (self.say)(text.trim()),
            _ if self.count == LINES_MAX + 1 => (self.say)("(says more than is logged)"),
            _ => {}
        }
    }
}

/// A log must not steer the terminal it is read on.
fn plain(character: char) -> char {
    match character.is_control() {
        true => ' ',
        false => character,
    }
}
