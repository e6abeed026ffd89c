//! Messages of the control socket: one JSON object per line. Pure. Owns the names of
//! methods, parameters and error codes, which are an interface (etc/doc/control.md).

use std::fmt;
use std::path::PathBuf;

use serde_json::{Map, Value};

use super::fields::cut;
use super::json::json;
use super::occurrence::{Kind, Kinds, Occurrence};
use super::verdict::Question;
use super::{DevicePush, Stage};

/// Raised when an old client would misunderstand.
pub const PROTOCOL: u64 = 1;
/// Longest line taken, in bytes.
pub const MAX_LINE: usize = 64 * 1024;
/// Longest text id that is given back.
const MAX_ID: usize = 128;

/// What a client says.
#[derive(Clone, Debug, PartialEq)]
pub enum Incoming {
    Request(Request),
    /// To a question put to the decider.
    Verdict {
        question: u64,
        text: String,
    },
}

/// A question to the agent.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Given back with the answer: a number, a text or null.
    pub id: Value,
    pub method: Method,
}

/// What the agent can be asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum Method {
    Status,
    Connected,
    Reconnect,
    UpdateStatus,
    /// Mark the running firmware valid.
    Validate,
    /// Somebody has marked it: look now.
    Validated,
    SendStatus(DevicePush),
    SetAlarm {
        name: String,
        description: String,
    },
    ClearAlarm(String),
    ListAlarms,
    Subscribe(Kinds),
    /// Be asked for decisions from now on.
    Decide,
    SendFile {
        path: PathBuf,
        /// Tell how far it is.
        progress: bool,
    },
    CancelFile,
    /// Install the firmware in this file.
    Apply {
        path: PathBuf,
        /// Whatever the rules say of its uuid and version.
        force: bool,
        /// Tell how far it is.
        progress: bool,
    },
    /// The business of an extension, which looks at the parameters itself.
    Extension {
        name: &'static str,
        what: &'static str,
        params: Value,
    },
}

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub code: Code,
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Not a message of this protocol.
    BadRequest,
    UnknownMethod,
    BadParams,
    /// Right, but not now: too many of something.
    Busy,
    /// Not on this device, or not with these settings.
    Unavailable,
    /// The hub cannot be told.
    NotConnected,
    Refused,
    /// It was tried.
    Failed,
}

/// What the agent says.
#[derive(Clone, Debug, PartialEq)]
pub enum Outgoing {
    Result {
        id: Value,
        result: Value,
    },
    Error {
        id: Value,
        fault: Fault,
    },
    /// How far that request is.
    Progress {
        id: Value,
        progress: Value,
    },
    Event(Occurrence),
    Question(u64, Question),
    /// The question needs no answer any more.
    Withdrawn(u64),
}

impl Code {
    pub fn name(self) -> &'static str {
        match self {
            Self::BadRequest => "bad-request",
            Self::UnknownMethod => "unknown-method",
            Self::BadParams => "bad-params",
            Self::Busy => "busy",
            Self::Unavailable => "unavailable",
            Self::NotConnected => "not-connected",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

impl Fault {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code.name())
    }
}

/// The first line a client reads.
pub fn hello(agent: &str, identifier: &str) -> String {
    let hello = json!({"protocol": PROTOCOL, "agent": agent, "identifier": identifier});
    line(&json!({ "hello": hello }))
}

/// A message as it goes over the socket.
pub fn line(value: &Value) -> String {
    let mut text = value.to_string();
    text.push('\n');
    text
}

impl Outgoing {
    /// The answer to nonsense that has no id.
    pub fn nonsense(code: Code, message: impl Into<String>) -> Self {
        Self::Error {
            id: Value::Null,
            fault: Fault::new(code, message),
        }
    }

