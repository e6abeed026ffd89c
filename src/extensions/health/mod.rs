//! Health: how the device is, told to the hub when it asks.
//!
//! Owns the order of a report, what is known from one to the next, and the alarms that come
//! of looking: `DiskAlmostFull:PATH` and `HealthCheckFailed`. What is measured, and how, is
//! in the parts beside. A part that fails costs the report nothing but itself.

mod cpu;
mod disk;
mod draft;
mod folder;
mod given;
mod machine;
mod memory;
mod network;
#[cfg(test)]
mod tests;

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use super::{Alarms, Extension, Kind, Life, Link, Site, Word};
use crate::config::extensions::MetricSet;
use crate::system::time;
use crate::wire::json::json;
use draft::{Draft, put};
use machine::Machine;

/// Its name, and that of what [`Site`] keeps for it.
const NAME: &str = "health";
/// Between looks at the disks for their alarm.
const LOOK_EVERY: Duration = Duration::from_secs(600);
/// What a program of the integrator's may take.
const PROGRAM: Duration = Duration::from_secs(5);
const FAILED: &str = "HealthCheckFailed";
const FULL: &str = "DiskAlmostFull:";
/// Longest description of an alarm, in bytes.
const DESCRIPTION: usize = 256;

pub(super) const KIND: Kind = Kind {
    name: NAME,
    versions: &["0.0.1"],
    life: Life::Attached,
    build: |site| Box::new(Health::new(site)),
};

/// Says that what is being done is not wanted any more.
type IsOver<'a> = &'a (dyn Fn() -> bool + Sync);

/// The extension's state.
pub struct Health {
    site: Arc<Site>,
    machine: Machine,
    /// The hub takes reports.
    is_attached: bool,
    look_every: Duration,
    /// The processors' time at the last report that was sent, and at the last one made.
    sent: Option<cpu::Ticks>,
    seen: Option<cpu::Ticks>,
    /// File systems that are almost full.
    full: Vec<String>,
    /// What failed in the last report.
    failure: Option<String>,
    /// Alarms as the agent was last told.
    told: Alarms,
    /// What was ignored in the last report, and is logged already.
    ignored: Vec<String>,
}

impl Extension for Health {
    fn run(&mut self, link: &mut Link) -> Result<(), String> {
        let mut look = self.next_look();
        loop {
            match link.next(look) {
                Word::Said { event, alarms, .. } if event == "check" => self.send(link, &alarms),
                Word::Said { event, .. } => debug!("health: unknown event {event:?}"),
                Word::Asked {
                    question,
                    what,
                    params,
                    alarms,
                } => {
                    let answer = self.on_asked(link, &what, params, &alarms);
                    link.answer(question, answer);
                }
                Word::Due => self.look_at_disks(),
                Word::Attached { .. } => {
                    self.is_attached = true;
                    continue;
                }
                Word::Away => {
                    self.is_attached = false;
                    continue;
                }
                Word::Nudged => continue,
                Word::Over => return Ok(()),
            }
            self.tell(link);
            look = self.next_look();
        }
    }
}

impl Health {
    pub fn new(site: &Arc<Site>) -> Self {
        Self {
            site: Arc::clone(site),
            machine: Machine::default(),
            is_attached: false,
            look_every: LOOK_EVERY,
            sent: None,
            seen: None,
            full: Vec::new(),
            failure: None,
            told: Vec::new(),
            ignored: Vec::new(),
        }
    }

    fn next_look(&self) -> Option<Instant> {
        let settings = &self.site.settings.health;
        (settings.disk_alarm > 0).then(|| Instant::now() + self.look_every)
    }

    fn send(&mut self, link: &Link, alarms: &Alarms) {
        let report = self.report(alarms, &|| link.is_over());
        if !link.is_over() {
            let mut payload = Map::new();
            put(&mut payload, "value", report);
            link.push("report", payload.into());
            self.sent = self.seen;
        }
    }

    fn on_asked(
        &mut self,
        link: &Link,
        what: &str,
        params: Value,
        alarms: &Alarms,
    ) -> Result<Value, String> {
        match what {
            "report" => Ok(self.report(alarms, &|| link.is_over())),
            "send" if !self.is_attached => Err("the hub does not take reports now".to_owned()),
            "send" => {
                self.send(link, alarms);
                Ok(json!({ "sent": true }))
            }
            "set" => self.set(&params),
            _ => Err(format!("health: no such request: {what:?}")),
        }
    }

