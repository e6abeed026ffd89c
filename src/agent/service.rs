//! What the supervisor sees of the agent: its pid file and signs of life; SIGHUP; and the
//! folder of alarms.

use std::time::Instant;

use super::Agent;
use crate::core::event::{Event, Worker};
use crate::workers::alarm_files;

impl Agent {
    /// After each turn of the loop: a dispatcher that is stuck shows none.
    pub(super) fn show_life(&mut self) {
        self.notifier.beat(Instant::now());
        if self.notifier.is_wanted() {
            let status = self.core.status();
            let text = format!("hub: {}; update: {}", status.link, status.update);
            self.notifier.status(text);
        }
    }

    /// Without it the agent is still of use.
    pub(super) fn write_pid_file(&self) {
        if let Some(path) = &self.config.service.pid_file
            && let Err(error) = std::fs::write(path, format!("{}\n", std::process::id()))
        {
            error!("NERVES_HUB_PID_FILE: {}: {error}", path.display());
        }
    }

    pub(super) fn watch_alarm_files(&mut self) {
        if let Some(folder) = self.config.service.alarms.clone() {
            let inbox = self.crew.inbox();
            self.spawn("alarm-files", Worker::AlarmFiles, move || {
                alarm_files::run(&folder, &inbox)
            });
        }
    }

    pub(super) fn remove_pid_file(&self) {
        if let Some(path) = &self.config.service.pid_file {
            // It may not have been written.
            let _ = std::fs::remove_file(path);
        }
    }

    /// Certificates, keys and secrets in files.
    pub(super) fn reload(&mut self) {
        match self.reread.as_ref().map(|reread| reread()) {
            Some(Ok((config, _))) => {
                self.access.reload(&config);
                self.own.push_back(Event::KeysReread {
                    firmware: config.fwup.public_keys,
                    archive: config.archives.public_keys,
                });
            }
            Some(Err(errors)) => error!("{errors}; keeping the credentials in use"),
            None => {}
        }
    }
}
