//! `nerveshub-agent apply`: a firmware file of this device, installed by the running agent.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use serde_json::Value;

use super::client::Client;
use super::status::bar;
use super::{Answer, Call, Command};
use crate::exit;
use crate::wire::json::json;

/// An installer that verifies a file says nothing; the agent ends one that hangs.
const SILENCE: Duration = Duration::from_secs(3600);

pub(super) const COMMAND: Command = Command {
    name: "apply",
    summary: "Install firmware from a file on this device",
    help: "\
Usage: nerveshub-agent apply FILE [--force]

Has the running agent install the firmware in FILE as it installs what the hub
offers: signature and hashes are verified, the other slot is written, and the
device reboots into it. Policy, windows and update-available are not asked,
reboot-request is. Refused while another update is in hand. The update goes on
when this command is interrupted. On a terminal it says how far it is.

Without a hub at hand, run the agent with NERVES_HUB_CONNECT=0.

  --force  Also the firmware that is running, or what NERVES_HUB_DOWNGRADE
           is against

Example:
  nerveshub-agent apply /media/usb/product-2.0.0.fw
",
    run,
};

fn run(call: &mut Call) -> Answer {
    let done = match call.options {
        [path] if !path.starts_with('-') => apply(call, path, false),
        [path, "--force"] | ["--force", path] if !path.starts_with('-') => apply(call, path, true),
        _ => return call.refuse(),
    };
    match done {
        Ok(text) => Answer::new(exit::OK, text),
        Err(answer) => answer,
    }
}

fn apply(call: &Call, path: &str, force: bool) -> Result<String, Answer> {
    // The agent has another working folder.
    let full = std::fs::canonicalize(path)
        .map_err(|error| Answer::new(exit::NO_INPUT, format!("{path}: {error}")))?;
    let params = json!({"path": full, "force": force, "progress": true});
    let is_seen = std::io::stderr().is_terminal();
    // Whether it is seen is not our business.
    let show = |text: &str| {
        if is_seen {
            let _ = std::io::stderr().write_all(format!("\r\x1b[K{text}").as_bytes());
        }
    };
    let mut client = Client::connect(&call.env)?;
    show(&format!("{path}: verifying"));
    let mut hear = |progress: &Value| {
        let percent = progress["percent"].as_u64().unwrap_or_default();
        show(&format!("{path}: {} {percent} %", bar(percent)));
    };
    let installed = client.ask_watching("apply", params, SILENCE, &mut hear);
    show("");
    let installed = installed?;
    let word = |name: &str| installed[name].as_str().unwrap_or_default();
    let what = format!("{} {}", word("product"), word("version"));
    let what = match what.trim() {
        "" => "firmware",
        what => what,
    };
    Ok(format!(
        "{path}: {what} ({}) installed; rebooting",
        word("uuid")
    ))
}
