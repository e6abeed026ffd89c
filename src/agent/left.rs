//! What the agent's last run left of an update, and what to make of it.
//!
//! Owns what is believed at the start: which slot runs, and whether a reboot is still owed.
//! Must not order anything: the core does.
//!
//! The journal's entry is of this boot, so that the slot noted in it runs still, whatever
//! the record of the active one says by now.
//!
//! * **An installer was at work.** A switch of its making is taken back, whatever
//!   `NERVES_HUB_STALE_SLOT` says: it has not said that all is well. A record that is true,
//!   and one that it cannot have changed, are left alone. The entry goes once the record is
//!   true, since the next change is somebody's wish; until then it is the only witness.
//! * **Firmware is installed.** The reboot is owed, and no record is corrected, which would
//!   undo the update. That the reboot command succeeded proves nothing, so the entry stays
//!   until the machine has booted. The boot's id tells that; within the same one, as in a
//!   test bench that plays boots, it is told by
//!   - the kernel command line, the root device or `NERVES_HUB_BOOTED_SLOT`, when they name
//!     another slot or one with the new firmware in it;
//!   - a description without slots, when it names the new firmware;
//!   - a record that is not as the installer left it: somebody has booted, or taken the
//!     update back.
//!
//!   A record that names the new firmware, and did so already when the installer ended, says
//!   nothing. The machine is taken as not rebooted: otherwise firmware that has never run
//!   might be marked valid, and the running slot overwritten. If that is wrong, it costs a
//!   reboot too many, and [`RUNS`] of them at most: then the entry goes, and the record is
//!   believed, or refused as stale where another slot is known to run.

use crate::config::Config;
use crate::core::reboot::{Installed, Ordered};
use crate::system::metadata;
use crate::system::slots::{self, Guard, Record, SlotSettings};
use crate::update::journal::{Entry, Journal, Stage};

/// Runs of the agent that order one reboot, at most.
const RUNS: u64 = 3;

/// Settles what can be settled; an entry that is given back is of firmware whose reboot is
/// owed. `config` then says which slot is running.
pub(super) fn judge(journal: &Journal, config: &mut Config) -> Option<Entry> {
    let entry = journal.read()?;
    let settings = SlotSettings::new(config);
    let booted = slots::booted(&settings);
    // A description that cannot be read keeps the agent from starting, or is no description.
    let (values, _) = metadata::load_with_warning(&settings.metadata).ok()?;
    let firmware = values.firmware(&settings.metadata.overrides, booted.as_deref());
    let now = Record::of(&settings, &values);
    if has_booted(&entry, booted.as_deref(), firmware.uuid.as_deref(), &now) {
        info!("the machine has booted since firmware {}", entry.uuid);
        journal.clear();
        return None;
    }
    match entry.stage {
        Stage::Applying => {
            let guard = Guard::new(settings, entry.slot.clone(), &values);
            if guard.take_back(&entry.uuid) {
                journal.clear();
            }
        }
        Stage::Installed if entry.orders >= RUNS => {
            error!(
                "the reboot into firmware {} was ordered {RUNS} times in vain; given up; \
                 check NERVES_HUB_REBOOT_COMMAND",
                entry.uuid
            );
            journal.clear();
            return None;
        }
        Stage::Installed => config.slots.correct_stale = false,
    }
    config.slots.booted = booted.or_else(|| entry.slot.clone());
    (entry.stage == Stage::Installed).then_some(entry)
}

/// For the core.
pub(super) fn promise(entry: Entry) -> Installed {
    Installed {
        uuid: entry.uuid,
        reboot: match (entry.orders, entry.accepted) {
            (0, _) => Ordered::No,
            (_, false) => Ordered::Tried,
            (_, true) => Ordered::Accepted,
        },
    }
}

