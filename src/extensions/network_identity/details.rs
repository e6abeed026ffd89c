//! What is said beside an identity: without secrets, and no more than the hub takes. Pure.

use serde_json::{Map, Value};

/// Bytes as JSON, a little under the hub's 4096: it may write numbers longer, and there is
/// the note.
pub(super) const MAX_DETAILS: usize = 4000;
/// In names of what is nobody else's business, without separators.
const SECRET: [&str; 7] = [
    "private",
    "secret",
    "preshared",
    "token",
    "authkey",
    "setupkey",
    "password",
];

/// The details that may be sent, and how many of them would have been too much. Those that
/// fit are taken in the order of their names, so that it is the same ones each time.
pub(super) fn tidied(details: &Map<String, Value>) -> (Map<String, Value>, usize) {
    let (mut kept, mut size, mut left_out) = (Map::new(), 2, 0_usize);
    for (name, value) in details.iter().filter(|(name, _)| !is_secret(name)) {
        let value = stripped(value);
        // Quotes, colon and comma.
        let more = json_length(name) + value.to_string().len() + 2;
        if size + more > MAX_DETAILS {
            left_out += 1;
            continue;
        }
        size += more;
        kept.insert(name.clone(), value);
    }
    if left_out > 0 {
        kept.insert("left_out".to_owned(), left_out.into());
    }
    (kept, left_out)
}

fn json_length(text: &str) -> usize {
    Value::from(text).to_string().len()
}

fn stripped(value: &Value) -> Value {
    match value {
        Value::Object(inner) => {
            let mut kept = Map::new();
            for (name, value) in inner.iter().filter(|(name, _)| !is_secret(name)) {
                kept.insert(name.clone(), stripped(value));
            }
            kept.into()
        }
        Value::Array(list) => {
            let mut kept = Vec::new();
            list.iter().for_each(|value| kept.push(stripped(value)));
            kept.into()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

fn is_secret(name: &str) -> bool {
    let letters = name.chars().filter(char::is_ascii_alphanumeric);
    let name: String = letters.map(|c| c.to_ascii_lowercase()).collect();
    SECRET.iter().any(|word| name.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn tidied(value: Value) -> (Value, usize) {
        let (details, left_out) = super::tidied(value.as_object().expect("an object"));
        (details.into(), left_out)
    }

    #[test]
    fn secrets_are_nowhere_in_it() {
        let details = json!({
            "PrivateKey": "x", "client-secret": 1, "presharedKey": {}, "auth_key": "x",
            "AUTHKEY": "x", "access_tokens": ["x"], "Setup Key": "x", "password": "x",
            "peers": [{"public_key": "p", "preshared_key": "x", "a": [[{"token": "x"}]]}],
            "ticket": "t", "author": "me", "keys": 2,
        });
        let expected = json!({
            "peers": [{"public_key": "p", "a": [[{}]]}],
            "ticket": "t", "author": "me", "keys": 2,
        });
        assert_eq!(tidied(details), (expected, 0));
    }

    #[test]
    fn what_does_not_fit_is_left_out_and_counted() {
        let details = json!({"a": "x".repeat(60), "b": "x".repeat(4000), "c": "x".repeat(50)});
        let (left, left_out) = tidied(details.clone());
        let expected = json!({"a": details["a"], "c": details["c"], "left_out": 1});
        assert_eq!((left, left_out), (expected, 1));
        // {"a":"…"} and a comma: exactly as much as fits, and a byte more.
        let exact = json!({"a": "x".repeat(MAX_DETAILS - 9)});
        assert_eq!(tidied(exact.clone()), (exact, 0));
        let over = json!({"a": "x".repeat(MAX_DETAILS - 8)});
        assert_eq!(tidied(over), (json!({"left_out": 1}), 1));
    }

    #[test]
    fn the_hub_would_take_whatever_there_is() {
        let mut details = Map::new();
        for index in 0..20_000 {
            details.insert(format!("key \"{index}"), json!(["ä\n", index]));
        }
        let (left, left_out) = super::tidied(&details);
        let size = Value::from(left.clone()).to_string().len();
        assert!((MAX_DETAILS - 40..=4096).contains(&size), "{size}");
        assert_eq!(left.len(), 20_000 - left_out + 1);
    }
}
