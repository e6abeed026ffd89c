//! Waiting for what devices do. Every wait has a deadline and shows the transcript when it
//! fails.
//!
//! Each kind of expectation (topic and event) reads on from where it last succeeded, so an
//! order is checked within a kind and not between kinds: joins of two topics may race.

use crate::hub::{Hub, Join};
use crate::state::{State, Upgrade};
use crate::transcript::{Dir, Entry, Transcript};
use serde_json::Value;
use std::time::Duration;

impl Hub {
    /// The next join on `topic`.
    pub fn expect_join(&self, topic: &str) -> Join {
        let entry = self.expect_frame(topic, "phx_join", |_| true);
        let state = self.shared.lock();
        let upgrade = &state.upgrades[entry.conn as usize - 1];
        let frame = entry.frame.expect("a join is a frame");
        Join {
            conn: entry.conn,
            identifier: upgrade.identifier.clone().unwrap_or_default(),
            join_ref: frame.join_ref,
            params: frame.payload,
            via: upgrade.path.clone(),
            headers: upgrade.headers.clone(),
        }
    }

    /// The next push of `event` on `topic` that satisfies `check`; others of that event before
    /// it are skipped.
    pub fn expect_push(&self, topic: &str, event: &str, check: impl Fn(&Value) -> bool) -> Value {
        self.expect_frame(topic, event, check)
            .frame
            .expect("a push is a frame")
            .payload
    }

    /// As [`Hub::expect_push`], with the whole entry.
    pub fn expect_frame(&self, topic: &str, event: &str, check: impl Fn(&Value) -> bool) -> Entry {
        let found = self.shared.wait(Some(self.deadline), |state| {
            next_frame(state, topic, event, &check)
        });
        found.unwrap_or_else(|| self.fail(&format!("no {event} on {topic}")))
    }

    /// The next `status_update` with that status.
    pub fn expect_status(&self, status: &str) -> Value {
        let found = self.shared.wait(Some(self.deadline), |state| {
            next_frame(state, "device", "status_update", &|payload| {
                payload["status"] == status
            })
        });
        let entry = found.unwrap_or_else(|| self.fail(&format!("no status_update {status:?}")));
        entry.frame.expect("a push is a frame").payload
    }

    /// The next heartbeat.
    pub fn expect_heartbeat(&self) {
        self.expect_frame("phoenix", "heartbeat", |_| true);
    }

    /// Fails when such a push comes within `time` (or has come and was not read yet).
    pub fn expect_none(
        &self,
        topic: &str,
        event: &str,
        time: Duration,
        check: impl Fn(&Value) -> bool,
    ) {
        let found = self
            .shared
            .wait(Some(time), |state| next_frame(state, topic, event, &check));
        if let Some(entry) = found {
            self.fail(&format!("unexpected: {entry}"));
        }
    }

    /// Skips everything there is: expectations see only what comes from now on.
    pub fn skip_seen(&self) {
        self.shared.change(|state| {
            let end = state.transcript.entries.len();
            state.cursors.clear();
            state.cursors.insert((String::new(), String::new()), end);
        });
    }

    /// The next upgrade request number `id`, once it is answered (ids count from 1).
    pub fn expect_upgrade(&self, id: u64) -> Upgrade {
        let found = self.shared.wait(Some(self.deadline), |state| {
            state
                .upgrades
                .get(id as usize - 1)
                .filter(|upgrade| upgrade.status != 0)
                .cloned()
        });
        found.unwrap_or_else(|| self.fail(&format!("no answered upgrade request {id}")))
    }

    /// Waits until `count` upgrade requests have been seen, answered or not.
    pub fn expect_upgrades(&self, count: usize) -> Vec<Upgrade> {
        let found = self.shared.wait(Some(self.deadline), |state| {
            (state.upgrades.len() >= count).then(|| state.upgrades.clone())
        });
        found.unwrap_or_else(|| self.fail(&format!("fewer than {count} upgrade requests")))
    }

    /// Waits until no device link is open.
    pub fn expect_offline(&self) {
        let found = self.shared.wait(Some(self.deadline), |state| {
            state.links.is_empty().then_some(())
        });
        found.unwrap_or_else(|| self.fail("still a device online"))
    }

    /// Waits until `check` finds something in the transcript.
    pub fn wait<T>(&self, check: impl Fn(&Transcript) -> Option<T>, deadline: Duration) -> T {
        let found = self
            .shared
            .wait(Some(deadline), |state| check(&state.transcript));
        found.unwrap_or_else(|| self.fail("what the test waits for did not happen"))
    }

    /// Waits, under the hub's deadline, until `check` holds for the transcript.
    pub fn wait_until(&self, what: &str, check: impl Fn(&Transcript) -> bool) {
        let found = self.shared.wait(Some(self.deadline), |state| {
            check(&state.transcript).then_some(())
        });
        found.unwrap_or_else(|| self.fail(&format!("waited in vain for {what}")))
    }

    /// Waits, under the hub's deadline, for a note that contains `text`.
    pub fn expect_note(&self, text: &str) {
        self.wait_until(&format!("a note {text:?}"), |transcript| {
            transcript.noted(text)
        });
    }

    pub(crate) fn fail(&self, what: &str) -> ! {
        panic!("hub: {what}; transcript:\n{}", self.transcript());
    }
}

fn next_frame(
    state: &mut State,
    topic: &str,
    event: &str,
    check: &impl Fn(&Value) -> bool,
) -> Option<Entry> {
    let floor = state
        .cursors
        .get(&(String::new(), String::new()))
        .copied()
        .unwrap_or(0);
    let key = (topic.to_owned(), event.to_owned());
    let start = state.cursors.get(&key).copied().unwrap_or(0).max(floor);
    let entries = &state.transcript.entries;
    let found = (start..entries.len()).find(|&at| {
        entries[at].dir == Dir::Device
            && entries[at]
                .from_device(topic, event)
                .is_some_and(|frame| check(&frame.payload))
    })?;
    let entry = entries[found].clone();
    state.cursors.insert(key, found + 1);
    Some(entry)
}