    /// The integrator's values, kept until the agent ends.
    fn set(&self, params: &Value) -> Result<Value, String> {
        let kept = self.site.kept.lock();
        let mut kept = kept.unwrap_or_else(PoisonError::into_inner);
        let values = given::merged(kept.get(NAME).unwrap_or(&Value::Null), params)?;
        put(&mut kept, NAME, values.clone());
        Ok(values)
    }

    /// The very report that the hub gets.
    pub fn report(&mut self, alarms: &Alarms, is_over: IsOver) -> Value {
        let site = Arc::clone(&self.site);
        let settings = &site.settings.health;
        let mut draft = Draft::default();
        for set in &settings.sets {
            self.sample(*set, &mut draft);
        }
        network::connectivity(&self.machine, settings.probe.as_ref(), &mut draft);
        if let Some(folder) = &settings.folder {
            // All run at the same time; a report must not look like hanging.
            let patience = PROGRAM.min(site.settings.timeout / 2);
            folder::read(folder, patience, is_over, &mut draft);
        }
        draft.add_kept(&site.kept, NAME);
        self.look_at_disks();
        self.judge(&mut draft);
        self.finish(draft, alarms)
    }

    fn sample(&mut self, set: MetricSet, draft: &mut Draft) {
        let settings = &self.site.settings.health;
        let machine = &self.machine;
        match set {
            MetricSet::Cpu => {
                let zone = settings.thermal_zone.as_deref();
                self.seen = cpu::sample(machine, zone, self.sent, draft);
            }
            MetricSet::Memory => memory::sample(machine, draft),
            MetricSet::Disk => disk::sample(machine, settings, draft),
            MetricSet::Network => network::sample(machine, draft),
        }
    }

    fn look_at_disks(&mut self) {
        let settings = &self.site.settings.health;
        disk::look(&self.machine, settings, &mut self.full);
    }

    /// What failed becomes an alarm, what was ignored a line in the log: once each.
    fn judge(&mut self, draft: &mut Draft) {
        self.failure = match draft.failures.is_empty() {
            true => None,
            false => Some(one_line(&draft.failures)),
        };
        let ignored = std::mem::take(&mut draft.ignored);
        for text in ignored.iter().filter(|text| !self.ignored.contains(text)) {
            warn!("health: ignoring {text}");
        }
        self.ignored = ignored;
    }

    fn finish(&self, mut draft: Draft, alarms: &Alarms) -> Value {
        let is_own = |name: &str| name == FAILED || name.starts_with(FULL);
        // Of its own the agent knows those of the last report.
        let agents = alarms.iter().filter(|(name, _)| !is_own(name));
        for (name, description) in agents.chain(&self.alarms()) {
            put(&mut draft.alarms, name, description.as_str().into());
        }
        let mut report = Map::new();
        for (name, part) in [
            ("timestamp", time::iso8601(time::unix_now()).into()),
            ("metadata", draft.metadata.into()),
            ("alarms", draft.alarms.into()),
            ("metrics", draft.metrics.into()),
            ("checks", draft.checks.into()),
            ("connectivity", draft.connectivity.into()),
        ] {
            put(&mut report, name, part);
        }
        report.into()
    }

    /// Those that come of looking.
    fn alarms(&self) -> Alarms {
        let limit = self.site.settings.health.disk_alarm;
        let full = self.full.iter();
        let mut alarms: Alarms = full
            .map(|path| (format!("{FULL}{path}"), format!("{path} is {limit} % full")))
            .collect();
        if let Some(failure) = &self.failure {
            alarms.push((FAILED.to_owned(), failure.clone()));
        }
        alarms
    }

    /// Tells the agent what has changed.
    fn tell(&mut self, link: &Link) {
        let alarms = self.alarms();
        for (name, _) in &self.told {
            if !alarms.iter().any(|(other, _)| other == name) {
                link.alarm(name, None);
            }
        }
        for alarm in &alarms {
            if !self.told.contains(alarm) {
                link.alarm(&alarm.0, Some(alarm.1.clone()));
            }
        }
        self.told = alarms;
    }
}

/// As an alarm's description has to be.
fn one_line(text: &str) -> String {
    let mut line = String::new();
    for character in text.chars() {
        if line.len() + character.len_utf8() > DESCRIPTION {
            break;
        }
        line.push(match character.is_control() {
            true => ' ',
            false => character,
        });
    }
    line
}
