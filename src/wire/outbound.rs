//! What the agent says to the hub, as types; turned into frames here only.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::console::ConsolePush;
use super::extensions::ExtensionPush;
use super::json::json;
use super::phoenix::{self, Encoded, Topic, WireError};
use crate::config::Serializer;

/// One message on its way out, references assigned.
#[derive(Clone, Debug, PartialEq)]
pub struct Push {
    pub join_ref: Option<u64>,
    pub reference: u64,
    pub body: Outbound,
}

/// Everything the agent can say.
#[derive(Clone, Debug, PartialEq)]
pub enum Outbound {
    Heartbeat,
    Join(Topic, Map<String, Value>),
    Device(DevicePush),
    Console(ConsolePush),
    Extension(ExtensionPush),
}

/// What became of a support script.
#[derive(Clone, Debug, PartialEq)]
pub struct ScriptAnswer {
    /// What the hub knows it by.
    pub reference: String,
    pub output: String,
    /// Its exit status; or why there is none.
    pub result: Result<i32, String>,
}

/// Pushes on the `device` topic (PROTOCOL §3, device → server).
#[derive(Clone, Debug, PartialEq)]
pub enum DevicePush {
    Received,
    Started {
        interface: Option<String>,
    },
    Completed,
    Ignored {
        reason: String,
    },
    /// `delay` in milliseconds.
    Rescheduled {
        delay: u64,
        reason: Option<String>,
    },
    Failed {
        reason: String,
    },
    Progress {
        stage: Stage,
        value: u8,
    },
    FirmwareValidated,
    Rebooting,
    NetworkInterface(String),
    Script(ScriptAnswer),
}

/// Which half of an update a percentage speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Downloading,
    Updating,
}

impl Stage {
    pub fn name(self) -> &'static str {
        match self {
            Self::Downloading => "downloading",
            Self::Updating => "updating",
        }
    }
}

impl Push {
    /// The frame's bytes.
    ///
    /// # Errors
    /// See [`phoenix::encode`].
    pub fn encode(&self, serializer: Serializer) -> Result<Encoded, WireError> {
        let (topic, event, payload) = self.body.parts();
        phoenix::encode(
            serializer,
            self.join_ref,
            self.reference,
            topic,
            &event,
            &payload,
        )
    }
}

impl Outbound {
    /// Topic, event and payload of the frame.
    pub fn parts(&self) -> (Topic, Cow<'static, str>, Value) {
        match self {
            Self::Heartbeat => (Topic::Phoenix, "heartbeat".into(), json!({})),
            Self::Join(topic, payload) => {
                (*topic, "phx_join".into(), Value::Object(payload.clone()))
            }
            Self::Device(push) => {
                let (event, payload) = push.parts();
                (Topic::Device, event.into(), payload)
            }
            Self::Console(push) => {
                let (event, payload) = push.parts();
                (Topic::Console, event.into(), payload)
            }
            Self::Extension(push) => {
                let (event, payload) = push.parts();
                (Topic::Extensions, event.into(), payload)
            }
        }
    }

    /// The sender wants to know when the kernel has taken it, so as not to be ahead of it.
    pub fn wants_receipt(&self) -> bool {
        match self {
            Self::Console(_) | Self::Extension(_) => true,
            Self::Heartbeat | Self::Join(..) | Self::Device(_) => false,
        }
    }
}

impl ScriptAnswer {
    fn payload(&self) -> Value {
        match &self.result {
            Ok(status) => json!({
                "ref": self.reference,
                "result": "completed",
                "output": self.output,
                "return": status.to_string(),
            }),
            Err(reason) => json!({
                "ref": self.reference,
                "result": "error",
                "reason": reason,
                "output": self.output,
                "return": "",
            }),
        }
    }
}

impl DevicePush {
    fn parts(&self) -> (&'static str, Value) {
        let status = "status_update";
        match self {
            Self::Received => (status, json!({"status": "received"})),
            Self::Started { interface } => (
                status,
                json!({"status": "started", "downloader_network_interface": interface}),
            ),
            Self::Completed => (status, json!({"status": "completed"})),
            Self::Ignored { reason } => (status, json!({"status": "ignored", "reason": reason})),
            Self::Rescheduled { delay, reason } => {
                let mut payload = json!({"status": "rescheduled", "delay_for": delay});
                if let Some(reason) = reason {
                    payload["reason"] = json!(reason);
                }
                (status, payload)
            }
            Self::Failed { reason } => (status, json!({"status": "failed", "reason": reason})),
            Self::Progress { stage, value } => (
                "fwup_progress",
                json!({"stage": stage.name(), "value": value}),
            ),
            Self::FirmwareValidated => ("firmware_validated", json!({})),
            Self::Rebooting => ("rebooting", json!({})),
            Self::NetworkInterface(name) => {
                ("report_network_interface", json!({"interface": name}))
            }
            Self::Script(answer) => ("scripts/run", answer.payload()),
        }
    }
}
