//! A file on its way from this device to the hub's console page, for a client of the
//! control socket. Pure.
//!
//! Rules kept here: one file at a time; one frame of it with the socket thread, so that a
//! file never stands before a heartbeat; it ends with its client, and with the channel.

use std::path::PathBuf;

use serde_json::Value;

use super::Core;
use super::channel::Phase;
use super::effect::Effect;
use super::event::{ClientId, SendEvent, SendId};
use crate::wire::control::{Code, Fault, Outgoing};
use crate::wire::json::json;
use crate::wire::{ConsolePush, FilePush, Outbound};

/// The file's state.
#[derive(Default)]
pub(super) struct Sending {
    last: u64,
    current: Option<Transfer>,
}

struct Transfer {
    id: SendId,
    client: ClientId,
    /// Of the client's request.
    request: Value,
    wants_progress: bool,
    path: PathBuf,
    /// The frame that is with the socket thread.
    in_flight: Option<u64>,
}

impl Core {
    /// The answer to the request comes when the file is over.
    pub(super) fn on_send_file_asked(
        &mut self,
        client: ClientId,
        request: Value,
        path: PathBuf,
        wants_progress: bool,
    ) {
        if let Err(fault) = self.may_send() {
            return self.reply(client, request, Err(fault));
        }
        self.sending.last += 1;
        let id = SendId(self.sending.last);
        info!("sending {} to the console", path.display());
        self.effect(Effect::StartSending(id, path.clone()));
        self.sending.current = Some(Transfer {
            id,
            client,
            request,
            wants_progress,
            path,
            in_flight: None,
        });
    }

    fn may_send(&self) -> Result<(), Fault> {
        if !self.setup.shells.console {
            let text = "no console on this device: NERVES_HUB_CONSOLE is off";
            return Err(Fault::new(Code::Unavailable, text));
        }
        if let Some(other) = &self.sending.current {
            let text = format!("{} is being sent", other.path.display());
            return Err(Fault::new(Code::Busy, text));
        }
        if self.leaving {
            return Err(Fault::new(Code::Refused, "the agent is leaving"));
        }
        match self.channels.console.is_joined() {
            true => Ok(()),
            false => {
                let text = "the console channel is not joined";
                Err(Fault::new(Code::NotConnected, text))
            }
        }
    }

    pub(super) fn on_cancel_file_asked(&mut self) -> Result<Value, Fault> {
        if self.sending.current.is_none() {
            return Err(Fault::new(Code::Refused, "no file is being sent"));
        }
        self.end_sending("cancelled");
        Ok(json!({ "cancelled": true }))
    }

    /// The one place where events of earlier files are dropped.
    pub(super) fn on_send_event(&mut self, id: SendId, event: SendEvent) {
        let Some(transfer) = self.sending.current.as_ref().filter(|file| file.id == id) else {
            return;
        };
        match event {
            SendEvent::Frame(frame) => self.push_frame(frame),
            SendEvent::Progress { sent, size } if transfer.wants_progress => {
                let (client, id) = (transfer.client, transfer.request.clone());
                let progress = json!({ "sent": sent, "size": size });
                self.tell(client, Outgoing::Progress { id, progress });
            }
            SendEvent::Progress { .. } => {}
            SendEvent::Ended(result) => self.on_file_ended(result),
        }
    }

    fn push_frame(&mut self, frame: FilePush) {
        let push = Outbound::Console(ConsolePush::File(frame));
        let sent = match self.channels.console.phase {
            Phase::Joined(join_ref) => self.push(Some(join_ref), push),
            Phase::Left | Phase::Joining(_) => None,
        };
        match (sent, &mut self.sending.current) {
            (Some(reference), Some(transfer)) => transfer.in_flight = Some(reference),
            (None, Some(_)) => self.end_sending("the console is gone"),
            (_, None) => {}
        }
    }

    /// The kernel has that frame: another may come.
    pub(super) fn on_frame_sent(&mut self, reference: u64) {
        if let Some(transfer) = &mut self.sending.current
            && transfer
                .in_flight
                .take_if(|own| *own == reference)
                .is_some()
        {
            let id = transfer.id;
            self.effect(Effect::SendMore(id));
        }
    }

    fn on_file_ended(&mut self, result: Result<u64, String>) {
        let Some(Transfer {
            client,
            request,
            path,
            ..
        }) = self.sending.current.take()
        else {
            return;
        };
        let answer = match result {
            Ok(size) => {
                info!("{} sent, {size} bytes", path.display());
                Ok(json!({ "size": size }))
            }
            Err(reason) => {
                warn!("{} not sent: {reason}", path.display());
                Err(Fault::new(Code::Failed, reason))
            }
        };
        self.reply(client, request, answer);
    }

    /// Whoever reads the file is told to stop; nothing is heard of it any more.
    pub(super) fn end_sending(&mut self, why: &str) {
        if let Some(transfer) = &self.sending.current {
            let id = transfer.id;
            self.effect(Effect::CancelSending(id));
            self.on_file_ended(Err(why.to_owned()));
        }
    }

    /// Nobody waits for the file any more.
    pub(super) fn end_sending_for(&mut self, client: ClientId) {
        let current = &self.sending.current;
        if current.as_ref().is_some_and(|file| file.client == client) {
            self.end_sending("who asked for it is gone");
        }
    }
}

#[cfg(test)]
mod tests;
