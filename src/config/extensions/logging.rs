//! Which log lines are sent to the hub.
//!
//! Owns these settings' types and how they are read.

use std::path::PathBuf;

use crate::config::error::Problem;
use crate::config::reader::Reader;
use crate::config::table::setting;

/// Which log lines are sent to the hub.
#[derive(Clone, Debug, Default)]
pub struct LoggingSettings {
    pub sources: Vec<LogSource>,
    /// The least severe that is sent.
    pub level: Severity,
    /// Lines that are held at most.
    pub buffer: usize,
    pub syslog_file: PathBuf,
}

/// Where lines come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogSource {
    /// The agent itself.
    Agent,
    Syslog,
    Kmsg,
    Journald,
    /// What this prints, run by `/bin/sh -c`.
    Command(String),
}

/// How grave a line is, as syslog counts: 0 to 7, the lower the graver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Severity(u8);

impl Severity {
    pub const ERROR: Self = Self(3);
    pub const WARNING: Self = Self(4);
    pub const INFO: Self = Self(6);
    pub const DEBUG: Self = Self(7);
    /// As the hub shows them.
    const NAMES: [&str; 8] = [
        "emergency",
        "alert",
        "critical",
        "error",
        "warning",
        "notice",
        "info",
        "debug",
    ];

    /// Of a syslog priority, whose facility is left out.
    pub fn of_priority(priority: u32) -> Self {
        // At most 7.
        Self((priority & 7) as u8)
    }

    /// By its name, or what other programs call it.
    pub fn parse(name: &str) -> Option<Self> {
        let name = match name {
            "emerg" | "panic" => "emergency",
            "crit" => "critical",
            "err" => "error",
            "warn" => "warning",
            other => other,
        };
        let found = Self::NAMES.iter().position(|known| *known == name)?;
        Some(Self::of_priority(found as u32))
    }

    pub fn name(self) -> &'static str {
        Self::NAMES[usize::from(self.0 & 7)]
    }
}

impl Default for Severity {
    fn default() -> Self {
        Self::INFO
    }
}

pub(super) fn read(r: &mut Reader) -> LoggingSettings {
    let path = r.path(setting!("NERVES_HUB_LOGGING_SYSLOG_FILE"));
    LoggingSettings {
        sources: r
            .parsed(setting!("NERVES_HUB_LOGGING_SOURCES"), sources)
            .unwrap_or_default(),
        level: r
            .parsed(setting!("NERVES_HUB_LOGGING_LEVEL"), level)
            .unwrap_or_default(),
        // At most 100 000 by the row's range.
        buffer: r.integer(setting!("NERVES_HUB_LOGGING_BUFFER")) as usize,
        syslog_file: path.unwrap_or_default(),
    }
}

fn level(text: &str) -> Result<Severity, Problem> {
    Severity::parse(text).ok_or_else(|| {
        let fix = "use error, warning, notice, info or debug";
        Problem::new("is no level", fix)
    })
}

/// Words between commas or spaces; a command has both in it, and so is the last.
fn sources(text: &str) -> Result<Vec<LogSource>, Problem> {
    let is_between = |c: char| c == ',' || c.is_whitespace();
    let mut sources = Vec::new();
    let mut rest = text.trim_start_matches(is_between);
    while !rest.is_empty() {
        if let Some(command) = rest.strip_prefix("command:") {
            if command.trim().is_empty() {
                return Err(Problem::new("names no command", "write it behind command:"));
            }
            sources.push(LogSource::Command(command.trim().to_owned()));
            break;
        }
        let (word, behind) = rest.split_at(rest.find(is_between).unwrap_or(rest.len()));
        let source = match word {
            "agent" => LogSource::Agent,
            "syslog" => LogSource::Syslog,
            "kmsg" => LogSource::Kmsg,
            "journald" => LogSource::Journald,
            _ => {
                return Err(Problem::new(
                    format!("has a source that is not known: {word:?}"),
                    "use agent, syslog, kmsg, journald, and command:CMD as the last",
                ));
            }
        };
        if !sources.contains(&source) {
            sources.push(source);
        }
        rest = behind.trim_start_matches(is_between);
    }
    Ok(sources)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_words_and_a_command_is_the_rest() {
        use LogSource::{Agent, Command, Journald, Kmsg, Syslog};
        assert_eq!(
            sources("agent, syslog kmsg,,journald agent"),
            Ok(vec![Agent, Syslog, Kmsg, Journald])
        );
        let command = Command("dmesg -w, or so".to_owned());
        assert_eq!(
            sources("kmsg,command: dmesg -w, or so "),
            Ok(vec![Kmsg, command])
        );
        assert_eq!(sources(" , "), Ok(vec![]));
        for (bad, part) in [
            ("agent,sysloog", "\"sysloog\""),
            ("agent command:  ", "no command"),
        ] {
            assert!(sources(bad).unwrap_err().what.contains(part), "{bad}");
        }
    }

    #[test]
    fn levels_are_those_of_syslog_by_any_of_their_names() {
        for (name, priority) in [("emerg", 0), ("err", 3), ("warn", 4), ("notice", 5)] {
            let level = Severity::parse(name).unwrap();
            assert_eq!(level, Severity::of_priority(8 + priority));
            assert_eq!(Severity::parse(level.name()), Some(level));
        }
        assert_eq!(Severity::parse("loud"), None);
        assert!(Severity::ERROR < Severity::WARNING && Severity::INFO < Severity::DEBUG);
        assert_eq!(Severity::default().name(), "info");
    }
}
