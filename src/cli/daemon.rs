//! The commands that ask the running agent, over its control socket.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::time::Duration;

use serde_json::Value;

use super::client::{Client, PATIENCE};
use super::{Answer, Call, Command, apply, health, log, say, send_file, status};
use crate::exit;
use crate::wire::control::line;
use crate::wire::json::json;

/// No event may come for long.
const EVENTS: Duration = Duration::from_secs(3600);

pub(super) const COMMANDS: [Command; 10] = [
    Command {
        name: "status",
        summary: "Show connection, firmware, update and alarms (--json, --watch)",
        help: "\
Usage: nerveshub-agent status [--json] [--watch]

Shows what the running agent is doing.

  --json   For programs: one object (see etc/doc/control.md)
  --watch  Again with every change, until interrupted

Example:
  nerveshub-agent status --json | jq -r .connection.state
",
        run: status::run,
    },
    Command {
        name: "connected",
        summary: "Say by the exit code whether the hub is reached",
        help: "\
Usage: nerveshub-agent connected [--device] [--console] [--extensions]
                                 [--socket]

Exits with 0 when the hub is reached and with 1 when it is not; 69 when no agent
is running. Prints nothing but errors.

  --device      The device channel is joined (the default)
  --console     The console channel is joined
  --extensions  The extensions channel is joined
  --socket      There is a connection at least
With several, all of them must be.

Example, for a watchdog script:
  nerveshub-agent connected || logger 'no hub'
",
        run: connected,
    },
    Command {
        name: "reconnect",
        summary: "Drop the connection and make a new one at once",
        help: "\
Usage: nerveshub-agent reconnect

Drops the connection to the hub, forgets the back-off and connects again. An
update in hand goes on.

Example, when the network has changed:
  nerveshub-agent reconnect
",
        run: |call| match call.options {
            [] => done(call, "reconnect", json!({}), "reconnecting"),
            _ => call.refuse(),
        },
    },
    Command {
        name: "update-status",
        summary: "Show what is going on with updates (--json)",
        help: "\
Usage: nerveshub-agent update-status [--json]

Shows the update in hand, and why the last one failed.

  --json  For programs: {\"state\":…,\"offer\":…,\"installed_percent\":…}

Example, before going to sleep:
  nerveshub-agent update-status --json | grep -q '\"state\":\"idle\"'
",
        run: |call| match call.options {
            [] => show(call, "update-status", |update| {
                status::update(update, false)
            }),
            ["--json"] => show(call, "update-status", line),
            _ => call.refuse(),
        },
    },
    apply::COMMAND,
    send_file::COMMAND,
    Command {
        name: "alarm",
        summary: "Set, clear or list alarms",
        help: "\
Usage: nerveshub-agent alarm set NAME [DESCRIPTION]
       nerveshub-agent alarm clear NAME
       nerveshub-agent alarm list [--json]

Alarms say what an operator should look at. They stay until they are cleared or
the agent ends. The agent's own (Disconnected, UpdateInProgress, …) are listed,
but neither set nor cleared.

Examples:
  nerveshub-agent alarm set PumpBlocked 'no flow for 10 minutes'
  nerveshub-agent alarm clear PumpBlocked
",
        run: alarm,
    },
    Command {
        name: "events",
        summary: "Print what happens, one JSON object per line",
        help: "\
Usage: nerveshub-agent events [KIND…]

Prints events until interrupted: all, or those of some kinds: connection,
update, reboot, console, archive, identify, firmware, alarm.

Example:
  nerveshub-agent events identify | while read -r _; do blink-led; done
",
        run: events,
    },
    health::COMMAND,
    log::COMMAND,
];

fn ask(env: &[(OsString, OsString)], method: &str, params: Value) -> Result<Value, Answer> {
    Client::connect(env)?.ask(method, params, PATIENCE)
}

/// Asks for something to be done.
fn done(call: &Call, method: &str, params: Value, text: &str) -> Answer {
    match ask(&call.env, method, params) {
        Ok(_) => Answer::new(exit::OK, text),
        Err(answer) => answer,
    }
}

/// Asks for something to be shown.
fn show(call: &Call, method: &str, text: fn(&Value) -> String) -> Answer {
    match ask(&call.env, method, json!({})) {
        Ok(result) => Answer::new(exit::OK, text(&result)),
        Err(answer) => answer,
    }
}

/// Tells an agent, if one is running, that the running firmware was just marked valid.
pub(super) fn tell_validated(env: &[(OsString, OsString)]) {
    // Without an agent there is nobody to be told, and one that is deaf looks every 10 s.
    let _ = ask(env, "validated", json!({}));
}

fn connected(call: &mut Call) -> Answer {
    const CHANNELS: [&str; 4] = ["--device", "--console", "--extensions", "--socket"];
    if call.options.iter().any(|option| !CHANNELS.contains(option)) {
        return call.refuse();
    }
    let asked = match call.options {
        [] => &CHANNELS[..1],
        options => options,
    };
    match ask(&call.env, "connected", json!({})) {
        Ok(result) => {
            let is_up = |option: &&str| result[option.trim_start_matches('-')] == true;
            Answer::silent(match asked.iter().all(is_up) {
                true => exit::OK,
                false => exit::NO,
            })
        }
        Err(answer) => answer,
    }
}

fn alarm(call: &mut Call) -> Answer {
    match call.options {
        ["set", name, description @ ..] => {
            let params = json!({"name": name, "description": description.join(" ")});
            done(call, "alarm-set", params, "")
        }
        ["clear", name] => done(call, "alarm-clear", json!({ "name": name }), ""),
        ["list"] => show(call, "alarms", list),
        ["list", "--json"] => show(call, "alarms", line),
        _ => call.refuse(),
    }
}

fn list(alarms: &Value) -> String {
    let mut text = String::new();
    for (name, description) in alarms.as_object().into_iter().flatten() {
        let _ = writeln!(text, "{name}: {}", description.as_str().unwrap_or_default());
    }
    text
}

fn events(call: &mut Call) -> Answer {
    let params = match call.options {
        [] => json!({}),
        kinds => json!({ "events": kinds }),
    };
    let subscribed = Client::connect(&call.env).and_then(|mut client| {
        client.ask("subscribe", params, PATIENCE)?;
        Ok(client)
    });
    let mut client = match subscribed {
        Ok(client) => client,
        Err(answer) => return answer,
    };
    loop {
        match client.receive(EVENTS) {
            Ok(None) => {}
            Ok(Some(event)) => {
                if !say(&line(&event)) {
                    return Answer::silent(exit::OK);
                }
            }
            Err(answer) => return answer,
        }
    }
}
