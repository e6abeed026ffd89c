//! The running slot's guard while firmware is installed.
//!
//! Owns the look at the record right before an installer begins, and what is done when one
//! has failed behind the switch. Whether a record is corrected that no installer has
//! changed is for `running`.

use std::path::PathBuf;

use super::running::{disagreement, stale};
use super::{SlotSettings, native};
use crate::system::metadata::{self, KeyValues};

/// What the agent knew at its start, to compare with.
#[derive(Clone, Debug)]
pub struct Guard {
    pub settings: SlotSettings,
    /// The running slot: known, or the one recorded as active at the agent's start.
    slot: Option<String>,
    /// There was a record.
    recorded: bool,
}

/// What the record says of the next boot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    pub active: Option<String>,
    pub uuid: Option<String>,
    /// The other slot was rolled back.
    pub reverted: bool,
}

impl Guard {
    pub fn new(settings: SlotSettings, slot: Option<String>, values: &KeyValues) -> Self {
        Self {
            settings,
            slot,
            recorded: values.global("active").is_some(),
        }
    }

    /// Where to write now. Installers choose the slot by the record, which may have changed
    /// since the agent started.
    ///
    /// # Errors
    /// Why nothing may be written.
    pub fn aim(&self) -> Result<Option<PathBuf>, String> {
        let values = match self.read() {
            Ok(values) => values,
            Err(_) if !self.recorded => KeyValues::default(),
            Err(reason) => return Err(reason),
        };
        if self.recorded && values.global("active").is_none() {
            let reason = "no slot is recorded as active any more (nerves_fw_active); restore it, \
                          or restart the agent";
            return Err(reason.to_owned());
        }
        if let Some((active, running)) = disagreement(&values, self.slot.as_deref()) {
            return Err(stale(active, running));
        }
        let overrides = &self.settings.metadata.overrides;
        let found = || values.firmware(overrides, self.slot.as_deref()).devpath;
        Ok(self.settings.fwup.devpath.clone().or_else(found))
    }

    /// `None`: it cannot be read.
    pub fn record(&self) -> Option<Record> {
        Some(Record::of(&self.settings, &self.read().ok()?))
    }

    /// After an installation of firmware `uuid` that did not succeed, or is not known to
    /// have: the running slot is recorded as active again where that installation has
    /// changed it. False: another one is on record still.
    pub fn take_back(&self, uuid: &str) -> bool {
        let Some(running) = self.slot.as_deref() else {
            return true;
        };
        let values = match self.read() {
            Ok(values) => values,
            Err(_) if !self.recorded => return true,
            Err(reason) => {
                warn!("whether the installer has switched slots is not known: {reason}");
                return false;
            }
        };
        let Some((active, _)) = disagreement(&values, Some(running)) else {
            return true;
        };
        let found = format!("the active slot was recorded as {active} but {running} is running");
        if values.in_slot(active, "uuid").is_some_and(|u| u != uuid) {
            warn!("{found}; left alone: that is not the firmware {uuid}");
            return false;
        }
        match native::record_active(&self.settings, running, Some(active)) {
            Ok(()) => warn!("the installer did not succeed: {found}; recorded {running}"),
            Err(error) => {
                error!("the installer did not succeed: {found}: {error}");
                return false;
            }
        }
        true
    }

    /// An empty store in place of one that cannot be read says nothing.
    fn read(&self) -> Result<KeyValues, String> {
        match metadata::load_with_warning(&self.settings.metadata) {
            Ok((values, None)) => Ok(values),
            Ok((_, Some(warning))) => Err(warning),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl Record {
    pub fn of(settings: &SlotSettings, values: &KeyValues) -> Self {
        let firmware = values.firmware(&settings.metadata.overrides, None);
        Self {
            active: firmware.slot,
            uuid: firmware.uuid,
            reverted: firmware.auto_revert_detected,
        }
    }
}
