//! The `console` topic, both ways (PROTOCOL §7).

use std::sync::Arc;

use serde_json::{Value, json};

use super::file::{FileEvent, FilePush};

/// Events on the topic, server → device.
#[derive(Clone, Debug, PartialEq)]
pub enum ConsoleEvent {
    File(FileEvent),
}

/// Pushes on the topic, device → server.
#[derive(Clone, Debug, PartialEq)]
pub enum ConsolePush {
    /// `up`: what the terminal shows next.
    Output(Arc<str>),
    File(FilePush),
}

/// The event; `None` when there is no such one.
pub(super) fn parse(event: &str, payload: &Value) -> Option<ConsoleEvent> {
    FileEvent::parse(event, payload).map(ConsoleEvent::File)
}

impl ConsolePush {
    pub(super) fn parts(&self) -> (&'static str, Value) {
        match self {
            Self::Output(text) => ("up", json!({"data": **text})),
            Self::File(push) => push.parts(),
        }
    }
}
