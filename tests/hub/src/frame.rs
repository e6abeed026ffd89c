//! Phoenix frames and their two encodings: JSON text and MessagePack binary. Pure.

use serde_json::{Value, json};
use tungstenite::Message;

/// The serialiser a device chose with `?vsn=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vsn {
    /// `2.0.0`: JSON text frames.
    Json,
    /// `3.0.0`: MessagePack binary frames.
    MsgPack,
}

/// One `[join_ref, ref, topic, event, payload]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    pub join_ref: Option<String>,
    pub reference: Option<String>,
    pub topic: String,
    pub event: String,
    pub payload: Value,
}

impl Frame {
    /// A frame as sent by the fan-out of the real server: no refs at all.
    pub fn broadcast(topic: &str, event: &str, payload: Value) -> Frame {
        Frame {
            join_ref: None,
            reference: None,
            topic: topic.into(),
            event: event.into(),
            payload,
        }
    }

    /// A push from the channel itself: the join_ref, no ref.
    pub fn push(join_ref: &str, topic: &str, event: &str, payload: Value) -> Frame {
        Frame {
            join_ref: Some(join_ref.into()),
            ..Frame::broadcast(topic, event, payload)
        }
    }

    /// `phx_close` and `phx_error` carry the join_ref twice.
    pub fn end(join_ref: &str, topic: &str, event: &str, payload: Value) -> Frame {
        Frame {
            reference: Some(join_ref.into()),
            ..Frame::push(join_ref, topic, event, payload)
        }
    }

    /// The answer to `self`.
    pub fn reply(&self, status: &str, response: Value) -> Frame {
        Frame {
            join_ref: self.join_ref.clone(),
            reference: self.reference.clone(),
            topic: self.topic.clone(),
            event: "phx_reply".into(),
            payload: json!({"status": status, "response": response}),
        }
    }

    pub fn to_value(&self) -> Value {
        json!([
            self.join_ref,
            self.reference,
            self.topic,
            self.event,
            self.payload
        ])
    }

    /// Whole-number refs are accepted, as the server does, and answered as strings.
    pub fn from_value(value: Value) -> Result<Frame, String> {
        let Value::Array(parts) = value else {
            return Err("a frame must be an array".into());
        };
        let parts: [Value; 5] = parts
            .try_into()
            .map_err(|parts: Vec<_>| format!("{} elements, not 5", parts.len()))?;
        let [join_ref, reference, topic, event, payload] = parts;
        Ok(Frame {
            join_ref: reference_of(join_ref)?,
            reference: reference_of(reference)?,
            topic: string(topic, "topic")?,
            event: string(event, "event")?,
            payload,
        })
    }

    pub fn encode(&self, vsn: Vsn) -> Message {
        match vsn {
            Vsn::Json => Message::text(self.to_value().to_string()),
            Vsn::MsgPack => Message::binary(
                rmp_serde::to_vec(&self.to_value()).expect("JSON values always encode"),
            ),
        }
    }

    /// Text on a MessagePack socket, or binary on a JSON one, crashes the real server.
    pub fn decode(message: &Message, vsn: Vsn) -> Result<Frame, String> {
        let value: Value = match (message, vsn) {
            (Message::Text(text), Vsn::Json) => {
                serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))?
            }
            (Message::Binary(bytes), Vsn::MsgPack) => {
                rmp_serde::from_slice(bytes).map_err(|error| format!("not MessagePack: {error}"))?
            }
            (Message::Text(_), Vsn::MsgPack) => return Err("text on a MessagePack socket".into()),
            _ => return Err("binary on a JSON socket".into()),
        };
        Frame::from_value(value)
    }
}

fn reference_of(value: Value) -> Result<Option<String>, String> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text)),
        Value::Number(number) => Ok(Some(number.to_string())),
        other => Err(format!("a ref must be a string or null, not {other}")),
    }
}

fn string(value: Value, what: &str) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text),
        other => Err(format!("the {what} must be a string, not {other}")),
    }
}
