//! The agent's own log as a source. Owns what of it is not sent: what sending causes.

use std::borrow::Cow;
use std::fmt::Arguments;
use std::sync::{Arc, OnceLock};

use log::{Level, Record};

use super::line::Line;
use super::ring::Intake;
use crate::config::ExtensionSettings;
use crate::config::extensions::{LogSource, Severity};
use crate::logging;

/// Lines from the start of the log on, for an extension that is started later.
static INTAKE: OnceLock<Arc<Intake>> = OnceLock::new();

/// Who carries pushes: what they say of each at debug would be sent by another.
const CARRIERS: [&str; 7] = [
    "nerveshub_agent::agent",
    "nerveshub_agent::core::channel",
    "nerveshub_agent::core::extensions",
    "nerveshub_agent::core::link",
    "nerveshub_agent::extensions",
    "nerveshub_agent::wire",
    "nerveshub_agent::workers::socket",
];

/// To be called before the log is started: its first lines are sent, too.
pub fn listen(settings: &ExtensionSettings) {
    let is_wanted = settings.enabled.iter().any(|name| name == super::NAME)
        && settings.logging.sources.contains(&LogSource::Agent);
    if is_wanted {
        intake(settings);
        logging::tap(|record| {
            if let Some(intake) = INTAKE.get() {
                hear(intake, record);
            }
        });
    }
}

/// The one of this process.
pub(super) fn intake(settings: &ExtensionSettings) -> Arc<Intake> {
    let logging = &settings.logging;
    let intake = INTAKE.get_or_init(|| Arc::new(Intake::new(logging.level, logging.buffer)));
    Arc::clone(intake)
}

pub(super) fn hear(intake: &Intake, record: &Record) {
    let level = match record.level() {
        Level::Error => Severity::ERROR,
        Level::Warn => Severity::WARNING,
        Level::Info => Severity::INFO,
        Level::Debug => Severity::DEBUG,
        // Frames: those of lines would never end.
        Level::Trace => return,
    };
    if intake.takes(level) && !is_of_sending(record.level(), record.target(), record.args()) {
        let text = |text| Cow::Borrowed(text);
        let meta = vec![
            (text("source"), text("agent")),
            (text("application"), text("nerveshub-agent")),
        ];
        if let Some(line) = Line::new(level, &record.args().to_string(), meta) {
            intake.put(line);
        }
    }
}

/// Such lines would cause the next ones, for ever.
fn is_of_sending(level: Level, target: &str, text: &Arguments) -> bool {
    let is_carrier = CARRIERS.iter().any(|carrier| {
        let behind = target.strip_prefix(carrier);
        behind.is_some_and(|behind| behind.is_empty() || behind.starts_with("::"))
    });
    is_carrier && (level >= Level::Debug || is_about_us(target, text))
}

/// Whatever the framework says of this extension, at any level.
fn is_about_us(target: &str, text: &Arguments) -> bool {
    let ours = "nerveshub_agent::extensions::logging";
    target.contains("extensions")
        && !target.starts_with(ours)
        && text.to_string().contains(super::NAME)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(level: Level, target: &str, text: &str) -> Vec<(String, &'static str)> {
        let intake = Intake::new(Severity::DEBUG, 10);
        hear(
            &intake,
            &Record::builder()
                .level(level)
                .target(target)
                .args(format_args!("{text}"))
                .build(),
        );
        let lines = intake.take(10, usize::MAX);
        lines
            .into_iter()
            .map(|line| (line.message.into_string(), line.level.name()))
            .collect()
    }

    #[test]
    fn lines_of_sending_are_not_sent() {
        for (level, target, text) in [
            (Level::Trace, "nerveshub_agent::core::update", "x"),
            (Level::Debug, "nerveshub_agent::workers::socket", "x"),
            (Level::Debug, "nerveshub_agent::agent::extensions", "x"),
            (Level::Debug, "nerveshub_agent::extensions::logging", "x"),
            (
                Level::Warn,
                "nerveshub_agent::core::extensions",
                "a push of logging was refused",
            ),
        ] {
            assert_eq!(heard(level, target, text), [], "{target} {text}");
        }
        for (level, target, text, name) in [
            (Level::Debug, "nerveshub_agent::core::update", "x", "debug"),
            (Level::Debug, "nerveshub_agent::agents", "x", "debug"),
            (Level::Info, "nerveshub_agent::core::link", "joined", "info"),
            (
                Level::Warn,
                "nerveshub_agent::core::extensions",
                "geo is gone",
                "warning",
            ),
            (
                Level::Warn,
                "nerveshub_agent::extensions::logging::follow",
                "logging: no such file",
                "warning",
            ),
            (Level::Error, "nerveshub_agent::agent", "logging", "error"),
        ] {
            assert_eq!(heard(level, target, text), [(text.to_owned(), name)]);
        }
    }
}
