//! Texts and fields of others, bounded. Must not know what they mean.

use serde_json::Value;

/// A text; empty where there is none.
pub(super) fn text(payload: &Value, name: &str) -> String {
    clip(
        payload
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or_default(),
    )
}

/// A number, also as text.
pub(super) fn number(payload: &Value, name: &str) -> Option<u64> {
    let value = payload.get(name)?;
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

/// Server text on its way to a log or a message: bounded, one line.
pub(crate) fn clip(text: &str) -> String {
    let mut clean: String = text.chars().filter(|c| !c.is_control()).take(200).collect();
    if clean.len() < text.len() && clean.chars().count() == 200 {
        clean.push('…');
    }
    clean
}

/// At most so many bytes, and no half character.
pub(crate) fn cut(text: &str, most: usize) -> &str {
    let mut end = most.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
