//! Log lines at the hub: the agent's own from its first one, clients', a program's flood;
//! held while the hub is away, and none that sending causes.

use std::io::Write;
use std::process::{Command, Stdio};

use devhub::Hub;
use nerveshub_agent::system::session::members;
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::config::run;
use crate::rig::{self, Agent, Device};

fn hub(version: &str) -> Hub {
    let hub = rig::hub().start();
    let takes = json!({"extensions": {"logging": [version]}});
    hub.behaviour(|behaviour| behaviour.advertise = Some(takes));
    hub
}

fn start(hub: &Hub, settings: &[(&str, &str)]) -> (Device, Agent) {
    let mut device = Device::new(hub);
    device.set("EXTENSIONS", "logging");
    for (name, value) in settings {
        device.set(name, value);
    }
    let agent = device.start();
    hub.expect_push("extensions", "logging:attached", |_| true);
    (device, agent)
}

fn message(line: &Value) -> &str {
    line["message"].as_str().expect("a text")
}

fn expect_line(hub: &Hub, part: &str) -> Value {
    hub.expect_push("extensions", "logging:send", |line| {
        message(line).contains(part)
    })
}

fn log(device: &Device, arguments: &[&str]) -> Option<i32> {
    let arguments: Vec<&str> = ["log"].into_iter().chain(arguments.to_vec()).collect();
    run(&device.env, &arguments).status.code()
}

#[test]
fn the_agents_first_lines_and_clients_lines_arrive_as_the_hub_wants_them() {
    let hub = hub("0.0.1");
    let (device, _agent) = start(&hub, &[]);
    let first = expect_line(&hub, "nerveshub-agent ");
    assert_eq!(
        (&first["level"], &first["meta"]["source"]),
        (&json!("info"), &json!("agent"))
    );
    expect_line(&hub, rig::JOINED);
    assert_eq!(
        log(&device, &["--level", "warning", "door", "open"]),
        Some(0)
    );
    let line = expect_line(&hub, "door open");
    assert_eq!(line["level"], "warning");
    let meta = line["meta"].as_object().expect("meta");
    assert!(meta.values().all(Value::is_string), "{meta:?}");
    let time: i64 = meta["time"].as_str().expect("a text").parse().expect("µs");
    assert!(time > 1_700_000_000_000_000, "{time}");
    assert_eq!(log(&device, &["--level", "loud", "door"]), Some(74));
    let mut client = Command::new(env!("CARGO_BIN_EXE_nerveshub-agent"))
        .args(["log", "-"])
        .envs(&device.env)
        .stdin(Stdio::piped())
        .spawn()
        .expect("a client");
    let mut stdin = client.stdin.take().expect("its input");
    stdin.write_all(b"one\n\ntwo").expect("two lines");
    drop(stdin);
    assert!(client.wait().expect("its end").success());
    expect_line(&hub, "one");
    expect_line(&hub, "two");
}

#[test]
fn lines_of_an_outage_arrive_after_it_in_order() {
    let hub = hub("0.0.1");
    let (device, agent) = start(&hub, &[("LOGGING_SOURCES", ",")]);
    hub.stop();
    agent.wait_log("connection lost");
    let lines: Vec<String> = (0..7).map(|number| format!("line {number}")).collect();
    for line in &lines {
        assert_eq!(log(&device, &[line]), Some(0));
    }
    hub.restart();
    for line in &lines {
        let next = hub.expect_push("extensions", "logging:send", |_| true);
        assert_eq!(message(&next), line);
    }
}

#[test]
fn sending_causes_no_lines_to_be_sent() {
    let hub = hub("0.0.1");
    let settings = [
        ("LOG", "trace"),
        ("LOGGING_LEVEL", "debug"),
        ("HEARTBEAT_INTERVAL", "200ms"),
    ];
    let (_device, _agent) = start(&hub, &settings);
    expect_line(&hub, rig::JOINED);
    hub.wait_until("ten heartbeats without a line", |transcript| {
        let entries = transcript.entries.iter().rev();
        let before_line =
            entries.take_while(|entry| entry.from_device("extensions", "logging:send").is_none());
        let beats = before_line.filter(|entry| entry.from_device("phoenix", "heartbeat").is_some());
        beats.count() >= 10
    });
}

#[test]
fn a_flood_arrives_in_order_with_its_gaps_counted_and_ends_with_the_agent() {
    const LINES: u64 = 50_000;
    let hub = hub("0.1.0");
    let flood = format!("command:sleep 1000 & (seq 0 {}; sleep 1000)", LINES - 1);
    let settings = [
        ("LOGGING_SOURCES", flood.as_str()),
        ("LOGGING_BUFFER", "150"),
        ("HEARTBEAT_INTERVAL", "200ms"),
    ];
    let (_device, mut agent) = start(&hub, &settings);
    let (mut next, mut seen) = (0, 0);
    while next < LINES {
        let push = hub.expect_push("extensions", "logging:send", |_| true);
        let lines = push["lines"].as_array().expect("lines");
        assert!((1..=100).contains(&lines.len()));
        for line in lines {
            match message(line).strip_suffix(" log lines were dropped") {
                Some(count) => next += count.parse::<u64>().expect("a number"),
                None => {
                    assert_eq!(message(line), next.to_string());
                    (next, seen) = (next + 1, seen + 1);
                }
            }
        }
    }
    assert_eq!(next, LINES);
    assert!((150..LINES / 2).contains(&seen), "{seen}");
    assert_eq!(hub.connections(), 1);
    let children = agent.children();
    assert_eq!(children.len(), 1);
    let session = Pid::from_raw(children[0].parse().expect("a number"));
    // The shells and what they wait for.
    assert!(members(session).len() >= 3);
    assert_eq!(agent.stop(), 0);
    assert_eq!(members(session), []);
}
