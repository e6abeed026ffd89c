//! The server's side of one device link: channels joined, frames in, frames out. Pure.

use crate::books::{Book, Crash};
use crate::extensions::Extensions;
use crate::frame::Frame;
use crate::state::Behaviour;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What a frame led to.
#[derive(Debug, Default)]
pub struct Outcome {
    pub frames: Vec<Frame>,
    /// For the transcript.
    pub notes: Vec<String>,
}

impl Outcome {
    fn send(&mut self, frame: Frame) {
        self.frames.push(frame);
    }
}

/// The channels of one connection.
#[derive(Debug, Default)]
pub struct Session {
    /// Topic to join_ref.
    joined: BTreeMap<String, String>,
    extensions: Extensions,
}

impl Session {
    pub fn join_ref(&self, topic: &str) -> Option<&str> {
        self.joined.get(topic).map(String::as_str)
    }

    pub fn topics(&self) -> Vec<String> {
        self.joined.keys().cloned().collect()
    }

    /// Takes a frame from the device.
    pub fn on_frame(&mut self, frame: &Frame, book: &mut Book, behaviour: &Behaviour) -> Outcome {
        let mut out = Outcome::default();
        match (frame.topic.as_str(), frame.event.as_str()) {
            ("phoenix", "heartbeat") if behaviour.answer_heartbeats => {
                out.send(frame.reply("ok", json!({})));
            }
            ("phoenix", "heartbeat") => {}
            (_, "phx_join") => self.on_join(frame, book, behaviour, &mut out),
            (_, "phx_leave") => self.on_leave(frame, &mut out),
            (topic, _) if !self.joined.contains_key(topic) => out.send(unmatched(frame)),
            _ => self.on_push(frame, book, behaviour, &mut out),
        }
        out
    }

    fn on_join(
        &mut self,
        frame: &Frame,
        book: &mut Book,
        behaviour: &Behaviour,
        out: &mut Outcome,
    ) {
        if behaviour.silent_joins.contains(&frame.topic) {
            return;
        }
        // A missing join_ref is possible on the wire, though no client sends one.
        let join_ref = frame.join_ref.clone().unwrap_or_default();
        let old = self.joined.remove(&frame.topic);
        if let Some(response) = behaviour.refused_joins.get(&frame.topic) {
            out.send(frame.reply("error", response.clone()));
        } else {
            match self.admit(frame, book, behaviour) {
                Ok(response) => {
                    self.joined.insert(frame.topic.clone(), join_ref);
                    out.send(frame.reply("ok", response));
                }
                Err(Refused::Unmatched) => out.send(unmatched(frame)),
                Err(Refused::Crashed(why)) => {
                    out.notes
                        .push(format!("join of {} crashed: {why}", frame.topic));
                    out.send(frame.reply("error", json!({"reason": "join crashed"})));
                }
            }
        }
        if let Some(old) = old {
            out.send(Frame::end(&old, &frame.topic, "phx_close", json!({})));
        }
        if frame.topic == "device" && self.joined.contains_key("device") {
            after_device_join(book, behaviour, self.joined["device"].as_str(), out);
        }
    }

    fn admit(
        &mut self,
        frame: &Frame,
        book: &mut Book,
        behaviour: &Behaviour,
    ) -> Result<Value, Refused> {
        match frame.topic.as_str() {
            "device" => {
                book.on_join(&frame.payload).map_err(Refused::Crashed)?;
                Ok(behaviour.join_response.clone())
            }
            "console" => Ok(json!({})),
            "extensions" => self
                .extensions
                .join(&frame.payload, behaviour)
                .map_err(Refused::Crashed),
            _ => Err(Refused::Unmatched),
        }
    }

    fn on_leave(&mut self, frame: &Frame, out: &mut Outcome) {
        out.send(frame.reply("ok", json!({})));
        if let Some(join_ref) = self.joined.remove(&frame.topic) {
            out.send(Frame::end(&join_ref, &frame.topic, "phx_close", json!({})));
        }
    }

