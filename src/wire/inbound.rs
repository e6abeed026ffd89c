//! What the hub says to the device, as types: frames and replies; the events of each topic
//! are in the module of its name. Past this module no raw JSON.

use serde_json::Value;

use super::console::{self, ConsoleEvent};
use super::device::{self, DeviceEvent, Offer};
use super::extensions::{self, ExtensionsEvent};
use super::fields::clip;
use super::phoenix::{FrameWire, Topic, WireError};

/// One understood frame.
#[derive(Clone, Debug, PartialEq)]
pub enum Inbound {
    Reply(Reply),
    /// `phx_error`: the channel crashed; the socket stays.
    ChannelError {
        topic: Topic,
        join_ref: Option<u64>,
        reason: String,
    },
    /// `phx_close`: the channel ended; stale ones carry an old `join_ref`.
    ChannelClosed {
        topic: Topic,
        join_ref: Option<u64>,
    },
    Device(DeviceEvent),
    /// Without `join_ref` it counts for whatever is joined.
    Console {
        join_ref: Option<u64>,
        event: ConsoleEvent,
    },
    Extensions {
        join_ref: Option<u64>,
        event: ExtensionsEvent,
    },
    /// The hub does not want what the push of this reference speaks for.
    DetachOrdered {
        reference: u64,
    },
    /// A topic or event this agent does not know.
    Unknown {
        topic: String,
        event: String,
    },
}

/// `phx_reply`.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    pub topic: Topic,
    pub reference: u64,
    pub outcome: Result<ReplyBody, String>,
}

/// The useful part of an "ok" reply.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReplyBody {
    /// Older servers answer the device join with the update itself.
    pub offer: Option<Box<Offer>>,
    /// The answer to joining `extensions`: names to attach.
    pub attach: Vec<String>,
}

impl Inbound {
    /// Understands a frame.
    ///
    /// # Errors
    /// A known event whose payload makes no sense; the text names the field.
    pub fn parse(frame: FrameWire) -> Result<Self, WireError> {
        let Some(topic) = Topic::parse(&frame.topic) else {
            return Ok(unknown(frame));
        };
        let join_ref = frame.join_ref.map(|reference| reference.0);
        let (event, payload) = (frame.event.as_str(), &frame.payload);
        let known = match (event, topic) {
            ("phx_reply", _) => Some(parse_reply(topic, &frame)?),
            ("phx_error", _) => Some(Self::ChannelError {
                topic,
                join_ref,
                reason: summary(payload),
            }),
            ("phx_close", _) => Some(Self::ChannelClosed { topic, join_ref }),
            (_, Topic::Device) => device::parse(event, payload)?.map(Self::Device),
            (_, Topic::Console) => {
                console::parse(event, payload)?.map(|event| Self::Console { join_ref, event })
            }
            (_, Topic::Extensions) => {
                let event = extensions::parse(event, payload)?;
                Some(Self::Extensions { join_ref, event })
            }
            (_, Topic::Phoenix) => None,
        };
        Ok(known.unwrap_or_else(|| unknown(frame)))
    }
}

fn unknown(frame: FrameWire) -> Inbound {
    Inbound::Unknown {
        topic: clip(&frame.topic),
        event: clip(&frame.event),
    }
}

fn parse_reply(topic: Topic, frame: &FrameWire) -> Result<Inbound, WireError> {
    let status = frame.payload.get("status").and_then(Value::as_str);
    let status = status.ok_or_else(|| WireError("phx_reply: no status".to_owned()))?;
    let response = frame.payload.get("response").unwrap_or(&Value::Null);
    let reference = frame.reference.map_or(0, |reference| reference.0);
    let outcome = if status == "ok" {
        Ok(ReplyBody {
            offer: device::offer_in_reply(response),
            attach: extensions::names(response),
        })
    } else if topic == Topic::Extensions && response == "detach" {
        return Ok(Inbound::DetachOrdered { reference });
    } else {
        Err(format!("{}: {}", clip(status), summary(response)))
    };
    Ok(Inbound::Reply(Reply {
        topic,
        reference,
        outcome,
    }))
}

fn summary(value: &Value) -> String {
    clip(&value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::phoenix::decode_json;

    fn parse(text: &str) -> Result<Inbound, WireError> {
        Inbound::parse(decode_json(text).expect("frame"))
    }

    #[test]
    fn every_recorded_server_frame_is_understood() {
        for capture in [
            include_str!("../../tests/data/captures/session.jsonl"),
            include_str!("../../tests/data/captures/update.jsonl"),
            include_str!("../../tests/data/captures/msgpack.jsonl"),
        ] {
            for line in capture.lines() {
                let entry: Value = serde_json::from_str(line).expect("capture");
                if entry["from"] == "server" {
                    let inbound = parse(&entry["frame"].to_string()).expect("known");
                    assert!(!matches!(inbound, Inbound::Unknown { .. }), "{line}");
                }
            }
        }
    }

    #[test]
    fn an_error_reply_may_be_any_json() {
        for response in [r#"{"reason":"no"}"#, r#""detach""#, "null", "[1]"] {
            let frame = format!(
                r#"["1","4","device","phx_reply",{{"status":"error","response":{response}}}]"#
            );
            let Ok(Inbound::Reply(reply)) = parse(&frame) else {
                panic!("{frame}")
            };
            assert_eq!(reply.reference, 4);
            assert!(reply.outcome.is_err());
        }
    }
}
