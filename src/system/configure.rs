//! The hook `configure`: settings that a program prints at the start.
//!
//! Owns how its lines join the environment, which goes before them: an operator has the
//! last word. Its values are never shown, nor are they in the environment of any child.

use std::ffi::{OsStr, OsString};

use super::hook::{Call, Site};
use crate::config::{Hook, hooks};
use crate::core::event::HookEnd;

/// The variables of one start.
pub type Environment = Vec<(OsString, OsString)>;

/// `given`, and what the hook adds to it; beside it what is worth logging. Blocks for as
/// long as the hook takes.
pub fn environment(
    given: impl Iterator<Item = (OsString, OsString)>,
) -> (Environment, Vec<String>) {
    let given: Environment = given.collect();
    let site = Site::new(hooks::early(given.clone().into_iter()), Vec::new());
    let mut said = Vec::new();
    let name = Hook::Configure.name();
    let mut say = |line: &str| said.push(format!("hook {name}: {line}"));
    let reason = match site.run_saying(&Call::new(Hook::Configure), &mut say) {
        HookEnd::Absent => match site.named(Hook::Configure) {
            // Nobody has read its first complaint: the log is not there yet.
            Some(path) => format!("{} does not exist", path.display()),
            None => return (given, said),
        },
        HookEnd::Exited { code: 0, output } => {
            let added = additions(&output, &given, &mut said);
            return (added.into_iter().chain(given).collect(), said);
        }
        HookEnd::Exited { code, .. } => format!("exited with {code}"),
        HookEnd::Failed(reason) => reason,
    };
    said.push(format!(
        "hook {name}: {reason}; starting without its settings"
    ));
    (given, said)
}

/// The settings among the lines that the environment does not have, in either form.
fn additions(output: &str, given: &Environment, said: &mut Vec<String>) -> Environment {
    let mut added = Vec::new();
    for (number, line) in (1..).zip(output.lines().map(str::trim)) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let setting = line.split_once('=');
        let Some((name, value)) = setting.filter(|(name, _)| name.starts_with("NERVES_HUB_"))
        else {
            // Never the line itself: it may be a secret.
            said.push(format!(
                "hook configure: line {number} is not NERVES_HUB_NAME=VALUE"
            ));
            continue;
        };
        let plain = name.strip_suffix("_FILE").unwrap_or(name);
        let is_given = given.iter().any(|(other, value)| {
            let other = other.to_string_lossy();
            let is_it = other == plain || other.strip_suffix("_FILE") == Some(plain);
            is_it && value != OsStr::new("")
        });
        if !is_given {
            added.push((name.into(), value.into()));
        }
    }
    added
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hook_that_is_named_and_not_there_is_missed() {
        let said_of = |value: &str| {
            let name = "NERVES_HUB_HOOK_CONFIGURE".into();
            let (environment, said) = environment([(name, value.into())].into_iter());
            assert_eq!(environment.len(), 1);
            said
        };
        let expected =
            "hook configure: /nonexistent/x does not exist; starting without its settings";
        assert_eq!(said_of("/nonexistent/x"), [expected]);
        assert!(said_of("none").is_empty());
    }

    #[test]
    fn the_environment_goes_before_what_the_hook_prints() {
        let vars = |pairs: &[(&str, &str)]| -> Environment {
            let pairs = pairs.iter();
            pairs
                .map(|(name, value)| (name.into(), value.into()))
                .collect()
        };
        let given = vars(&[
            ("NERVES_HUB_HOST", "given"),
            ("NERVES_HUB_PRODUCT_SECRET_FILE", "/file"),
            ("NERVES_HUB_SNI", ""),
        ]);
        let output = "# settings\nNERVES_HUB_HOST=other\n NERVES_HUB_IDENTIFIER=a=b \n\
                      NERVES_HUB_PRODUCT_SECRET=hunter2\nNERVES_HUB_SNI=name\nPATH=/\nhunter3\n";
        let mut said = Vec::new();
        let added = additions(output, &given, &mut said);
        let expected = [("NERVES_HUB_IDENTIFIER", "a=b"), ("NERVES_HUB_SNI", "name")];
        assert_eq!(added, vars(&expected));
        assert_eq!(said.len(), 2);
        assert!(
            said[1].contains("line 7") && !said[1].contains("hunter"),
            "{said:?}"
        );
    }
}
