//! The integrator's folder: files with values, and programs that print some.
//!
//! Owns who may put things there: what is run here runs as the agent does.

use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::unistd::geteuid;
use serde_json::{Value, json};

use super::IsOver;
use super::draft::Draft;
use super::given::Given;
use crate::system::command::{self, CommandError};
use crate::system::{durable, kv, thread};

/// Most entries that are looked at.
const MOST: usize = 64;
/// Of them, programs.
const MOST_PROGRAMS: usize = 8;
const MOST_BYTES: usize = 16 * 1024;
/// Of what a program prints.
const OUTPUT: usize = 64 * 1024;

/// One that is just being written cannot be run: tried again so often, after a pause.
const BUSY_TRIES: u32 = 20;
const BUSY_PAUSE: Duration = Duration::from_millis(10);

/// One program, and what it printed.
struct Program {
    name: String,
    path: PathBuf,
    printed: Result<Value, String>,
}

/// Adds what the folder gives. In the order of names, programs last: of two values of one
/// name the later counts.
pub fn read(folder: &Path, patience: Duration, is_over: IsOver, draft: &mut Draft) {
    let names = match trusted(folder).and_then(|()| listed(folder)) {
        Ok(names) => names,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let text = format!("{}, which does not exist", folder.display());
            return draft.ignored.push(text);
        }
        Err(error) => return draft.fail(&folder.display().to_string(), &error.to_string()),
    };
    let mut programs = Vec::new();
    for name in names {
        let path = folder.join(&name);
        match path.symlink_metadata() {
            Ok(found) if !found.is_file() => ignore(draft, &path, "not a regular file"),
            Ok(found) if found.mode() & 0o111 != 0 => match judge(&found) {
                Err(why) => draft.fail(&name, &why.to_string()),
                Ok(()) if programs.len() == MOST_PROGRAMS => {
                    ignore(draft, &path, "one program too many");
                }
                Ok(()) => programs.push(Program {
                    name,
                    path,
                    printed: Ok(Value::Null),
                }),
            },
            Ok(_) if name.ends_with(".env") => read_file(&path, draft),
            Ok(_) => ignore(draft, &path, "neither NAME.env nor executable"),
            // Gone since.
            Err(_) => {}
        }
    }
    run_all(&mut programs, patience, is_over, draft);
}

fn ignore(draft: &mut Draft, path: &Path, why: &str) {
    draft.ignored.push(format!("{}: {why}", path.display()));
}

fn trusted(folder: &Path) -> io::Result<()> {
    let found = fs::metadata(folder)?;
    match found.is_dir() {
        true => judge(&found),
        false => Err(io::Error::other("not a folder")),
    }
}

/// Whoever can write to it has the device.
fn judge(found: &Metadata) -> io::Result<()> {
    let why = if found.uid() != 0 && found.uid() != geteuid().as_raw() {
        "belongs to another user (chown it)"
    } else if found.permissions().mode() & 0o002 != 0 {
        "can be written by everybody (chmod o-w)"
    } else {
        return Ok(());
    };
    Err(io::Error::other(why))
}

/// Names in their order; those that begin with a dot are being written.
fn listed(folder: &Path) -> io::Result<Vec<String>> {
    let mut names: Vec<String> = Vec::new();
    for entry in fs::read_dir(folder)?.take(MOST) {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') {
            let place = names.partition_point(|other| *other < name);
            names.insert(place, name);
        }
    }
    Ok(names)
}

fn read_file(path: &Path, draft: &mut Draft) {
    let text = match durable::read(path, MOST_BYTES) {
        Ok(Some(bytes)) => String::from_utf8_lossy(&bytes).into_owned(),
        Ok(None) => return,
        Err(error) => return ignore(draft, path, &error.to_string()),
    };
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Err(why) = take_line(line, draft) {
            ignore(draft, path, &format!("line {}: {why}", index + 1));
        }
    }
}

/// `metric.NAME=NUMBER`, `metadata.NAME=TEXT`, `check.NAME=pass|fail NOTE`,
/// `alarm.NAME=DESCRIPTION`.
fn take_line(line: &str, draft: &mut Draft) -> Result<(), String> {
    let parts = line.split_once('=').and_then(|(key, value)| {
        let (kind, name) = key.trim().split_once('.')?;
        Some((kind, name, kv::unquoted(value.trim())))
    });
    let (kind, name, value) = parts.ok_or("not KIND.NAME=VALUE")?;
    let (kind, value) = match kind {
        "metric" => {
            let number = serde_json::from_slice(value.as_bytes());
            (Given::Metrics, number.unwrap_or(Value::Null))
        }
        "metadata" => (Given::Metadata, value.into()),
        "alarm" => (Given::Alarms, value.into()),
        "check" => {
            let (word, note) = value.split_once(' ').unwrap_or((value, ""));
            let pass = match word {
                "pass" => true,
                "fail" => false,
                _ => return Err(format!("check {name} is neither pass nor fail")),
            };
            (Given::Checks, json!({"pass": pass, "note": note.trim()}))
        }
        _ => return Err("begins with none of metric, metadata, check and alarm".to_owned()),
    };
    draft.give(kind, name, value)
}

/// All at the same time, so that one that hangs costs the others nothing.
fn run_all(programs: &mut [Program], patience: Duration, is_over: IsOver, draft: &mut Draft) {
    thread::each("health-set", programs, |program| {
        program.printed = run(&program.path, patience, is_over);
    });
    for program in programs {
        let printed = std::mem::replace(&mut program.printed, Ok(Value::Null));
        if let Err(why) = printed.and_then(|printed| take_object(printed, draft)) {
            draft.fail(&program.name, &why);
        }
    }
}

fn run(path: &Path, patience: Duration, is_over: IsOver) -> Result<Value, String> {
    let mut program = Command::new(path);
    command::without_secrets(&mut program);
    let mut tries = 0;
    let output = loop {
        match command::capture_until(&mut program, patience, OUTPUT, is_over) {
            Err(CommandError::Start { error, .. })
                if error.kind() == ErrorKind::ExecutableFileBusy && tries < BUSY_TRIES =>
            {
                tries += 1;
                std::thread::sleep(BUSY_PAUSE);
            }
            output => break output.map_err(|error| error.to_string())?,
        }
    };
    command::verdict(&output)?;
    serde_json::from_slice(&output.stdout).map_err(|error| format!("printed no JSON: {error}"))
}

/// What is wrong in it costs the rest nothing; the first of that is the error.
fn take_object(printed: Value, draft: &mut Draft) -> Result<(), String> {
    let Value::Object(kinds) = printed else {
        return Err("printed something else than one JSON object".to_owned());
    };
    let mut result = Ok(());
    for (key, values) in kinds {
        let (Some(kind), Value::Object(values)) = (Given::parse(&key), values) else {
            let why = format!("{key:?} is no object of metrics, metadata, checks or alarms");
            result = result.and(Err(why));
            continue;
        };
        for (name, value) in values {
            result = result.and(draft.give(kind, &name, value));
        }
    }
    result
}
