//! What happens to a device that others on it may want to know of: subscribers of the
//! control socket. Pure. Owns the names, which are an interface.

use serde_json::Value;

use super::json::json;
use super::verdict::{describe_archive, describe_offer};
use super::{Archive, Offer, Stage};

/// A fact worth telling, past tense.
#[derive(Clone, Debug, PartialEq)]
pub enum Occurrence {
    /// The hub has taken the join.
    Connected,
    Disconnected {
        reason: String,
    },
    UpdateOffered(Box<Offer>),
    UpdateIgnored {
        uuid: String,
        reason: String,
    },
    UpdateStarted {
        uuid: String,
    },
    UpdateProgress {
        uuid: String,
        stage: Stage,
        percent: u8,
    },
    UpdateCompleted {
        uuid: String,
    },
    UpdateFailed {
        uuid: String,
        reason: String,
    },
    /// The machine goes down soon, for this reason: `update`, `hub` or `trial`.
    RebootPending(&'static str),
    /// Somebody at the hub has opened a console, or nobody has one any more.
    ConsoleActive(bool),
    ArchiveReady {
        archive: Box<Archive>,
        path: String,
    },
    Identify,
    FirmwareValidated,
    AlarmSet {
        name: String,
        description: String,
    },
    AlarmCleared {
        name: String,
    },
}

/// What can be subscribed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Connection,
    Update,
    Reboot,
    Console,
    Archive,
    Identify,
    Firmware,
    Alarm,
}

impl Kind {
    pub const ALL: [Self; 8] = [
        Self::Connection,
        Self::Update,
        Self::Reboot,
        Self::Console,
        Self::Archive,
        Self::Identify,
        Self::Firmware,
        Self::Alarm,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Update => "update",
            Self::Reboot => "reboot",
            Self::Console => "console",
            Self::Archive => "archive",
            Self::Identify => "identify",
            Self::Firmware => "firmware",
            Self::Alarm => "alarm",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// A set of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kinds(u8);

impl Kinds {
    pub fn has(self, kind: Kind) -> bool {
        self.0 & 1 << kind as u8 != 0
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn names(self) -> Vec<&'static str> {
        let kinds = Kind::ALL.into_iter().filter(|kind| self.has(*kind));
        kinds.map(Kind::name).collect()
    }
}

impl FromIterator<Kind> for Kinds {
    fn from_iter<T: IntoIterator<Item = Kind>>(kinds: T) -> Self {
        Self(kinds.into_iter().fold(0, |set, kind| set | 1 << kind as u8))
    }
}

impl Occurrence {
    pub fn kind(&self) -> Kind {
        match self {
            Self::Connected | Self::Disconnected { .. } => Kind::Connection,
            Self::UpdateOffered(_)
            | Self::UpdateIgnored { .. }
            | Self::UpdateStarted { .. }
            | Self::UpdateProgress { .. }
            | Self::UpdateCompleted { .. }
            | Self::UpdateFailed { .. } => Kind::Update,
            Self::RebootPending(_) => Kind::Reboot,
            Self::ConsoleActive(_) => Kind::Console,
            Self::ArchiveReady { .. } => Kind::Archive,
            Self::Identify => Kind::Identify,
            Self::FirmwareValidated => Kind::Firmware,
            Self::AlarmSet { .. } | Self::AlarmCleared { .. } => Kind::Alarm,
        }
    }

    pub fn name(&self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Disconnected { .. } => "disconnected",
            Self::UpdateOffered(_) => "update-offered",
            Self::UpdateIgnored { .. } => "update-ignored",
            Self::UpdateStarted { .. } => "update-started",
            Self::UpdateProgress { .. } => "update-progress",
            Self::UpdateCompleted { .. } => "update-completed",
            Self::UpdateFailed { .. } => "update-failed",
            Self::RebootPending(_) => "reboot-pending",
            Self::ConsoleActive(_) => "console-active",
            Self::ArchiveReady { .. } => "archive-ready",
            Self::Identify => "identify",
            Self::FirmwareValidated => "firmware-validated",
            Self::AlarmSet { .. } => "alarm-set",
            Self::AlarmCleared { .. } => "alarm-cleared",
        }
    }

    /// An object; its fields beside the name.
    pub fn fields(&self) -> Value {
        match self {
            Self::Connected | Self::Identify | Self::FirmwareValidated => json!({}),
            Self::Disconnected { reason } => json!({ "reason": reason }),
            Self::UpdateOffered(offer) => json!({ "update": describe_offer(offer) }),
            Self::UpdateStarted { uuid } | Self::UpdateCompleted { uuid } => {
                json!({ "uuid": uuid })
            }
            Self::UpdateIgnored { uuid, reason } | Self::UpdateFailed { uuid, reason } => {
                json!({ "uuid": uuid, "reason": reason })
            }
            Self::UpdateProgress {
                uuid,
                stage,
                percent,
            } => json!({ "uuid": uuid, "stage": stage.name(), "percent": percent }),
            Self::RebootPending(why) => json!({ "why": why }),
            Self::ConsoleActive(active) => json!({ "active": active }),
            Self::ArchiveReady { archive, path } => {
                json!({ "archive": describe_archive(archive), "path": path })
            }
            Self::AlarmSet { name, description } => {
                json!({ "name": name, "description": description })
            }
            Self::AlarmCleared { name } => json!({ "name": name }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_a_set_with_names() {
        let all: Kinds = Kind::ALL.into_iter().collect();
        for kind in Kind::ALL {
            assert!(all.has(kind) && !Kinds::default().has(kind));
            assert_eq!(Kind::parse(kind.name()), Some(kind));
        }
        let some: Kinds = [Kind::Alarm, Kind::Update, Kind::Update]
            .into_iter()
            .collect();
        assert_eq!(some.names(), ["update", "alarm"]);
        assert_eq!(Kind::parse("updates"), None);
        assert!(Kinds::default().is_empty() && !some.is_empty());
    }
}
