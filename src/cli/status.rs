//! `nerveshub-agent status`: the agent's report in words.

use std::fmt::Write as _;
use std::io::IsTerminal;
use std::time::Duration;

use serde_json::Value;

use super::client::{Client, PATIENCE};
use super::{Answer, Call, say};
use crate::config::values::show_duration;
use crate::exit;
use crate::wire::control;
use crate::wire::json::json;

/// `--watch` on a terminal counts down, between events.
const REFRESH: Duration = Duration::from_secs(1);
/// Width of the progress bar.
const BAR: u64 = 30;
/// Cursor to the top, and what is below erased.
const CLEAR: &str = "\x1b[H\x1b[J";

pub(super) fn run(call: &mut Call) -> Answer {
    let (mut as_json, mut watch) = (false, false);
    for option in call.options {
        match *option {
            "--json" => as_json = true,
            "--watch" => watch = true,
            _ => return call.refuse(),
        }
    }
    let live = std::io::stdout().is_terminal();
    let render = |report: &Value| match as_json {
        true => control::line(report),
        false => text(report, live),
    };
    let answered = Client::connect(&call.env).and_then(|mut client| match watch {
        false => Ok(render(&client.ask("status", json!({}), PATIENCE)?)),
        true => follow(&mut client, &render, live && !as_json).map(|()| String::new()),
    });
    match answered {
        Ok(text) => Answer::new(exit::OK, text),
        Err(answer) => answer,
    }
}

/// Prints the status again with each event, and each second on a terminal, until nobody
/// reads it or the agent is gone.
fn follow(
    client: &mut Client,
    render: &dyn Fn(&Value) -> String,
    live: bool,
) -> Result<(), Answer> {
    client.ask("subscribe", json!({}), PATIENCE)?;
    let mut shown = String::new();
    loop {
        let text = render(&client.ask("status", json!({}), PATIENCE)?);
        if text != shown {
            let screen = match (live, shown.is_empty()) {
                (true, _) => format!("{CLEAR}{text}"),
                (false, true) => text.clone(),
                (false, false) => format!("\n{text}"),
            };
            if !say(&screen) {
                return Ok(());
            }
            shown = text;
        }
        client.receive(REFRESH)?;
    }
}

fn word<'a>(value: &'a Value, absent: &'a str) -> &'a str {
    value.as_str().unwrap_or(absent)
}

/// `live`: with what changes from second to second, and a bar.
fn text(report: &Value, live: bool) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "{name:11} {value}");
    };
    let mut agent = word(&report["agent"], "?").to_owned();
    if live {
        let up = report["uptime"].as_u64().unwrap_or_default();
        let _ = write!(agent, ", up {}", rounded(up));
    }
    line("Device", word(&report["identifier"], "?"));
    line("Agent", &agent);
    line("Connection", &connection(&report["connection"], live));
    if let Some(error) = report["connection"]["last_error"].as_str() {
        line("", &format!("last error: {error}"));
    }
    line("Firmware", &firmware(&report["firmware"]));
    for part in update(&report["update"], live).lines().enumerate() {
        line(if part.0 == 0 { "Update" } else { "" }, part.1);
    }
    if let Some(why) = report["reboot"].as_str() {
        line("Reboot", &format!("pending ({why})"));
    }
    let alarms = report["alarms"].as_object();
    let mut heading = "Alarms";
    for (name, description) in alarms.into_iter().flatten() {
        line(heading, &format!("{name}: {}", word(description, "")));
        heading = "";
    }
    text
}

fn connection(connection: &Value, live: bool) -> String {
    let mut text = word(&connection["state"], "?").to_owned();
    if let Some(hub) = connection["hub"].as_str() {
        let _ = write!(text, ", {hub}");
    }
    if let Some(interface) = connection["interface"].as_str() {
        let _ = write!(text, " over {interface}");
    }
    if let Some(wait) = connection["next_attempt_ms"].as_u64().filter(|_| live) {
        let _ = write!(text, ", next attempt in {} s", wait.div_ceil(1000));
    }
    text
}

