//! The commands that drive a running hub through its control port.

use super::{HELP, console, operator, say, text, unexpected};
use lexopt::prelude::*;
use serde_json::{Value as Json, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const CONTROL: &str = "127.0.0.1:4001";
const TIMEOUT: Duration = Duration::from_secs(15);
/// How often `transcript --follow` asks for more.
const FOLLOW: Duration = Duration::from_millis(500);

struct Arguments {
    control: String,
    words: Vec<String>,
    follow: bool,
    none: bool,
    local_shell: bool,
    help: bool,
}

/// Carries out one command.
pub fn run(command: &str, parser: lexopt::Parser) -> Result<(), String> {
    let arguments = parse(parser)?;
    if arguments.help {
        return say(HELP);
    }
    let control = arguments.control.as_str();
    let words: Vec<&str> = arguments.words.iter().map(String::as_str).collect();
    match (command, words.as_slice()) {
        ("devices", []) => devices(control),
        ("devices", [device]) => show(control, &format!("/devices/{}", encode(device))),
        ("firmware", []) => show(control, "/firmware"),
        ("transcript", []) => transcript(control, arguments.follow),
        ("console", [device]) => console::run(control, device, arguments.local_shell),
        ("deploy", [file]) => deploy(control, json!(file)),
        ("deploy", []) if arguments.none => deploy(control, Json::Null),
        ("script", [device, script]) => operator::script(control, device, script),
        ("upload", [device, file]) => {
            operator::upload(control, device, file).map(|said| println!("{said}"))
        }
        (_, [device, rest @ ..]) => {
            let (action, body) = action(command, rest)?;
            let path = format!("/devices/{}/{action}", encode(device));
            call(control, "POST", &path, Some(&body)).map(|_| println!("ok"))
        }
        _ => Err(misused(command)),
    }
}

/// What to post for a command on one device.
fn action<'a>(command: &'a str, words: &[&str]) -> Result<(&'a str, Json), String> {
    let body = match (command, words) {
        ("offer", [file]) => json!({"firmware": file}),
        ("reboot" | "identify", []) => json!({}),
        ("push", [topic, event]) => json!({"topic": topic, "event": event}),
        ("push", [topic, event, payload]) => {
            let payload: Json =
                serde_json::from_str(payload).map_err(|error| format!("payload: {error}"))?;
            json!({"topic": topic, "event": event, "payload": payload})
        }
        ("crash", [topic]) => json!({"topic": topic}),
        ("close", []) => json!({}),
        ("close", [code]) => {
            let code: u16 = code
                .parse()
                .map_err(|error| format!("code {code}: {error}"))?;
            json!({"code": code})
        }
        _ => return Err(misused(command)),
    };
    Ok((command, body))
}

fn misused(command: &str) -> String {
    match HELP
        .lines()
        .any(|line| line.starts_with(&format!("  {command} ")))
    {
        true => format!("wrong arguments for {command}; see hub --help"),
        false => format!("unknown command {command}; see hub --help"),
    }
}

fn parse(mut parser: lexopt::Parser) -> Result<Arguments, String> {
    let mut arguments = Arguments {
        control: CONTROL.into(),
        words: vec![],
        follow: false,
        none: false,
        local_shell: false,
        help: false,
    };
    while let Some(argument) = parser.next().map_err(text)? {
        match argument {
            Short('h') | Long("help") => arguments.help = true,
            Long("follow") => arguments.follow = true,
            Long("none") => arguments.none = true,
            Long("local-shell") => arguments.local_shell = true,
            Long("control") => {
                arguments.control = parser.value().map_err(text)?.string().map_err(text)?;
            }
            Value(word) => arguments.words.push(word.string().map_err(text)?),
            other => return Err(unexpected(other)),
        }
    }
    Ok(arguments)
}

fn devices(control: &str) -> Result<(), String> {
    let all = call(control, "GET", "/devices", None)?;
    for device in all.as_array().into_iter().flatten() {
        let word = |value: &Json| value.as_str().unwrap_or("-").to_owned();
        let online = if device["online"] == true {
            "online"
        } else {
            "offline"
        };
        let update = match &device["in_flight"] {
            Json::Null => String::new(),
            update => format!(
                "  updating to {} ({})",
                word(&update["uuid"]),
                word(&update["status"])
            ),
        };
        let (name, uuid) = (word(&device["identifier"]), word(&device["firmware_uuid"]));
        println!("{name}  {online}  {uuid}{update}");
    }
    Ok(())
}

fn show(control: &str, path: &str) -> Result<(), String> {
    let answer = call(control, "GET", path, None)?;
    println!("{}", serde_json::to_string_pretty(&answer).map_err(text)?);
    Ok(())
}

fn deploy(control: &str, firmware: Json) -> Result<(), String> {
    call(
        control,
        "POST",
        "/deploy",
        Some(&json!({"firmware": firmware})),
    )?;
    println!("ok");
    Ok(())
}

fn transcript(control: &str, follow: bool) -> Result<(), String> {
    let mut seen = 0;
    loop {
        let entries = call(control, "GET", &format!("/transcript?since={seen}"), None)?;
        for entry in entries.as_array().into_iter().flatten() {
            println!("{}", entry["text"].as_str().unwrap_or_default());
            seen += 1;
        }
        if !follow {
            return Ok(());
        }
        std::thread::sleep(FOLLOW);
    }
}

pub fn unreachable(control: &str, error: &std::io::Error) -> String {
    format!("no hub at {control}: {error}; is `hub serve` running, or is --control needed?")
}

/// One request to the control port.
pub(super) fn call(
    control: &str,
    method: &str,
    path: &str,
    body: Option<&Json>,
) -> Result<Json, String> {
    let unreachable = |error: std::io::Error| unreachable(control, &error);
    let body = body.map(Json::to_string).unwrap_or_default();
    let mut tcp = TcpStream::connect(control).map_err(unreachable)?;
    tcp.set_read_timeout(Some(TIMEOUT)).map_err(unreachable)?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {control}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    tcp.write_all(format!("{head}{body}").as_bytes())
        .map_err(unreachable)?;
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).map_err(unreachable)?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or("the hub gave no answer")?;
    let body: Json = serde_json::from_str(body).map_err(|error| format!("answer: {error}"))?;
    match head.get(9..12) {
        Some("200") => Ok(body),
        _ => Err(body["error"].as_str().unwrap_or("refused").to_owned()),
    }
}

/// Percent-encodes what a path may not hold.
pub fn encode(word: &str) -> String {
    word.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}
