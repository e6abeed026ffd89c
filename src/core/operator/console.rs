//! The `console` channel as far as files need it: joined, and a line of text now and then.

use serde_json::{Map, json};

use crate::core::Core;
use crate::core::device::{CONSOLE_VERSION, Channel, DEVICE_API_VERSION};
use crate::wire::{ConsoleEvent, ConsolePush, Outbound, Reply, Topic};

impl Core {
    pub(in crate::core) fn join_console(&mut self) {
        if !self.setup.operator.console {
            return;
        }
        let mut payload = Map::new();
        let mut put = |key: &str, value: &str| payload.insert(key.to_owned(), json!(value));
        put("console_version", CONSOLE_VERSION);
        put("device_api_version", DEVICE_API_VERSION);
        let join = self.push(None, Outbound::Join(Topic::Console, payload));
        self.operator.console = join.map(Channel::Joining);
    }

    pub(in crate::core) fn is_reply_to_console_join(&self, reply: &Reply) -> bool {
        reply.topic == Topic::Console
            && self.operator.console == Some(Channel::Joining(reply.reference))
    }

    pub(in crate::core) fn on_console_reply(&mut self, reply: Reply) {
        self.operator.console = match reply.outcome {
            Ok(_) => Some(Channel::Joined(reply.reference)),
            Err(reason) => {
                log::warn!("the hub refused the console: {reason}");
                None
            }
        };
    }

    pub(in crate::core) fn on_console_closed(&mut self, join_ref: Option<u64>) {
        let current = match self.operator.console {
            Some(Channel::Joining(reference) | Channel::Joined(reference)) => reference,
            Some(Channel::Left) | None => return,
        };
        if join_ref.is_none_or(|reference| reference == current) {
            log::warn!("the hub closed the console");
            self.on_console_lost();
        }
    }

    pub(in crate::core) fn on_console_lost(&mut self) {
        self.operator.console = None;
        self.abandon_uploads();
    }

    pub(in crate::core) fn on_console_event(&mut self, event: ConsoleEvent) {
        match event {
            ConsoleEvent::File(event) => self.on_file_event(event),
        }
    }

    /// A line of its own on the operator's terminal, when there is one.
    pub(super) fn tell_operator(&mut self, text: &str) {
        if let Some(Channel::Joined(join_ref)) = self.operator.console {
            let line = format!("\r\n[{text}]\r\n").into();
            self.push(Some(join_ref), Outbound::Console(ConsolePush::Output(line)));
        }
    }
}
