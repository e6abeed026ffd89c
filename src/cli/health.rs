//! `nerveshub-agent health`: the report in words. Without an agent it is made here, by the
//! code that the agent has.

use std::fmt::Write as _;

use serde_json::Value;

use super::client::{Client, PATIENCE};
use super::{Answer, Call, Command};
use crate::exit;
use crate::wire::control::line;
use crate::wire::json::json;

pub(super) const COMMAND: Command = Command {
    name: "health",
    summary: "Show the health report (--json)",
    help: "\
Usage: nerveshub-agent health [--json]

Shows the report that the hub gets from the extension health, as it is now.
Where no agent is running it is made on the spot, with the settings at hand;
the use of the processors is counted since boot then.

  --json  For programs: one object (see etc/doc/health.md)

Example:
  nerveshub-agent health --json | jq .metrics.cpu_temp
",
    run,
};

fn run(call: &mut Call) -> Answer {
    let render = match call.options {
        [] => text,
        ["--json"] => line,
        _ => return call.refuse(),
    };
    let report = match Client::connect(&call.env) {
        Ok(mut client) => client.ask("health", json!({}), PATIENCE),
        Err(answer) if answer.code == exit::UNAVAILABLE => without_agent(call, answer),
        Err(answer) => Err(answer),
    };
    match report {
        Ok(report) => Answer::new(exit::OK, render(&report)),
        Err(answer) => answer,
    }
}

#[cfg(feature = "ext-health")]
fn without_agent(call: &mut Call, absent: Answer) -> Result<Value, Answer> {
    use crate::config;
    use crate::extensions::{Site, health::Health};

    call.configure_aloud();
    let settings = config::extension_settings(std::mem::take(&mut call.env));
    let settings = settings.map_err(|errors| Answer::new(exit::CONFIG, errors.to_string()))?;
    let why = absent.text.lines().next().unwrap_or_default();
    eprintln!("nerveshub-agent health: {why}; reporting without it");
    let site = Site {
        settings,
        ..Site::default()
    };
    Ok(Health::new(&site.into()).report(&Vec::new(), &|| false))
}

#[cfg(not(feature = "ext-health"))]
fn without_agent(_call: &mut Call, absent: Answer) -> Result<Value, Answer> {
    Err(absent)
}

fn text(report: &Value) -> String {
    let mut text = String::new();
    let mut add = |heading: &str, name: &str, value: &str| {
        let _ = writeln!(text, "{heading:13} {name:28} {value}");
    };
    for (heading, part) in [
        ("Metrics", "metrics"),
        ("Metadata", "metadata"),
        ("Checks", "checks"),
        ("Connectivity", "connectivity"),
        ("Alarms", "alarms"),
    ] {
        let mut heading = heading;
        for (name, value) in report[part].as_object().into_iter().flatten() {
            add(heading, name, &in_words(value));
            heading = "";
        }
    }
    let time = plain(&report["timestamp"]);
    let _ = writeln!(text, "{:13} {time}", "Time");
    text
}

fn in_words(value: &Value) -> String {
    if let Some(pass) = value["pass"].as_bool() {
        let word = if pass { "pass" } else { "FAIL" };
        return format!("{word} {}", plain(&value["note"]))
            .trim_end()
            .to_owned();
    }
    if value.is_object() {
        let field = |name: &str| plain(&value[name]);
        let [kind, state, status] = ["type", "state", "connection_status"].map(field);
        return format!("{kind}, {state}, {status}");
    }
    plain(value)
}

/// Numbers as they are, texts without their quotes.
fn plain(value: &Value) -> String {
    match value.as_str() {
        Some(text) => text.to_owned(),
        None => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_report_in_words() {
        let report = json!({
            "timestamp": "2025-11-20T21:57:42Z",
            "metrics": {"cpu_temp": 47.2, "mem_size_mb": 1845},
            "metadata": {"site": "roof"},
            "checks": {"pump": {"pass": false, "note": "no flow"}, "valve": {"pass": true, "note": ""}},
            "connectivity": {"eth0": {"type": "ethernet", "state": "up", "connection_status": "lan"}},
            "alarms": {"Hot": "81 C"},
        });
        let expected = "\
Metrics       cpu_temp                     47.2
              mem_size_mb                  1845
Metadata      site                         roof
Checks        pump                         FAIL no flow
              valve                        pass
Connectivity  eth0                         ethernet, up, lan
Alarms        Hot                          81 C
Time          2025-11-20T21:57:42Z
";
        assert_eq!(text(&report), expected);
    }

    #[test]
    fn whatever_an_agent_of_another_version_says_is_shown() {
        for report in [
            json!(null),
            json!({"metrics": 7}),
            json!({"checks": {"a": []}}),
        ] {
            assert!(text(&report).contains("Time"), "{report}");
        }
    }
}
