//! One offer from arrival to reboot (PROTOCOL §4): refuse or install, report, reboot.
//!
//! Rules kept here: one update at a time; nothing without a public key, unless signatures
//! are the matter of the integrator's installer; an outcome is
//! owed to the hub until something sent after it was answered, and the firmware's uuid
//! stands in every join until then; a reboot follows success and only that.

mod local;
mod report;

use std::time::{Duration, Instant};

use super::Core;
use super::effect::{Effect, FileStamp, InstallOrder};
use super::event::{InstallEvent, JobId};
use super::policy::{Asking, Hold};
use super::renewal::Renewal;
use super::timers::Timer;
use crate::wire::occurrence::Occurrence;
use crate::wire::{DevicePush, Offer, Stage};
pub(super) use local::Local;
pub(super) use report::Report;

/// At most one progress report in this time.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);
/// The update's state.
#[derive(Default)]
pub struct Update {
    pub(super) phase: Phase,
    pub(super) hold: Option<Hold>,
    /// A file of this device that is being looked at.
    opening: Option<Box<Local>>,
    last_job: u64,
    pub(super) last_error: Option<String>,
}

#[derive(Default)]
pub(super) enum Phase {
    #[default]
    Idle,
    /// Whether to install it is not decided yet.
    Asking(Asking),
    /// Held back until the requested keys arrive.
    AwaitingKeys(Box<Offer>),
    Installing(Installing),
    /// Ended; the hub does not know yet.
    Reporting(Report),
    /// Installed; the reboot command has been ordered.
    Rebooting,
}

pub(super) struct Installing {
    pub(super) job: JobId,
    pub offer: Box<Offer>,
    pub percent: u8,
    /// Per cent of the file that has been received.
    pub downloaded: u8,
    /// Last report: stage, value and when.
    sent: Option<(Stage, u8, Instant)>,
    /// Every byte is with the installer.
    all_handed_over: bool,
    /// The reason that counts, when it is not the installer's.
    cause: Option<String>,
    /// Asking for another URL.
    pub(super) renewal: Renewal,
    /// Offered instead while this one could not go on; taken up after it.
    pub(super) instead: Option<Box<Offer>>,
    /// It is a file of this device, and not the hub's business.
    local: Option<Box<Local>>,
}

impl Update {
    /// For `currently_downloading_uuid`: until the outcome has been reported.
    pub(super) fn uuid_in_hand(&self) -> Option<&str> {
        match &self.phase {
            // Only a join that names none makes the hub offer anew.
            Phase::Installing(install) if install.renewal.is_wanted() => None,
            Phase::Installing(install) => match &install.local {
                Some(local) => local.owed(),
                None => Some(&install.offer.uuid),
            },
            Phase::Reporting(report) => Some(&report.uuid),
            Phase::Asking(asking) => Some(&asking.offer.uuid),
            Phase::AwaitingKeys(offer) => Some(&offer.uuid),
            Phase::Idle | Phase::Rebooting => None,
        }
    }

    /// Whatever is recorded of the active slot may be the new firmware's by now.
    pub(super) fn may_have_switched(&self) -> bool {
        match &self.phase {
            Phase::Installing(_) | Phase::Rebooting => true,
            Phase::Reporting(report) => report.failure.is_none(),
            Phase::Idle | Phase::Asking(_) | Phase::AwaitingKeys(_) => false,
        }
    }

    /// Firmware is on its way.
    pub(super) fn is_installing(&self) -> bool {
        matches!(self.phase, Phase::Installing(_))
    }
}

impl Core {
    /// Nothing is in hand, and nothing on the way out.
    pub(super) fn has_no_update(&self) -> bool {
        matches!(self.update.phase, Phase::Idle) && !self.reboot.is_under_way()
    }

    pub(super) fn on_offer(&mut self, offer: Box<Offer>) {
        if self.leaving {
            return info!("leaving: firmware {} left alone", offer.uuid);
        }
        if self.reboot.is_under_way() {
            return info!("rebooting: firmware {} left alone", offer.uuid);
        }
        let Some(offer) = self.hold_against_phase(offer) else {
            return;
        };
        info!(
            "firmware {} offered: {} {}",
            offer.uuid, offer.product, offer.version
        );
        self.push_device(DevicePush::Received);
        self.publish(Occurrence::UpdateOffered(offer.clone()));
        // Decided upon already.
        match matches!(self.update.phase, Phase::AwaitingKeys(_)) {
            true => self.take_up(offer),
            false => self.consider(offer),
        }
    }

