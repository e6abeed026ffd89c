//! The extension `network_identity`: says as whom the device is known in other networks.
//!
//! Owns what the hub was told and when to look for changes. The hub keeps each identity on
//! its own: what is not sent again stays as it was.

mod details;
mod identity;
mod providers;
#[cfg(test)]
mod tests;

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use super::{Extension, Kind, Life, Link, Site, Word};
use identity::{is_same, listed};
use providers::Asker;

/// The hub ignores what is beyond that in one report.
const MAX_REPORTED: usize = 10;
/// Most identities that the integrator may set.
const MAX_SET: usize = 16;

pub const KIND: Kind = Kind {
    name: "network_identity",
    versions: &["0.0.1"],
    life: Life::Attached,
    build: |site| Box::new(NetworkIdentity::new(site)),
};

struct NetworkIdentity {
    site: Arc<Site>,
    /// What the hub knows from this attachment.
    sent: Vec<Value>,
    asker: Asker,
    plan: Plan,
}

/// When to look for changes.
struct Plan {
    /// Zero: never.
    interval: Duration,
    /// `None`: the hub would not hear of it.
    due: Option<Instant>,
    is_attached: bool,
}

impl Plan {
    fn on_attached(&mut self, now: Instant) {
        self.is_attached = true;
        self.on_looked(now);
    }

    fn on_away(&mut self) {
        self.is_attached = false;
        self.due = None;
    }

    fn on_looked(&mut self, now: Instant) {
        let polls = self.is_attached && !self.interval.is_zero();
        self.due = polls.then(|| now + self.interval);
    }
}

impl Extension for NetworkIdentity {
    fn run(&mut self, link: &mut Link) -> Result<(), String> {
        loop {
            match link.next(self.plan.due) {
                Word::Over => return Ok(()),
                Word::Attached { .. } => self.plan.on_attached(Instant::now()),
                Word::Away => self.plan.on_away(),
                Word::Said { event, .. } if event == "request" => self.report(link, true),
                Word::Said { event, .. } => {
                    warn!("network_identity: ignoring unknown event {event:?}");
                }
                Word::Asked {
                    question,
                    what,
                    params,
                    ..
                } => {
                    let answer = self.on_asked(&what, &params, link);
                    link.answer(question, answer);
                }
                Word::Nudged => {}
                Word::Due => self.report(link, false),
            }
        }
    }
}

impl NetworkIdentity {
    fn new(site: &Arc<Site>) -> Self {
        Self {
            asker: Asker::new(&site.settings),
            plan: Plan {
                interval: site.settings.identity.interval,
                due: None,
                is_attached: false,
            },
            site: site.clone(),
            sent: Vec::new(),
        }
    }

    /// Asks every provider; tells all, or what has changed.
    fn report(&mut self, link: &Link, all: bool) {
        let mut current = self.set_here();
        for found in self.asker.ask(&|| link.is_over()) {
            // The integrator knows better than any provider.
            match current.iter().any(|other| is_same(other, &found)) {
                true => debug!("network_identity: another {} is there", found["service"]),
                false => current.push(found),
            }
        }
        if link.is_over() {
            return;
        }
        self.plan.on_looked(Instant::now());
        if all && current.is_empty() {
            info!(
                "the hub asks for network identities, and there are none; \
                 see NERVES_HUB_NETWORK_IDENTITY"
            );
            push(link, &[]);
        }
        if all {
            self.sent.clear();
        }
        self.push_changed(link, &current);
        // What is gone is sent again when it comes back.
        self.sent = current;
    }

    fn push_changed(&self, link: &Link, current: &[Value]) {
        let changed = current.iter().filter(|found| !self.sent.contains(found));
        let changed: Vec<Value> = changed.cloned().collect();
        for some in changed.chunks(MAX_REPORTED) {
            push(link, some);
        }
    }

    fn on_asked(&mut self, what: &str, params: &Value, link: &Link) -> Result<Value, String> {
        if what != "set" {
            return Err(format!("network_identity knows set, not {what:?}"));
        }
        let list = params.get("identities").and_then(Value::as_array);
        let list = list.ok_or("identities must be a list")?;
        if list.len() > MAX_SET {
            let count = list.len();
            return Err(format!(
                "identities has {count} entries, at most {MAX_SET} are taken"
            ));
        }
        let identities = listed(list).map_err(|error| format!("identities{error}"))?;
        let mut answer = Map::new();
        answer.insert("set".to_owned(), identities.len().into());
        if self.plan.is_attached {
            self.push_changed(link, &identities);
            self.sent
                .retain(|old| !identities.iter().any(|new| is_same(old, new)));
            self.sent.extend_from_slice(&identities);
        }
        let kept = self.site.kept.lock();
        let mut kept = kept.unwrap_or_else(PoisonError::into_inner);
        kept.insert(KIND.name.to_owned(), identities.into());
        Ok(answer.into())
    }

    /// What the integrator has set, before or after the last detach.
    fn set_here(&self) -> Vec<Value> {
        let kept = self.site.kept.lock();
        let kept = kept.unwrap_or_else(PoisonError::into_inner);
        let list = kept.get(KIND.name).and_then(Value::as_array);
        list.cloned().unwrap_or_default()
    }
}

fn push(link: &Link, identities: &[Value]) {
    let mut report = Map::new();
    report.insert("identities".to_owned(), identities.to_vec().into());
    link.push("report", report.into());
}
