//! The set `memory`: what programs could still have, as the kernel estimates it.

use super::draft::{Draft, percent};
use super::machine::{Machine, rows};

pub fn sample(machine: &Machine, draft: &mut Draft) {
    let text = match machine.text("proc/meminfo") {
        Ok(text) => text,
        Err(why) => return draft.fail("memory", &why),
    };
    let Some((total, available)) = parse(&text) else {
        return draft.fail("memory", "/proc/meminfo is not understood");
    };
    let used = total.saturating_sub(available);
    draft.measure("mem_size_mb", (total / 1024).into());
    draft.measure("mem_used_mb", (used / 1024).into());
    draft.measure("mem_used_percent", percent(used, total));
}

/// Total and available, in KiB.
fn parse(text: &str) -> Option<(u64, u64)> {
    let rows = rows(text);
    let field = |name: &str| -> Option<u64> {
        let mut rows = rows.iter();
        let row = rows.find(|row| row.first() == Some(&name))?;
        row.get(1)?.parse().ok()
    };
    let total = field("MemTotal:").filter(|total| *total > 0)?;
    // Kernels before 3.14 do not estimate.
    let available = field("MemAvailable:").or_else(|| {
        let free = field("MemFree:")?.saturating_add(field("Buffers:")?);
        Some(free.saturating_add(field("Cached:")?))
    })?;
    Some((total, available))
}
