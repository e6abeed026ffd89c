//! Slot actions by programs: a task of `ops.fw` applied by fwup, or the installer's own.
//!
//! Owns their command lines and the reading of their answers. Each runs under a deadline
//! and without the agent's secrets.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::{Action, SlotError};
use crate::config::FwupSettings;
use crate::system::command;
use crate::wire::fwup_frame::{Decoder, Message};

/// A factory reset may erase a large partition.
const OPS_DEADLINE: Duration = Duration::from_secs(600);
const CONFIRM_DEADLINE: Duration = Duration::from_secs(60);
/// Most bytes of output.
const CAP: usize = 256 * 1024;
/// Older images have an archive for this one action only.
const OLD_ARCHIVE: &str = "revert.fw";

/// The archive for an action and its task, when the device has one.
pub(super) fn archive(ops_fw: &Path, action: Action) -> Option<(PathBuf, &'static str)> {
    let old = ops_fw.with_file_name(OLD_ARCHIVE);
    if ops_fw.is_file() {
        Some((ops_fw.to_owned(), action.name()))
    } else if action == Action::Revert && old.is_file() {
        Some((old, action.name()))
    } else {
        None
    }
}

/// `fwup -a -i ARCHIVE -t TASK -d DEVPATH …`
pub(super) fn apply(
    fwup: &FwupSettings,
    archive: &Path,
    task: &str,
    devpath: &Path,
) -> Result<(), SlotError> {
    let mut program = Command::new(&fwup.path);
    program.args(["-a", "-i"]).arg(archive);
    program.args(["-t", task, "-d"]).arg(devpath);
    program.args(["-q", "-U", "--enable-trim", "--framing"]);
    command::without_secrets(&mut program);
    program.envs(fwup.env.iter().map(|(key, value)| (key, value)));
    run(program, OPS_DEADLINE, verdict)
        .map_err(|problem| failed(archive, format!("task {task}: {problem}")))
}

/// `PROGRAM confirm`
pub(super) fn confirm(path: &Path) -> Result<(), SlotError> {
    let mut program = Command::new(path);
    program.arg("confirm");
    command::without_secrets(&mut program);
    run(program, CONFIRM_DEADLINE, |_| Ok(()))
        .map_err(|problem| failed(path, format!("confirm: {problem}")))
}

fn failed(program: &Path, problem: String) -> SlotError {
    SlotError::Program {
        program: program.display().to_string(),
        problem,
    }
}

fn run(
    mut program: Command,
    deadline: Duration,
    verdict: fn(&[u8]) -> Result<(), String>,
) -> Result<(), String> {
    let output =
        command::capture(&mut program, deadline, CAP).map_err(|error| error.to_string())?;
    if output.status.success() {
        return verdict(&output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    match verdict(&output.stdout) {
        Err(reason) if said.trim().is_empty() => Err(reason),
        _ => Err(format!("{}: {}", output.status, said.trim())),
    }
}

/// fwup's last word on its framed output.
fn verdict(bytes: &[u8]) -> Result<(), String> {
    let mut decoder = Decoder::default();
    decoder.feed(bytes);
    let mut outcome = Err("fwup ended without saying whether it succeeded".to_owned());
    while let Some(message) = decoder.next_message().map_err(|error| error.0)? {
        match message {
            Message::Ok { .. } => outcome = Ok(()),
            Message::Error { text, .. } => return Err(text),
            Message::Warning { text, .. } => warn!("fwup: {text}"),
            Message::Progress(_) | Message::Unknown(_) => {}
        }
    }
    outcome
}
