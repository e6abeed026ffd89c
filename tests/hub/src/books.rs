//! What the server remembers about a device, and which of its messages the server cannot
//! digest. Pure.

use serde_json::{Value, json};

/// The states the server knows for an update; any other word crashes the channel.
const STATUSES: [&str; 10] = [
    "requested",
    "rescheduled",
    "ignored",
    "received",
    "started",
    "downloading",
    "updating",
    "completed",
    "failed",
    "expired",
];

/// Why a channel crashed; for the transcript, the wire does not tell.
pub type Crash = String;

/// The update in flight for a device.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct InFlight {
    pub uuid: Option<String>,
    pub status: String,
    pub progress: Option<i64>,
}

/// Everything remembered about one device.
#[derive(Debug, Clone, Default)]
pub struct Book {
    pub identifier: String,
    /// Parameters of the latest join.
    pub params: Value,
    pub joins: u32,
    /// Live connection, joined or not.
    pub conn: Option<u64>,
    pub firmware_uuid: Option<String>,
    /// `Some(false)` holds updates back until `firmware_validated`.
    pub validated: Option<bool>,
    pub in_flight: Option<InFlight>,
    /// Every `status_update` payload.
    pub statuses: Vec<Value>,
    /// Every progress report: stage, value.
    pub progress: Vec<(String, Option<i64>)>,
    /// Blocked after `failed`, `ignored` or `rescheduled`, until the firmware changes.
    pub blocked: bool,
    pub blocked_for_ms: Option<i64>,
    pub network_interface: Option<String>,
    /// Offers waiting for the firmware to be validated.
    pub held: Vec<Value>,
}

impl Book {
    pub fn new(identifier: &str) -> Book {
        Book {
            identifier: identifier.into(),
            params: Value::Null,
            ..Book::default()
        }
    }

    /// Takes the join parameters; an error means that the join crashed.
    pub fn on_join(&mut self, params: &Value) -> Result<(), Crash> {
        let Value::Object(map) = params else {
            return Err("join payload is not a map".into());
        };
        let null = Value::Null;
        let meta = map.get("meta").unwrap_or(&null);
        if !meta.is_object() && map.contains_key("meta") {
            return Err("meta is not a map".into());
        }
        self.validated = match &meta["firmware_validated"] {
            Value::Null => None,
            Value::Bool(validated) => Some(*validated),
            other => return Err(format!("firmware_validated {other}")),
        };
        if map
            .get("device_api_version")
            .is_some_and(|version| !version.is_string())
        {
            return Err("device_api_version is not a string".into());
        }
        self.joins += 1;
        self.params = params.clone();
        let uuid = ["nerves_fw_uuid", "fw_uuid"]
            .iter()
            .find_map(|key| map.get(*key)?.as_str());
        if self.firmware_uuid.as_deref() != uuid || uuid.is_none() {
            self.firmware_uuid = uuid.map(str::to_owned);
            self.in_flight = None;
            self.blocked = false;
            self.blocked_for_ms = None;
        }
        if map
            .get("currently_downloading_uuid")
            .and_then(Value::as_str)
            .unwrap_or("")
            .is_empty()
        {
            self.in_flight = None;
        }
        Ok(())
    }

    /// Whether the joined device speaks at least this API version; garbage counts as 1.0.0.
    pub fn speaks(&self, major: u64, minor: u64) -> bool {
        let version = self.params["device_api_version"].as_str().unwrap_or("");
        semver(version).unwrap_or((1, 0, 0)) >= (major, minor, 0)
    }

    /// Notes that an update was offered.
    pub fn on_offered(&mut self, uuid: Option<&str>) {
        self.in_flight = Some(InFlight {
            uuid: uuid.map(str::to_owned),
            status: "requested".into(),
            progress: None,
        });
    }

    /// Takes a `status_update`.
    pub fn on_status(&mut self, payload: &Value) -> Result<(), Crash> {
        let Some(status) = payload["status"].as_str() else {
            return Err(format!("status_update without a status: {payload}"));
        };
        let status = match status.to_lowercase().contains("fwup error") {
            true => "failed",
            false => status,
        };
        self.set_status(status, None, payload)?;
        self.statuses.push(payload.clone());
        Ok(())
    }

    /// Takes `fwup_progress` or `update_progress`. Without a value the server ignores it.
    pub fn on_progress(&mut self, payload: &Value) -> Result<(), Crash> {
        let Some(value) = payload.get("value") else {
            return Ok(());
        };
        let value = match value {
            Value::Null => None,
            Value::String(text) => Some(text.parse().map_err(|_| format!("progress {value}"))?),
            _ => Some(
                value
                    .as_i64()
                    .ok_or_else(|| format!("progress {value} is no integer"))?,
            ),
        };
        let (stage, value) = match (&payload["stage"], value) {
            (Value::Null, Some(100)) => ("completed", None),
            (Value::Null, value) => ("updating", value),
            (Value::String(stage), value) => (stage.as_str(), value),
            (other, _) => return Err(format!("stage {other}")),
        };
        self.set_status(stage, value, payload)?;
        self.progress.push((stage.to_owned(), value));
        Ok(())
    }

    fn set_status(&mut self, status: &str, value: Option<i64>, info: &Value) -> Result<(), Crash> {
        let rescheduled = status == "rescheduled" && info.get("delay_for").is_some();
        if rescheduled || status == "failed" || status == "ignored" {
            let delay = if rescheduled {
                Some(delay_of(info)?)
            } else {
                None
            };
            if self.in_flight.take().is_none() {
                return Err(format!("{status} but no update is in flight"));
            }
            self.blocked = true;
            self.blocked_for_ms = delay;
            return Ok(());
        }
        if !STATUSES.contains(&status) {
            return Err(format!("unknown status or stage {status:?}"));
        }
        // The server opens a page for an update it did not know of.
        let page = self.in_flight.get_or_insert_with(InFlight::default);
        page.status = status.to_owned();
        page.progress = value;
        Ok(())
    }

    /// For the control port.
    pub fn to_json(&self) -> Value {
        json!({
            "identifier": self.identifier,
            "online": self.conn.is_some(),
            "joins": self.joins,
            "params": self.params,
            "firmware_uuid": self.firmware_uuid,
            "firmware_validated": self.validated,
            "in_flight": self.in_flight.as_ref().map(|update| json!({
                "uuid": update.uuid, "status": update.status, "progress": update.progress,
            })),
            "statuses": self.statuses,
            "progress": self.progress,
            "blocked": self.blocked,
            "blocked_for_ms": self.blocked_for_ms,
            "network_interface": self.network_interface,
        })
    }
}

fn delay_of(info: &Value) -> Result<i64, Crash> {
    let delay = &info["delay_for"];
    delay
        .as_i64()
        .ok_or_else(|| format!("delay_for {delay} is no integer"))
}

/// `MAJOR.MINOR.PATCH`, all three, with an optional pre-release or build.
pub fn semver(text: &str) -> Option<(u64, u64, u64)> {
    let core = text.split(['-', '+']).next()?;
    let mut parts = core.split('.').map(|part| part.parse().ok());
    let version = (parts.next()??, parts.next()??, parts.next()??);
    parts.next().is_none().then_some(version)
}
