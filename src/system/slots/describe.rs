//! What is known of each slot, for people and programs.
//!
//! Owns the reading, not the layout. Shows descriptions only, no other variable.

use super::{SlotError, SlotSettings, booted};
use crate::system::metadata::{self, KeyValues};

/// Every slot that the metadata knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// Recorded as active: the boot loader's next choice.
    pub active: Option<String>,
    /// The running one, when that is known.
    pub running: Option<String>,
    pub slots: Vec<Slot>,
}

/// One slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    pub name: String,
    /// `None`: nothing says so.
    pub validated: Option<bool>,
    pub uuid: Option<String>,
    pub version: Option<String>,
    pub product: Option<String>,
}

/// Reads the metadata from wherever it is kept.
///
/// # Errors
/// There is none, or none that knows slots.
pub fn describe(settings: &SlotSettings) -> Result<Description, SlotError> {
    let values = metadata::load(&settings.metadata).map_err(SlotError::Metadata)?;
    let active = values.global("active");
    let slots = values.slots();
    if slots.is_empty() {
        return Err(SlotError::NoSlots);
    }
    Ok(Description {
        active: active.map(str::to_owned),
        running: booted(settings),
        slots: slots
            .into_iter()
            .map(|name| slot(&values, active, name))
            .collect(),
    })
}

fn slot(values: &KeyValues, active: Option<&str>, name: String) -> Slot {
    let text = |key| values.in_slot(&name, key).map(str::to_owned);
    let validated = match values.in_slot(&name, "validated") {
        // Marks outside slots are the active one's.
        _ if active == Some(&name) => Some(values.is_validated(active)),
        Some("1") => Some(true),
        Some("0") => Some(false),
        _ => None,
    };
    Slot {
        validated,
        uuid: text("uuid"),
        version: text("version"),
        product: text("product"),
        name,
    }
}
