//! The `device` channel: join, reports, and the hub's events (PROTOCOL §3).

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::effect::Effect;
use super::event::ConnId;
use super::timers::Timer;
use super::{Core, Setup};
use crate::wire::occurrence::Occurrence;
use crate::wire::{DeviceEvent, DevicePush, Outbound, Reply, Topic};

/// Wait before the interface's name is looked up again.
const INTERFACE_RETRY: Duration = Duration::from_secs(60);
/// Scripts need ≥ 2.1.0, archives ≥ 2.0.0, extensions ≥ 2.2.0.
const DEVICE_API_VERSION: &str = "2.3.0";
const CONSOLE_VERSION: &str = "2.0.0";

/// The channel's state.
pub struct Device {
    pub(super) channel: Channel,
    pub(super) validated: bool,
    /// `None` until `fwup --version` has answered.
    fwup_version: Option<Option<String>>,
    interface_reported: Option<ConnId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Channel {
    Left,
    Joining(u64),
    Joined(u64),
}

impl Device {
    pub(super) fn new(setup: &Setup) -> Self {
        Self {
            channel: Channel::Left,
            validated: setup.firmware_validated,
            fwup_version: None,
            interface_reported: None,
        }
    }

    pub(super) fn channel_is_down(&self) -> bool {
        !matches!(self.channel, Channel::Joined(_))
    }
}

impl Core {
    pub(super) fn on_fwup_version_read(&mut self, version: Option<String>) {
        if version.is_none() && !self.setup.installer_verifies {
            log::error!(
                "fwup did not tell its version; updates will fail (see `nerveshub-agent check`)"
            );
        }
        self.device.fwup_version = Some(version);
        self.join_device();
    }

    /// Joins when the socket is open and the payload is known; otherwise later.
    pub(super) fn join_device(&mut self) {
        if self.device.channel != Channel::Left || self.device.fwup_version.is_none() {
            return;
        }
        let payload = self.join_payload();
        if let Some(reference) = self.push(None, Outbound::Join(Topic::Device, payload)) {
            self.timers.cancel(Timer::Rejoin);
            self.device.channel = Channel::Joining(reference);
            self.trial.told = self.device.validated;
            self.note_join_sent();
            self.set_timer(Timer::JoinReply, self.setup.link.timeouts.join);
        }
    }

    fn join_payload(&self) -> Map<String, Value> {
        let mut payload: Map<String, Value> = self
            .setup
            .firmware
            .iter()
            .map(|(key, value)| (key.clone(), json!(value)))
            .collect();
        let mut put = |key: &str, value: Value| payload.insert(key.to_owned(), value);
        put(
            "fwup_version",
            json!(self.device.fwup_version.clone().flatten()),
        );
        put("update_tool", json!(self.setup.update_tool));
        put("device_api_version", json!(DEVICE_API_VERSION));
        put("console_version", json!(CONSOLE_VERSION));
        put(
            "currently_downloading_uuid",
            json!(self.update.uuid_in_hand()),
        );
        put(
            "meta",
            json!({
                "firmware_validated": self.device.validated,
                "firmware_auto_revert_detected": self.setup.auto_revert_detected,
            }),
        );
        if self.requests_keys() {
            put("fwup_public_keys", json!("on_connect"));
        }
        if self.requests_archive_keys() {
            put("archive_public_keys", json!("on_connect"));
        }
        payload
    }

    pub(super) fn on_reply(&mut self, reply: Reply) {
        if self.device.channel == Channel::Joining(reply.reference) && reply.topic == Topic::Device
        {
            self.timers.cancel(Timer::JoinReply);
            match reply.outcome {
                Ok(body) => {
                    self.on_joined(reply.reference);
                    if let Some(offer) = body.offer {
                        self.on_offer(offer);
                    }
                }
                Err(reason) => {
                    log::warn!("the hub refused the device channel: {reason}");
                    self.link.last_error = Some(format!("join refused: {reason}"));
                    self.rejoin_later();
                }
            }
            return;
        }
        self.on_confirmed(reply.reference);
    }

    fn on_joined(&mut self, join_ref: u64) {
        log::info!("device channel joined as {}", self.setup.identifier);
        self.device.channel = Channel::Joined(join_ref);
        self.link.proved();
        self.await_keys();
        let session = self.link.session();
        if let Some((conn, name)) = session.map(|session| (session.conn, session.interface.clone()))
        {
            self.on_interface_found(conn, name);
        }
        self.report_outcome();
        self.effect(Effect::Settle);
        self.ask_for_delays();
        self.on_trial_joined();
        self.await_fresh_offer();
    }

