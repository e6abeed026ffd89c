//! What is done about updates and reboots when nobody is asked, and when nobody answers.

use std::time::Duration;

use super::error::{ConfigError, Problem};
use super::reader::Reader;
use super::table::setting;
use super::window::{self, Window};

/// The rules for offers and reboots.
#[derive(Clone, Debug, Default)]
pub struct PolicySettings {
    pub update: UpdatePolicy,
    /// For [`UpdatePolicy::Schedule`], never empty then.
    pub windows: Vec<Window>,
    pub no_decision: NoDecision,
    /// The firmware that runs may be installed once more.
    pub same_firmware: bool,
    /// Older versions may be installed.
    pub downgrades: bool,
    /// How long a reboot may be put off, all in all; zero: nobody is asked.
    pub reboot_max_defer: Duration,
}

/// What is done about an offer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UpdatePolicy {
    Apply,
    /// The decider, the hook, then [`NoDecision`].
    #[default]
    Ask,
    Ignore,
    /// As `Ask`, within the windows.
    Schedule,
}

/// What is done when nobody decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NoDecision {
    #[default]
    Apply,
    Ignore,
    Reschedule,
}

pub(super) fn read(r: &mut Reader) -> PolicySettings {
    let windows = setting!("NERVES_HUB_UPDATE_WINDOW");
    let policy = PolicySettings {
        update: match r.choice(setting!("NERVES_HUB_UPDATE_POLICY")) {
            "apply" => UpdatePolicy::Apply,
            "ignore" => UpdatePolicy::Ignore,
            "schedule" => UpdatePolicy::Schedule,
            _ => UpdatePolicy::Ask,
        },
        windows: r.parsed(windows, window::windows).unwrap_or_default(),
        no_decision: match r.choice(setting!("NERVES_HUB_ON_NO_DECISION")) {
            "ignore" => NoDecision::Ignore,
            "reschedule" => NoDecision::Reschedule,
            _ => NoDecision::Apply,
        },
        same_firmware: r.choice(setting!("NERVES_HUB_SAME_FIRMWARE")) == "apply",
        downgrades: r.choice(setting!("NERVES_HUB_DOWNGRADE")) == "allow",
        reboot_max_defer: r.duration(setting!("NERVES_HUB_REBOOT_MAX_DEFER")),
    };
    match (policy.update, r.given(windows)) {
        (UpdatePolicy::Schedule, None) => r.errors.push(ConfigError::Missing {
            name: windows.name.to_owned(),
            why: "NERVES_HUB_UPDATE_POLICY is schedule".to_owned(),
            fix: "set it to the times at which updates may be installed".to_owned(),
        }),
        (UpdatePolicy::Apply | UpdatePolicy::Ask | UpdatePolicy::Ignore, Some(_)) => {
            let problem = Problem::new(
                "has no effect",
                "set NERVES_HUB_UPDATE_POLICY=schedule as well",
            );
            r.refuse(windows, problem);
        }
        (UpdatePolicy::Schedule, Some(_)) | (_, None) => {}
    }
    policy
}
