//! The `console` channel: joined when the integrator allows it, and what comes on it.

use super::Core;
use super::device::{CONSOLE_VERSION, DEVICE_API_VERSION};
use super::event::ShellKind;
use crate::wire::json::json;
use crate::wire::{ConsoleEvent, Topic};

impl Core {
    /// After `device` only: updates come first.
    pub(super) fn join_console(&mut self) {
        if !self.setup.shells.console || !self.channels.device.is_joined() {
            return;
        }
        let mut payload = serde_json::Map::new();
        payload.insert("console_version".to_owned(), json!(CONSOLE_VERSION));
        payload.insert("device_api_version".to_owned(), json!(DEVICE_API_VERSION));
        self.join(Topic::Console, payload);
    }

    pub(super) fn on_console_joined(&mut self) {
        info!("console channel joined");
        self.on_shell_watched(ShellKind::Console);
    }

    pub(super) fn on_console_event(&mut self, join_ref: Option<u64>, event: ConsoleEvent) {
        if !self.channels.is_current(Topic::Console, join_ref) {
            return debug!("ignoring an event of a console channel that is not joined");
        }
        let kind = ShellKind::Console;
        match event {
            ConsoleEvent::Keys(text) => self.on_keys(kind, text),
            ConsoleEvent::WindowSize(size) => self.on_window_size(kind, size),
            ConsoleEvent::Restart => self.on_restart_requested(kind),
            ConsoleEvent::File(event) => self.on_file_event(event),
            ConsoleEvent::Chat => debug!("console: people at the hub talk to each other"),
        }
    }
}
