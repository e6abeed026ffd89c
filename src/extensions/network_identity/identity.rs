//! One identity, as the hub takes it: service, identifier, perhaps an instance, details.
//! Pure.

use serde_json::{Map, Value};

use super::details;

/// Bytes; the hub's limit in characters.
const MAX_TEXT: usize = 255;
/// What the hub takes an identity without an instance for.
const DEFAULT_INSTANCE: &str = "default";

/// Puts one together; what is no good in `details` is left out.
///
/// # Errors
/// The field that is no good, and why.
pub(super) fn identity(
    service: &str,
    identifier: &str,
    instance: Option<&str>,
    details: &Map<String, Value>,
) -> Result<Value, String> {
    let mut identity = Map::new();
    let texts = [
        ("service", Some(service)),
        ("identifier", Some(identifier)),
        ("instance", instance),
    ];
    for (name, text) in texts {
        let Some(text) = text else { continue };
        if !(1..=MAX_TEXT).contains(&text.len()) || text.chars().any(char::is_control) {
            return Err(format!("{name} must be one line of 1 to {MAX_TEXT} bytes"));
        }
        identity.insert(name.to_owned(), text.into());
    }
    let (details, left_out) = details::tidied(details);
    if left_out > 0 {
        debug!("network_identity: {left_out} details of {service} are too much");
    }
    identity.insert("details".to_owned(), details.into());
    Ok(identity.into())
}

/// One that others have put into words; what else they say is left out.
///
/// # Errors
/// See [`identity`]. The value is not in it: it may be anything.
pub(super) fn checked(said: &Value) -> Result<Value, String> {
    let text = |name: &str| match said.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str())),
        Some(_) => Err(format!("{name} must be a text")),
    };
    let none = Map::new();
    let details = match said.get("details") {
        None | Some(Value::Null) => &none,
        Some(Value::Object(details)) => details,
        Some(_) => return Err("details must be an object".to_owned()),
    };
    let (service, identifier) = (text("service")?, text("identifier")?);
    identity(
        service.unwrap_or_default(),
        identifier.unwrap_or_default(),
        text("instance")?.filter(|instance| !instance.is_empty()),
        details,
    )
}

/// # Errors
/// The first that is no good, and why.
pub(super) fn listed(list: &[Value]) -> Result<Vec<Value>, String> {
    let mut identities = Vec::new();
    for (index, said) in list.iter().enumerate() {
        identities.push(checked(said).map_err(|error| format!("[{index}]: {error}"))?);
    }
    Ok(identities)
}

/// The hub would keep one of them.
pub(super) fn is_same(a: &Value, b: &Value) -> bool {
    let instance = |identity: &Value| {
        let given = identity.get("instance").and_then(Value::as_str);
        given.unwrap_or(DEFAULT_INSTANCE).to_owned()
    };
    a.get("service") == b.get("service") && instance(a) == instance(b)
}
