//! The `extensions` topic (PROTOCOL §8), both ways: which extensions there are, what they
//! are called, and what is said for each.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::console::{WindowSize, data};
use super::inbound::{clip, number};
use super::json::json;
use super::phoenix::WireError;

/// At most this many names are taken from the hub at once.
const MAX_NAMES: usize = 32;
/// What `kill_shell` sends when it names no signal.
const SIGTERM: i32 = 15;

/// An extension this agent knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extension {
    LocalShell,
}

impl Extension {
    pub const ALL: [Self; 1] = [Self::LocalShell];

    pub fn name(self) -> &'static str {
        match self {
            Self::LocalShell => "local_shell",
        }
    }

    /// Newest first.
    pub fn versions(self) -> &'static [&'static str] {
        match self {
            Self::LocalShell => &["0.0.1"],
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.name() == name)
    }
}

/// Names and versions of the extensions the hub takes, as `extensions:get` tells them.
pub type Advertised = BTreeMap<String, Vec<String>>;

/// Events on the topic, server → device.
#[derive(Clone, Debug, PartialEq)]
pub enum ExtensionsEvent {
    Attach(Selection),
    Detach(Selection),
    LocalShell(LocalShellEvent),
    /// Of no extension this agent has.
    Unknown(String),
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
    Attached(Extension),
    Detached(Extension),
    /// The name is the hub's.
    Error {
        name: String,
        reason: String,
    },
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
    let entries = list.iter().take(MAX_NAMES);
    Some(
        entries
            .map(|(name, list)| (clip(name), names(list)))
            .collect(),
    )
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
        other => return Ok(ExtensionsEvent::Unknown(clip(other))),
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
        let of_shell = |event: &str| format!("{}:{event}", Extension::LocalShell.name());
        match self {
            Self::Attached(extension) => (format!("{}:attached", extension.name()), json!({})),
            Self::Detached(extension) => (format!("{}:detached", extension.name()), json!({})),
            Self::Error { name, reason } => (format!("{name}:error"), json!({"reason": reason})),
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

/// The join's payload: what is offered, with the newest version that the hub takes.
pub fn offer(enabled: &[Extension], advertised: Option<&Advertised>) -> Map<String, Value> {
    let mut payload = Map::new();
    for extension in enabled {
        let takes = |version: &&&str| {
            advertised.is_none_or(|hub| {
                let listed = hub.get(extension.name());
                listed.is_some_and(|versions| versions.iter().any(|other| other == **version))
            })
        };
        if let Some(version) = extension.versions().iter().find(takes) {
            payload.insert(extension.name().to_owned(), json!(version));
        }
    }
    payload
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn offers_are_narrowed_to_what_the_hub_takes() {
        let all = Extension::ALL;
        let hub = |payload: Value| advertised(&payload);
        let everything = json!({"local_shell": "0.0.1"});
        assert_eq!(Value::from(offer(&all, None)), everything);
        assert_eq!(hub(json!({})), None);
        for (listed, offered) in [
            (json!({"local_shell": ["0.0.1", "0.2.0"], "geo": []}), true),
            (json!({"local_shell": "0.0.1"}), true),
            (json!({"local_shell": ["0.2.0"]}), false),
            (json!({"local_shell": []}), false),
            (json!({"geo": ["0.0.1"]}), false),
            (json!({}), false),
        ] {
            let advertised = hub(json!({"extensions": listed}));
            let payload = offer(&all, advertised.as_ref());
            assert_eq!(payload.contains_key("local_shell"), offered, "{listed}");
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
