//! JSON objects with little code: `json!` as serde_json has it, for what the agent says. A
//! field is a call here, where serde_json's macro writes out a serializer's result and a
//! map's insertion at every place. Must not know what is said.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

/// An object of literal keys, or one value. Objects within are `json!` themselves.
macro_rules! json {
    ({}) => { $crate::wire::json::object(&[]) };
    ({ $($key:literal : $value:expr),+ $(,)? }) => {
        $crate::wire::json::object(&[
            $(($key, &$value as &dyn $crate::wire::json::ToJson)),+
        ])
    };
    ($value:expr) => { $crate::wire::json::ToJson::to_json(&$value) };
}
pub(crate) use json;

pub fn object(fields: &[(&str, &dyn ToJson)]) -> Value {
    let mut object = Map::new();
    for (key, value) in fields {
        object.insert((*key).to_owned(), value.to_json());
    }
    Value::Object(object)
}

/// What can be said as it is.
pub trait ToJson {
    fn to_json(&self) -> Value;
}

impl<T: ToJson + ?Sized> ToJson for &T {
    fn to_json(&self) -> Value {
        (**self).to_json()
    }
}

impl<T: ToJson> ToJson for Option<T> {
    fn to_json(&self) -> Value {
        self.as_ref().map_or(Value::Null, T::to_json)
    }
}

impl<T: ToJson> ToJson for [T] {
    fn to_json(&self) -> Value {
        self.iter().map(T::to_json).collect()
    }
}

impl<T: ToJson, const N: usize> ToJson for [T; N] {
    fn to_json(&self) -> Value {
        self.as_slice().to_json()
    }
}

impl<T: ToJson> ToJson for Vec<T> {
    fn to_json(&self) -> Value {
        self.as_slice().to_json()
    }
}

impl ToJson for str {
    fn to_json(&self) -> Value {
        Value::String(self.to_owned())
    }
}

impl ToJson for String {
    fn to_json(&self) -> Value {
        self.as_str().to_json()
    }
}

impl ToJson for Path {
    fn to_json(&self) -> Value {
        Value::String(self.to_string_lossy().into_owned())
    }
}

impl ToJson for PathBuf {
    fn to_json(&self) -> Value {
        self.as_path().to_json()
    }
}

impl ToJson for Value {
    fn to_json(&self) -> Value {
        self.clone()
    }
}

impl ToJson for bool {
    fn to_json(&self) -> Value {
        Value::Bool(*self)
    }
}

impl ToJson for u64 {
    fn to_json(&self) -> Value {
        (*self).into()
    }
}

impl ToJson for u32 {
    fn to_json(&self) -> Value {
        u64::from(*self).to_json()
    }
}

impl ToJson for u8 {
    fn to_json(&self) -> Value {
        u64::from(*self).to_json()
    }
}

impl ToJson for i32 {
    fn to_json(&self) -> Value {
        (*self).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_of_serde_json() {
        let nothing: Option<&str> = None;
        let text = "text".to_owned();
        let ours = json!({
            "text": text,
            "nothing": nothing,
            "something": Some(&text),
            "numbers": [1_u64, u64::MAX],
            "small": -3,
            "yes": true,
            "path": Path::new("/a"),
            "within": json!({"byte": 7_u8}),
            "empty": json!({}),
        });
        let theirs = serde_json::json!({
            "text": text,
            "nothing": nothing,
            "something": Some(&text),
            "numbers": [1_u64, u64::MAX],
            "small": -3,
            "yes": true,
            "path": Path::new("/a"),
            "within": {"byte": 7_u8},
            "empty": {},
        });
        assert_eq!(ours, theirs);
    }
}
