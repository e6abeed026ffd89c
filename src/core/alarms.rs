//! What an operator should look at: the agent's own alarms, which follow from its state, and
//! those that the integrator sets. Pure. They are in the status and, later, in health reports.

use super::event::ExtensionId;
use super::{Core, Setup};
use crate::wire::control::{Code, Fault};
use crate::wire::occurrence::Occurrence;

/// Most alarms of the integrator.
const MOST: usize = 32;
const MAX_NAME: usize = 64;
const MAX_DESCRIPTION: usize = 256;

/// The agent's own. Its name is its identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alarm {
    FirmwareReverted,
    FirmwareNotValidated,
    ClockUnset,
    Disconnected,
    UpdateInProgress,
}

impl Alarm {
    const ALL: [Self; 5] = [
        Self::FirmwareReverted,
        Self::FirmwareNotValidated,
        Self::ClockUnset,
        Self::Disconnected,
        Self::UpdateInProgress,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::FirmwareReverted => "FirmwareReverted",
            Self::FirmwareNotValidated => "FirmwareNotValidated",
            Self::ClockUnset => "ClockUnset",
            Self::Disconnected => "Disconnected",
            Self::UpdateInProgress => "UpdateInProgress",
        }
    }

    pub fn description(self) -> &'static str {
        match self {
            Self::FirmwareReverted => {
                "the other slot's firmware was booted, never marked valid, and rolled back"
            }
            Self::FirmwareNotValidated => "the running firmware is not marked valid",
            Self::ClockUnset => "the device's clock is before the agent was built",
            Self::Disconnected => "the hub is not reached",
            Self::UpdateInProgress => "an update is in hand",
        }
    }
}

/// The alarms' state.
pub struct Alarms {
    /// The integrator's: name and description. So few that a map would be no faster, and it
    /// is 8 KiB in the binary.
    set: Vec<(String, String)>,
    /// Those of extensions.
    theirs: Vec<(ExtensionId, String, String)>,
    /// The agent's own, as they were last told.
    told: Vec<Alarm>,
    clock_unset: bool,
}

impl Alarms {
    pub(super) fn new(setup: &Setup) -> Self {
        Self {
            set: Vec::new(),
            theirs: Vec::new(),
            told: Vec::new(),
            clock_unset: setup.clock_unset,
        }
    }
}

impl Core {
    /// The agent's own that are raised now.
    pub fn alarms(&self) -> Vec<Alarm> {
        Alarm::ALL
            .into_iter()
            .filter(|alarm| match alarm {
                Alarm::FirmwareReverted => self.setup.auto_revert_detected,
                Alarm::FirmwareNotValidated => !self.device.validated,
                Alarm::ClockUnset => self.alarms.clock_unset,
                Alarm::Disconnected => {
                    self.setup.endpoint.is_some() && !self.notices.is_connected()
                }
                Alarm::UpdateInProgress => self.is_update_in_hand(),
            })
            .collect()
    }

    /// All that are raised: name and description; the agent's own, its extensions', the integrator's.
    pub fn raised(&self) -> impl Iterator<Item = (&str, &str)> {
        let own = self.alarms().into_iter();
        let own = own.map(|alarm| (alarm.name(), alarm.description()));
        let set = self.alarms.set.iter();
        let theirs = self.alarms.theirs.iter();
        own.chain(theirs.map(|(_, name, description)| (name.as_str(), description.as_str())))
            .chain(set.map(|(name, description)| (name.as_str(), description.as_str())))
    }

    /// The dispatcher looks at the clock for as long as this holds.
    pub fn awaits_clock(&self) -> bool {
        self.alarms.clock_unset
    }

    pub(super) fn on_clock_set(&mut self) {
        self.alarms.clock_unset = false;
    }

    /// Tells which of the agent's own have come and gone.
    pub(super) fn tend_alarms(&mut self) {
        let now = self.alarms();
        if now == self.alarms.told {
            return;
        }
        let before = std::mem::replace(&mut self.alarms.told, now.clone());
        for alarm in Alarm::ALL {
            let name = alarm.name().to_owned();
            match (before.contains(&alarm), now.contains(&alarm)) {
                (false, true) => self.publish(Occurrence::AlarmSet {
                    name,
                    description: alarm.description().to_owned(),
                }),
                (true, false) => self.publish(Occurrence::AlarmCleared { name }),
                (true, true) | (false, false) => {}
            }
        }
    }