fn firmware(firmware: &Value) -> String {
    let mut text = format!(
        "{} {} ({})",
        word(&firmware["product"], "unknown product"),
        word(&firmware["version"], "?"),
        word(&firmware["uuid"], "no uuid")
    );
    if let Some(slot) = firmware["slot"].as_str() {
        let _ = write!(text, ", slot {slot}");
    }
    text.push_str(match firmware["validated"] == true {
        true => ", validated",
        false => ", not validated",
    });
    text
}

/// The update in hand in words, and why the last one failed.
pub(super) fn update(update: &Value, live: bool) -> String {
    let mut text = word(&update["state"], "?").to_owned();
    let offer = &update["offer"];
    if offer.is_object() {
        let (product, version) = (word(&offer["product"], "?"), word(&offer["version"], "?"));
        let _ = write!(text, " {product} {version} ({})", word(&offer["uuid"], "?"));
    }
    let held = &update["put_off"];
    if let Some(seconds) = held["seconds"].as_u64() {
        let _ = write!(text, " ({}): ", word(&held["uuid"], "?"));
        if live {
            let _ = write!(text, "{} left, ", rounded(seconds));
        }
        text += word(&held["reason"], "no reason given");
    }
    let percent = |name: &str| update[name].as_u64();
    if let (Some(downloaded), Some(installed)) =
        (percent("downloaded_percent"), percent("installed_percent"))
    {
        if live {
            let _ = write!(text, "\n{}", bar(installed));
        }
        let _ = write!(text, "\n{downloaded} % downloaded, {installed} % installed");
    }
    if let Some(error) = update["last_error"].as_str() {
        let _ = write!(text, "\nlast error: {error}");
    }
    text
}

pub(super) fn bar(percent: u64) -> String {
    let full = (percent * BAR / 100).min(BAR) as usize;
    format!("[{:-<1$}]", "#".repeat(full), BAR as usize)
}

/// The largest unit will do.
fn rounded(seconds: u64) -> String {
    let units = [86_400, 3600, 60, 1];
    let unit = units.into_iter().find(|unit| seconds >= *unit).unwrap_or(1);
    show_duration(Duration::from_secs(seconds / unit * unit))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn report() -> Value {
        json!({
            "agent": "nerveshub-agent/1", "uptime": 7300, "identifier": "d-1",
            "connection": {
                "state": "down", "hub": "wss://hub/s", "interface": null,
                "last_error": "no route", "next_attempt_ms": 1200,
            },
            "firmware": {
                "product": "demo", "version": "1.0.0", "uuid": "u-1", "slot": "a",
                "validated": false,
            },
            "update": {
                "state": "installing",
                "offer": {"uuid": "u-2", "product": "demo", "version": "2.0.0"},
                "downloaded_percent": 70, "installed_percent": 50, "last_error": null,
            },
            "reboot": null,
            "alarms": {"Hot": "81 C", "Wet": ""},
        })
    }

    #[test]
    fn what_was_put_off_says_why_and_for_how_long() {
        let held = json!({"uuid": "u-2", "seconds": 540, "reason": "busy"});
        let report = json!({"state": "put-off", "offer": null, "put_off": held});
        assert_eq!(update(&report, true), "put-off (u-2): 9m left, busy");
        assert_eq!(update(&report, false), "put-off (u-2): busy");
    }

    #[test]
    fn a_report_in_words() {
        let expected = "\
Device      d-1
Agent       nerveshub-agent/1
Connection  down, wss://hub/s
            last error: no route
Firmware    demo 1.0.0 (u-1), slot a, not validated
Update      installing demo 2.0.0 (u-2)
            70 % downloaded, 50 % installed
Alarms      Hot: 81 C
            Wet:";
        let found = text(&report(), false);
        let lines: Vec<&str> = found.lines().map(str::trim_end).collect();
        assert_eq!(lines.join("\n"), expected);
    }

    #[test]
    fn on_a_terminal_it_counts_and_has_a_bar() {
        let found = text(&report(), true);
        for part in [
            "up 2h",
            "next attempt in 2 s",
            "[###############---------------]",
        ] {
            assert!(found.contains(part), "{part}: {found}");
        }
    }

    #[test]
    fn whatever_an_agent_of_another_version_says_is_shown() {
        for report in [
            json!(null),
            json!({"update": {"state": 7}}),
            json!({"alarms": []}),
        ] {
            assert!(text(&report, true).contains("Device"), "{report}");
        }
    }
}
