//! Scripts, uploads and identify: their workers' start and stop.

use std::path::{self, Path, PathBuf};

use super::Agent;
use crate::config::{Config, OperatorSettings};
use crate::core::Setup;
use crate::core::effect::{ScriptOrder, UploadStep};
use crate::core::event::{Event, ScriptId, SendId, Worker};
use crate::core::operator::OperatorSetup;
use crate::system::channel::{Sender, bounded};
use crate::system::hook;
use crate::system::http::Cancel;
use crate::workers::{identify, script, send_file, uploads};

/// Where scripts are put when NERVES_HUB_DATA_PATH cannot be written to: in memory, and
/// each agent's own.
const SCRIPTS_ELSEWHERE: &str = "/run/nerveshub-agent";

/// What is at work for the hub's users.
#[derive(Default)]
pub(super) struct Hands {
    site: script::Site,
    identify: Option<(identify::Site, Option<Cancel>)>,
    scripts: Vec<(ScriptId, Cancel)>,
    uploads: Option<uploads::Queue>,
    sending: Option<Sending>,
    /// Threads for uploads so far.
    rounds: u64,
}

/// The file on its way to the console.
struct Sending {
    id: SendId,
    cancel: Cancel,
    /// Each lets one frame more come.
    go_on: Sender<()>,
}

/// What the core is told of the settings.
pub(super) fn setup(settings: &OperatorSettings) -> OperatorSetup {
    OperatorSetup {
        scripts: settings.scripts.enabled,
        upload_max: settings.uploads.max,
        reboot_during_update: settings.reboot_during_update,
    }
}

impl Hands {
    /// Cleans up after an earlier run, too.
    pub(super) fn new(config: &Config, setup: &Setup, hooks: &hook::Site) -> Self {
        let value = |key: &str| setup.firmware.get(key).cloned().unwrap_or_default();
        let site = script::Site {
            interpreter: config.operator.scripts.interpreter.clone(),
            folders: script_folders(&config.data_path),
            environment: vec![
                ("NERVES_HUB_DEVICE_IDENTIFIER", setup.identifier.clone()),
                ("NERVES_HUB_FIRMWARE_UUID", value("nerves_fw_uuid")),
                ("NERVES_HUB_FIRMWARE_VERSION", value("nerves_fw_version")),
            ],
        };
        script::tidy(&site);
        uploads::tidy(&config.operator.uploads.folder);
        let shown =
            identify::Site::new(&config.operator.identify, &setup.identifier, hooks.clone());
        Self {
            site,
            identify: Some((shown, None)),
            ..Self::default()
        }
    }

    /// Leaving: whatever is at work ends, and cleans up.
    pub(super) fn stop(&mut self) {
        for (_, cancel) in self.scripts.drain(..) {
            cancel.cancel();
        }
        if let Some((_, Some(cancel))) = self.identify.take() {
            cancel.cancel();
        }
        self.uploads = None;
        if let Some(sending) = self.sending.take() {
            sending.cancel.cancel();
        }
    }
}

/// Absolute: scripts are run in another folder than the agent.
fn script_folders(data_path: &Path) -> Vec<PathBuf> {
    let data_path = path::absolute(data_path).unwrap_or_else(|_| data_path.to_owned());
    let name = data_path.to_string_lossy().replace('/', "-");
    let elsewhere = PathBuf::from(format!("{SCRIPTS_ELSEWHERE}{name}"));
    vec![data_path.join("scripts"), elsewhere]
}

impl Agent {
    pub(super) fn run_script(&mut self, id: ScriptId, order: ScriptOrder) {
        let worker = Worker::Script(id);
        let Some(cancel) = self.cancel_for(worker) else {
            return;
        };
        self.hands.scripts.push((id, cancel.clone()));
        let (site, inbox) = (self.hands.site.clone(), self.crew.inbox());
        self.spawn("script", worker, move || {
            script::run(id, &order, &site, &cancel, &inbox)
        });
    }

    pub(super) fn upload(&mut self, step: UploadStep) {
        if self.hands.uploads.is_none() {
            self.start_uploads();
        }
        let pushed = self.hands.uploads.as_ref().map(|queue| queue.push(step));
        if let Some(Err(upload)) = pushed {
            let reason = "the disk takes it more slowly than it comes".to_owned();
            self.own.push_back(Event::UploadEnded(upload, Err(reason)));
        }
    }

    fn start_uploads(&mut self) {
        let (queue, steps) = uploads::queue();
        self.hands.uploads = Some(queue);
        self.hands.rounds += 1;
        let folder = self.config.operator.uploads.folder.clone();
        let inbox = self.crew.inbox();
        self.spawn("uploads", Worker::Uploads(self.hands.rounds), move || {
            uploads::run(&folder, &steps, &inbox)
        });
    }

    pub(super) fn end_uploads(&mut self) {
        self.hands.uploads = None;
    }

    pub(super) fn start_sending(&mut self, id: SendId, path: PathBuf) {
        let Some(cancel) = self.cancel_for(Worker::SendFile(id)) else {
            return;
        };
        let (go_on, receipts) = bounded(1);
        self.hands.sending = Some(Sending {
            id,
            cancel: cancel.clone(),
            go_on,
        });
        let inbox = self.crew.inbox();
        self.spawn("send-file", Worker::SendFile(id), move || {
            send_file::run(id, &path, &cancel, &receipts, &inbox)
        });
    }

    pub(super) fn send_more(&mut self, id: SendId) {
        if let Some(sending) = self.hands.sending.as_ref().filter(|file| file.id == id) {
            // It waits for it, or is gone.
            let _ = sending.go_on.try_send(());
        }
    }

    pub(super) fn cancel_sending(&mut self, id: SendId) {
        if let Some(sending) = self.hands.sending.take_if(|file| file.id == id) {
            sending.cancel.cancel();
        }
    }

    pub(super) fn identify(&mut self) {
        let Some(cancel) = self.cancel_for(Worker::Identify) else {
            return;
        };
        let Some((site, running)) = &mut self.hands.identify else {
            return;
        };
        *running = Some(cancel.clone());
        let site = site.clone();
        self.spawn("identify", Worker::Identify, move || {
            identify::run(&site, &cancel)
        });
    }

    /// `None`, and the worker's end as an event, when there is no descriptor left.
    fn cancel_for(&mut self, worker: Worker) -> Option<Cancel> {
        match Cancel::new() {
            Ok(cancel) => Some(cancel),
            Err(error) => {
                let lost = Err(format!("no descriptor left: {error}"));
                self.own.push_back(Event::WorkerExited(worker, lost));
                None
            }
        }
    }

    /// Nothing is left to be stopped.
    pub(super) fn forget_hand(&mut self, worker: Worker) {
        if let Worker::Script(id) = worker {
            self.hands.scripts.retain(|(other, _)| *other != id);
        }
        if let Worker::SendFile(id) = worker {
            self.hands.sending.take_if(|file| file.id == id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_found_from_any_folder() {
        let here = std::env::current_dir().unwrap();
        assert_eq!(
            script_folders(Path::new("data"))[0],
            here.join("data/scripts")
        );
        assert_eq!(
            script_folders(Path::new("/var/lib/agent")),
            [
                Path::new("/var/lib/agent/scripts"),
                Path::new("/run/nerveshub-agent-var-lib-agent")
            ]
        );
    }
}
