//! Commands to connected devices: offers, pushes and faults of the link. Those that wait do so
//! until the topic is joined, under the hub's deadline.

use crate::conn::Command;
use crate::firmware::Firmware;
use crate::frame::Frame;
use crate::hub::Hub;
use crate::state::{Link, State};
use serde_json::{Value, json};
use tungstenite::Message;

impl Hub {
    /// Sends `update` to the newest connection and enters it in the books; held back while the
    /// device runs firmware that is not validated.
    pub fn offer(&self, firmware: &Firmware) {
        self.await_topic(None, "device");
        self.command(None, |_| Command::Offer(firmware.payload()));
    }

    /// As [`Hub::offer`], to one device.
    pub fn offer_to(&self, identifier: &str, firmware: &Firmware) {
        self.await_topic(Some(identifier), "device");
        self.command(Some(identifier), |_| Command::Offer(firmware.payload()));
    }

    pub fn reboot(&self) {
        self.push("device", "reboot", json!({}));
    }

    pub fn identify(&self) {
        self.push("device", "identify", json!({}));
    }

    /// Pushes on a topic of the newest connection, once it is joined. `device` events go out
    /// without refs, others with the join_ref; so do the scripts of `device`.
    pub fn push(&self, topic: &str, event: &str, payload: Value) {
        self.await_topic(None, topic);
        self.command(None, |_| push_command(topic, event, &payload));
    }

    /// As [`Hub::push`], to one device.
    pub fn push_to(&self, identifier: &str, topic: &str, event: &str, payload: Value) {
        self.await_topic(Some(identifier), topic);
        self.command(Some(identifier), |_| push_command(topic, event, &payload));
    }

    /// Sends exactly that text message, valid or not.
    pub fn push_raw_text(&self, text: impl Into<String>) {
        let text = text.into();
        self.command(None, |_| Command::Raw(Message::text(text.clone())));
    }

    /// Sends exactly that binary message.
    pub fn push_raw_binary(&self, bytes: impl Into<Vec<u8>>) {
        let bytes = bytes.into();
        self.command(None, |_| Command::Raw(Message::binary(bytes.clone())));
    }

    /// Sends a WebSocket ping.
    pub fn ping(&self) {
        self.command(None, |_| Command::Raw(Message::Ping(Default::default())));
    }

    /// Sends `[join_ref, ref, topic, event, payload]` as it is, in the connection's encoding.
    pub fn push_frame(&self, frame: Value) {
        let frame = Frame::from_value(frame).unwrap_or_else(|error| panic!("{error}"));
        self.command(None, |_| Command::Frame(frame.clone()));
    }

    /// The channel crashes: `phx_error` and unjoined.
    pub fn crash_channel(&self, topic: &str) {
        self.await_topic(None, topic);
        self.command(None, |_| Command::Crash(topic.into()));
    }

    /// Closes the newest connection with a close frame.
    pub fn close(&self, code: u16) {
        self.command(None, |_| Command::Close(code, String::new()));
    }

    /// Resets the newest connection, without a close frame.
    pub fn drop_tcp(&self) {
        self.command(None, |_| Command::Drop { reset: true });
    }

    /// Ends the newest connection with a FIN, without a close frame or TLS goodbye.
    pub fn cut_tcp(&self) {
        self.command(None, |_| Command::Drop { reset: false });
    }

    /// The newest connection stays open but nothing is read or written any more.
    pub fn freeze(&self) {
        let (done, frozen) = crossbeam_channel::bounded(1);
        self.command(None, |_| Command::Freeze(done.clone()));
        if frozen.recv_timeout(self.deadline).is_err() {
            self.fail("the connection did not freeze");
        }
    }

    pub fn unfreeze(&self) {
        self.command(None, |_| Command::Unfreeze);
    }

    /// As [`Hub::push_to`], now or not at all.
    pub fn try_push(
        &self,
        identifier: &str,
        topic: &str,
        event: &str,
        payload: Value,
    ) -> Result<(), String> {
        self.try_command(
            identifier,
            Some(topic),
            push_command(topic, event, &payload),
        )
    }

    /// As [`Hub::offer_to`], now or not at all.
    pub fn try_offer(&self, identifier: &str, firmware: &Firmware) -> Result<(), String> {
        self.try_command(
            identifier,
            Some("device"),
            Command::Offer(firmware.payload()),
        )
    }

    /// As [`Hub::crash_channel`] for one device, now or not at all.
    pub fn try_crash(&self, identifier: &str, topic: &str) -> Result<(), String> {
        self.try_command(identifier, Some(topic), Command::Crash(topic.into()))
    }

    /// As [`Hub::close`] for one device, now or not at all.
    pub fn try_close(&self, identifier: &str, code: u16) -> Result<(), String> {
        self.try_command(identifier, None, Command::Close(code, String::new()))
    }

    fn try_command(
        &self,
        identifier: &str,
        topic: Option<&str>,
        command: Command,
    ) -> Result<(), String> {
        let state = self.shared.lock();
        let (_, link) = newest(&state, Some(identifier))
            .ok_or_else(|| format!("{identifier} is not connected"))?;
        if let Some(topic) = topic
            && !link.topics.iter().any(|joined| joined == topic)
        {
            return Err(format!("{identifier} has not joined {topic}"));
        }
        link.command(command);
        Ok(())
    }

    /// Sends a command to the newest connection, or the newest of one device.
    pub(crate) fn command(&self, identifier: Option<&str>, make: impl Fn(u64) -> Command) {
        let found = self.shared.wait(Some(self.deadline), |state| {
            let (id, link) = newest(state, identifier)?;
            link.command(make(id));
            Some(())
        });
        if found.is_none() {
            self.fail(&format!(
                "no open connection of {}",
                identifier.unwrap_or("any device")
            ));
        }
    }

    pub(crate) fn await_topic(&self, identifier: Option<&str>, topic: &str) {
        let found = self.shared.wait(Some(self.deadline), |state| {
            let (_, link) = newest(state, identifier)?;
            link.topics
                .iter()
                .any(|joined| joined == topic)
                .then_some(())
        });
        if found.is_none() {
            self.fail(&format!(
                "topic {topic} of {} not joined",
                identifier.unwrap_or("any device")
            ));
        }
    }
}

fn newest<'a>(state: &'a State, identifier: Option<&str>) -> Option<(u64, &'a Link)> {
    let mut links = state.links.iter().rev();
    let wanted = |name: &str| identifier.is_none_or(|identifier| identifier == name);
    links
        .find(|(_, link)| wanted(&link.identifier))
        .map(|(id, link)| (*id, link))
}

fn push_command(topic: &str, event: &str, payload: &Value) -> Command {
    let (topic_name, event_name) = (topic.to_owned(), event.to_owned());
    match topic == "device" && event != "scripts/run" {
        true => Command::Broadcast(topic_name, event_name, payload.clone()),
        false => Command::Push(topic_name, event_name, payload.clone()),
    }
}
