//! What people do at the hub's page, from the command line: run a support script, send a
//! file to the console.

use super::remote::{call, encode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value as Json, json};
use std::path::Path;
use std::time::{Duration, Instant};

/// The real hub gives up after this.
const SCRIPT_PATIENCE: Duration = Duration::from_secs(15);
/// How long the device may take to make a file last.
const UPLOAD_PATIENCE: Duration = Duration::from_secs(30);
/// How often the transcript is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// What the page sends in one frame.
const CHUNK: usize = 1024;

/// Runs a script, from a file if there is one of that name, and prints what it printed; any
/// exit status but 0 is an error.
pub fn script(control: &str, device: &str, script: &str) -> Result<(), String> {
    let text = match std::fs::read_to_string(script) {
        Ok(text) => text,
        Err(_) if script.starts_with(['/', '.']) && !script.contains(char::is_whitespace) => {
            return Err(format!("{script}: cannot be read"));
        }
        Err(_) => script.to_owned(),
    };
    let from = length(control)?;
    let reference = format!("cli-{}-{from}", std::process::id());
    push(
        control,
        device,
        "device",
        "scripts/run",
        &json!({"ref": reference, "text": text}),
    )?;
    let answer = await_push(control, from, SCRIPT_PATIENCE, "scripts/run", |payload| {
        payload["ref"] == reference.as_str()
    })?;
    let word = |name: &str| answer[name].as_str().unwrap_or_default();
    print!("{}", word("output"));
    match (word("result"), word("return")) {
        ("completed", "0") => Ok(()),
        ("completed", status) => Err(format!("exit status {status}")),
        _ => Err(word("reason").to_owned()),
    }
}

/// Sends a file; what the device says to it on its console.
pub fn upload(control: &str, device: &str, file: &str) -> Result<String, String> {
    let bytes = std::fs::read(file).map_err(|error| format!("{file}: {error}"))?;
    let name = Path::new(file).file_name().unwrap_or_default();
    let name = name.to_string_lossy();
    let from = length(control)?;
    let send = |event: &str, payload: Json| push(control, device, "console", event, &payload);
    send("file-data/start", json!({"filename": name}))?;
    for (number, chunk) in bytes.chunks(CHUNK).enumerate() {
        let data = STANDARD.encode(chunk);
        send(
            "file-data",
            json!({"filename": name, "chunk": number, "data": data}),
        )?;
    }
    send("file-data/stop", json!({"filename": name}))?;
    let said = await_push(control, from, UPLOAD_PATIENCE, "up", |payload| {
        let text = payload["data"].as_str().unwrap_or_default();
        text.contains("received") && text.contains(&*name)
    })?;
    let text = said["data"].as_str().unwrap_or_default().trim().to_owned();
    match text.contains("not received") {
        true => Err(text),
        false => Ok(text),
    }
}

fn push(
    control: &str,
    device: &str,
    topic: &str,
    event: &str,
    payload: &Json,
) -> Result<(), String> {
    let path = format!("/devices/{}/push", encode(device));
    let body = json!({"topic": topic, "event": event, "payload": payload});
    call(control, "POST", &path, Some(&body)).map(|_| ())
}

fn entries(control: &str, since: usize) -> Result<Vec<Json>, String> {
    let entries = call(control, "GET", &format!("/transcript?since={since}"), None)?;
    match entries {
        Json::Array(entries) => Ok(entries),
        _ => Err("the hub's transcript is no list".to_owned()),
    }
}

fn length(control: &str) -> Result<usize, String> {
    entries(control, 0).map(|entries| entries.len())
}

/// The first push of that event by a device, from entry number `from` on.
fn await_push(
    control: &str,
    mut from: usize,
    patience: Duration,
    event: &str,
    check: impl Fn(&Json) -> bool,
) -> Result<Json, String> {
    let deadline = Instant::now() + patience;
    while Instant::now() < deadline {
        for entry in entries(control, from)? {
            from += 1;
            let frame = &entry["frame"];
            if entry["from"] == "device" && frame[3] == event && check(&frame[4]) {
                return Ok(frame[4].clone());
            }
        }
        std::thread::sleep(LOOK);
    }
    Err(format!("no answer within {} s", patience.as_secs()))
}
