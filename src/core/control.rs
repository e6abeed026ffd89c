//! The clients of the control socket: what they ask for, who is told of what happens, and
//! the one that decides. Pure. May a client do something at all? The socket's file
//! permissions have said so.
//!
//! Rules kept here: each request is answered once, if need be when it has been carried out;
//! at most one decider; a question ends with its answer, with the decider, or when it is
//! withdrawn.

mod decider;
mod report;
#[cfg(test)]
pub(super) mod tests;

use serde_json::Value;

use super::Core;
use super::effect::Effect;
use super::event::{ClientId, ControlEvent, QuestionId};
use super::link;
use super::update::Local;
use crate::wire::control::{Code, Fault, Method, Outgoing, Request};
use crate::wire::json::json;
use crate::wire::occurrence::{Kinds, Occurrence};
use crate::wire::verdict::Asked;
#[cfg(test)]
use crate::wire::verdict::Verdict;
use crate::wire::{DevicePush, Topic};

/// Clients that wait for the firmware to be marked valid.
const MAX_VALIDATIONS: usize = 16;

/// The clients' state. What a client has not asked for is not here.
#[derive(Default)]
pub struct Control {
    subscribers: Vec<(ClientId, Kinds)>,
    decider: Option<ClientId>,
    /// Put to the decider and not answered.
    open: Vec<(QuestionId, Asked)>,
    last_question: u64,
    /// Answered when the mark is set, or cannot be.
    validations: Vec<(ClientId, Value)>,
    /// What came of the questions.
    #[cfg(test)]
    decided: Vec<(QuestionId, Asked, Option<Verdict>)>,
}

impl Control {
    /// Somebody waits for the firmware to be marked valid.
    pub(super) fn wants_validation(&self) -> bool {
        !self.validations.is_empty()
    }
}

pub(super) type Answer = Result<Value, Fault>;

impl Core {
    pub(super) fn on_control(&mut self, client: ClientId, event: ControlEvent) {
        match event {
            ControlEvent::Asked(request) => self.on_request(client, request),
            ControlEvent::Answered { question, text } => self.on_verdict(client, question, &text),
            ControlEvent::Left => self.on_client_left(client),
        }
    }

    fn on_request(&mut self, client: ClientId, request: Request) {
        let Request { id, method } = request;
        let answer = match method {
            Method::Validate => return self.on_validate_asked(client, id),
            Method::SendFile { path, progress } => {
                return self.on_send_file_asked(client, id, path, progress);
            }
            Method::Apply {
                path,
                force,
                progress,
            } => {
                let local = Local::new(client, id, path, force, progress);
                return self.on_apply_asked(local);
            }
            Method::Status => Ok(self.report()),
            Method::Connected => Ok(self.connections()),
            Method::Reconnect => self.on_reconnect_asked(),
            Method::UpdateStatus => Ok(self.report_update()),
            Method::Validated => self.on_validation_announced(),
            Method::SendStatus(push) => self.send_status(push),
            Method::SetAlarm { name, description } => self
                .set_alarm(name, description)
                .map(|()| json!({ "set": true })),
            Method::ClearAlarm(name) => self
                .clear_alarm(&name)
                .map(|cleared| json!({ "cleared": cleared })),
            Method::ListAlarms => Ok(self.report_alarms()),
            Method::Subscribe(kinds) => Ok(self.subscribe(client, kinds)),
            Method::Decide => self.register_decider(client),
            Method::CancelFile => self.on_cancel_file_asked(),
            Method::Extension { name, what, params } => {
                return self.on_extension_asked(client, id, (name, what), params);
            }
        };
        self.reply(client, id, answer);
    }

    pub(super) fn reply(&mut self, client: ClientId, id: Value, answer: Answer) {
        self.tell(
            client,
            match answer {
                Ok(result) => Outgoing::Result { id, result },
                Err(fault) => Outgoing::Error { id, fault },
            },
        );
    }

    pub(super) fn tell(&mut self, client: ClientId, said: Outgoing) {
        self.effect(Effect::Tell(client, Box::new(said)));
    }

