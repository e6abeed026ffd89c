//! What is said on the `device` channel: the join's payload, reports, and the hub's events
//! (PROTOCOL §3).

use std::time::Duration;

use serde_json::{Map, Value};

use super::channel::Phase;
use super::effect::Effect;
use super::event::ConnId;
use super::timers::Timer;
use super::{Core, Setup};
use crate::wire::json::json;
use crate::wire::{DeviceEvent, DevicePush, Offer, Outbound, Topic};

/// Wait before the interface's name is looked up again.
const INTERFACE_RETRY: Duration = Duration::from_secs(60);
/// Scripts need ≥ 2.1.0, archives ≥ 2.0.0, extensions ≥ 2.2.0.
pub(super) const DEVICE_API_VERSION: &str = "2.3.0";
pub(super) const CONSOLE_VERSION: &str = "2.0.0";

/// What is known for the channel.
pub struct Device {
    pub(super) validated: bool,
    /// `None` until `fwup --version` has answered.
    fwup_version: Option<Option<String>>,
    interface_reported: Option<ConnId>,
    /// The update that the last join named.
    named: Option<String>,
}

impl Device {
    pub(super) fn new(setup: &Setup) -> Self {
        Self {
            validated: setup.firmware_validated,
            fwup_version: None,
            interface_reported: None,
            named: None,
        }
    }
}

impl Core {
    pub(super) fn on_fwup_version_read(&mut self, version: Option<String>) {
        if version.is_none() && !self.setup.installer_verifies {
            error!(
                "fwup did not tell its version; updates will fail (see `nerveshub-agent check`)"
            );
        }
        self.device.fwup_version = Some(version);
        self.join_device();
    }

    /// Joins when the socket is open and the payload is known; otherwise later.
    pub(super) fn join_device(&mut self) {
        if self.channels.device.phase != Phase::Left || self.device.fwup_version.is_none() {
            return;
        }
        let payload = self.join_payload();
        if self.join(Topic::Device, payload) {
            self.trial.told = self.device.validated;
            self.device.named = self.update.uuid_in_hand().map(str::to_owned);
            self.note_join_sent();
        }
    }

    fn join_payload(&self) -> Map<String, Value> {
        let mut payload = Map::new();
        // One by one: collecting would bring in a whole sort.
        let firmware = self.setup.firmware.iter();
        payload.extend(firmware.map(|(key, value)| (key.clone(), json!(value))));
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

    pub(super) fn on_device_joined(&mut self, offer: Option<Box<Offer>>) {
        info!("device channel joined as {}", self.setup.identifier);
        self.link.proved();
        if let Some(uuid) = self.device.named.take().filter(|_| self.has_no_update()) {
            // It was decided upon while the join was on its way, which the hub did not hear;
            // the next join names none, and so there is only one more.
            info!("firmware {uuid} is not in hand any more: joining again to say so");
            return self.rejoin_now(Topic::Device);
        }
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
        self.join_console();
        self.await_extensions_get();
        if let Some(offer) = offer {
            self.on_offer(offer);
        }
    }

    /// Which join of which connection is in force, if any.
    pub(super) fn device_join(&mut self) -> Option<(ConnId, u64)> {
        let conn = self.link.session()?.conn;
        match self.channels.device.phase {
            Phase::Joined(join_ref) => Some((conn, join_ref)),
            Phase::Left | Phase::Joining(_) => None,
        }
    }

    /// Sends on the joined channel; `None` (and nothing sent) while it is not.
    pub(super) fn push_device(&mut self, push: DevicePush) -> Option<u64> {
        match self.channels.device.phase {
            Phase::Joined(join_ref) => self.push(Some(join_ref), Outbound::Device(push)),
            Phase::Left | Phase::Joining(_) => None,
        }
    }

    pub(super) fn on_device_event(&mut self, event: DeviceEvent) {
        match event {
            DeviceEvent::Update(offer) => self.on_offer(offer),
            DeviceEvent::NoUpdate => debug!("the hub has no update"),
            DeviceEvent::Archive(archive) => self.on_archive(archive),
            DeviceEvent::FirmwareKeys(keys) => self.on_firmware_keys(keys),
            DeviceEvent::ArchiveKeys(keys) => self.on_archive_keys(keys),
            DeviceEvent::Reboot => self.on_reboot_requested(),
            DeviceEvent::Identify => self.on_identify_requested(),
            DeviceEvent::RunScript(request) => self.on_script_requested(*request),
            DeviceEvent::ExtensionsGet(advertised) => self.on_extensions_get(advertised),
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
