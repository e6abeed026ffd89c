//! The `console` topic (PROTOCOL §7), both ways.

use std::sync::Arc;

use serde_json::Value;

use super::fields::number;
use super::file::{FileEvent, FilePush};
use super::json::json;
use super::phoenix::WireError;

/// Larger windows are taken for a mistake: a program may allocate what it is told.
const MAX_SIDE: u64 = 1000;

/// Events on the topic, server → device.
#[derive(Clone, Debug, PartialEq)]
pub enum ConsoleEvent {
    /// `dn`: keys pressed, or text pasted.
    Keys(String),
    WindowSize(WindowSize),
    Restart,
    File(FileEvent),
    /// What people at the hub write to each other.
    Chat,
}

/// Pushes on the topic, device → server.
#[derive(Clone, Debug, PartialEq)]
pub enum ConsolePush {
    /// `up`: what the terminal shows next. Shared with the copy that is kept until the hub
    /// has it.
    Output(Arc<str>),
    File(FilePush),
}

/// A terminal's size in characters; each side from 1 to 1000.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowSize {
    pub rows: u16,
    pub cols: u16,
}

impl Default for WindowSize {
    fn default() -> Self {
        Self { rows: 24, cols: 80 }
    }
}

impl WindowSize {
    /// The console calls its sides `height` and `width`, the local shell `rows` and `cols`;
    /// recorded hubs sent it the other names, too.
    ///
    /// # Errors
    /// A side that is missing or no number.
    pub(super) fn parse(payload: &Value) -> Result<Self, WireError> {
        let side = |name: &str, other: &str| {
            let side = number(payload, name).or_else(|| number(payload, other));
            let side = side.ok_or_else(|| WireError(format!("window_size: no {name}")))?;
            Ok(side.clamp(1, MAX_SIDE) as u16)
        };
        Ok(Self {
            rows: side("rows", "height")?,
            cols: side("cols", "width")?,
        })
    }
}

/// The event; `None` when there is no such one.
///
/// # Errors
/// A payload that makes no sense; the text names the field.
pub(super) fn parse(event: &str, payload: &Value) -> Result<Option<ConsoleEvent>, WireError> {
    Ok(Some(match event {
        "dn" => ConsoleEvent::Keys(data(payload, event)?),
        "window_size" => ConsoleEvent::WindowSize(WindowSize::parse(payload)?),
        "restart" => ConsoleEvent::Restart,
        "message" => ConsoleEvent::Chat,
        _ => return Ok(FileEvent::parse(event, payload).map(ConsoleEvent::File)),
    }))
}

/// Never clipped: every character of it matters.
pub(super) fn data(payload: &Value, event: &str) -> Result<String, WireError> {
    let data = payload.get("data").and_then(Value::as_str);
    let data = data.ok_or_else(|| WireError(format!("{event}: no data")))?;
    Ok(data.to_owned())
}

impl ConsolePush {
    pub(super) fn parts(&self) -> (&'static str, Value) {
        match self {
            Self::Output(text) => ("up", json!({"data": &**text})),
            Self::File(push) => push.parts(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_are_taken_as_they_are() {
        let keys = "\u{3}\u{1b}[A\0é€𝄞\r".repeat(100);
        let parsed = parse("dn", &json!({"data": keys})).expect("keys");
        assert_eq!(parsed, Some(ConsoleEvent::Keys(keys)));
        for payload in [json!({}), json!({"data": 7}), json!(null)] {
            assert!(parse("dn", &payload).is_err(), "{payload}");
        }
    }

    #[test]
    fn sizes_are_clamped_and_need_both_sides() {
        let size = |payload: Value| parse("window_size", &payload).ok().flatten();
        let expected = |rows, cols| Some(ConsoleEvent::WindowSize(WindowSize { rows, cols }));
        assert_eq!(size(json!({"height": 50, "width": 132})), expected(50, 132));
        assert_eq!(size(json!({"height": "50", "width": 0})), expected(50, 1));
        let huge = json!({"height": u64::MAX, "width": 70_000});
        assert_eq!(size(huge), expected(1000, 1000));
        for payload in [
            json!({"height": 5}),
            json!({"height": -5, "width": 8}),
            json!([]),
        ] {
            assert_eq!(size(payload.clone()), None, "{payload}");
        }
    }

    #[test]
    fn other_events_are_not_ours() {
        assert_eq!(parse("file-data/unknown", &json!({})).expect("none"), None);
        let chat = parse(
            "message",
            &json!({"name": "x", "event": "closed the console"}),
        );
        assert_eq!(chat.expect("chat"), Some(ConsoleEvent::Chat));
    }
}