/// Whether the machine has booted since the entry was written: see above. `running` is the
/// firmware of slot `booted`, or of the one on record.
fn has_booted(entry: &Entry, booted: Option<&str>, running: Option<&str>, now: &Record) -> bool {
    let other_slot = booted.is_some() && entry.slot.is_some() && booted != entry.slot.as_deref();
    if entry.stage == Stage::Applying {
        return other_slot;
    }
    let has_evidence = booted.is_some() || now.active.is_none();
    let is_new = has_evidence && running == Some(&entry.uuid);
    let changed = entry.record.as_ref().is_some_and(|then| {
        let switched = (&then.active, &then.uuid) != (&now.active, &now.uuid);
        // A record that contradicts the kernel is no evidence; one that agrees again is.
        let is_credible = booted.is_none() || booted == now.active.as_deref();
        switched && is_credible || now.reverted && !then.reverted
    });
    other_slot || is_new || changed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(active: &str, uuid: &str) -> Record {
        Record {
            active: (!active.is_empty()).then(|| active.to_owned()),
            uuid: Some(uuid.to_owned()),
            reverted: false,
        }
    }

    /// Slot a ran, and firmware `new` was installed.
    fn entry(stage: Stage, record: Record) -> Entry {
        Entry {
            stage,
            uuid: "new".into(),
            slot: record.active.as_ref().map(|_| "a".to_owned()),
            record: Some(record),
            orders: 1,
            accepted: true,
        }
    }

    #[test]
    fn a_boot_is_told_by_evidence_or_by_a_change() {
        let (old, new) = (record("a", "old"), record("b", "new"));
        let reverted = |record: &Record| Record {
            reverted: true,
            ..record.clone()
        };
        // On record after the installer, now, what the kernel says, its firmware.
        for (then, now, booted, running, expected) in [
            // The record was switched by the installer.
            (&new, &new, None, "new", false),
            (&new, &new, Some("a"), "old", false),
            (&new, &new, Some("b"), "new", true),
            (&new, &old, None, "old", true),
            (&new, &old, Some("a"), "old", true),
            (&new, &reverted(&old), None, "old", true),
            // Something else decides over the slot.
            (&old, &old, None, "old", false),
            (&old, &old, Some("a"), "old", false),
            (&old, &old, Some("b"), "new", true),
            (&old, &new, None, "new", true),
            (&old, &new, Some("a"), "old", false),
            (&old, &record("a", "new"), None, "new", true),
            (&old, &reverted(&old), None, "old", true),
            (&reverted(&old), &reverted(&old), None, "old", false),
            // No slots.
            (&record("", "old"), &record("", "old"), None, "old", false),
            (&record("", "old"), &record("", "new"), None, "new", true),
            (&record("", "new"), &record("", "new"), None, "new", true),
        ] {
            let entry = entry(Stage::Installed, then.clone());
            let told = has_booted(&entry, booted, Some(running), now);
            assert_eq!(told, expected, "{then:?} {now:?} {booted:?} {running}");
        }
        let unknown = Entry {
            record: None,
            ..entry(Stage::Installed, old.clone())
        };
        assert!(!has_booted(&unknown, None, Some("new"), &new));
    }

    #[test]
    fn an_installer_s_switch_is_no_boot() {
        let entry = entry(Stage::Applying, record("a", "old"));
        let now = record("b", "new");
        assert!(!has_booted(&entry, None, Some("new"), &now));
        assert!(!has_booted(&entry, Some("a"), Some("old"), &now));
        assert!(has_booted(&entry, Some("b"), Some("new"), &now));
    }

    #[test]
    fn a_promise_goes_on_where_it_was() {
        for (orders, accepted, reboot) in [
            (0, false, Ordered::No),
            (1, false, Ordered::Tried),
            (2, true, Ordered::Accepted),
        ] {
            let left = Entry {
                orders,
                accepted,
                ..entry(Stage::Installed, record("b", "new"))
            };
            let uuid = "new".to_owned();
            assert_eq!(promise(left), Installed { uuid, reboot });
        }
    }
}
