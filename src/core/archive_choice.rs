//! `NERVES_HUB_ARCHIVES=ask`: the integrator chooses which archives are taken. Pure.
//!
//! An archive that is taken already is not asked about again, nor one that was put off,
//! before its time.

use std::time::{Duration, Instant};

use super::Core;
use super::archive::Phase;
use super::timers::Timer;
use crate::wire::Archive;
use crate::wire::verdict::{Question, Verdict};

/// Nothing is put off by less.
const MIN_DELAY: Duration = Duration::from_secs(5);

/// An archive to be asked about again.
pub(super) struct PutOff {
    archive: Box<Archive>,
    until: Instant,
}

impl Core {
    pub(super) fn choose_archive(&mut self, archive: Box<Archive>) {
        let uuid = &archive.uuid;
        let taken = match &self.archives.phase {
            Phase::Idle => None,
            Phase::Waiting(taken) | Phase::BackingOff(taken) => Some(&taken.uuid),
            Phase::Fetching(fetching) => Some(&fetching.archive.uuid),
        };
        if taken == Some(uuid) {
            return self.take_archive(archive);
        }
        if let Some(put_off) = &mut self.archives.put_off
            && put_off.archive.uuid == *uuid
            && put_off.until > self.now
        {
            debug!("archive {uuid} stays put off");
            // Its URL is fresh.
            put_off.archive = archive;
            return;
        }
        let is_asked = self.archives.choosing.replace(archive.clone()).is_some();
        if !is_asked {
            self.ask(Question::ArchiveAvailable(archive));
        }
    }

    /// `None`: nobody has decided.
    pub(super) fn on_archive_decided(&mut self, asked: &Archive, verdict: Option<Verdict>) {
        // With the URL that came last.
        let Some(archive) = self.archives.choosing.take() else {
            return;
        };
        let uuid = &archive.uuid;
        if *uuid != asked.uuid {
            info!("archive {uuid} is offered instead");
            return self.choose_archive(archive);
        }
        match verdict {
            Some(Verdict::Go) => self.take_archive(archive),
            Some(Verdict::Ignore { reason }) => {
                let words = reason.as_deref().unwrap_or("not wanted by this device");
                info!("archive {uuid} ignored: {words}");
            }
            Some(Verdict::Later { after, reason }) => {
                let after = after.max(MIN_DELAY);
                let words = reason.as_deref().unwrap_or("no reason given");
                info!("archive {uuid} put off by {} s: {words}", after.as_secs());
                let until = self.now + after;
                self.archives.put_off = Some(PutOff { archive, until });
                self.set_timer(Timer::ArchiveHold, after);
            }
            None => info!("archive {uuid} ignored: nobody has decided about it"),
        }
    }

    /// What was put off has its time.
    pub(super) fn on_archive_hold_over(&mut self) {
        if let Some(put_off) = self.archives.put_off.take()
            && !self.leaving
        {
            self.on_archive(put_off.archive);
        }
    }
}
