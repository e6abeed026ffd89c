//! What the hub's users may do on the device: support scripts, files, identify, reboot.
//!
//! Owns these settings' types and how they are read.

use std::path::{Path, PathBuf};

use super::error::Problem;
use super::reader::Reader;
use super::table::setting;

/// What the hub's users may do on the device.
#[derive(Clone, Debug, Default)]
pub struct OperatorSettings {
    pub scripts: ScriptSettings,
    pub uploads: UploadSettings,
    pub identify: IdentifySettings,
    /// The hub's request goes before an update in hand.
    pub reboot_during_update: bool,
}

#[derive(Clone, Debug, Default)]
pub struct ScriptSettings {
    pub enabled: bool,
    /// Runs what has no `#!` line.
    pub interpreter: PathBuf,
}

#[derive(Clone, Debug, Default)]
pub struct UploadSettings {
    pub folder: PathBuf,
    /// Most bytes of one file; 0: no file is taken.
    pub max: u64,
}

#[derive(Clone, Debug, Default)]
pub struct IdentifySettings {
    /// Run through `/bin/sh -c`.
    pub command: Option<String>,
    pub led: Led,
}

/// What blinks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Led {
    #[default]
    None,
    /// One whose name says what it is for.
    Auto,
    /// A name in `/sys/class/leds`, or the path of such a folder.
    Named(PathBuf),
}

pub(super) fn read(r: &mut Reader, data_path: &Path) -> OperatorSettings {
    let folder = r.path(setting!("NERVES_HUB_UPLOAD_DIR"));
    let led = setting!("NERVES_HUB_IDENTIFY_LED");
    OperatorSettings {
        scripts: ScriptSettings {
            enabled: r.flag(setting!("NERVES_HUB_SCRIPTS")) != Some(false),
            interpreter: r
                .path(setting!("NERVES_HUB_SCRIPT_INTERPRETER"))
                .unwrap_or_default(),
        },
        uploads: UploadSettings {
            // Behind a final slash a link would be followed.
            folder: folder.map_or_else(
                || data_path.join("uploads"),
                |folder| folder.components().collect(),
            ),
            max: r.size(setting!("NERVES_HUB_UPLOAD_MAX")),
        },
        identify: IdentifySettings {
            command: r.text(setting!("NERVES_HUB_IDENTIFY_COMMAND")),
            led: r.parsed(led, parse_led).unwrap_or_default(),
        },
        reboot_during_update: r.flag(setting!("NERVES_HUB_REBOOT_DURING_UPDATE")) == Some(true),
    }
}

fn parse_led(text: &str) -> Result<Led, Problem> {
    match text {
        "none" => Ok(Led::None),
        "auto" => Ok(Led::Auto),
        path if path.starts_with('/') => Ok(Led::Named(PathBuf::from(path))),
        name if name.contains('/') || name.starts_with('.') => Err(Problem::new(
            "is not the name of an LED",
            "use none, auto, or a name from /sys/class/leds",
        )),
        name => Ok(Led::Named(PathBuf::from(name))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leds() {
        for (text, led) in [
            ("none", Led::None),
            ("auto", Led::Auto),
            ("green:status", Led::Named("green:status".into())),
            (
                "/sys/class/leds/led0",
                Led::Named("/sys/class/leds/led0".into()),
            ),
        ] {
            assert_eq!(parse_led(text), Ok(led), "{text}");
        }
        for text in ["..", "../led0", "a/b"] {
            assert!(parse_led(text).is_err(), "{text}");
        }
    }
}
