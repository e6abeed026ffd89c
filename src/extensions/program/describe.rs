//! Which programs there are, and what they say of themselves. Runs each for a moment.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::Program;
use crate::system::trust::judge_path;
use crate::system::{command, session, thread};
use crate::wire::LOCAL_SHELL;

/// How long `--describe` may take.
const DESCRIPTION: Duration = Duration::from_secs(5);
/// Bytes of a description.
const DESCRIPTION_MAX: usize = 4096;
/// Programs that are looked at.
const MOST: usize = 16;
const NAME_MAX: usize = 32;
/// Versions of one program.
const VERSIONS_MAX: usize = 8;

/// The programs in `folder`, by file name; which are none, and why, is logged. Waits for
/// their descriptions.
pub fn find(folder: &Path) -> Vec<Program> {
    let entries = match judge_path(folder) {
        Ok(()) => std::fs::read_dir(folder).map_err(|error| error.to_string()),
        // There need not be one.
        Err(_) if !folder.exists() => return Vec::new(),
        Err(reason) => Err(reason),
    };
    let entries = match entries {
        Ok(entries) => entries.flatten(),
        Err(reason) => {
            error!(
                "NERVES_HUB_EXTENSIONS_DIR: {}: {reason}; no extension in it is run",
                folder.display()
            );
            return Vec::new();
        }
    };
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
    // It runs as the agent does.
    judge_path(path)?;
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
pub(super) fn understand(text: &[u8]) -> Result<(String, Vec<String>), String> {
    let wrong = |what: &str| {
        format!("--describe {what}; expected {{\"name\": \"…\", \"version\": \"0.0.1\"}}")
    };
    let value: Value = serde_json::from_slice(text)
        .map_err(|error| wrong(&format!("printed no JSON ({error})")))?;
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    let name = value["name"].as_str().unwrap_or_default();
    if name == LOCAL_SHELL {
        return Err(format!(
            "{LOCAL_SHELL} is the agent's own: choose another name"
        ));
    }
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
