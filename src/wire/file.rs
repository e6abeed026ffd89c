//! Files on the `console` topic, both ways (PROTOCOL §7).

use super::json::json;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

/// Longest file name taken from the hub, before it is made safe.
const NAME_MAX: usize = 4096;

/// A file on its way from the hub's page. Names are as they came: not to be trusted.
#[derive(Clone, Debug, PartialEq)]
pub enum FileEvent {
    Start {
        name: String,
    },
    /// `None`: what came was not base64. The page's chunk numbers start over with each of
    /// its reads, so the order of arrival is the order.
    Data {
        name: String,
        bytes: Option<Vec<u8>>,
    },
    Stop {
        name: String,
    },
}

impl FileEvent {
    /// `None` for other events of the topic.
    pub fn parse(event: &str, payload: &Value) -> Option<Self> {
        let name = name(payload);
        match event {
            "file-data/start" => Some(Self::Start { name }),
            "file-data/stop" => Some(Self::Stop { name }),
            "file-data" => {
                let data = payload.get("data").and_then(Value::as_str);
                let bytes = data.and_then(|text| STANDARD.decode(text).ok());
                Some(Self::Data { name, bytes })
            }
            _ => None,
        }
    }
}

fn name(payload: &Value) -> String {
    let name = payload.get("filename").and_then(Value::as_str);
    let name = name.unwrap_or_default();
    let ends = name.char_indices().map(|(at, c)| at + c.len_utf8());
    let end = ends.take_while(|end| *end <= NAME_MAX).last();
    name[..end.unwrap_or(0)].to_owned()
}

/// A file on its way to the hub's page, on the `console` topic.
#[derive(Clone, Debug, PartialEq)]
pub enum FilePush {
    Start {
        name: String,
    },
    Data {
        name: String,
        chunk: u64,
        bytes: Vec<u8>,
    },
    Stop {
        name: String,
    },
}

impl FilePush {
    pub(super) fn parts(&self) -> (&'static str, Value) {
        match self {
            Self::Start { name } => ("file-data/start", json!({ "filename": name })),
            Self::Data { name, chunk, bytes } => (
                "file-data",
                json!({"filename": name, "chunk": chunk, "data": STANDARD.encode(bytes)}),
            ),
            Self::Stop { name } => ("file-data/stop", json!({ "filename": name })),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn files_are_understood_and_garbage_in_them_is_kept_apart() {
        let parse = |event: &str, payload: Value| FileEvent::parse(event, &payload);
        let name = || "a.txt".to_owned();
        assert_eq!(
            parse("file-data/start", json!({"filename": "a.txt"})),
            Some(FileEvent::Start { name: name() })
        );
        let bytes = Some(b"hi".to_vec());
        assert_eq!(
            parse(
                "file-data",
                json!({"filename": "a.txt", "chunk": 3, "data": "aGk="})
            ),
            Some(FileEvent::Data {
                name: name(),
                bytes
            })
        );
        for data in [json!("aGk"), json!("*"), json!(7), json!(null)] {
            let payload = json!({"filename": "a.txt", "data": data});
            let garbled = FileEvent::Data {
                name: name(),
                bytes: None,
            };
            assert_eq!(parse("file-data", payload), Some(garbled));
        }
        assert_eq!(
            parse("file-data/stop", json!({"filename": 7})),
            Some(FileEvent::Stop {
                name: String::new()
            })
        );
        assert_eq!(parse("dn", json!({"data": "x"})), None);
    }

    #[test]
    fn names_are_bounded_between_characters() {
        let long = format!("a{}", "ä".repeat(NAME_MAX));
        assert_eq!(name(&json!({ "filename": long })).len(), NAME_MAX - 1);
    }

    #[test]
    fn chunks_are_base64_with_padding() {
        let push = FilePush::Data {
            name: "a".into(),
            chunk: 0,
            bytes: b"hi".to_vec(),
        };
        let payload = json!({"filename": "a", "chunk": 0, "data": "aGk="});
        assert_eq!(push.parts(), ("file-data", payload));
    }
}