    /// An extension raises one, describes it anew, or (`None`) clears it.
    pub(super) fn set_alarm_of(
        &mut self,
        id: ExtensionId,
        name: String,
        description: Option<String>,
    ) {
        let theirs = &mut self.alarms.theirs;
        let place = theirs
            .iter()
            .position(|(owner, known, _)| *owner == id && *known == name);
        match (place, description) {
            (None, None) => {}
            (Some(place), None) => {
                theirs.swap_remove(place);
                info!("alarm {name} cleared");
                self.publish(Occurrence::AlarmCleared { name });
            }
            (Some(place), Some(description)) => theirs[place].2 = description,
            (None, Some(_)) if theirs.len() >= MOST => {
                warn!("too many alarms: {name} ignored")
            }
            (None, Some(description)) => {
                warn!("alarm {name}: {description}");
                theirs.push((id, name.clone(), description.clone()));
                self.publish(Occurrence::AlarmSet { name, description });
            }
        }
    }

    /// The extension does not look after them any more.
    pub(super) fn clear_alarms_of(&mut self, id: ExtensionId) {
        let is_its = |(owner, ..): &(ExtensionId, String, String)| *owner == id;
        while let Some(place) = self.alarms.theirs.iter().position(is_its) {
            let (_, name, _) = self.alarms.theirs.swap_remove(place);
            self.publish(Occurrence::AlarmCleared { name });
        }
    }

    /// Sets one of the integrator's; one that is set already gets another description.
    pub(super) fn set_alarm(&mut self, name: String, description: String) -> Result<(), Fault> {
        check_name(&name)?;
        let is_clean = |text: &str| !text.contains(char::is_control);
        if description.len() > MAX_DESCRIPTION || !is_clean(&description) {
            let text =
                format!("an alarm's description is one line of {MAX_DESCRIPTION} bytes at most");
            return Err(Fault::new(Code::BadParams, text));
        }
        let set = &mut self.alarms.set;
        let is_full = set.len() >= MOST;
        match set.iter_mut().find(|(known, _)| *known == name) {
            Some((_, text)) if *text == description => return Ok(()),
            Some((_, text)) => text.clone_from(&description),
            None if is_full => {
                let text = format!("{MOST} alarms are set already: clear some");
                return Err(Fault::new(Code::Busy, text));
            }
            None => set.push((name.clone(), description.clone())),
        }
        info!("alarm {name} set: {description}");
        self.publish(Occurrence::AlarmSet { name, description });
        Ok(())
    }

    pub(super) fn on_alarm_file(&mut self, name: String, description: Option<String>) {
        let taken = match description {
            Some(description) => self.set_alarm(name.clone(), description),
            None => self.clear_alarm(&name).map(|_| ()),
        };
        if let Err(fault) = taken {
            warn!("the file {name:?} is no alarm: {}", fault.message);
        }
    }

    /// Whether it was set.
    pub(super) fn clear_alarm(&mut self, name: &str) -> Result<bool, Fault> {
        check_name(name)?;
        let before = self.alarms.set.len();
        self.alarms.set.retain(|(other, _)| other != name);
        let was_set = self.alarms.set.len() < before;
        if was_set {
            info!("alarm {name} cleared");
            let name = name.to_owned();
            self.publish(Occurrence::AlarmCleared { name });
        }
        Ok(was_set)
    }
}

fn check_name(name: &str) -> Result<(), Fault> {
    let is_plain = name.bytes().all(|byte| byte.is_ascii_graphic());
    if name.is_empty() || name.len() > MAX_NAME || !is_plain {
        let text = format!("an alarm's name is 1 to {MAX_NAME} ASCII characters without spaces");
        return Err(Fault::new(Code::BadParams, text));
    }
    match Alarm::ALL.iter().any(|alarm| alarm.name() == name) {
        true => {
            let text = format!("the alarm {name} is the agent's own");
            Err(Fault::new(Code::Refused, text))
        }
        false => Ok(()),
    }
}
