//! What the hub says on the `device` topic, as types (PROTOCOL §3, server → device).
//!
//! Lenient where the hub's versions differ (absent or null fields), strict where a wrong
//! value would decide something (uuid, URL, checksum lengths).

use std::time::Duration;

use serde_json::Value;

use super::extensions::{self, Advertised};
use super::fields::{clip, text};
use super::phoenix::WireError;
use crate::config::{Secret, values};

/// Events on the topic.
#[derive(Clone, Debug, PartialEq)]
pub enum DeviceEvent {
    Update(Box<Offer>),
    /// `update_available` is false.
    NoUpdate,
    Archive(Box<Archive>),
    FirmwareKeys(Vec<String>),
    ArchiveKeys(Vec<String>),
    Reboot,
    Identify,
    RunScript(Box<ScriptRequest>),
    /// The hub invites the `extensions` topic.
    ExtensionsGet(Option<Advertised>),
}

/// A support script the hub wants run.
#[derive(Clone, Debug, PartialEq)]
pub struct ScriptRequest {
    /// What the hub knows it by.
    pub reference: String,
    pub text: String,
    /// How long it may take; older hubs do not say.
    pub timeout: Option<Duration>,
}

/// An update the hub offers.
#[derive(Clone, Debug, PartialEq)]
pub struct Offer {
    pub uuid: String,
    pub version: String,
    pub product: String,
    /// The query is a credential: only [`Secret::expose`] shows it.
    pub url: Secret,
    /// Bytes of the whole file.
    pub size: Option<u64>,
    /// SHA-256 of the whole file.
    pub checksum: Option<[u8; 32]>,
    /// SHA-256 of each [`PART`] bytes; empty when the hub names none.
    pub partials: Vec<[u8; 32]>,
}

/// A file the hub hands to devices beside firmware.
#[derive(Clone, Debug, PartialEq)]
pub struct Archive {
    pub uuid: String,
    pub version: String,
    /// The query is a credential, as an [`Offer`]'s.
    pub url: Secret,
    /// Bytes of the whole file.
    pub size: Option<u64>,
    pub description: String,
    pub platform: String,
    pub architecture: String,
}

/// What `partials_checksums` cut a file into, in bytes; the last part may be shorter.
pub const PART: u64 = 1024 * 1024;

/// At most this many public keys are taken from the hub.
const MAX_KEYS: usize = 64;

pub(super) fn offer_in_reply(response: &Value) -> Option<Box<Offer>> {
    response.get("firmware_url")?;
    match parse_update(response) {
        Ok(DeviceEvent::Update(offer)) => Some(offer),
        Ok(_) => None,
        Err(error) => {
            debug!("update in the join reply ignored: {error}");
            None
        }
    }
}

/// The event; `None` when there is no such one.
///
/// # Errors
/// A payload that makes no sense; the text names the field.
pub(super) fn parse(event: &str, payload: &Value) -> Result<Option<DeviceEvent>, WireError> {
    let event = match event {
        "update" => parse_update(payload)?,
        "archive" => parse_archive(payload)?,
        "fwup_public_keys" => DeviceEvent::FirmwareKeys(keys(payload)),
        "archive_public_keys" => DeviceEvent::ArchiveKeys(keys(payload)),
        "reboot" => DeviceEvent::Reboot,
        "identify" => DeviceEvent::Identify,
        "scripts/run" => DeviceEvent::RunScript(Box::new(parse_script(payload))),
        "extensions:get" => DeviceEvent::ExtensionsGet(extensions::advertised(payload)),
        _ => return Ok(None),
    };
    Ok(Some(event))
}

/// A script without text or with a timeout that is none is still to be answered.
fn parse_script(payload: &Value) -> ScriptRequest {
    let script = payload.get("text").and_then(Value::as_str);
    let timeout = payload.get("timeout").and_then(Value::as_u64);
    ScriptRequest {
        reference: text(payload, "ref"),
        text: script.unwrap_or_default().to_owned(),
        timeout: timeout.map(Duration::from_millis),
    }
}

fn parse_update(payload: &Value) -> Result<DeviceEvent, WireError> {
    if payload.get("update_available") == Some(&Value::Bool(false)) {
        return Ok(DeviceEvent::NoUpdate);
    }
    let missing = |name: &str| WireError(format!("update: no {name}"));
    let meta = payload.get("firmware_meta").filter(|meta| meta.is_object());
    let meta = meta.ok_or_else(|| missing("firmware_meta"))?;
    let uuid = uuid(meta);
    let url = payload.get("firmware_url").and_then(Value::as_str);
    let checksum = payload
        .get("checksum")
        .filter(|checksum| !checksum.is_null());
    Ok(DeviceEvent::Update(Box::new(Offer {
        uuid: uuid.ok_or_else(|| missing("usable uuid"))?,
        version: text(meta, "version"),
        product: text(meta, "product"),
        url: Secret::new(url.ok_or_else(|| missing("firmware_url"))?),
        size: size(payload),
        checksum: checksum.map(parse_checksum).transpose()?,
        partials: partials(payload),
    })))
}

fn parse_archive(payload: &Value) -> Result<DeviceEvent, WireError> {
    let missing = |name: &str| WireError(format!("archive: no {name}"));
    let url = payload.get("url").and_then(Value::as_str);
    Ok(DeviceEvent::Archive(Box::new(Archive {
        uuid: uuid(payload).ok_or_else(|| missing("usable uuid"))?,
        version: text(payload, "version"),
        url: Secret::new(url.ok_or_else(|| missing("url"))?),
        size: size(payload),
        description: text(payload, "description"),
        platform: text(payload, "platform"),
        architecture: text(payload, "architecture"),
    })))
}

