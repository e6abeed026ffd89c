//! The status as an object, for programs. Pure. Owns the names of its fields, which are an
//! interface (etc/doc/control.md).

use serde_json::{Map, Value};

use crate::core::Core;
use crate::core::reboot::Why;
use crate::core::timers::Timer;
use crate::core::{link, update};
use crate::wire::json::json;
use crate::wire::verdict::describe_offer;
use crate::wire::{Offer, Topic};

impl Core {
    pub(super) fn report(&self) -> Value {
        let uptime = self.now.saturating_duration_since(self.started);
        json!({
            "agent": crate::USER_AGENT,
            "uptime": uptime.as_secs(),
            "identifier": self.setup.identifier,
            "connection": self.report_connection(),
            "firmware": self.report_firmware(),
            "update": self.report_update(),
            "reboot": self.reboot.why().map(Why::name),
            "decider": self.control.decider.is_some(),
            "alarms": self.report_alarms(),
        })
    }

    fn report_connection(&self) -> Value {
        let state = match &self.link.phase {
            link::Phase::Open(_) if self.is_joined(Topic::Device) => "joined",
            link::Phase::Open(_) => "joining",
            link::Phase::Connecting(_) => "connecting",
            link::Phase::Down if self.setup.endpoint.is_none() => "offline",
            link::Phase::Down => "down",
        };
        let interface = match &self.link.phase {
            link::Phase::Open(session) => session.interface.clone(),
            link::Phase::Down | link::Phase::Connecting(_) => None,
        };
        let next = self.timers.deadline(Timer::Reconnect);
        let wait = next.map(|at| at.saturating_duration_since(self.now));
        json!({
            "state": state,
            "hub": self.setup.endpoint.as_ref().map(ToString::to_string),
            "interface": interface,
            "last_error": self.link.last_error,
            "next_attempt_ms": wait.map(|wait| wait.as_millis() as u64),
        })
    }

    fn report_firmware(&self) -> Value {
        let mut firmware = Map::new();
        // One by one: collecting would bring in a whole sort.
        for (key, value) in &self.setup.firmware {
            let name = key.strip_prefix("nerves_fw_").unwrap_or(key);
            firmware.insert(name.to_owned(), json!(value));
        }
        firmware.insert("slot".to_owned(), json!(self.setup.running_slot));
        firmware.insert("validated".to_owned(), json!(self.device.validated));
        let reverted = json!(self.setup.auto_revert_detected);
        firmware.insert("auto_revert_detected".to_owned(), reverted);
        Value::Object(firmware)
    }

    /// What is going on with updates.
    pub(super) fn report_update(&self) -> Value {
        let (state, offer) = match &self.update.phase {
            update::Phase::Idle if self.update.hold.is_some() => ("put-off", None),
            update::Phase::Idle => ("idle", None),
            update::Phase::Asking(asking) => ("asking", Some(&asking.offer)),
            update::Phase::AwaitingKeys(offer) => ("waiting-for-keys", Some(offer)),
            update::Phase::Installing(install) => ("installing", Some(&install.offer)),
            update::Phase::Reporting(_) => ("reporting", None),
            update::Phase::Rebooting if self.reboot.is_put_off() => ("reboot-put-off", None),
            update::Phase::Rebooting => ("rebooting", None),
        };
        let describe = |offer: &Offer| describe_offer(offer);
        let mut report = json!({
            "state": state,
            "offer": offer.map(|offer| describe(offer)),
            "last_error": self.update.last_error,
        });
        if let (update::Phase::Idle, Some(hold)) = (&self.update.phase, &self.update.hold) {
            let left = hold.until.saturating_duration_since(self.now);
            let (seconds, reason) = (left.as_secs(), &hold.reason);
            report["put_off"] = json!({"uuid": hold.uuid, "seconds": seconds, "reason": reason});
        }
        if let update::Phase::Installing(install) = &self.update.phase {
            report["downloaded_percent"] = json!(install.downloaded);
            report["installed_percent"] = json!(install.percent);
        }
        report
    }

    /// Name to description.
    pub(super) fn report_alarms(&self) -> Value {
        let mut alarms = Map::new();
        for (name, description) in self.raised() {
            alarms.insert(name.to_owned(), json!(description));
        }
        Value::Object(alarms)
    }
}
