//! Values that others give: what each kind of them looks like, and how much there may be.
//! Pure.

use serde_json::{Map, Value};

use super::draft::put;

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
    pub const ALL: [Self; 4] = [Self::Metrics, Self::Metadata, Self::Checks, Self::Alarms];

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
pub fn check(kind: Given, name: &str, value: &Value) -> Result<Value, String> {
    let is_plain = name.bytes().all(|byte| byte.is_ascii_graphic());
    if name.is_empty() || name.len() > MAX_NAME || !is_plain {
        return Err(format!(
            "a name in {} is not 1 to {MAX_NAME} ASCII characters without spaces",
            kind.name()
        ));
    }
    let wanted = match kind {
        Given::Metrics if value.is_number() => return Ok(value.clone()),
        Given::Metadata | Given::Alarms if is_line(value) => return Ok(value.clone()),
        Given::Checks => match whole_check(value) {
            Some(value) => return Ok(value),
            None => "{\"pass\": true or false, \"note\": one line of 256 bytes at most}",
        },
        Given::Metrics => "a number",
        Given::Metadata | Given::Alarms => "one line of 256 bytes at most",
    };
    Err(format!("{} {name} is not {wanted}", kind.name()))
}

fn is_line(value: &Value) -> bool {
    let text = value.as_str();
    text.is_some_and(|text| text.len() <= MAX_TEXT && !text.contains(char::is_control))
}

/// With its note, which may be left out.
fn whole_check(value: &Value) -> Option<Value> {
    let (pass, mut note) = (&value["pass"], value["note"].clone());
    if note.is_null() {
        note = "".into();
    }
    if !pass.is_boolean() || !is_line(&note) {
        return None;
    }
    let mut check = Map::new();
    put(&mut check, "pass", pass.clone());
    put(&mut check, "note", note);
    Some(check.into())
}

/// What is kept, with what a client sets; null removes. All or nothing.
///
/// # Errors
/// What is wrong with the client's.
pub fn merged(kept: &Value, params: &Value) -> Result<Value, String> {
    let Value::Object(params) = params else {
        return Err("params is not an object".to_owned());
    };
    for (key, values) in params {
        if key == Given::Alarms.name() {
            return Err("alarms are set with alarm-set".to_owned());
        }
        if Given::parse(key).is_none() || !values.is_object() {
            return Err(format!(
                "{key:?} is no object of metrics, metadata or checks"
            ));
        }
    }
    let mut merged = Map::new();
    for kind in Given::ALL {
        let mut all = Map::new();
        for values in [
            &kept[kind.name()],
            params.get(kind.name()).unwrap_or(&Value::Null),
        ] {
            for (name, value) in values.as_object().into_iter().flatten() {
                let value = match value {
                    Value::Null => Value::Null,
                    value => check(kind, name, value)?,
                };
                put(&mut all, name, value);
            }
        }
        let mut left = Map::new();
        for (name, value) in &all {
            if !value.is_null() {
                put(&mut left, name, value.clone());
            }
        }
        if left.len() > MOST {
            return Err(format!("more than {MOST} {}", kind.name()));
        }
        if !left.is_empty() {
            put(&mut merged, kind.name(), left.into());
        }
    }
    Ok(merged.into())
}
