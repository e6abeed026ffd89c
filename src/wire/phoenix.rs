//! Phoenix channel frames: `[join_ref, ref, topic, event, payload]`, as JSON text
//! (`vsn=2.0.0`) or MessagePack (`vsn=3.0.0`). PROTOCOL §2.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::json::json;
use crate::config::Serializer;

/// A topic this agent may join, or the transport's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Topic {
    Device,
    Console,
    Extensions,
    Phoenix,
}

impl Topic {
    pub fn name(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Console => "console",
            Self::Extensions => "extensions",
            Self::Phoenix => "phoenix",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        [Self::Device, Self::Console, Self::Extensions, Self::Phoenix]
            .into_iter()
            .find(|topic| topic.name() == name)
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A reference as the agent makes them: counted from 1. Anything else that a server puts
/// there (other text, other types) becomes 0, which matches nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameRef(pub u64);

impl FrameRef {
    fn parse(value: &Value) -> Option<Self> {
        match value {
            Value::Null => None,
            Value::String(text) => Some(Self(text.parse().unwrap_or(0))),
            other => Some(Self(other.as_u64().unwrap_or(0))),
        }
    }
}

/// One frame, its payload not yet understood.
#[derive(Clone, Debug)]
pub struct FrameWire {
    pub join_ref: Option<FrameRef>,
    pub reference: Option<FrameRef>,
    pub topic: String,
    pub event: String,
    pub payload: Value,
}

/// A message that cannot be understood; logged and dropped.
#[derive(Debug)]
pub struct WireError(pub String);

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Reads a text frame.
///
/// # Errors
/// Not JSON, or not five elements of the right types.
pub fn decode_json(text: &str) -> Result<FrameWire, WireError> {
    // As bytes, as everywhere else: texts have a parser of their own.
    let value = serde_json::from_slice(text.as_bytes());
    FrameWire::parse(value.map_err(|error| WireError(format!("malformed JSON: {error}")))?)
}

/// Reads a binary frame.
///
/// # Errors
/// Not MessagePack, or not five elements of the right types.
pub fn decode_msgpack(bytes: &[u8]) -> Result<FrameWire, WireError> {
    let mut reader = rmp_serde::Deserializer::from_read_ref(bytes);
    reader.set_max_depth(128);
    let value = Value::deserialize(&mut reader);
    FrameWire::parse(value.map_err(|error| WireError(format!("malformed MessagePack: {error}")))?)
}

impl FrameWire {
    // Taken apart by hand: derived visitors for every format cost tens of KiB.
    fn parse(value: Value) -> Result<Self, WireError> {
        let shape = || WireError("not a frame of five elements".to_owned());
        let Value::Array(elements) = value else {
            return Err(shape());
        };
        let elements: [Value; 5] = elements.try_into().map_err(|_| shape())?;
        let [join_ref, reference, topic, event, payload] = elements;
        let (Value::String(topic), Value::String(event)) = (topic, event) else {
            return Err(WireError("topic and event are not text".to_owned()));
        };
        Ok(Self {
            join_ref: FrameRef::parse(&join_ref),
            reference: FrameRef::parse(&reference),
            topic,
            event,
            payload,
        })
    }
}

/// A frame as it goes out, text or binary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Encoded {
    Text(String),
    Binary(Vec<u8>),
}

/// Writes a frame. References are decimal text, as the reference client sends them.
///
/// # Errors
/// Never for payloads made of JSON values; kept as an error rather than a panic.
pub fn encode(
    serializer: Serializer,
    join_ref: Option<u64>,
    reference: u64,
    topic: Topic,
    event: &str,
    payload: &Value,
) -> Result<Encoded, WireError> {
    let join_ref = json!(join_ref.map(|number| number.to_string()));
    let reference = json!(reference.to_string());
    let (topic, event) = (json!(topic.name()), json!(event));
    match serializer {
        // Like all other JSON: another kind of output would be 5 KiB of code.
        Serializer::Json => Ok(Encoded::Text(format!(
            "[{join_ref},{reference},{topic},{event},{payload}]"
        ))),
        Serializer::Msgpack => {
            let mut bytes = Vec::new();
            (join_ref, reference, topic, event, payload)
                .serialize(&mut rmp_serde::Serializer::new(&mut bytes))
                .map(|()| Encoded::Binary(bytes))
                .map_err(|error| WireError(error.to_string()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_sessions_decode_the_same_from_both_serializers() {
        for line in include_str!("../../tests/data/captures/session.jsonl").lines() {
            let entry: Value = serde_json::from_str(line).expect("capture");
            let frame = &entry["frame"];
            let json = decode_json(&frame.to_string()).expect("JSON frame");
            let packed = rmp_serde::to_vec(frame).expect("pack");
            let binary = decode_msgpack(&packed).expect("MessagePack frame");
            assert_eq!(json.payload, binary.payload);
            assert_eq!(json.join_ref, binary.join_ref);
            assert_eq!((json.topic, json.event), (binary.topic, binary.event));
        }
    }

    #[test]
    fn references_may_be_text_numbers_or_nonsense() {
        let frame = decode_json(r#"["7", 8, "device", "x", {}]"#).expect("frame");
        assert_eq!(frame.join_ref, Some(FrameRef(7)));
        assert_eq!(frame.reference, Some(FrameRef(8)));
        let frame = decode_json(r#"[null, {"a":1}, "device", "x", null]"#).expect("frame");
        assert_eq!((frame.join_ref, frame.reference), (None, Some(FrameRef(0))));
    }

    #[test]
    fn other_shapes_are_errors_not_panics() {
        for text in [
            "",
            "{}",
            "[]",
            "[1,2,3,4]",
            "[null,null,1,2,3]",
            "\"x\"",
            "[[[[",
        ] {
            assert!(decode_json(text).is_err(), "{text}");
        }
        for bytes in [
            &b""[..],
            b"\xc1",
            b"\x95",
            b"\xdf\xff\xff\xff\xff",
            b"\x95\xc0\xc0\xa1",
        ] {
            assert!(decode_msgpack(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let deep = [
            b"\x95\xc0\xc0\xa6device\xa1x".as_slice(),
            &[0x91; 100_000],
            b"\xc0",
        ]
        .concat();
        assert!(decode_msgpack(&deep).is_err());
    }
}
