//! The `extensions` topic (PROTOCOL §8), both ways: which extensions there are, what they
//! are called, and what is said for each.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::console::{WindowSize, data};
use super::fields::{clip, number};
use super::json::json;
use super::phoenix::WireError;

/// At most this many names are taken from the hub at once.
const MAX_NAMES: usize = 32;
/// What `kill_shell` sends when it names no signal.
const SIGTERM: i32 = 15;

/// The one that is a shell of the core's, not a thread of its own.
pub const LOCAL_SHELL: &str = "local_shell";
pub const LOCAL_SHELL_VERSIONS: [&str; 1] = ["0.0.1"];

/// An extension as the hub hears of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offered {
    pub name: String,
    /// Newest first.
    pub versions: Vec<String>,
}

/// Names and versions of the extensions the hub takes, as `extensions:get` tells them.
pub type Advertised = BTreeMap<String, Vec<String>>;

/// Events on the topic, server → device.
#[derive(Clone, Debug, PartialEq)]
pub enum ExtensionsEvent {
    Attach(Selection),
    Detach(Selection),
    LocalShell(LocalShellEvent),
    /// `NAME:EVENT` of any other extension.
    Said(Said),
    /// Of no extension.
    Unknown(String),
}

/// Something said for one extension, in either direction.
#[derive(Clone, Debug, PartialEq)]
pub struct Said {
    pub name: String,
    pub event: String,
    pub payload: Value,
}

/// What `attach` and `detach` are about.
#[derive(Clone, Debug, PartialEq)]
pub enum Selection {
    All,
    Names(Vec<String>),
}

/// Events of `local_shell`, server → device.
#[derive(Clone, Debug, PartialEq)]
pub enum LocalShellEvent {
    Request,
    Input(String),
    WindowSize(WindowSize),
    Kill { signal: i32 },
}

/// Pushes on the topic, device → server.
#[derive(Clone, Debug, PartialEq)]
pub enum ExtensionPush {
    Attached(String),
    Detached(String),
    /// The name may be one that only the hub knows.
    Error {
        name: String,
        reason: String,
    },
    Said(Said),
    /// `request_status`; `Err` says why there is no shell.
    ShellStatus(Result<(), String>),
    ShellOutput(Arc<str>),
    ShellExited {
        code: i32,
    },
}

/// The payload of `extensions:get`; `None`: the hub does not say what it takes.
pub(super) fn advertised(payload: &Value) -> Option<Advertised> {
    let list = payload.get("extensions").and_then(Value::as_object)?;
    let mut advertised = Advertised::new();
    // One by one: collecting would bring in a whole sort.
    for (name, list) in list.iter().take(MAX_NAMES) {
        advertised.insert(clip(name), names(list));
    }
    Some(advertised)
}

