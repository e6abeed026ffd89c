//! What is said beside an identity: without secrets, and no more than the hub takes. Pure.

use serde_json::{Map, Value};

/// Bytes as JSON, a little under the hub's 4096: it may write numbers longer.
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

/// The details that may be sent, and how many were too long for it.
pub(super) fn tidied(mut details: Map<String, Value>) -> (Map<String, Value>, usize) {
    strip(&mut details);
    let mut cut = 0;
    while size(&details) > MAX_DETAILS {
        // The longest first: what is left is most of what there was.
        let mut longest = (0, String::new());
        for (name, value) in &details {
            let length = name.len() + value.to_string().len();
            if length > longest.0 {
                longest = (length, name.clone());
            }
        }
        details.remove(&longest.1);
        cut += 1;
        details.insert("left_out".to_owned(), cut.into());
    }
    (details, cut)
}

fn size(details: &Map<String, Value>) -> usize {
    serde_json::to_string(details).map_or(0, |text| text.len())
}

fn strip(details: &mut Map<String, Value>) {
    details.retain(|name, _| !is_secret(name));
    details.values_mut().for_each(strip_value);
}

fn strip_value(value: &mut Value) {
    match value {
        Value::Object(inner) => strip(inner),
        Value::Array(list) => list.iter_mut().for_each(strip_value),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
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
        let (details, cut) = super::tidied(value.as_object().expect("an object").clone());
        (details.into(), cut)
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
    fn the_longest_go_until_the_rest_fits() {
        let details = json!({"a": "x".repeat(3900), "b": "x".repeat(60), "c": "x".repeat(50)});
        let (left, cut) = tidied(details.clone());
        assert_eq!(
            left,
            json!({"b": details["b"], "c": details["c"], "left_out": 1})
        );
        assert_eq!(cut, 1);
        // {"a":"…"}: exactly as much as fits, and a byte more.
        let exact = json!({"a": "x".repeat(MAX_DETAILS - 8)});
        assert_eq!(tidied(exact.clone()), (exact, 0));
        let over = json!({"a": "x".repeat(MAX_DETAILS - 7)});
        assert_eq!(tidied(over), (json!({"left_out": 1}), 1));
    }

    #[test]
    fn many_short_ones_are_cut_too() {
        let mut details = Map::new();
        for index in 0..1000 {
            details.insert(format!("key-{index}"), json!("ä"));
        }
        let (left, cut) = super::tidied(details);
        assert!(size(&left) <= MAX_DETAILS);
        assert_eq!(left.len(), 1000 - cut + 1);
        assert!(size(&left) > MAX_DETAILS - 50, "more than needed is gone");
    }
}