    /// Each line of a client is answered by one of these.
    pub fn is_answer(&self) -> bool {
        match self {
            Self::Result { .. } | Self::Error { .. } => true,
            Self::Progress { .. } | Self::Event(_) | Self::Question(..) | Self::Withdrawn(_) => {
                false
            }
        }
    }

    /// As it goes out.
    pub fn line(&self) -> String {
        line(&match self {
            Self::Result { id, result } => json!({ "id": id, "result": result }),
            Self::Error { id, fault } => {
                let error = json!({"code": fault.code.name(), "message": fault.message});
                json!({ "id": id, "error": error })
            }
            Self::Progress { id, progress } => json!({ "id": id, "progress": progress }),
            Self::Event(occurrence) => {
                let mut event = occurrence.fields();
                event["event"] = json!(occurrence.name());
                event
            }
            Self::Question(id, question) => {
                let name = question.asked().name();
                json!({ "question": id, "ask": name, "about": question.subject() })
            }
            Self::Withdrawn(id) => json!({ "withdrawn": id }),
        })
    }
}

/// Understands one line.
///
/// # Errors
/// The answer to give instead.
pub fn parse(line: &[u8]) -> Result<Incoming, Outgoing> {
    let bad = |message: &str| Outgoing::nonsense(Code::BadRequest, message);
    let value = serde_json::from_slice(line)
        .map_err(|error| bad(&format!("not one line of JSON: {error}")))?;
    let Value::Object(mut message) = value else {
        return Err(bad("not a JSON object"));
    };
    let mut take = |name: &str| message.get_mut(name).map(Value::take);
    if let Some(answer) = take("answer") {
        let question = message.get("question").and_then(Value::as_u64);
        return match (question, answer) {
            (Some(question), Value::String(text)) => Ok(Incoming::Verdict { question, text }),
            _ => Err(bad(
                "an answer needs the number of its \"question\" and a text",
            )),
        };
    }
    let id = take("id").unwrap_or_default();
    let is_short = match &id {
        Value::Null | Value::Number(_) => true,
        Value::String(text) => text.len() <= MAX_ID,
        Value::Bool(_) | Value::Array(_) | Value::Object(_) => false,
    };
    if !is_short {
        return Err(bad("\"id\" is neither a number nor a short text"));
    }
    match method(&message) {
        Ok(method) => Ok(Incoming::Request(Request { id, method })),
        Err(fault) => Err(Outgoing::Error { id, fault }),
    }
}

fn method(message: &Map<String, Value>) -> Result<Method, Fault> {
    let Some(name) = message.get("method").and_then(Value::as_str) else {
        let text = "no \"method\": see etc/doc/control.md";
        return Err(Fault::new(Code::BadRequest, text));
    };
    let empty = Map::new();
    let params = match message.get("params") {
        None | Some(Value::Null) => Params(&empty),
        Some(Value::Object(params)) => Params(params),
        Some(_) => return Err(bad_params("\"params\" is not an object")),
    };
    Ok(match name {
        "status" => Method::Status,
        "connected" => Method::Connected,
        "reconnect" => Method::Reconnect,
        "update-status" => Method::UpdateStatus,
        "validate" => Method::Validate,
        "validated" => Method::Validated,
        "send-status" => Method::SendStatus(status_update(params)?),
        "alarm-set" => Method::SetAlarm {
            name: params.text("name")?,
            description: params.optional_text("description")?.unwrap_or_default(),
        },
        "alarm-clear" => Method::ClearAlarm(params.text("name")?),
        "alarms" => Method::ListAlarms,
        "subscribe" => Method::Subscribe(params.kinds()?),
        "decide" => Method::Decide,
        "send-file" => Method::SendFile {
            path: params.path("path")?,
            progress: params.flag("progress"),
        },
        "cancel-file" => Method::CancelFile,
        "apply" => Method::Apply {
            path: params.path("path")?,
            force: params.flag("force"),
            progress: params.flag("progress"),
        },
        "health" => params.for_extension("health", "report"),
        "health-send" => params.for_extension("health", "send"),
        "metrics" => params.for_extension("health", "set"),
        "log" => params.for_extension("logging", "line"),
        "identities" => params.for_extension("network_identity", "set"),
        _ => {
            let text = format!("no such method: {:?}", cut(name, 40));
            return Err(Fault::new(Code::UnknownMethod, text));
        }
    })
}