    /// The offer, when it is its turn; else something may be waiting for it, or it for that.
    fn hold_against_phase(&mut self, offer: Box<Offer>) -> Option<Box<Offer>> {
        match &mut self.update.phase {
            Phase::Idle => return Some(offer),
            Phase::AwaitingKeys(held) if held.uuid == offer.uuid => return Some(offer),
            Phase::Asking(asking) => {
                // The same again is no news to the hub.
                if asking.overtake(offer) {
                    self.push_device(DevicePush::Received);
                }
            }
            Phase::Installing(install) if install.renewal.is_awaited() => {
                self.on_fresh_offer(offer);
            }
            Phase::Installing(Installing {
                local: Some(local), ..
            }) => local.keep_waiting(offer),
            Phase::Reporting(report) if report.failure.is_some() => {
                info!(
                    "firmware {} waits for the last outcome's report",
                    offer.uuid
                );
                report.next = Some(offer);
            }
            Phase::AwaitingKeys(_)
            | Phase::Installing(_)
            | Phase::Reporting(_)
            | Phase::Rebooting => {
                info!(
                    "firmware {} left alone: another update is in hand",
                    offer.uuid
                );
            }
        }
        None
    }

    /// It is decided: this offer is to be installed.
    pub(super) fn take_up(&mut self, offer: Box<Offer>) {
        self.update.hold = None;
        self.timers.cancel(Timer::Hold);
        if self.public_keys().is_empty() && self.keys_may_come() {
            info!("waiting for the hub's public keys");
            self.update.phase = Phase::AwaitingKeys(offer);
            return;
        }
        self.install(offer);
    }

    /// Keys arrived, or will not.
    pub(super) fn on_keys_settled(&mut self) {
        match std::mem::take(&mut self.update.phase) {
            Phase::AwaitingKeys(offer) => self.install(offer),
            other => self.update.phase = other,
        }
    }

    fn install(&mut self, offer: Box<Offer>) {
        match self.obstacle() {
            Some(reason) => self.settle(offer.uuid, Some(reason)),
            None => self.start_install(offer, None),
        }
    }

    /// Why no firmware at all can be installed.
    fn obstacle(&self) -> Option<String> {
        if let Some(reason) = &self.setup.stale_slot {
            return Some(reason.clone());
        }
        if self.setup.installer_verifies {
            return None;
        }
        if self.public_keys().is_empty() {
            return Some("no public keys available".to_owned());
        }
        let reason = "no device to write to: set NERVES_HUB_FWUP_DEVPATH or nerves_fw_devpath";
        self.setup.devpath.is_none().then(|| reason.to_owned())
    }

    fn start_install(&mut self, offer: Box<Offer>, local: Option<Box<Local>>) {
        self.update.last_job += 1;
        let job = JobId(self.update.last_job);
        let interface = match &local {
            Some(_) => None,
            None => self.session_interface(),
        };
        let order = InstallOrder {
            offer: (*offer).clone(),
            file: local.as_ref().map(|local| local.path.clone()),
            stamp: local
                .as_ref()
                .map_or(FileStamp::default(), |local| local.stamp),
            devpath: self.setup.devpath.clone(),
            public_keys: self.public_keys(),
            identifier: self.setup.identifier.clone(),
        };
        self.effect(Effect::StartInstall(job, Box::new(order)));
        self.push_device(DevicePush::Started { interface });
        self.publish(Occurrence::UpdateStarted {
            uuid: offer.uuid.clone(),
        });
        self.update.phase = Phase::Installing(Installing {
            job,
            offer,
            percent: 0,
            downloaded: if local.is_some() { 100 } else { 0 },
            sent: None,
            all_handed_over: local.is_some(),
            cause: None,
            renewal: Renewal::default(),
            instead: None,
            local,
        });
    }

    pub(super) fn session_interface(&mut self) -> Option<String> {
        let session = self.link.session()?;
        session.interface.clone()
    }

    /// The one place where events of old jobs are dropped.
    pub(super) fn on_install(&mut self, job: JobId, event: InstallEvent) {
        let Phase::Installing(install) = &mut self.update.phase else {
            return;
        };
        if install.job != job {
            return;
        }
        match event {
            InstallEvent::Downloading { percent } => {
                let has_begun = install.sent.is_some();
                install.downloaded = percent;
                self.report_progress(Stage::Downloading, percent);
                if !has_begun {
                    self.effect(Effect::Settle);
                }
            }
            InstallEvent::Downloaded => {
                install.all_handed_over = true;
                self.effect(Effect::Settle);
            }
            InstallEvent::DownloadFailed(reason) => self.cancel_install(reason),
            InstallEvent::UrlRefused { reason, held } => self.on_url_refused(reason, held),
            InstallEvent::Progress(percent) => {
                install.percent = percent;
                self.report_progress(Stage::Updating, percent);
            }
            InstallEvent::Finished(result) => self.on_installer_finished(result),
        }
    }