/// The texts of a list, or a single one.
pub(super) fn names(value: &Value) -> Vec<String> {
    match value {
        Value::String(name) => vec![clip(name)],
        Value::Array(list) => {
            let texts = list.iter().filter_map(Value::as_str);
            texts.take(MAX_NAMES).map(clip).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => Vec::new(),
    }
}

/// # Errors
/// A known event whose payload makes no sense; the text names the field.
pub(super) fn parse(event: &str, payload: &Value) -> Result<ExtensionsEvent, WireError> {
    let shell = match event {
        "attach" => return Ok(ExtensionsEvent::Attach(selection(payload))),
        "detach" => return Ok(ExtensionsEvent::Detach(selection(payload))),
        "local_shell:request_shell" => LocalShellEvent::Request,
        "local_shell:shell_input" => LocalShellEvent::Input(data(payload, event)?),
        "local_shell:window_size" => LocalShellEvent::WindowSize(WindowSize::parse(payload)?),
        "local_shell:kill_shell" => LocalShellEvent::Kill {
            signal: signal(payload),
        },
        other => {
            return Ok(match other.split_once(':') {
                Some((name, event)) if name != LOCAL_SHELL => ExtensionsEvent::Said(Said {
                    name: clip(name),
                    event: clip(event),
                    payload: payload.clone(),
                }),
                Some(_) | None => ExtensionsEvent::Unknown(clip(other)),
            });
        }
    };
    Ok(ExtensionsEvent::LocalShell(shell))
}

fn selection(payload: &Value) -> Selection {
    match payload.get("extensions") {
        Some(Value::String(word)) if word == "all" => Selection::All,
        other => Selection::Names(other.map(names).unwrap_or_default()),
    }
}

fn signal(payload: &Value) -> i32 {
    let given = number(payload, "signal").filter(|given| (1..=64).contains(given));
    given.map_or(SIGTERM, |given| given as i32)
}

impl ExtensionPush {
    pub(super) fn parts(&self) -> (String, Value) {
        let of_shell = |event: &str| format!("{LOCAL_SHELL}:{event}");
        let nothing = || Value::Object(Map::new());
        match self {
            Self::Attached(name) => (format!("{name}:attached"), nothing()),
            Self::Detached(name) => (format!("{name}:detached"), nothing()),
            Self::Error { name, reason } => (format!("{name}:error"), json!({"reason": reason})),
            Self::Said(Said {
                name,
                event,
                payload,
            }) => (format!("{name}:{event}"), payload.clone()),
            Self::ShellStatus(status) => {
                let payload = match status {
                    Ok(()) => json!({"status": "started"}),
                    Err(reason) => json!({"status": "failed", "reason": reason}),
                };
                (of_shell("request_status"), payload)
            }
            Self::ShellOutput(text) => (of_shell("shell_output"), json!({"data": &**text})),
            Self::ShellExited { code } => (of_shell("shell_exited"), json!({"exit_code": code})),
        }
    }
}

/// The newest version that the hub takes, too. One that does not say what it takes is older
/// than newer versions: it is offered the oldest.
pub fn agreed<'a>(offered: &'a Offered, advertised: Option<&Advertised>) -> Option<&'a str> {
    let mut versions = offered.versions.iter();
    let version = match advertised {
        None => versions.next_back(),
        Some(hub) => {
            let listed = hub.get(&offered.name)?;
            versions.find(|version| listed.contains(version))
        }
    };
    version.map(String::as_str)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn offers_are_narrowed_to_what_the_hub_takes() {
        let shell = Offered {
            name: LOCAL_SHELL.to_owned(),
            versions: vec!["0.1.0".to_owned(), "0.0.1".to_owned()],
        };
        assert_eq!(agreed(&shell, None), Some("0.0.1"));
        assert_eq!(advertised(&json!({})), None);
        for (listed, expected) in [
            (
                json!({"local_shell": ["0.0.1", "0.2.0"], "geo": []}),
                Some("0.0.1"),
            ),
            (json!({"local_shell": ["0.0.1", "0.1.0"]}), Some("0.1.0")),
            (json!({"local_shell": "0.0.1"}), Some("0.0.1")),
            (json!({"local_shell": ["0.2.0"]}), None),
            (json!({"local_shell": []}), None),
            (json!({"geo": ["0.0.1"]}), None),
            (json!({}), None),
        ] {
            let hub = advertised(&json!({"extensions": listed}));
            assert_eq!(agreed(&shell, hub.as_ref()), expected, "{listed}");
        }
    }

    #[test]
    fn what_is_said_is_taken_apart_at_the_first_colon() {
        let parsed = parse("geo:location:request", &json!({"a": 1})).expect("said");
        let expected = ExtensionsEvent::Said(Said {
            name: "geo".to_owned(),
            event: "location:request".to_owned(),
            payload: json!({"a": 1}),
        });
        assert_eq!(parsed, expected);
        for unknown in ["hello", "local_shell:hello"] {
            let parsed = parse(unknown, &json!({})).expect("unknown");
            assert_eq!(parsed, ExtensionsEvent::Unknown(unknown.to_owned()));
        }
    }

    #[test]
    fn selections_are_all_a_name_or_a_list() {
        for (payload, expected) in [
            (json!({"extensions": "all"}), Selection::All),
            (
                json!({"extensions": "geo"}),
                Selection::Names(vec!["geo".into()]),
            ),
            (
                json!({"extensions": ["geo", 7]}),
                Selection::Names(vec!["geo".into()]),
            ),
            (json!({}), Selection::Names(vec![])),
        ] {
            let parsed = parse("attach", &payload).expect("attach");
            assert_eq!(parsed, ExtensionsEvent::Attach(expected), "{payload}");
        }
    }

    #[test]
    fn signals_default_to_the_polite_one() {
        for (payload, expected) in [
            (json!({}), 15),
            (json!({"signal": 2}), 2),
            (json!({"signal": "9"}), 9),
            (json!({"signal": 0}), 15),
            (json!({"signal": 4_000_000_000_u64}), 15),
            (json!(null), 15),
        ] {
            let parsed = parse("local_shell:kill_shell", &payload).expect("kill");
            let signal = expected;
            let expected = ExtensionsEvent::LocalShell(LocalShellEvent::Kill { signal });
            assert_eq!(parsed, expected, "{payload}");
        }
    }
}
