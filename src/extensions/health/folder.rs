//! The integrator's folder: files with values, and programs that print some.
//!
//! Owns who may put things there: what is run here runs as the agent does.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Map, Value};

use super::IsOver;
use super::draft::{Draft, put};
use super::given::Given;
use super::machine::names;
use crate::system::command::{self, CommandError};
use crate::system::trust::{judge, judge_path};
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
    let listed = judge_path(folder).and_then(|()| {
        let names = names(folder, MOST);
        names.map_err(|error| error.to_string())
    });
    let names = match listed {
        Ok(names) => names,
        Err(_) if !folder.exists() => return ignore(draft, folder, "it does not exist"),
        Err(why) => return draft.fail(&folder.to_string_lossy(), &why),
    };
    let mut programs = Vec::new();
    for name in names {
        // Still being written.
        if name.starts_with('.') {
            continue;
        }
        let path = folder.join(&name);
        match path.symlink_metadata() {
            Ok(found) if !found.is_file() => ignore(draft, &path, "not a regular file"),
            Ok(found) if found.mode() & 0o111 != 0 => match judge(&found) {
                Err(why) => draft.fail(&name, why),
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
            let mut check = Map::new();
            put(&mut check, "pass", pass.into());
            put(&mut check, "note", note.trim().into());
            (Given::Checks, check.into())
        }
        _ => return Err("begins with none of metric, metadata, check and alarm".to_owned()),
    };
    draft.give(kind, name, &value)
}

/// All at the same time, so that one that hangs costs the others nothing.
fn run_all(programs: &mut [Program], patience: Duration, is_over: IsOver, draft: &mut Draft) {
    thread::each("health-set", programs, |program| {
        program.printed = run(&program.path, patience, is_over);
    });
    for program in programs {
        let printed = std::mem::replace(&mut program.printed, Ok(Value::Null));
        if let Err(why) = printed.and_then(|printed| take_object(&printed, draft)) {
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
fn take_object(printed: &Value, draft: &mut Draft) -> Result<(), String> {
    let Some(kinds) = printed.as_object() else {
        return Err("printed something else than one JSON object".to_owned());
    };
    let mut result = Ok(());
    for (key, values) in kinds {
        let (Some(kind), Value::Object(values)) = (Given::parse(key), values) else {
            let why = format!("{key:?} is no object of metrics, metadata, checks or alarms");
            result = result.and(Err(why));
            continue;
        };
        for (name, value) in values {
            result = result.and(draft.give(kind, name, value));
        }
    }
    result
}
