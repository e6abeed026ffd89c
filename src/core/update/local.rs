//! A firmware file on this device that is to be installed, for a client of the control socket.
//! Pure.
//!
//! Rules kept here: what an offer has to satisfy, it has to satisfy too, but for what the hub
//! and the calendar have to say; one update at a time, whoever wants it; the hub has no update
//! in its books, so it hears nothing that they would have to hold; what it offers meanwhile
//! waits for a failure.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::{Phase, Report};
use crate::core::Core;
use crate::core::effect::{Effect, FileStamp};
use crate::core::event::ClientId;
use crate::wire::control::{Code, Fault, Outgoing};
use crate::wire::json::json;
use crate::wire::{DevicePush, Offer};

/// Who wants it, and what waits for its end.
pub(in crate::core) struct Local {
    client: ClientId,
    /// Of the client's request.
    request: Value,
    pub(super) path: PathBuf,
    /// Of the file that was looked at.
    pub(super) stamp: FileStamp,
    force: bool,
    wants_progress: bool,
    /// A failure that the hub has not heard of.
    owed: Option<Report>,
    /// Offered by the hub meanwhile.
    next: Option<Box<Offer>>,
}

impl Local {
    pub(in crate::core) fn new(
        client: ClientId,
        request: Value,
        path: PathBuf,
        force: bool,
        wants_progress: bool,
    ) -> Self {
        Self {
            client,
            request,
            path,
            stamp: FileStamp::default(),
            force,
            wants_progress,
            owed: None,
            next: None,
        }
    }

    /// The update that the hub may have in its books.
    pub(super) fn owed(&self) -> Option<&str> {
        self.owed.as_ref().map(|report| report.uuid.as_str())
    }

    pub(super) fn keep_waiting(&mut self, offer: Box<Offer>) {
        info!("firmware {} waits for the one in hand", offer.uuid);
        self.next = Some(offer);
    }
}

impl Core {
    /// The answer to the request comes with the end of the update.
    pub(in crate::core) fn on_apply_asked(&mut self, local: Local) {
        if let Err(fault) = self.may_apply() {
            return self.reply(local.client, local.request, Err(fault));
        }
        let path = local.path.clone();
        info!("{} is to be installed: looking at it", path.display());
        let public_keys = self.public_keys();
        self.effect(Effect::ReadFirmware { path, public_keys });
        self.update.opening = Some(Box::new(local));
    }

    fn may_apply(&self) -> Result<(), Fault> {
        let refused = |code, text: &str| Err(Fault::new(code, text));
        if self.leaving {
            return refused(Code::Refused, "the agent is leaving");
        }
        let is_free = match &self.update.phase {
            Phase::Idle => true,
            // Nobody knows when the hub can be told.
            Phase::Reporting(report) => {
                report.failure.is_some() && !self.channels.device.is_joined()
            }
            Phase::Asking(_) | Phase::AwaitingKeys(_) | Phase::Installing(_) => false,
            Phase::Rebooting => return refused(Code::Refused, "the machine is to reboot"),
        };
        if self.reboot.is_under_way() {
            return refused(Code::Refused, "the machine is to reboot");
        }
        if !is_free || self.update.opening.is_some() {
            let text = "an update is in hand: see nerveshub-agent status";
            return refused(Code::Busy, text);
        }
        match self.obstacle() {
            Some(reason) => {
                let text = format!("{reason}; see nerveshub-agent check");
                refused(Code::Unavailable, &text)
            }
            None => Ok(()),
        }
    }

    pub(in crate::core) fn on_firmware_read(
        &mut self,
        read: Result<(Box<Offer>, FileStamp), String>,
    ) {
        let Some(mut local) = self.update.opening.take() else {
            return;
        };
        let judged = read
            .map_err(|reason| Fault::new(Code::Failed, reason))
            .and_then(|(offer, stamp)| {
                local.stamp = stamp;
                self.may_apply().map(|()| offer)
            })
            .and_then(|offer| match self.objection(&offer) {
                Some(reason) if !local.force => {
                    let text = format!("{reason}; --force installs it all the same");
                    Err(Fault::new(Code::Refused, text))
                }
                Some(_) | None => Ok(offer),
            });
        match judged {
            Ok(offer) => self.install_local(local, offer),
            Err(fault) => {
                let path = local.path.display();
                error!("{path} not installed: {}", fault.message);
                self.reply(local.client, local.request, Err(fault));
            }
        }
    }

    fn install_local(&mut self, mut local: Box<Local>, offer: Box<Offer>) {
        if let Phase::Reporting(report) = std::mem::take(&mut self.update.phase) {
            local.owed = Some(report);
        }
        info!(
            "installing firmware {}, {} {}, from {}",
            offer.uuid,
            offer.product,
            offer.version,
            local.path.display()
        );
        self.push_device(DevicePush::Received);
        self.start_install(offer, Some(local));
    }

    pub(super) fn tell_progress(&mut self, percent: u8) {
        let Phase::Installing(install) = &self.update.phase else {
            return;
        };
        if let Some(local) = install.local.as_ref().filter(|local| local.wants_progress) {
            let (client, id) = (local.client, local.request.clone());
            let progress = json!({ "percent": percent });
            self.tell(client, Outgoing::Progress { id, progress });
        }
    }

    /// The installer has ended.
    pub(super) fn settle_local(&mut self, local: Local, offer: Offer, failure: Option<String>) {
        let (client, request) = (local.client, local.request);
        let Some(reason) = failure else {
            let Offer { uuid, version, .. } = offer;
            let done = json!({"uuid": uuid, "product": offer.product, "version": version});
            self.reply(client, request, Ok(done));
            self.settle(uuid, None);
            // It is not the hub that waits for it.
            if !self.channels.device.is_joined() {
                self.reboot_within(Duration::ZERO);
            }
            return;
        };
        self.note_outcome(&offer.uuid, Some(&reason));
        self.reply(client, request, Err(Fault::new(Code::Failed, reason)));
        if let Some(mut report) = local.owed {
            report.next = local.next.or(report.next.take());
            self.update.phase = Phase::Reporting(report);
            return self.report_outcome();
        }
        if let Some(offer) = local.next {
            self.on_offer(offer);
        }
    }
}

#[cfg(test)]
mod tests;
