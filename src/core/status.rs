//! A snapshot of the core for people: SIGUSR1 today, the control socket later.

use std::fmt;

use super::Core;
use super::channel;
use super::link;
use super::timers::Timer;
use super::update;

/// What the agent is doing, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub identifier: String,
    pub firmware_uuid: Option<String>,
    pub validated: bool,
    pub link: String,
    pub last_link_error: Option<String>,
    pub update: String,
    pub last_update_error: Option<String>,
    pub alarms: Vec<String>,
}

impl Core {
    pub fn status(&self) -> Status {
        Status {
            identifier: self.setup.identifier.clone(),
            firmware_uuid: self.setup.firmware_uuid.clone(),
            validated: self.device.validated,
            link: self.link_in_words(),
            last_link_error: self.link.last_error.clone(),
            update: self.update_in_words(),
            last_update_error: self.update.last_error.clone(),
            alarms: self.raised().map(|(name, _)| name.to_owned()).collect(),
        }
    }

    fn link_in_words(&self) -> String {
        match (&self.link.phase, self.channels.device.phase) {
            (link::Phase::Open(_), channel::Phase::Joined(_)) => "joined".to_owned(),
            (link::Phase::Open(_), channel::Phase::Left | channel::Phase::Joining(_)) => {
                "joining".to_owned()
            }
            (link::Phase::Connecting(_), _) => "connecting".to_owned(),
            (link::Phase::Down, _) => match self.timers.deadline(Timer::Reconnect) {
                Some(at) => {
                    let wait = at.saturating_duration_since(self.now);
                    format!("down, next attempt in {:.1} s", wait.as_secs_f64())
                }
                None => "offline".to_owned(),
            },
        }
    }

    fn update_in_words(&self) -> String {
        match &self.update.phase {
            update::Phase::Idle => match &self.update.hold {
                Some(hold) => {
                    let left = hold.until.saturating_duration_since(self.now);
                    format!("{} put off for {} s", hold.uuid, left.as_secs())
                }
                None => "none".to_owned(),
            },
            update::Phase::Asking(asking) => {
                format!("{} waits for a decision", asking.offer.uuid)
            }
            update::Phase::AwaitingKeys(offer) => format!("{} waits for public keys", offer.uuid),
            update::Phase::Installing(install) => {
                format!("installing {} ({} %)", install.offer.uuid, install.percent)
            }
            update::Phase::Reporting(_) => "outcome not yet reported".to_owned(),
            update::Phase::Rebooting if self.reboot.is_put_off() => {
                "installed, reboot put off".to_owned()
            }
            update::Phase::Rebooting => "installed, reboot ordered".to_owned(),
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "none".to_owned());
        write!(
            f,
            "status: identifier={} firmware={} validated={} link=\"{}\" link_error=\"{}\" update=\"{}\" update_error=\"{}\" alarms={}",
            self.identifier,
            or_none(&self.firmware_uuid),
            self.validated,
            self.link,
            or_none(&self.last_link_error),
            self.update,
            or_none(&self.last_update_error),
            match self.alarms.is_empty() {
                true => "none".to_owned(),
                false => self.alarms.join(","),
            },
        )
    }
}