fn uuid(payload: &Value) -> Option<String> {
    let uuid = payload.get("uuid").and_then(Value::as_str)?;
    is_uuid(uuid).then(|| uuid.to_owned())
}

fn size(payload: &Value) -> Option<u64> {
    let size = payload.get("size").and_then(Value::as_u64);
    size.filter(|size| *size > 0)
}

/// A list that cannot be understood as a whole is none: the file's own checksum remains.
fn partials(payload: &Value) -> Vec<[u8; 32]> {
    let Some(list) = payload.get("partials_checksums").and_then(Value::as_array) else {
        return Vec::new();
    };
    let parsed: Result<Vec<_>, WireError> = list.iter().map(parse_checksum).collect();
    parsed.unwrap_or_else(|error| {
        warn!("partials_checksums ignored: {error}");
        Vec::new()
    })
}

/// Letters, digits and dashes: a uuid becomes part of file names later.
pub fn is_uuid(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn parse_checksum(value: &Value) -> Result<[u8; 32], WireError> {
    let hex = value.as_str().unwrap_or_default();
    let mut bytes = [0; 32];
    let valid = hex.len() == 64 && hex.is_ascii();
    for (index, byte) in bytes.iter_mut().enumerate() {
        let digits = hex.get(2 * index..2 * index + 2).filter(|_| valid);
        *byte = digits
            .and_then(|digits| u8::from_str_radix(digits, 16).ok())
            .ok_or_else(|| {
                WireError(format!(
                    "update: checksum {:?} is not 64 hex digits",
                    clip(hex)
                ))
            })?;
    }
    Ok(bytes)
}

/// The well-formed keys of a list; base64 of 32 bytes each, as fwup takes them.
fn keys(payload: &Value) -> Vec<String> {
    let list = payload.get("keys").and_then(Value::as_array);
    list.into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::trim)
        .filter(|key| values::public_key(key).is_ok())
        .take(MAX_KEYS)
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Inbound;
    use crate::wire::phoenix::decode_json;

    fn parse(text: &str) -> Result<Inbound, WireError> {
        Inbound::parse(decode_json(text).expect("frame"))
    }

    #[test]
    fn an_offer_keeps_its_url_secret_and_its_checksum_exact() {
        let capture = include_str!("../../tests/data/captures/update.jsonl");
        let line = capture
            .lines()
            .find(|line| line.contains("\"update\""))
            .expect("offer");
        let entry: Value = serde_json::from_str(line).expect("capture");
        let Ok(Inbound::Device(DeviceEvent::Update(offer))) = parse(&entry["frame"].to_string())
        else {
            panic!("no offer");
        };
        assert_eq!(offer.uuid, "50edf921-8531-5c24-1fba-b040d2e2cd10");
        assert_eq!(offer.size, Some(66393));
        assert_eq!(offer.checksum.map(|sum| sum[0]), Some(0x96));
        assert_eq!(offer.partials, [offer.checksum.expect("checksum")]);
        assert!(!format!("{offer:?}").contains("127.0.0.1"));
    }

    #[test]
    fn offers_that_make_no_sense_are_refused_with_the_field_named() {
        for (payload, field) in [
            (r#"{"update_available":true}"#, "firmware_meta"),
            (
                r#"{"firmware_meta":{"uuid":"../x"},"firmware_url":"http://x/"}"#,
                "uuid",
            ),
            (r#"{"firmware_meta":{"uuid":"a-1"}}"#, "firmware_url"),
            (
                r#"{"firmware_meta":{"uuid":"a"},"firmware_url":"http://x/","checksum":"zz"}"#,
                "checksum",
            ),
            (r#"{"firmware_meta":7}"#, "update"),
        ] {
            let error =
                parse(&format!(r#"[null,null,"device","update",{payload}]"#)).expect_err(payload);
            assert!(error.0.contains(field), "{error}");
        }
    }

    #[test]
    fn archives_need_a_uuid_and_a_url_and_nothing_else() {
        let archive =
            |payload: &str| parse(&format!(r#"[null,null,"device","archive",{payload}]"#));
        let lean = r#"{"uuid":"a-1","url":"http://x/?sig=secret","size":"7","version":null}"#;
        let Ok(Inbound::Device(DeviceEvent::Archive(parsed))) = archive(lean) else {
            panic!("no archive");
        };
        assert_eq!((parsed.uuid.as_str(), parsed.size), ("a-1", None));
        assert!(!format!("{parsed:?}").contains("secret"));
        for (payload, field) in [
            (r#"{"uuid":"../../etc/x","url":"http://x/"}"#, "uuid"),
            (r#"{"uuid":7,"url":"http://x/"}"#, "uuid"),
            (r#"{"uuid":"a"}"#, "url"),
            ("null", "uuid"),
        ] {
            let error = archive(payload).expect_err(payload);
            assert!(error.0.contains(field), "{error}");
        }
    }

    #[test]
    fn only_well_formed_keys_are_taken() {
        let good = "tK4tZX7DVNRMY/X90p46+IzfdASrXyiEx41eBSwePmw=";
        let frame =
            format!(r#"[null,null,"device","fwup_public_keys",{{"keys":["{good}",1,"x",""]}}]"#);
        let parsed = parse(&frame).expect("keys");
        assert_eq!(
            parsed,
            Inbound::Device(DeviceEvent::FirmwareKeys(vec![good.to_owned()]))
        );
        for payload in ["{}", "null", r#"{"keys":{}}"#, r#"{"keys":[]}"#] {
            let frame = format!(r#"[null,null,"device","fwup_public_keys",{payload}]"#);
            assert_eq!(
                parse(&frame).expect("keys"),
                Inbound::Device(DeviceEvent::FirmwareKeys(vec![]))
            );
        }
    }
}