    pub(super) fn on_join_overdue(&mut self) {
        self.drop_link("the hub did not answer the join");
    }

    pub(super) fn on_link_lost(&mut self) {
        self.device.channel = Channel::Left;
        for timer in [Timer::Rejoin, Timer::JoinReply, Timer::Interface] {
            self.timers.cancel(timer);
        }
        self.unconfirm_report();
        self.ask_for_fresh_offer_again();
    }

    /// Joins the joined channel again; the hub answers with a new one and closes the old.
    pub(super) fn rejoin_now(&mut self) {
        if matches!(self.device.channel, Channel::Joined(_)) {
            self.device.channel = Channel::Left;
            self.join_device();
        }
    }

    fn rejoin_later(&mut self) {
        self.device.channel = Channel::Left;
        self.ask_for_fresh_offer_again();
        self.timers.cancel(Timer::JoinReply);
        self.set_timer(Timer::Rejoin, self.setup.link.rejoin_after);
    }

    pub(super) fn on_channel_error(&mut self, topic: Topic, join_ref: Option<u64>, reason: &str) {
        if self.is_current(topic, join_ref) {
            log::warn!("the device channel crashed at the hub: {reason}");
            self.forget_indigestible_report();
            self.rejoin_later();
        }
    }

    pub(super) fn on_channel_closed(&mut self, topic: Topic, join_ref: Option<u64>) {
        if self.is_current(topic, join_ref) {
            log::warn!("the hub closed the device channel");
            self.rejoin_later();
        }
    }

    /// Stale ones carry the reference of an earlier join.
    fn is_current(&self, topic: Topic, join_ref: Option<u64>) -> bool {
        let current = match self.device.channel {
            Channel::Left => return false,
            Channel::Joining(reference) | Channel::Joined(reference) => reference,
        };
        topic == Topic::Device && join_ref.is_none_or(|reference| reference == current)
    }

    /// Sends on the joined channel; `None` (and nothing sent) while it is not.
    pub(super) fn push_device(&mut self, push: DevicePush) -> Option<u64> {
        match self.device.channel {
            Channel::Joined(join_ref) => self.push(Some(join_ref), Outbound::Device(push)),
            Channel::Left | Channel::Joining(_) => None,
        }
    }

    pub(super) fn on_device_event(&mut self, event: DeviceEvent) {
        match event {
            DeviceEvent::Update(offer) => self.on_offer(offer),
            DeviceEvent::NoUpdate => log::debug!("the hub has no update"),
            DeviceEvent::Archive(archive) => self.on_archive(archive),
            DeviceEvent::FirmwareKeys(keys) => self.on_firmware_keys(keys),
            DeviceEvent::ArchiveKeys(keys) => self.on_archive_keys(keys),
            DeviceEvent::Reboot => self.on_reboot_requested(),
            DeviceEvent::Identify => {
                log::info!("identify: this is device {}", self.setup.identifier);
                self.publish(Occurrence::Identify);
            }
            DeviceEvent::RunScript { script } => {
                log::info!("support script refused: scripts are not enabled");
                let reason = "support scripts are not enabled on this device".to_owned();
                self.push_device(DevicePush::ScriptRefused { script, reason });
            }
            DeviceEvent::ExtensionsGet => log::debug!("no extension is enabled"),
        }
    }

    pub(super) fn on_interface_found(&mut self, conn: ConnId, name: Option<String>) {
        let Some(session) = self.link.session().filter(|session| session.conn == conn) else {
            return;
        };
        session.interface.clone_from(&name);
        match name {
            None => self.set_timer(Timer::Interface, INTERFACE_RETRY),
            Some(name) if self.device.interface_reported != Some(conn) => {
                if self
                    .push_device(DevicePush::NetworkInterface(name))
                    .is_some()
                {
                    self.device.interface_reported = Some(conn);
                }
            }
            Some(_) => {}
        }
    }

    pub(super) fn on_interface_timer(&mut self) {
        let local = self
            .link
            .session()
            .and_then(|session| Some((session.conn, session.local?)));
        if let Some((conn, address)) = local {
            self.effect(Effect::FindInterface(conn, address));
        }
    }
}
