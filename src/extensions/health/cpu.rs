//! The set `cpu`: temperature, use and load of the processors.

use serde_json::Value;

use super::draft::{Draft, percent};
use super::machine::{Machine, rows};

/// Thousandths of a degree that a chip can have; drivers without a sensor say anything.
const PLAUSIBLE: std::ops::RangeInclusive<i64> = -60_000..=250_000;

/// The processors' time since boot, in ticks.
#[derive(Clone, Copy, Debug)]
pub struct Ticks {
    all: u64,
    busy: u64,
}

/// `before`: since when use is counted, else since boot.
pub fn sample(
    machine: &Machine,
    zone: Option<&str>,
    before: Option<Ticks>,
    draft: &mut Draft,
) -> Option<Ticks> {
    match (temperature(machine, zone), zone) {
        (Some(found), _) => draft.measure("cpu_temp", degrees(found)),
        (None, Some(zone)) => draft.fail("cpu", &format!("no temperature of thermal zone {zone}")),
        // Containers and virtual machines have none.
        (None, None) => {}
    }
    let seen = ticks(machine);
    match &seen {
        Ok(now) => draft.measure("cpu_usage_percent", usage(*now, before)),
        Err(why) => draft.fail("cpu", why),
    }
    if let Err(why) = load(machine, draft) {
        draft.fail("cpu", &why);
    }
    seen.ok()
}

/// The hottest of all zones, or of those that are called `zone`.
fn temperature(machine: &Machine, zone: Option<&str>) -> Option<i64> {
    let mut hottest = None;
    for name in machine.names("sys/class/thermal") {
        let file = |file: &str| machine.text(&format!("sys/class/thermal/{name}/{file}"));
        let is_wanted = match zone {
            None => name.starts_with("thermal_zone"),
            Some(zone) => zone == name || file("type").is_ok_and(|found| found == zone),
        };
        if !is_wanted {
            continue;
        }
        // One that is switched off has an error instead.
        let found = file("temp").ok().and_then(|text| text.parse().ok());
        hottest = hottest.max(found.filter(|found| PLAUSIBLE.contains(found)));
    }
    hottest
}

/// With one decimal.
fn degrees(thousandths: i64) -> Value {
    let tenths = (thousandths + 50).div_euclid(100);
    Value::from(tenths as f64 / 10.0)
}

fn ticks(machine: &Machine) -> Result<Ticks, String> {
    let text = machine.text("proc/stat")?;
    parse_ticks(&text).ok_or_else(|| "/proc/stat is not understood".to_owned())
}

/// Of `cpu USER NICE SYSTEM IDLE IOWAIT IRQ SOFTIRQ STEAL GUEST …`: guests are in USER.
fn parse_ticks(text: &str) -> Option<Ticks> {
    let rows = rows(text);
    let (name, numbers) = rows.first()?.split_first()?;
    let (mut all, mut busy) = (0_u64, 0_u64);
    for (index, number) in numbers.iter().enumerate() {
        let number = number.parse().ok().filter(|_| *name == "cpu")?;
        if index < 8 {
            all = all.saturating_add(number);
        }
        if index < 8 && index != 3 && index != 4 {
            busy = busy.saturating_add(number);
        }
    }
    (all > 0).then_some(Ticks { all, busy })
}

fn usage(now: Ticks, before: Option<Ticks>) -> Value {
    let since = before.filter(|before| now.all > before.all && now.busy >= before.busy);
    let since = since.unwrap_or(Ticks { all: 0, busy: 0 });
    let all = now.all - since.all;
    // Time of waiting can run backwards.
    percent((now.busy - since.busy).min(all), all)
}

fn load(machine: &Machine, draft: &mut Draft) -> Result<(), String> {
    let text = machine.text("proc/loadavg")?;
    let rows = rows(&text);
    for (index, name) in ["load_1min", "load_5min", "load_15min"].iter().enumerate() {
        let word = rows[0].get(index).copied().unwrap_or_default();
        match serde_json::from_slice(word.as_bytes()) {
            Ok(value @ Value::Number(_)) => draft.measure(name, value),
            Ok(_) | Err(_) => return Err("/proc/loadavg is not understood".to_owned()),
        }
    }
    Ok(())
}
