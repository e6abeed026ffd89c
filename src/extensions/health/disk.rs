//! The set `disk`, and which file systems are almost full.

use super::draft::{Draft, percent};
use super::machine::{Machine, Usage};
use crate::config::extensions::{HealthSettings, READ_ONLY, fits_a_name};

/// An alarm is cleared so many per cent below where it is raised.
const SLACK: u64 = 2;

/// The first has the plain keys, the others have their path behind them.
pub fn sample(machine: &Machine, settings: &HealthSettings, draft: &mut Draft) {
    for (index, path) in places(machine, settings).iter().enumerate() {
        let usage = match (machine.usage)(path) {
            Ok(usage) if has_blocks(&usage) => usage,
            Ok(_) => {
                let text = format!("disk {path}, which has no blocks");
                draft.ignored.push(text);
                continue;
            }
            Err(why) => {
                draft.fail("disk", &why);
                continue;
            }
        };
        let place = match index {
            0 => String::new(),
            _ => format!(":{path}"),
        };
        let mut measure = |name: &str, value| draft.measure(&format!("{name}{place}"), value);
        measure("disk_total_kb", usage.total_kb.into());
        measure("disk_available_kb", usage.available_kb.into());
        // As df has it: what is reserved for root is neither used nor available.
        let whole = usage.used_kb + usage.available_kb;
        measure("disk_used_percentage", percent(usage.used_kb, whole));
    }
}

/// Those that are looked at. An image is full from the start and for ever, and memory may
/// have no size: by default the agent's folder stands in for such a root.
fn places(machine: &Machine, settings: &HealthSettings) -> Vec<String> {
    let Some(spare) = &settings.spare else {
        return settings.disks.clone();
    };
    let can_fill = |usage: &Usage| !usage.is_read_only && has_blocks(usage);
    let mut root = settings.disks.iter();
    if root.all(|path| (machine.usage)(path).map_or(true, |usage| can_fill(&usage))) {
        return settings.disks.clone();
    }
    for folder in spare.ancestors() {
        let path = folder.to_string_lossy();
        // It may not exist yet.
        if let Ok(usage) = (machine.usage)(&path) {
            return match can_fill(&usage) {
                true => vec![path.into_owned()],
                false => Vec::new(),
            };
        }
    }
    Vec::new()
}

fn has_blocks(usage: &Usage) -> bool {
    usage.used_kb + usage.available_kb > 0
}

/// Brings the list of those that are almost full up to date. One that cannot be looked at
/// stays what it was.
pub fn look(machine: &Machine, settings: &HealthSettings, full: &mut Vec<String>) {
    if settings.disk_alarm == 0 {
        return;
    }
    let places = places(machine, settings);
    full.retain(|path| places.contains(path));
    for path in places.iter().filter(|path| fits_a_name(path)) {
        let Ok(usage) = (machine.usage)(path) else {
            continue;
        };
        let was = full.contains(path);
        let is = !is_ignored(path, &usage, settings) && is_full(&usage, settings.disk_alarm, was);
        match (was, is) {
            (false, true) => full.push(path.clone()),
            (true, false) => full.retain(|other| other != path),
            (false, false) | (true, true) => {}
        }
    }
}

fn is_ignored(path: &str, usage: &Usage, settings: &HealthSettings) -> bool {
    let mut words = settings.disk_ignore.iter();
    words.any(|word| word == path || (usage.is_read_only && word == READ_ONLY))
}

fn is_full(usage: &Usage, limit: u64, was: bool) -> bool {
    let whole = usage.used_kb + usage.available_kb;
    let used = usage.used_kb.saturating_mul(100);
    match was {
        true => used > whole.saturating_mul(limit.saturating_sub(SLACK)),
        false => whole > 0 && used >= whole.saturating_mul(limit),
    }
}
