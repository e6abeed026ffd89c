//! What the supervisor sees of the agent: its pid file and signs of life; and SIGHUP.

use std::time::Instant;

use super::Agent;

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
            log::error!("NERVES_HUB_PID_FILE: {}: {error}", path.display());
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
            Some(Ok((config, _))) => self.access.reload(&config),
            Some(Err(errors)) => log::error!("{errors}; keeping the credentials in use"),
            None => {}
        }
    }
}
