//! Which networks the device says it is known in.
//!
//! Owns these settings' types and how they are read.

use std::time::Duration;

use crate::config::error::Problem;
use crate::config::reader::Reader;
use crate::config::table::setting;

/// Each is a process every few minutes.
const MAX_PROVIDERS: usize = 8;
/// Longest name of a network interface.
const MAX_INTERFACE: usize = 15;

/// Which networks the device says it is known in.
#[derive(Clone, Debug, Default)]
pub struct IdentitySettings {
    pub providers: Vec<Provider>,
    /// Between looks at what has changed; zero: none.
    pub interval: Duration,
}

/// Who knows some of the device's identities.
#[derive(Clone, Debug, PartialEq)]
pub enum Provider {
    Tailscale,
    Netbird,
    Wireguard {
        interface: String,
    },
    /// Prints an iroh endpoint's id.
    Iroh(Program),
    /// Prints identities as they are reported.
    Command(Program),
}

/// What prints something.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    /// Run through `/bin/sh -c`.
    pub command: String,
    /// Where in the JSON that it prints it is (RFC 6901); empty: all of it.
    pub pointer: String,
}

pub(super) fn read(r: &mut Reader) -> IdentitySettings {
    IdentitySettings {
        providers: r
            .parsed(setting!("NERVES_HUB_NETWORK_IDENTITY"), providers)
            .unwrap_or_default(),
        interval: r.duration(setting!("NERVES_HUB_NETWORK_IDENTITY_INTERVAL")),
    }
}

/// Between commas only, for commands have blanks.
fn providers(text: &str) -> Result<Vec<Provider>, Problem> {
    let words = text
        .split(',')
        .map(str::trim)
        .filter(|word| !word.is_empty());
    let mut providers = Vec::new();
    for word in words {
        providers.push(provider(word).ok_or_else(|| {
            Problem::new(
                format!("has {word:?}, which is no provider"),
                "use tailscale, netbird, wireguard:INTERFACE, iroh:COMMAND or command:COMMAND, \
                 commas between them",
            )
        })?);
    }
    match providers.len() <= MAX_PROVIDERS {
        true => Ok(providers),
        false => Err(Problem::new(
            "has too many providers",
            format!("use at most {MAX_PROVIDERS}; one command can print several identities"),
        )),
    }
}

fn provider(word: &str) -> Option<Provider> {
    let (head, rest) = match word.split_once(':') {
        Some((head, rest)) => (head, Some(rest.trim())),
        None => (word, None),
    };
    let (name, pointer) = match head.split_once('#') {
        Some((name, pointer)) => (name, Some(pointer)),
        None => (head, None),
    };
    let program = |command: &str| {
        let pointer = pointer.unwrap_or_default().to_owned();
        let is_good = pointer.is_empty() || pointer.starts_with('/');
        (is_good && !command.is_empty()).then(|| Program {
            command: command.to_owned(),
            pointer,
        })
    };
    match (name, pointer, rest) {
        ("tailscale", None, None) => Some(Provider::Tailscale),
        ("netbird", None, None) => Some(Provider::Netbird),
        ("wireguard", None, Some(name)) if is_interface(name) => Some(Provider::Wireguard {
            interface: name.to_owned(),
        }),
        ("iroh", _, Some(command)) => program(command).map(Provider::Iroh),
        ("command", _, Some(command)) => program(command).map(Provider::Command),
        _ => None,
    }
}

/// One interface: `wg` takes "all" and "interfaces" for something else.
fn is_interface(name: &str) -> bool {
    let inside = |b: u8| b.is_ascii_alphanumeric() || b"_=+.-".contains(&b);
    (1..=MAX_INTERFACE).contains(&name.len())
        && name.bytes().all(inside)
        && !name.starts_with('-')
        && !["all", "interfaces"].contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn providers_are_understood() {
        let program = |command: &str, pointer: &str| Program {
            command: command.to_owned(),
            pointer: pointer.to_owned(),
        };
        let wireguard = Provider::Wireguard {
            interface: "wg-0.1".into(),
        };
        for (text, expected) in [
            ("", vec![]),
            (
                "tailscale, netbird,",
                vec![Provider::Tailscale, Provider::Netbird],
            ),
            ("wireguard:wg-0.1", vec![wireguard]),
            (
                "iroh:app id,iroh#/a/0: app --json x:y#z",
                vec![
                    Provider::Iroh(program("app id", "")),
                    Provider::Iroh(program("app --json x:y#z", "/a/0")),
                ],
            ),
            ("command#/x:c", vec![Provider::Command(program("c", "/x"))]),
        ] {
            assert_eq!(providers(text), Ok(expected), "{text}");
        }
        for bad in [
            "tailscale netbird",
            "tailscale:",
            "netbird#/x",
            "wireguard",
            "wireguard:",
            "wireguard:all",
            "wireguard:-v",
            "wireguard:wg0 wg1",
            "wireguard:0123456789abcdef",
            "iroh",
            "command:",
            "command#x:c",
            "Tailscale",
        ] {
            assert!(providers(bad).is_err(), "{bad}");
        }
        let (most, more) = (["netbird"; 8].join(","), ["netbird"; 9].join(","));
        assert!(providers(&most).is_ok());
        assert!(providers(&more).is_err());
    }
}
