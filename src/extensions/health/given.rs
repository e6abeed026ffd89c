//! Values that others give: what each kind of them looks like, and how much there may be.
//! Pure.

use serde_json::{Map, Value, json};

/// Most values of a kind from one source.
pub const MOST: usize = 64;
const MAX_NAME: usize = 64;
const MAX_TEXT: usize = 256;

/// What can be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Given {
    Metrics,
    Metadata,
    Checks,
    Alarms,
}

impl Given {
    const ALL: [Self; 4] = [Self::Metrics, Self::Metadata, Self::Checks, Self::Alarms];

    /// As it is called in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::Metadata => "metadata",
            Self::Checks => "checks",
            Self::Alarms => "alarms",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// The value as it goes into the report.
///
/// # Errors
/// What is wrong with it.
pub fn check(kind: Given, name: &str, value: Value) -> Result<Value, String> {
    let is_plain = name.bytes().all(|byte| byte.is_ascii_graphic());
    if name.is_empty() || name.len() > MAX_NAME || !is_plain {
        return Err(format!(
            "a name in {} is not 1 to {MAX_NAME} ASCII characters without spaces",
            kind.name()
        ));
    }
    let is_text = |value: &Value| {
        let text = value.as_str();
        text.is_some_and(|text| text.len() <= MAX_TEXT && !text.contains(char::is_control))
    };
    let wanted = match kind {
        Given::Metrics if value.is_number() => return Ok(value),
        Given::Metadata | Given::Alarms if is_text(&value) => return Ok(value),
        Given::Checks if value["pass"].is_boolean() => {
            let note = match &value["note"] {
                Value::Null => json!(""),
                note => note.clone(),
            };
            if is_text(&note) {
                return Ok(json!({"pass": value["pass"], "note": note}));
            }
            "with a note that is one line of 256 bytes at most"
        }
        Given::Metrics => "a number",
        Given::Metadata | Given::Alarms => "one line of 256 bytes at most",
        Given::Checks => "{\"pass\": true or false, \"note\": TEXT}",
    };
    Err(format!("{} {name} is not {wanted}", kind.name()))
}

/// What is kept, with what a client sets; null removes. All or nothing.
///
/// # Errors
/// What is wrong with the client's.
pub fn merged(kept: Option<&Map<String, Value>>, params: Value) -> Result<Value, String> {
    let Value::Object(params) = params else {
        return Err("params is not an object".to_owned());
    };
    let mut kept = kept.cloned().unwrap_or_default();
    for (key, values) in params {
        let kind = match Given::parse(&key) {
            Some(Given::Alarms) => return Err("alarms are set with alarm-set".to_owned()),
            Some(kind) => kind,
            None => return Err(format!("{key:?} is none of metrics, metadata and checks")),
        };
        let Value::Object(values) = values else {
            return Err(format!("{key} is not an object"));
        };
        let all = kept.entry(key).or_insert_with(|| Map::new().into());
        let Some(all) = all.as_object_mut() else {
            continue;
        };
        for (name, value) in values {
            match value {
                Value::Null => drop(all.remove(&name)),
                value => {
                    let value = check(kind, &name, value)?;
                    all.insert(name, value);
                }
            }
        }
        if all.len() > MOST {
            return Err(format!("more than {MOST} {}", kind.name()));
        }
    }
    Ok(kept.into())
}
