//! `nerveshub-agent send-file`: a file to the hub's console page, and how far it is.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use serde_json::Value;

use super::client::{Client, PATIENCE};
use super::{Answer, Call, Command};
use crate::exit;
use crate::wire::json::json;

/// The agent says how far it is several times a second, unless the connection is stuck.
const SILENCE: Duration = Duration::from_secs(90);

pub(super) const COMMAND: Command = Command {
    name: "send-file",
    summary: "Send a file to the console of the person at the hub",
    help: "\
Usage: nerveshub-agent send-file PATH
       nerveshub-agent send-file --cancel

Sends a file of less than 10 MiB to the hub's console page, which has to be open
there and offers it for saving. Takes 16 s per MiB; when interrupted, so is the
transfer. On a terminal it says how far it is.

  --cancel  Stop the transfer that is on its way

Example:
  nerveshub-agent send-file /var/log/messages
",
    run,
};

fn run(call: &mut Call) -> Answer {
    let done = match call.options {
        ["--cancel"] => cancel(call),
        [path] if !path.starts_with('-') => send(call, path),
        _ => return call.refuse(),
    };
    match done {
        Ok(text) => Answer::new(exit::OK, text),
        Err(answer) => answer,
    }
}

fn cancel(call: &Call) -> Result<String, Answer> {
    Client::connect(&call.env)?.ask("cancel-file", json!({}), PATIENCE)?;
    Ok("cancelled".to_owned())
}

fn send(call: &Call, path: &str) -> Result<String, Answer> {
    // The agent has another working folder.
    let full = std::fs::canonicalize(path)
        .map_err(|error| Answer::new(exit::NO_INPUT, format!("{path}: {error}")))?;
    let params = json!({"path": full, "progress": true});
    let is_seen = std::io::stderr().is_terminal();
    let mut show = |progress: &Value| {
        if is_seen {
            // Whether it is seen is not our business.
            let _ = std::io::stderr().write_all(line(path, progress).as_bytes());
        }
    };
    let mut client = Client::connect(&call.env)?;
    let sent = client.ask_watching("send-file", params, SILENCE, &mut show);
    if is_seen {
        let _ = std::io::stderr().write_all(b"\r\x1b[K");
    }
    Ok(format!("{path}: sent, {} bytes", sent?["size"]))
}

/// Over the line before.
fn line(path: &str, progress: &Value) -> String {
    let number = |name: &str| progress[name].as_u64().unwrap_or_default();
    let (sent, size) = (number("sent"), number("size"));
    let percent = sent.saturating_mul(100) / size.max(1);
    format!("\r\x1b[K{path}: {percent} % of {} KiB", size.div_ceil(1024))
}
