//! What `journalctl -o json` prints, one entry a line, to log lines. Pure.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::line::{Line, text};
use super::ring::Intake;
use super::syslog::{is_ours, source};
use crate::config::extensions::Severity;

/// Longest entry: a byte of a binary message takes four.
pub const ENTRY_MAX: usize = 64 * 1024;
/// An entry is not older: it was written while we followed.
const OLD: Duration = Duration::from_secs(3600);

/// New entries, with the fields that are used; `--all` for long ones would be null.
pub fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.args(["-o", "json", "-f", "-n", "0", "--all", "--output-fields"]);
    command.arg("MESSAGE,PRIORITY,SYSLOG_IDENTIFIER,_SYSTEMD_UNIT,_PID");
    command
}

/// One entry; `unix` is the time of day in microseconds.
pub fn entry(bytes: &[u8], unix: i64, intake: &Intake) {
    match serde_json::from_slice(bytes) {
        Ok(entry) => {
            if let Some(line) = line(&entry, unix) {
                intake.put(line);
            }
        }
        Err(_) if bytes.is_empty() => {}
        // Too long mostly, and cut.
        Err(_) => intake.lost(1),
    }
}

fn line(entry: &Value, unix: i64) -> Option<Line> {
    let field = |name: &str| entry.get(name).and_then(Value::as_str);
    let priority = field("PRIORITY").and_then(|priority| priority.parse().ok());
    let level = priority.map_or(Severity::INFO, Severity::of_priority);
    let mut meta = source("journald");
    for (name, from) in [
        ("application", "SYSLOG_IDENTIFIER"),
        ("unit", "_SYSTEMD_UNIT"),
        ("pid", "_PID"),
    ] {
        if let Some(value) = field(from) {
            meta.push((name.into(), value.to_owned().into()));
        }
    }
    // Whatever it is called: it may have been started by a script.
    if is_ours("nerveshub-agent", field("_PID").or(Some(""))) {
        return None;
    }
    let mut line = match entry.get("MESSAGE")? {
        Value::String(message) => Line::new(level, message, meta),
        // Of several messages, the first; else bytes that are no text.
        Value::Array(several) => match several.first().and_then(Value::as_str) {
            Some(first) => Line::new(level, first, meta),
            None => {
                let byte = |value: &Value| value.as_u64().unwrap_or_default() as u8;
                let bytes: Vec<u8> = several.iter().map(byte).collect();
                Line::new(level, &text(&bytes), meta)
            }
        },
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
    }?;
    let written = field("__REALTIME_TIMESTAMP").and_then(|time| time.parse::<i64>().ok());
    if let Some(written) = written
        && let Ok(age) = u64::try_from(unix.saturating_sub(written))
        && Duration::from_micros(age) < OLD
        && let Some(at) = Instant::now().checked_sub(Duration::from_micros(age))
    {
        line.at = at;
    }
    Some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_and_binary_messages() {
        let intake = Intake::new(Severity::DEBUG, 100);
        for said in [
            r#"{"MESSAGE":"up","PRIORITY":"4","_SYSTEMD_UNIT":"a.service","_PID":"7","SYSLOG_IDENTIFIER":"a","__REALTIME_TIMESTAMP":"1700000000000000"}"#,
            r#"{"MESSAGE":[104,195,164,255,10],"PRIORITY":"7"}"#,
            r#"{"MESSAGE":["first","second"]}"#,
            r#"{"MESSAGE":null}"#,
            r#"{"MESSAGE":[]}"#,
            "{}",
            "[]",
            "",
            r#"{"MESSAGE":"cut of"#,
        ] {
            entry(said.as_bytes(), 1_700_000_005_000_000, &intake);
        }
        let lines = intake.take(100, usize::MAX);
        let shown: Vec<_> = lines
            .iter()
            .map(|line| (line.level.name(), &*line.message))
            .collect();
        assert_eq!(
            shown,
            [
                ("warning", "up"),
                ("debug", "hä\u{fffd}"),
                ("info", "first"),
                ("warning", "1 log line was dropped"),
            ]
        );
        let meta: Vec<_> = lines[0]
            .meta
            .iter()
            .map(|(k, v)| format!("{k}={v}"))
            .collect();
        assert_eq!(
            meta,
            [
                "source=journald",
                "application=a",
                "unit=a.service",
                "pid=7"
            ]
        );
        let age = lines[1].at - lines[0].at;
        assert!(
            age >= Duration::from_secs(5) && age < Duration::from_secs(6),
            "{age:?}"
        );
    }

    #[test]
    fn the_agents_own_entries_are_left_to_its_own_source() {
        let intake = Intake::new(Severity::DEBUG, 100);
        let pid = std::process::id();
        let said = format!(r#"{{"MESSAGE":"sent","SYSLOG_IDENTIFIER":"sh","_PID":"{pid}"}}"#);
        entry(said.as_bytes(), 0, &intake);
        assert_eq!(intake.take(9, usize::MAX), []);
    }
}