    fn on_client_left(&mut self, client: ClientId) {
        let control = &mut self.control;
        control.subscribers.retain(|(other, _)| *other != client);
        control.validations.retain(|(other, _)| *other != client);
        let is_decider = control.decider == Some(client);
        self.end_sending_for(client);
        self.forget_questions_of(client);
        if is_decider {
            self.on_decider_left();
        }
    }

    /// The socket's thread has ended, and with it all clients.
    pub(super) fn on_control_lost(&mut self) {
        self.control.subscribers.clear();
        self.control.validations.clear();
        self.end_sending("the control socket is gone");
        if self.control.decider.is_some() {
            self.on_decider_left();
        }
    }

    fn subscribe(&mut self, client: ClientId, kinds: Kinds) -> Value {
        let subscribers = &mut self.control.subscribers;
        subscribers.retain(|(other, _)| *other != client);
        subscribers.push((client, kinds));
        json!({ "events": kinds.names() })
    }

    pub(super) fn tell_subscribers(&mut self, occurrence: &Occurrence) {
        let kind = occurrence.kind();
        let interested = |(client, kinds): &(ClientId, Kinds)| kinds.has(kind).then_some(*client);
        let clients: Vec<ClientId> = self
            .control
            .subscribers
            .iter()
            .filter_map(interested)
            .collect();
        for client in clients {
            self.tell(client, Outgoing::Event(occurrence.clone()));
        }
    }

    pub(super) fn is_joined(&self, topic: Topic) -> bool {
        match topic {
            Topic::Device => self.channels.device.is_joined(),
            Topic::Console => self.channels.console.is_joined(),
            Topic::Extensions => self.channels.extensions.is_joined(),
            Topic::Phoenix => matches!(self.link.phase, link::Phase::Open(_)),
        }
    }

    fn connections(&self) -> Value {
        json!({
            "socket": self.is_joined(Topic::Phoenix),
            "device": self.is_joined(Topic::Device),
            "console": self.is_joined(Topic::Console),
            "extensions": self.is_joined(Topic::Extensions),
        })
    }

    fn on_reconnect_asked(&mut self) -> Answer {
        if self.setup.endpoint.is_none() {
            let text = "this agent stays offline: NERVES_HUB_CONNECT is off";
            return Err(Fault::new(Code::Unavailable, text));
        }
        if self.leaving {
            return Err(Fault::new(Code::Refused, "the agent is leaving"));
        }
        info!("reconnecting, as asked over the control socket");
        self.reconnect_now();
        Ok(json!({ "reconnecting": true }))
    }

    fn on_validate_asked(&mut self, client: ClientId, id: Value) {
        if self.device.validated {
            return self.reply(client, id, Ok(json!({ "validated": true })));
        }
        if self.control.validations.len() >= MAX_VALIDATIONS {
            let fault = Fault::new(Code::Busy, "too many wait for it already");
            return self.reply(client, id, Err(fault));
        }
        self.control.validations.push((client, id));
        self.validate_now();
    }

    /// The mark is set, or an attempt at it has failed.
    pub(super) fn answer_validations(&mut self, result: Result<(), &str>) {
        for (client, id) in std::mem::take(&mut self.control.validations) {
            let answer = match result {
                Ok(()) => Ok(json!({ "validated": true })),
                Err(reason) => Err(Fault::new(Code::Failed, reason)),
            };
            self.reply(client, id, answer);
        }
    }

    fn on_validation_announced(&mut self) -> Answer {
        self.read_validation();
        Ok(json!({ "validated": self.device.validated }))
    }

    /// PROTOCOL §3: some of these crash the hub's channel unless it knows of an update.
    fn send_status(&mut self, mut push: DevicePush) -> Answer {
        let needs_update = matches!(
            push,
            DevicePush::Ignored { .. } | DevicePush::Rescheduled { .. } | DevicePush::Failed { .. }
        );
        if needs_update && self.update.uuid_in_hand().is_none() {
            let text = "no update is in hand: the hub could not take this status";
            return Err(Fault::new(Code::Refused, text));
        }
        if let DevicePush::Started { interface } = &mut push {
            *interface = self.session_interface();
        }
        match self.push_device(push) {
            Some(_) => Ok(json!({ "sent": true })),
            None => Err(Fault::new(Code::NotConnected, "the hub is not connected")),
        }
    }
}
