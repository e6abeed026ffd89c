//! Public keys that the hub sends: when they are asked for, which count, what is kept.
//!
//! Rules kept here: keys count only when they were asked for; a list without a usable key
//! clears nothing; what the hub sent replaces what is configured. Lists survive reconnects
//! and, if that is wanted, restarts.

use std::time::Duration;

use super::effect::{Effect, HubKeys};
use super::timers::Timer;
use super::{Core, Setup};
use crate::config::ArchivePolicy;

/// How long after a join requested public keys may arrive before nothing waits for them.
const KEYS_WAIT: Duration = Duration::from_secs(3);

/// The keys from the hub and how far they are on disk.
pub(super) struct Ring {
    hub: HubKeys,
    /// What the file holds, as far as is known.
    kept: HubKeys,
    is_being_kept: bool,
}

impl Ring {
    pub(super) fn new(setup: &Setup) -> Self {
        let kept = setup.kept_keys.clone().unwrap_or_default();
        Self {
            hub: kept.clone(),
            kept,
            is_being_kept: false,
        }
    }
}

impl Core {
    pub(super) fn requests_keys(&self) -> bool {
        self.setup.public_keys.is_empty() || self.setup.request_public_keys
    }

    pub(super) fn requests_archive_keys(&self) -> bool {
        let is_of_use = self.setup.archives != ArchivePolicy::Ignore || self.requests_keys();
        self.setup.request_archive_keys || (self.setup.archive_keys.is_empty() && is_of_use)
    }

    /// The keys firmware may be signed with: the hub's once it was asked and has answered,
    /// else the integrator's.
    pub(super) fn public_keys(&self) -> Vec<String> {
        match self.ring.hub.firmware.is_empty() || !self.requests_keys() {
            true => self.setup.public_keys.clone(),
            false => self.ring.hub.firmware.clone(),
        }
    }

    /// The same for archives; without any of their own, the firmware's.
    pub(super) fn archive_keys(&self) -> Vec<String> {
        if self.requests_archive_keys() && !self.ring.hub.archive.is_empty() {
            return self.ring.hub.archive.clone();
        }
        match self.setup.archive_keys.is_empty() {
            true => self.public_keys(),
            false => self.setup.archive_keys.clone(),
        }
    }

    /// Requested keys may still be on their way.
    pub(super) fn keys_may_come(&self) -> bool {
        self.timers.deadline(Timer::Keys).is_some()
    }

    pub(super) fn archive_keys_may_come(&self) -> bool {
        let fallback = self.setup.archive_keys.is_empty() && self.public_keys().is_empty();
        self.timers.deadline(Timer::ArchiveKeys).is_some() || (fallback && self.keys_may_come())
    }

    /// The device channel is joined, and the requests went with it.
    pub(super) fn await_keys(&mut self) {
        if self.requests_keys() && self.ring.hub.firmware.is_empty() {
            self.set_timer(Timer::Keys, KEYS_WAIT);
        }
        if self.requests_archive_keys() && self.ring.hub.archive.is_empty() {
            self.set_timer(Timer::ArchiveKeys, KEYS_WAIT);
        }
    }

    pub(super) fn on_firmware_keys(&mut self, keys: Vec<String>) {
        let (asked, held) = (self.requests_keys(), self.ring.hub.firmware.len());
        if !is_usable("firmware", &keys, asked, held) {
            return;
        }
        let before = self.archive_keys();
        self.ring.hub.firmware = keys;
        self.reconsider_archives(&before);
        self.timers.cancel(Timer::Keys);
        self.keep_keys();
        self.on_keys_settled();
    }

    pub(super) fn on_archive_keys(&mut self, keys: Vec<String>) {
        let (asked, held) = (self.requests_archive_keys(), self.ring.hub.archive.len());
        if !is_usable("archive", &keys, asked, held) {
            return;
        }
        let before = self.archive_keys();
        self.ring.hub.archive = keys;
        self.reconsider_archives(&before);
        self.timers.cancel(Timer::ArchiveKeys);
        self.keep_keys();
    }

    /// The integrator's, from files that may have changed.
    pub(super) fn on_keys_reread(&mut self, firmware: Vec<String>, archive: Vec<String>) {
        let setup = &self.setup;
        if setup.public_keys == firmware && setup.archive_keys == archive {
            return;
        }
        info!(
            "public keys read again: {} for firmware, {} for archives",
            firmware.len(),
            archive.len()
        );
        let before = self.archive_keys();
        (self.setup.public_keys, self.setup.archive_keys) = (firmware, archive);
        self.reconsider_archives(&before);
    }

    /// One write at a time; what changes meanwhile is written after it.
    fn keep_keys(&mut self) {
        let ring = &mut self.ring;
        let is_wanted = self.setup.kept_keys.is_some() && ring.hub != ring.kept;
        if is_wanted && !ring.is_being_kept {
            ring.is_being_kept = true;
            ring.kept = ring.hub.clone();
            let keys = ring.hub.clone();
            self.effect(Effect::KeepKeys(keys));
        }
    }

    pub(super) fn on_keys_kept(&mut self, result: Result<(), String>) {
        self.ring.is_being_kept = false;
        match result {
            Ok(()) => {
                debug!("public keys kept for the next start");
                self.keep_keys();
            }
            // Tried again when the hub sends keys next.
            Err(reason) => {
                error!("public keys from the hub not kept: {reason}");
                self.ring.kept = HubKeys::default();
            }
        }
    }
}

fn is_usable(what: &str, keys: &[String], asked: bool, held: usize) -> bool {
    if !asked {
        warn!("public keys from the hub ignored ({what}): only the configured ones count");
    } else if keys.is_empty() {
        warn!("the hub sent no usable public key; keeping {held} ({what})");
    } else {
        debug!("{} {what} public key(s) from the hub", keys.len());
    }
    asked && !keys.is_empty()
}