    /// Keeps the first reason; the job ends with its `Finished`.
    pub(super) fn cancel_install(&mut self, reason: String) {
        if let Phase::Installing(install) = &mut self.update.phase {
            error!("update cancelled: {reason}");
            install.cause.get_or_insert(reason);
            let job = install.job;
            self.effect(Effect::CancelInstall(job));
        }
    }

    /// The download's thread died; the installer's ends the job.
    pub(super) fn on_download_lost(&mut self, job: JobId, reason: &str) {
        self.on_install(
            job,
            InstallEvent::DownloadFailed(format!("internal error: {reason}")),
        );
    }

    /// The installer's thread died: nobody else will end the job.
    pub(super) fn on_installer_lost(&mut self, job: JobId, reason: &str) {
        self.on_download_lost(job, reason);
        self.on_install(job, InstallEvent::Finished(Err(reason.to_owned())));
    }

    fn report_progress(&mut self, stage: Stage, value: u8) {
        let Phase::Installing(install) = &self.update.phase else {
            return;
        };
        let uuid = install.offer.uuid.clone();
        self.publish(Occurrence::UpdateProgress {
            uuid,
            stage,
            percent: value,
        });
        self.tell_progress(value);
        let Phase::Installing(install) = &self.update.phase else {
            return;
        };
        let due = install.sent.is_none_or(|(last_stage, last, at)| {
            let grew = if stage == last_stage {
                value > last
            } else {
                last_stage == Stage::Downloading
            };
            grew && self.now.saturating_duration_since(at) >= PROGRESS_EVERY
        });
        if due {
            let sent = (stage, value, self.now);
            if self
                .push_device(DevicePush::Progress { stage, value })
                .is_some()
                && let Phase::Installing(install) = &mut self.update.phase
            {
                install.sent = Some(sent);
            }
        }
    }

    fn on_installer_finished(&mut self, result: Result<(), String>) {
        let Phase::Installing(install) = std::mem::take(&mut self.update.phase) else {
            return;
        };
        // Leaving has waited for this; a reboot that follows has a deadline of its own.
        self.timers.cancel(Timer::Shutdown);
        let failure = match (install.cause, result) {
            (Some(cause), _) => Some(cause),
            (None, Err(reason)) => Some(reason),
            (None, Ok(())) if !install.all_handed_over => {
                Some("fwup error: ended before it had read the whole firmware".to_owned())
            }
            (None, Ok(())) => None,
        };
        if self.leaving && failure.is_some() {
            info!("update cancelled, running firmware untouched; leaving");
            return self.exit();
        }
        self.timers.cancel(Timer::FreshOffer);
        // A download that still waits for something ends, too.
        self.effect(Effect::CancelInstall(install.job));
        if let Some(local) = install.local {
            return self.settle_local(*local, *install.offer, failure);
        }
        if let Some(offer) = install.instead {
            // Not a failure: the hub wants another firmware now.
            return self.on_offer(offer);
        }
        self.settle(install.offer.uuid, failure);
    }

    /// On SIGTERM: true when leaving waits for the installer.
    pub(super) fn finish_or_cancel_update(&mut self) -> bool {
        match &self.update.phase {
            Phase::Installing(install) if install.all_handed_over => {
                let seconds = self.setup.shutdown_timeout.as_secs_f64();
                info!("leaving once the installer has finished, {seconds:.0} s at most");
                self.set_timer(Timer::Shutdown, self.setup.shutdown_timeout);
                true
            }
            Phase::Installing(_) => {
                self.cancel_install("the agent was told to stop".to_owned());
                self.set_timer(Timer::Shutdown, self.setup.shutdown_timeout);
                true
            }
            Phase::Reporting(Report { failure: None, .. }) => {
                self.reboot_within(Duration::ZERO);
                true
            }
            Phase::Idle
            | Phase::Asking(_)
            | Phase::AwaitingKeys(_)
            | Phase::Reporting(_)
            | Phase::Rebooting => false,
        }
    }

    pub(super) fn on_shutdown_overdue(&mut self) {
        let what = match self.reboot.is_under_way() {
            true => "reboot command",
            false => "installer",
        };
        warn!("the {what} did not end in time; leaving without it");
        self.abandon_install();
        self.exit();
    }

    /// What is left behind must not go on writing.
    pub(super) fn abandon_install(&mut self) {
        if let Phase::Installing(install) = &self.update.phase {
            let job = install.job;
            self.effect(Effect::CancelInstall(job));
        }
    }
}
