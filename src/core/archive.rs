//! Archives (PROTOCOL §6): which are taken, when, and how often.
//!
//! Rules kept here: the hub sends its archive again on every join, and one that was handled
//! is left alone, over restarts too; one at a time, and of two the newer; an update in hand
//! stops archive work, which goes on from the bytes it has once no update is in hand any
//! more. Fetching, verifying and placing is the worker's.

use std::time::Duration;

use super::archive_choice::PutOff;
use super::backoff::Backoff;
use super::effect::{ArchiveOrder, Effect};
use super::event::{ArchiveEnd, JobId};
use super::timers::Timer;
use super::{Core, Setup, update};
use crate::config::ArchivePolicy;
use crate::wire::occurrence::Occurrence;
use crate::wire::{Archive, Topic};

/// Fresh URLs asked for without a byte having come in between.
const RENEWALS: u8 = 3;
/// So many archives that were handled, and that were refused, are kept in mind.
pub const REMEMBERED: usize = 32;
/// Wait after the first failure; doubles with each further one.
const RETRY_MIN: Duration = Duration::from_secs(60);
const RETRY_MAX: Duration = Duration::from_secs(3600);
const RETRY_JITTER: u8 = 25;

/// The archives' state.
pub struct Archives {
    pub(super) phase: Phase,
    last_job: u64,
    /// Nothing is to be done about these any more.
    handled: Vec<String>,
    /// Refused for good reasons in this run, with the keys in use.
    refused: Vec<String>,
    /// The archive the numbers below are about.
    current: String,
    backoff: Backoff,
    /// Fresh URLs asked for, and the bytes held when that was last of use.
    renewals: u8,
    held: u64,
    /// The newest one, while it is asked whether to take one.
    pub(super) choosing: Option<Box<Archive>>,
    /// One that was put off.
    pub(super) put_off: Option<PutOff>,
}

#[derive(Default)]
pub(super) enum Phase {
    #[default]
    Idle,
    /// Until no update is in hand and the keys are known.
    Waiting(Box<Archive>),
    /// Failed; its turn comes with the timer or the next join.
    BackingOff(Box<Archive>),
    Fetching(Fetching),
}

pub(super) struct Fetching {
    job: JobId,
    pub(super) archive: Box<Archive>,
    is_cancelled: bool,
    /// Whose turn it is afterwards: another archive, or this one once the update is over.
    next: Option<Box<Archive>>,
}

impl Archives {
    pub(super) fn new(setup: &Setup) -> Self {
        Self {
            phase: Phase::Idle,
            last_job: 0,
            handled: setup.handled_archives.clone(),
            refused: Vec::new(),
            current: String::new(),
            backoff: Backoff::between(RETRY_MIN, RETRY_MAX, RETRY_JITTER, setup.seed),
            renewals: 0,
            held: 0,
            choosing: None,
            put_off: None,
        }
    }

    /// Says why, when there is nothing to be done about it.
    pub(super) fn is_settled(&self, uuid: &str) -> bool {
        let is_in = |list: &[String]| list.iter().any(|other| other == uuid);
        if is_in(&self.handled) {
            debug!("archive {uuid} is here already");
            return true;
        }
        if is_in(&self.refused) {
            warn!("archive {uuid} left alone: it was refused before");
            return true;
        }
        false
    }

    /// Failures of another archive do not count.
    fn turn_to(&mut self, uuid: &str) {
        if self.current != uuid {
            uuid.clone_into(&mut self.current);
            self.backoff.reset();
            (self.renewals, self.held) = (0, 0);
        }
    }
}

impl Core {
    pub(super) fn on_archive(&mut self, archive: Box<Archive>) {
        let uuid = &archive.uuid;
        match self.setup.archives {
            ArchivePolicy::Ignore => {
                info!("archive {uuid} ignored: NERVES_HUB_ARCHIVES is ignore");
            }
            ArchivePolicy::Ask | ArchivePolicy::Download if self.archives.is_settled(uuid) => {}
            ArchivePolicy::Ask => self.choose_archive(archive),
            ArchivePolicy::Download => self.take_archive(archive),
        }
    }

    pub(super) fn take_archive(&mut self, archive: Box<Archive>) {
        let uuid = &archive.uuid;
        info!("archive {uuid} offered: version {}", archive.version);
        if let Phase::Fetching(fetching) = &mut self.archives.phase {
            let is_same = fetching.archive.uuid == *uuid;
            if is_same && !fetching.is_cancelled {
                return debug!("archive {uuid} is on its way already");
            }
            fetching.next = Some(archive);
            if !is_same {
                self.cancel_archive("another one is offered");
            }
            return;
        }
        self.timers.cancel(Timer::Archive);
        self.archives.phase = Phase::Waiting(archive);
    }

    /// Called after every event: starts what waits, stops what is in the way.
    pub(super) fn tend_archives(&mut self) {
        let is_busy = self.leaving || self.is_update_in_hand();
        let may_start = !is_busy && !self.archive_keys_may_come();
        match &mut self.archives.phase {
            Phase::Fetching(fetching) if is_busy && !fetching.is_cancelled => {
                let same = fetching.archive.clone();
                fetching.next.get_or_insert(same);
                self.cancel_archive("an update is in hand, or the agent leaves");
            }
            Phase::Waiting(_) if may_start => self.start_archive(),
            Phase::Idle | Phase::Waiting(_) | Phase::BackingOff(_) | Phase::Fetching(_) => {}
        }
    }

