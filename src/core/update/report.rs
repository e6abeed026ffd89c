//! What became of an update, told to the hub until it knows; then the reboot. Pure.

use std::time::{Duration, Instant};

use super::Phase;
use crate::core::Core;
use crate::core::reboot::Why;
use crate::core::timers::Timer;
use crate::wire::occurrence::Occurrence;
use crate::wire::{DevicePush, Offer, Outbound, Stage};

/// How long a finished update waits for the hub before it reboots unreported.
const REPORT_OFFLINE: Duration = Duration::from_secs(60);
/// How long it waits for the hub's answer once the report is sent.
const REPORT_CONFIRM: Duration = Duration::from_secs(5);
/// A report the hub keeps losing is given up after so many connections.
const REPORT_TRIES: u8 = 3;

/// An outcome that the hub does not know yet.
pub(in crate::core) struct Report {
    pub(super) uuid: String,
    /// `None` is success, otherwise why it failed.
    pub(super) failure: Option<String>,
    /// A success is not told after this: the reboot comes first.
    latest: Instant,
    tries: u8,
    /// The answer to this reference proves that the hub has read the report.
    confirm: Option<u64>,
    /// An offer that came before the answer; taken up after it.
    pub(super) next: Option<Box<Offer>>,
}

impl Core {
    /// The update is over: tell the hub, then reboot or carry on.
    pub(in crate::core) fn settle(&mut self, uuid: String, failure: Option<String>) {
        self.note_outcome(&uuid, failure.as_ref());
        self.update.phase = Phase::Reporting(Report {
            uuid,
            failure,
            latest: self.now + REPORT_OFFLINE,
            tries: 0,
            confirm: None,
            next: None,
        });
        self.reboot_within(match self.leaving {
            true => Duration::ZERO,
            false => REPORT_OFFLINE,
        });
        self.report_outcome();
    }

    /// For everybody but the hub.
    pub(super) fn note_outcome(&mut self, uuid: &str, failure: Option<&String>) {
        match failure {
            None => info!("firmware {uuid} installed"),
            Some(reason) => error!("firmware {uuid} not installed: {reason}"),
        }
        self.update.last_error = failure.cloned();
        let uuid = uuid.to_owned();
        self.publish(match failure.cloned() {
            None => Occurrence::UpdateCompleted { uuid },
            Some(reason) => Occurrence::UpdateFailed { uuid, reason },
        });
    }

    /// After success, however often it is said: a link that comes and goes must not put the
    /// reboot off.
    pub(in crate::core) fn reboot_within(&mut self, time: Duration) {
        if let Phase::Reporting(Report {
            failure: None,
            latest,
            ..
        }) = &self.update.phase
        {
            let at = (*latest).min(self.now + time);
            self.timers.set(Timer::RebootAnyway, at);
        }
    }

    /// Sends the owed outcome if the channel is joined, and a heartbeat after it: its
    /// answer proves that the hub has read everything before.
    pub(in crate::core) fn report_outcome(&mut self) {
        let Phase::Reporting(report) = &mut self.update.phase else {
            return;
        };
        if report.confirm.is_some() || !self.channels.device.is_joined() {
            return;
        }
        report.tries = report.tries.saturating_add(1);
        let given_up = report.tries > REPORT_TRIES;
        match report.failure.clone() {
            Some(_) if given_up => {
                warn!("the hub did not take the outcome {REPORT_TRIES} times; giving up");
                return self.report_settled();
            }
            Some(reason) => {
                self.push_device(DevicePush::Failed { reason });
            }
            None => {
                self.push_device(DevicePush::Progress {
                    stage: Stage::Updating,
                    value: 100,
                });
                self.push_device(DevicePush::Completed);
                self.reboot_within(REPORT_CONFIRM);
            }
        }
        let confirm = self.push(None, Outbound::Heartbeat);
        if let Phase::Reporting(report) = &mut self.update.phase {
            report.confirm = confirm;
        }
    }

    /// The hub answered `reference`.
    pub(in crate::core) fn on_confirmed(&mut self, reference: u64) {
        self.on_reboot_confirmed(reference);
        let Phase::Reporting(report) = &self.update.phase else {
            return;
        };
        if report.confirm == Some(reference) {
            match report.failure {
                None => self.reboot_into_new_firmware(),
                Some(_) => self.report_settled(),
            }
        }
    }

    /// The connection is gone: what was not answered may not have arrived.
    pub(in crate::core) fn unconfirm_report(&mut self) {
        if let Phase::Reporting(report) = &mut self.update.phase {
            report.confirm = None;
            if !self.leaving {
                self.reboot_within(REPORT_OFFLINE);
            }
        }
    }

    /// The hub's channel crashed right after the report: it has nothing in its books that
    /// the report could end, so sending it again would only crash it again.
    pub(in crate::core) fn forget_indigestible_report(&mut self) {
        if let Phase::Reporting(Report {
            confirm: Some(_),
            failure: Some(_),
            ..
        }) = &self.update.phase
        {
            warn!("the hub could not take the failure report; not sent again");
            self.report_settled();
        }
    }

    /// The failure is told, or never will be; what was offered meanwhile has its turn.
    fn report_settled(&mut self) {
        if let Phase::Reporting(Report {
            next: Some(offer), ..
        }) = std::mem::take(&mut self.update.phase)
        {
            self.on_offer(offer);
        }
    }

    /// The time to report is over.
    pub(in crate::core) fn on_report_overdue(&mut self) {
        if matches!(
            &self.update.phase,
            Phase::Reporting(Report { failure: None, .. })
        ) {
            self.reboot_into_new_firmware();
        }
    }

    pub(in crate::core) fn reboot_into_new_firmware(&mut self) {
        self.timers.cancel(Timer::RebootAnyway);
        self.update.phase = Phase::Rebooting;
        self.consider_reboot(Why::Update);
    }
}
