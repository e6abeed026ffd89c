//! Who this device is.
//!
//! Owns the order in which an identifier is looked for. Never invents one: a device that
//! makes up an identifier would appear twice on the hub.

use std::fmt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::command::{self, CommandError};
use super::kv::KeyValues;
use crate::config::IdentifierSource;
use crate::config::error::Problem;
use crate::config::values;

/// Deadline of the commands that print an identifier.
const DEADLINE: Duration = Duration::from_secs(10);
/// Most bytes such a command may print.
const CAP: usize = 4096;
/// Where the device tree's serial number is, below the root.
const DEVICE_TREE: &str = "proc/device-tree/serial-number";

/// Why there is no identifier.
#[derive(Debug)]
pub enum IdentityError {
    /// The setting cannot be used.
    Setting(Problem),
    /// `NERVES_HUB_IDENTIFIER_COMMAND` printed none.
    Command { command: String, problem: String },
    /// No place had one; each with why not.
    NotFound { tried: Vec<String> },
}

impl fmt::Display for IdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Setting(problem) => {
                write!(f, "NERVES_HUB_IDENTIFIER {}; {}", problem.what, problem.fix)
            }
            Self::Command { command, problem } => write!(
                f,
                "NERVES_HUB_IDENTIFIER_COMMAND: {command:?}: {problem}; \
                 it must print the identifier on one line and exit with 0"
            ),
            Self::NotFound { tried } => write!(
                f,
                "this device has no identifier ({}); set NERVES_HUB_IDENTIFIER, \
                 NERVES_HUB_IDENTIFIER_COMMAND or nerves_serial_number in the U-Boot environment",
                tried.join("; ")
            ),
        }
    }
}

impl std::error::Error for IdentityError {}

/// The device's identifier: 1 to 255 bytes, no control characters.
///
/// Without a setting: `nerves_serial_number` (or `serial_number`), what the program
/// `boardid` prints when there is one, the device tree's serial number. Blocks for up to
/// 10 s while a command runs.
pub fn identifier(source: &IdentifierSource, kv: &KeyValues) -> Result<String, IdentityError> {
    match source {
        IdentifierSource::Fixed(text) => values::identifier(text).map_err(IdentityError::Setting),
        IdentifierSource::Command(text) => {
            first_line(&mut command::shell(text)).map_err(|missing| IdentityError::Command {
                command: text.clone(),
                problem: missing.to_string(),
            })
        }
        IdentifierSource::Discover => {
            let mut boardid = Command::new("boardid");
            command::without_secrets(&mut boardid);
            discover(kv, &mut boardid, Path::new("/"))
        }
    }
}

fn discover(kv: &KeyValues, boardid: &mut Command, root: &Path) -> Result<String, IdentityError> {
    type Find<'a> = &'a mut dyn FnMut() -> Result<String, Missing>;
    let mut tried = Vec::new();
    let places: [(&str, Find); 3] = [
        ("nerves_serial_number", &mut || {
            kv.serial_number().ok_or(Missing::Absent).and_then(usable)
        }),
        ("boardid", &mut || first_line(boardid)),
        ("/proc/device-tree/serial-number", &mut || device_tree(root)),
    ];
    for (name, find) in places {
        match find() {
            Ok(found) => return Ok(found),
            Err(missing) => tried.push(format!("{name}: {missing}")),
        }
    }
    Err(IdentityError::NotFound { tried })
}

/// Why a place has no identifier.
enum Missing {
    Absent,
    Unusable(&'static str, Problem),
    Other(String),
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("there is none"),
            Self::Unusable(what, problem) => write!(f, "{what} {}", problem.what),
            Self::Other(text) => f.write_str(text),
        }
    }
}

fn usable(text: &str) -> Result<String, Missing> {
    values::identifier(text.trim()).map_err(|problem| Missing::Unusable("the value", problem))
}

fn first_line(command: &mut Command) -> Result<String, Missing> {
    let output = command::capture(command, DEADLINE, CAP).map_err(|error| match &error {
        CommandError::Start { error, .. } if error.kind() == std::io::ErrorKind::NotFound => {
            Missing::Other("there is no such program".to_owned())
        }
        _ => Missing::Other(error.to_string()),
    })?;
    if !output.status.success() {
        return Err(Missing::Other(format!("it failed ({})", output.status)));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().next().unwrap_or_default().trim();
    values::identifier(line).map_err(|problem| Missing::Unusable("what it printed", problem))
}

fn device_tree(root: &Path) -> Result<String, Missing> {
    let bytes = std::fs::read(root.join(DEVICE_TREE)).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Missing::Absent,
        _ => Missing::Other(error.to_string()),
    })?;
    usable(String::from_utf8_lossy(&bytes).trim_matches('\0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On a machine with this store, device tree and (as a shell script) `boardid`.
    fn found(
        kv: &str,
        serial: Option<&[u8]>,
        boardid: Option<&str>,
    ) -> Result<String, IdentityError> {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("proc/device-tree")).unwrap();
        if let Some(serial) = serial {
            std::fs::write(root.path().join(DEVICE_TREE), serial).unwrap();
        }
        let kv = KeyValues::parse_lines(kv).unwrap();
        let mut boardid = boardid.map_or_else(|| Command::new("/no/such"), command::shell);
        discover(&kv, &mut boardid, root.path())
    }

    #[test]
    fn places_in_order() {
        let all = (Some(&b"DT-1\0"[..]), Some("echo BID-1"));
        let nerves = "nerves_serial_number=SN-1\nserial_number=SN-2\n";
        assert_eq!(found(nerves, all.0, all.1).unwrap(), "SN-1");
        assert_eq!(found("serial_number=SN-2", all.0, all.1).unwrap(), "SN-2");
        assert_eq!(found("", all.0, all.1).unwrap(), "BID-1");
        assert_eq!(found("", all.0, None).unwrap(), "DT-1");
        assert_eq!(found("", all.0, Some("exit 1")).unwrap(), "DT-1");
        assert_eq!(found("", all.0, Some("echo")).unwrap(), "DT-1");
    }

    #[test]
    fn the_error_tells_what_was_tried_and_what_to_set() {
        assert_eq!(
            found("", Some(b"\0"), None).unwrap_err().to_string(),
            "this device has no identifier (nerves_serial_number: there is none; boardid: there \
             is no such program; /proc/device-tree/serial-number: the value is empty); set \
             NERVES_HUB_IDENTIFIER, NERVES_HUB_IDENTIFIER_COMMAND or nerves_serial_number in the \
             U-Boot environment"
        );
    }

    #[test]
    fn settings() {
        let kv = KeyValues::parse_lines("nerves_serial_number=SN-1").unwrap();
        let fixed = IdentifierSource::Fixed("me".to_owned());
        assert_eq!(identifier(&fixed, &kv).unwrap(), "me");
        let command = |text: &str| identifier(&IdentifierSource::Command(text.to_owned()), &kv);
        assert_eq!(command("echo ' id-1 '; echo more").unwrap(), "id-1");
        assert_eq!(
            command("exit 2").unwrap_err().to_string(),
            "NERVES_HUB_IDENTIFIER_COMMAND: \"exit 2\": it failed (exit status: 2); it must print \
             the identifier on one line and exit with 0"
        );
        for (text, problem) in [
            ("true", "what it printed is empty"),
            (
                "printf 'a\\001b'",
                "what it printed has a control character in it",
            ),
            (
                "head -c 300 /dev/zero | tr '\\0' x",
                "what it printed is longer than 255 bytes",
            ),
        ] {
            let error = command(text).unwrap_err().to_string();
            assert!(error.contains(problem), "{error}");
        }
    }
}