    pub(super) fn is_update_in_hand(&self) -> bool {
        match self.update.phase {
            update::Phase::Idle | update::Phase::Asking(_) => false,
            update::Phase::AwaitingKeys(_)
            | update::Phase::Installing(_)
            | update::Phase::Reporting(_)
            | update::Phase::Rebooting => true,
        }
    }

    fn cancel_archive(&mut self, why: &str) {
        if let Phase::Fetching(fetching) = &mut self.archives.phase {
            info!("archive {} interrupted: {why}", fetching.archive.uuid);
            fetching.is_cancelled = true;
            let job = fetching.job;
            self.effect(Effect::CancelArchive(job));
        }
    }

    fn start_archive(&mut self) {
        let Phase::Waiting(archive) = std::mem::take(&mut self.archives.phase) else {
            return;
        };
        let public_keys = self.archive_keys();
        if public_keys.is_empty() {
            return error!(
                "archive {} refused: no public keys available; set NERVES_HUB_ARCHIVE_PUBLIC_KEYS \
                 or NERVES_HUB_FWUP_PUBLIC_KEYS, or add a key at the hub",
                archive.uuid
            );
        }
        self.archives.turn_to(&archive.uuid);
        self.archives.last_job += 1;
        let job = JobId(self.archives.last_job);
        let order = ArchiveOrder {
            archive: (*archive).clone(),
            public_keys,
        };
        self.effect(Effect::StartArchive(job, Box::new(order)));
        self.archives.phase = Phase::Fetching(Fetching {
            job,
            archive,
            is_cancelled: false,
            next: None,
        });
    }

    /// The one place where ends of old jobs are dropped.
    pub(super) fn on_archive_ended(&mut self, job: JobId, end: ArchiveEnd) {
        match &self.archives.phase {
            Phase::Fetching(fetching) if fetching.job == job => {}
            Phase::Idle | Phase::Waiting(_) | Phase::BackingOff(_) | Phase::Fetching(_) => return,
        }
        let Phase::Fetching(ended) = std::mem::take(&mut self.archives.phase) else {
            return;
        };
        self.weigh_end(ended.archive, end);
        if let Some(next) = ended.next
            && !self.archives.is_settled(&next.uuid)
        {
            self.timers.cancel(Timer::Archive);
            self.archives.phase = Phase::Waiting(next);
        }
    }

    fn weigh_end(&mut self, archive: Box<Archive>, end: ArchiveEnd) {
        let uuid = archive.uuid.clone();
        match end {
            ArchiveEnd::Handled(path) => {
                info!("archive {uuid} handled");
                let path = path.display().to_string();
                self.publish(Occurrence::ArchiveReady { archive, path });
                remember(&mut self.archives.handled, uuid);
            }
            ArchiveEnd::Refused(reason) => {
                error!("archive {uuid} refused: {reason}; not fetched again in this run");
                remember(&mut self.archives.refused, uuid);
            }
            ArchiveEnd::Failed(reason) => {
                let delay = self.archives.backoff.next_delay();
                let seconds = delay.as_secs();
                error!("archive {uuid} failed: {reason}; trying again in {seconds} s");
                self.set_timer(Timer::Archive, delay);
                self.archives.phase = Phase::BackingOff(archive);
            }
            ArchiveEnd::UrlRefused { reason, held } => self.renew_archive_url(&uuid, &reason, held),
            ArchiveEnd::Cancelled => debug!("archive {uuid} stopped"),
        }
    }

    /// The hub sends the archive again, with another URL, to a device that joins.
    fn renew_archive_url(&mut self, uuid: &str, reason: &str, held: u64) {
        if held > self.archives.held {
            (self.archives.renewals, self.archives.held) = (0, held);
        }
        if self.archives.renewals >= RENEWALS {
            return error!(
                "archive {uuid} refused by its server: {reason}, after {RENEWALS} fresh URLs; \
                 waiting until the hub sends it again"
            );
        }
        self.archives.renewals += 1;
        warn!("archive {uuid}: {reason}; asking the hub for a fresh URL");
        // With an update in hand it is asked for later, when this URL has failed once more.
        if !self.is_update_in_hand() {
            self.rejoin_now(Topic::Device);
        }
    }

    /// What was refused with other keys may be good with these, when the hub sends it again.
    pub(super) fn reconsider_archives(&mut self, before: &[String]) {
        let keys = self.archive_keys();
        let is_same = keys.len() == before.len() && keys.iter().all(|key| before.contains(key));
        if !is_same {
            self.archives.refused.clear();
        }
    }

    /// The back-off is over.
    pub(super) fn on_archive_due(&mut self) {
        match std::mem::take(&mut self.archives.phase) {
            Phase::BackingOff(archive) => self.archives.phase = Phase::Waiting(archive),
            other => self.archives.phase = other,
        }
    }
}

/// The oldest is forgotten.
fn remember(list: &mut Vec<String>, uuid: String) {
    list.push(uuid);
    if list.len() > REMEMBERED {
        list.remove(0);
    }
}