    fn on_push(
        &mut self,
        frame: &Frame,
        book: &mut Book,
        behaviour: &Behaviour,
        out: &mut Outcome,
    ) {
        let result = match frame.topic.as_str() {
            "device" => on_device_push(frame, book, out),
            "console" => on_console_push(frame),
            _ => {
                out.frames.extend(self.extensions.message(frame, behaviour));
                Ok(())
            }
        };
        if let Err(why) = result {
            out.notes
                .push(format!("channel {} crashed: {why}", frame.topic));
            out.frames.extend(self.crash(&frame.topic));
        }
    }

    /// What the device sees of a crash of `topic`; nothing when it is not joined.
    pub fn crash(&mut self, topic: &str) -> Option<Frame> {
        let join_ref = self.joined.remove(topic)?;
        Some(Frame::end(
            &join_ref,
            topic,
            "phx_error",
            json!({"reason": "channel_crash"}),
        ))
    }
}

enum Refused {
    Unmatched,
    Crashed(Crash),
}

fn unmatched(frame: &Frame) -> Frame {
    Frame {
        join_ref: None,
        ..frame.reply("error", json!({"reason": "unmatched topic"}))
    }
}

fn after_device_join(book: &mut Book, behaviour: &Behaviour, join_ref: &str, out: &mut Outcome) {
    let lists = [
        ("fwup_public_keys", &behaviour.fwup_keys),
        ("archive_public_keys", &behaviour.archive_keys),
    ];
    for (event, keys) in lists {
        if book.params[event] == "on_connect" && !keys.is_empty() {
            out.send(Frame::broadcast("device", event, json!({"keys": keys})));
        }
    }
    if let Some(archive) = behaviour.archive.as_ref().filter(|_| book.speaks(2, 0)) {
        out.send(Frame::broadcast("device", "archive", archive.clone()));
    }
    if let Some(advertised) = behaviour.advertise.as_ref().filter(|_| book.speaks(2, 2)) {
        out.send(Frame::broadcast(
            "device",
            "extensions:get",
            advertised.clone(),
        ));
    }
    if let Some(text) = behaviour
        .connecting_code
        .as_ref()
        .filter(|_| book.speaks(2, 1))
    {
        let payload = json!({"ref": "connecting_code", "text": text});
        out.send(Frame::push(join_ref, "device", "scripts/run", payload));
    }
    offer_deployment(book, behaviour);
    release_held(book, out);
}

/// The deployment's firmware is due when the device runs another one and is not busy.
fn offer_deployment(book: &mut Book, behaviour: &Behaviour) {
    let Some(update) = &behaviour.deployment else {
        return;
    };
    let uuid = update["firmware_meta"]["uuid"].as_str();
    let due = book.firmware_uuid.as_deref() != uuid && book.in_flight.is_none() && !book.blocked;
    if due && book.held.is_empty() {
        book.held.push(update.clone());
    }
}

fn release_held(book: &mut Book, out: &mut Outcome) {
    if book.validated == Some(false) {
        return;
    }
    for update in std::mem::take(&mut book.held) {
        book.on_offered(update["firmware_meta"]["uuid"].as_str());
        out.send(Frame::broadcast("device", "update", update));
    }
}

/// Holds or sends an offer.
pub fn offer(book: &mut Book, update: Value) -> Vec<Frame> {
    let mut out = Outcome::default();
    book.held.push(update);
    release_held(book, &mut out);
    out.frames
}

fn on_device_push(frame: &Frame, book: &mut Book, out: &mut Outcome) -> Result<(), Crash> {
    match frame.event.as_str() {
        "status_update" => book.on_status(&frame.payload),
        "fwup_progress" | "update_progress" => book.on_progress(&frame.payload),
        "firmware_validated" => {
            book.validated = Some(true);
            release_held(book, out);
            Ok(())
        }
        "report_network_interface" => {
            book.network_interface = frame.payload["interface"].as_str().map(str::to_owned);
            Ok(())
        }
        // The server ignores whatever else a device says on this topic.
        _ => Ok(()),
    }
}

fn on_console_push(frame: &Frame) -> Result<(), Crash> {
    match frame.event.as_str() {
        "up" if !frame.payload["data"].is_string() => Err("console data is no string".into()),
        "up" | "file-data/start" | "file-data" | "file-data/stop" => Ok(()),
        other => Err(format!("unknown console event {other}")),
    }
}
