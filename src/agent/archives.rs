//! Archives and the hub's keys: their workers' start and stop, and what earlier runs kept.

use std::path::PathBuf;

use serde_json::Value;

use super::Agent;
use crate::config::{Config, values};
use crate::core::effect::ArchiveOrder;
use crate::core::effect::HubKeys;
use crate::core::event::{Errand, Event, JobId, Worker};
use crate::system::durable;
use crate::system::http::Cancel;
use crate::update::archive::Ways;
use crate::update::ledger::Ledger;
use crate::wire::json::json;
use crate::workers::archive::{self, Tools};

const KEYS_FILE: &str = "public-keys.json";
/// Most bytes of it.
const KEYS_MAX: usize = 64 * 1024;

/// The archive being worked on.
pub(super) struct Running {
    job: JobId,
    cancel: Cancel,
}

impl Agent {
    pub(super) fn start_archive(&mut self, job: JobId, order: ArchiveOrder) {
        let cancel = match Cancel::new() {
            Ok(cancel) => cancel,
            Err(error) => {
                let lost = Err(format!("no descriptor for the archive: {error}"));
                let event = Event::WorkerExited(Worker::Archive(job), lost);
                return self.own.push_back(event);
            }
        };
        self.archive = Some(Running {
            job,
            cancel: cancel.clone(),
        });
        let tools = Tools {
            settings: self.config.archives.clone(),
            fwup: self.config.fwup.clone(),
            ways: Ways {
                settings: self.config.download,
                dialer: self.access.download.clone(),
                allow_insecure: self.config.allow_insecure,
            },
            data_path: self.config.data_path.clone(),
            hooks: self.hooks.clone(),
        };
        let inbox = self.crew.inbox();
        self.spawn("archive", Worker::Archive(job), move || {
            archive::run(job, &order, &tools, &cancel, &inbox)
        });
    }

    pub(super) fn cancel_archive(&mut self, job: JobId) {
        if let Some(running) = self.archive.take_if(|running| running.job == job) {
            running.cancel.cancel();
        }
    }

    pub(super) fn keep_keys(&mut self, keys: HubKeys) {
        let path = keys_path(&self.config);
        self.errand(Errand::Keys, move || {
            let text = json!({"firmware": keys.firmware, "archive": keys.archive}).to_string();
            let written = durable::write(&path, text.as_bytes());
            Event::KeysKept(written.map_err(|error| {
                let path = path.display();
                format!("cannot write {path}: {error}; see NERVES_HUB_DATA_PATH")
            }))
        });
    }
}

/// Archives that earlier runs handled.
pub(super) fn handled(config: &Config) -> Vec<String> {
    Ledger::open(&config.data_path).handled()
}

/// Keys the hub sent to earlier runs; `None` when none are to be kept.
pub(super) fn kept_keys(config: &Config) -> Option<HubKeys> {
    if !config.persist_public_keys {
        return None;
    }
    let path = keys_path(config);
    let read = durable::read(&path, KEYS_MAX).and_then(|bytes| match bytes {
        Some(bytes) => Ok(serde_json::from_slice(&bytes)?),
        None => Ok(Value::Null),
    });
    let kept = read.unwrap_or_else(|error| {
        warn!("{}: {error}; no public keys from there", path.display());
        Value::Null
    });
    Some(HubKeys {
        firmware: keys(&kept["firmware"]),
        archive: keys(&kept["archive"]),
    })
}

fn keys_path(config: &Config) -> PathBuf {
    config.data_path.join(KEYS_FILE)
}

fn keys(list: &Value) -> Vec<String> {
    let texts = list.as_array().into_iter().flatten();
    let texts = texts.filter_map(Value::as_str);
    texts
        .filter_map(|text| values::public_key(text).ok())
        .collect()
}