/// PROTOCOL §3: anything else would crash the hub's channel.
fn status_update(params: Params) -> Result<DevicePush, Fault> {
    let status = params.text("status")?;
    let progress = |stage| {
        let value = params.number("value", 100)?;
        // At most 100.
        let value = value as u8;
        Ok(DevicePush::Progress { stage, value })
    };
    Ok(match status.as_str() {
        "received" => DevicePush::Received,
        "started" => DevicePush::Started { interface: None },
        "downloading" => progress(Stage::Downloading)?,
        "updating" => progress(Stage::Updating)?,
        "completed" => DevicePush::Completed,
        "ignored" => DevicePush::Ignored {
            reason: params.text("reason")?,
        },
        "rescheduled" => DevicePush::Rescheduled {
            delay: params.number("seconds", u64::from(u32::MAX))? * 1000,
            reason: params.optional_text("reason")?,
        },
        "failed" => DevicePush::Failed {
            reason: params.text("reason")?,
        },
        _ => {
            return Err(bad_params(
                "\"status\" is none of received, started, downloading, updating, completed, \
                 ignored, rescheduled, failed",
            ));
        }
    })
}

fn bad_params(message: impl Into<String>) -> Fault {
    Fault::new(Code::BadParams, message)
}

/// The parameters of a request. Unknown ones are nobody's business: a newer client's.
#[derive(Clone, Copy)]
struct Params<'a>(&'a Map<String, Value>);

impl Params<'_> {
    fn for_extension(self, name: &'static str, what: &'static str) -> Method {
        Method::Extension {
            name,
            what,
            params: Value::Object(self.0.clone()),
        }
    }

    fn text(&self, name: &str) -> Result<String, Fault> {
        let text = self.optional_text(name)?.filter(|text| !text.is_empty());
        text.ok_or_else(|| bad_params(format!("{name:?} is missing")))
    }

    /// The agent's working folder is nobody's business.
    fn path(&self, name: &str) -> Result<PathBuf, Fault> {
        let path = PathBuf::from(self.text(name)?);
        match path.is_absolute() {
            true => Ok(path),
            false => Err(bad_params(format!("{name:?} does not begin with a /"))),
        }
    }

    fn flag(&self, name: &str) -> bool {
        self.0.get(name) == Some(&Value::Bool(true))
    }

    fn optional_text(&self, name: &str) -> Result<Option<String>, Fault> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(bad_params(format!("{name:?} is not a text"))),
        }
    }

    fn number(&self, name: &str, most: u64) -> Result<u64, Fault> {
        let number = self.0.get(name).and_then(Value::as_u64);
        number
            .filter(|number| *number <= most)
            .ok_or_else(|| bad_params(format!("{name:?} is not a number from 0 to {most}")))
    }

    /// Without any: all of them.
    fn kinds(&self) -> Result<Kinds, Fault> {
        let unknown = || {
            let all: Kinds = Kind::ALL.into_iter().collect();
            let names = all.names().join(", ");
            bad_params(format!("\"events\" is not a list of some of: {names}"))
        };
        match self.0.get("events") {
            None | Some(Value::Null) => Ok(Kind::ALL.into_iter().collect()),
            Some(Value::Array(names)) => names
                .iter()
                .map(|name| Kind::parse(name.as_str()?))
                .collect::<Option<Kinds>>()
                .filter(|kinds| !kinds.is_empty())
                .ok_or_else(unknown),
            Some(_) => Err(unknown()),
        }
    }
}

#[cfg(test)]
mod tests;
