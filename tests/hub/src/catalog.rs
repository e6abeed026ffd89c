//! The firmware on offer by name: a folder of `.fw` files, read again when a name is new.

use crate::firmware::Firmware;
use crate::hub::Hub;
use crate::zip;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Firmware by file name.
#[derive(Debug, Default)]
pub struct Catalog {
    folder: Option<PathBuf>,
    /// Uuids given by hand for files that are no firmware archives.
    uuids: BTreeMap<String, String>,
    known: BTreeMap<String, Firmware>,
}

impl Catalog {
    pub fn new(folder: Option<PathBuf>, uuids: BTreeMap<String, String>) -> Catalog {
        Catalog {
            folder,
            uuids,
            known: BTreeMap::new(),
        }
    }

    /// The firmware called `name`: a file of the folder, or one added before.
    pub fn get(&mut self, hub: &Hub, name: &str) -> Result<Firmware, String> {
        if let Some(firmware) = self.known.get(name) {
            return Ok(firmware.clone());
        }
        if name.contains('/') || name.starts_with('.') {
            return Err(format!(
                "{name}: only names of files in the firmware folder"
            ));
        }
        let folder = self
            .folder
            .clone()
            .ok_or("no firmware folder: start with --firmware DIR")?;
        self.add(hub, &folder.join(name))
    }

    /// Reads one file, from anywhere.
    pub fn add(&mut self, hub: &Hub, file: &Path) -> Result<Firmware, String> {
        let name = file
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let shown = file.display();
        let data = std::fs::read(file).map_err(|error| format!("{shown}: {error}"))?;
        let meta = match (zip::firmware_meta(&data), self.uuids.get(&name)) {
            (Ok(meta), None) => meta,
            (Ok(meta), Some(uuid)) => zip::Meta {
                uuid: uuid.clone(),
                ..meta
            },
            (Err(_), Some(uuid)) => zip::Meta {
                uuid: uuid.clone(),
                values: BTreeMap::new(),
            },
            (Err(error), None) => return Err(format!("{shown}: {error}")),
        };
        let firmware = Firmware::from_bytes(meta, data, hub.store());
        self.known.insert(name, firmware.clone());
        Ok(firmware)
    }

    /// Every firmware, the folder read anew; files that cannot be read say why.
    pub fn list(&mut self, hub: &Hub) -> Value {
        let files = self
            .folder
            .as_ref()
            .and_then(|folder| std::fs::read_dir(folder).ok());
        let names = files
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.file_name());
        let names = names.map(|name| name.to_string_lossy().into_owned());
        let mut all: Vec<String> = names.filter(|name| name.ends_with(".fw")).collect();
        all.extend(self.known.keys().cloned());
        all.sort();
        all.dedup();
        let describe = |name: &String| match self.get(hub, name) {
            Ok(firmware) => json!({
                "name": name,
                "uuid": firmware.uuid,
                "meta": firmware.meta,
                "size": firmware.size,
                "checksum": firmware.checksum,
            }),
            Err(error) => json!({"name": name, "error": error}),
        };
        all.iter().map(describe).collect()
    }
}
