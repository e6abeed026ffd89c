//! The `extensions` topic: which ones a device may attach, and what the server does when one
//! is attached. Pure.

use crate::frame::Frame;
use crate::state::Behaviour;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What the server knows about the extensions of one connection.
#[derive(Debug, Default)]
pub struct Extensions {
    attached: BTreeMap<String, bool>,
}

impl Extensions {
    /// Takes the offered versions and returns the names to attach; an error means that the
    /// join crashed.
    pub fn join(&mut self, offered: &Value, behaviour: &Behaviour) -> Result<Value, String> {
        let Value::Object(offered) = offered else {
            return Err("versions are no map".into());
        };
        self.attached.clear();
        for (name, version) in offered {
            let Value::String(version) = version else {
                return Err(format!("version of {name} is no string"));
            };
            let allowed = behaviour.extensions.iter().any(|allowed| allowed == name);
            if allowed && crate::books::semver(version).is_some() {
                self.attached.insert(name.clone(), false);
            }
        }
        Ok(json!(self.attached.keys().collect::<Vec<_>>()))
    }

    /// Takes `NAME:EVENT`; returns what the server sends.
    pub fn message(&mut self, frame: &Frame, behaviour: &Behaviour) -> Vec<Frame> {
        let known = frame.event.split_once(':').and_then(|(name, event)| {
            self.attached
                .get_mut(name)
                .map(|attached| (name, event, attached))
        });
        let Some((name, event, attached)) = known else {
            return vec![frame.reply("error", json!("detach"))];
        };
        match event {
            "attached" => *attached = true,
            "detached" | "error" => *attached = false,
            _ => return vec![],
        }
        let first = match (event, name) {
            ("attached", "geo") => "geo:location:request",
            ("attached", "health") => "health:check",
            ("attached", "local_shell") => "local_shell:request_shell",
            ("attached", "network_identity") => "network_identity:request",
            _ => return vec![],
        };
        match (&frame.join_ref, behaviour.drive_extensions) {
            (Some(join_ref), true) => {
                vec![Frame::push(join_ref, "extensions", first, json!({}))]
            }
            _ => vec![],
        }
    }
}
