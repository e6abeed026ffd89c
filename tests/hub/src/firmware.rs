//! A firmware on offer: the `update` payload, made from a `.fw` file in the store, with every
//! field open to change by a test.

use crate::store::Store;
use crate::zip;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::path::Path;

/// Each part of this size has a checksum of its own.
pub const PART: usize = 1 << 20;

/// What the server says about a firmware.
#[derive(Debug, Clone, PartialEq)]
pub struct Firmware {
    pub uuid: String,
    pub url: String,
    /// `firmware_meta`, uuid included.
    pub meta: Map<String, Value>,
    /// The last four fields are `None` on older servers.
    pub size: Option<u64>,
    pub checksum: Option<String>,
    pub partials: Option<Vec<String>>,
    pub deployment_id: Option<u64>,
    /// Added to the payload, or (null) taken out of it.
    pub extra: Map<String, Value>,
}

impl Firmware {
    /// Reads the file, puts it into the store as `/firmware/UUID.fw` and describes it.
    pub fn from_file(file: &Path, store: &Store) -> Result<Firmware, String> {
        let data = std::fs::read(file).map_err(|error| error.to_string())?;
        let meta = zip::firmware_meta(&data)?;
        Ok(Firmware::from_bytes(meta, data, store))
    }

    /// As [`Firmware::from_file`], for an archive that need not be a valid one.
    pub fn from_bytes(meta: zip::Meta, data: Vec<u8>, store: &Store) -> Firmware {
        let path = format!("/firmware/{}.fw", meta.uuid);
        let mut firmware = Firmware::describe(&meta, &data);
        firmware.url = format!("{}{path}?signature=secret-{}", store.url(), &meta.uuid[..4]);
        store.put(&path, data);
        firmware
    }

    fn describe(meta: &zip::Meta, data: &[u8]) -> Firmware {
        let mut map: Map<String, Value> = ["product", "description", "version", "author"]
            .iter()
            .chain(["platform", "architecture", "vcs-identifier", "misc"].iter())
            .map(|key| (key.replace('-', "_"), json!(meta.values.get(*key))))
            .collect();
        map.insert("uuid".into(), json!(meta.uuid));
        Firmware {
            uuid: meta.uuid.clone(),
            url: String::new(),
            meta: map,
            size: Some(data.len() as u64),
            checksum: Some(checksum(data)),
            partials: Some(data.chunks(PART).map(checksum).collect()),
            deployment_id: Some(1),
            extra: Map::new(),
        }
    }

    /// The path in the store (without the query).
    pub fn path(&self) -> String {
        let rest = self
            .url
            .split_once("://")
            .map_or(self.url.as_str(), |(_, rest)| rest);
        let path = rest.find('/').map_or("/", |at| &rest[at..]);
        path.split('?').next().unwrap_or(path).to_owned()
    }

    pub fn with_url(mut self, url: &str) -> Firmware {
        self.url = url.into();
        self
    }

    /// Another uuid than the archive's.
    pub fn with_uuid(mut self, uuid: &str) -> Firmware {
        self.uuid = uuid.into();
        self.meta.insert("uuid".into(), json!(uuid));
        self
    }

    pub fn with_checksum(mut self, checksum: Option<&str>) -> Firmware {
        self.checksum = checksum.map(str::to_owned);
        self
    }

    pub fn with_wrong_checksum(self) -> Firmware {
        let wrong = checksum(b"something else");
        self.with_checksum(Some(&wrong))
    }

    pub fn with_partials(mut self, partials: Option<Vec<String>>) -> Firmware {
        self.partials = partials;
        self
    }

    pub fn with_size(mut self, size: Option<u64>) -> Firmware {
        self.size = size;
        self
    }

    /// Without size, checksum, partials and deployment, as older servers send it.
    pub fn old_style(mut self) -> Firmware {
        self.deployment_id = None;
        self.with_size(None).with_checksum(None).with_partials(None)
    }

    pub fn with_meta(mut self, key: &str, value: Value) -> Firmware {
        self.meta.insert(key.into(), value);
        self
    }

    /// Sets a field of the payload; null takes it out.
    pub fn with_field(mut self, key: &str, value: Value) -> Firmware {
        self.extra.insert(key.into(), value);
        self
    }

    /// The payload of `update`.
    pub fn payload(&self) -> Value {
        let mut payload = Map::new();
        payload.insert("update_available".into(), json!(true));
        payload.insert("firmware_url".into(), json!(self.url));
        payload.insert("firmware_meta".into(), json!(self.meta));
        let optional = [
            ("size", json!(self.size)),
            ("checksum", json!(self.checksum)),
            ("partials_checksums", json!(self.partials)),
            ("deployment_id", json!(self.deployment_id)),
        ];
        let optional = optional
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value));
        for (key, value) in optional.chain(self.extra.clone()) {
            match value.is_null() {
                true => payload.remove(&key),
                false => payload.insert(key, value),
            };
        }
        Value::Object(payload)
    }
}

impl Firmware {
    /// The payload of `archive`, for the same file; set it as `Behaviour::archive`.
    pub fn archive_payload(&self) -> Value {
        let meta = |key: &str| self.meta.get(key).cloned().unwrap_or_default();
        json!({
            "url": self.url,
            "uuid": self.uuid,
            "size": self.size,
            "version": meta("version"),
            "description": meta("description"),
            "platform": meta("platform"),
            "architecture": meta("architecture"),
            "uploaded_at": "2026-08-01T12:00:00",
        })
    }
}

/// Upper-case hex SHA-256.
pub fn checksum(data: &[u8]) -> String {
    Sha256::digest(data)
        .iter()
        .map(|byte| format!("{byte:02X}"))
        .collect()
}
