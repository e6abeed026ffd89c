//! Files from the device to the hub's console page.

use std::process::{Child, Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use devhub::Hub;
use serde_json::json;

use super::peer::Peer;
use super::{OPEN, cli, done, shown_on_terminal};
use crate::rig::{self, Agent, Device};
use crate::terminal::{PROMPT, Terminal, Way, device, joins};

fn bench() -> (Hub, Device, Agent) {
    let hub = rig::hub().start();
    let device = device(&hub, &[Way::Console]);
    let agent = device.start();
    agent.wait_log(OPEN);
    agent.wait_log("console channel joined");
    (hub, device, agent)
}

fn write(device: &Device, size: usize) -> (String, Vec<u8>) {
    let bytes: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
    let path = device.path("report.bin");
    std::fs::write(&path, &bytes).expect("file");
    (path.display().to_string(), bytes)
}

/// The command in the background.
fn start(device: &Device, path: &str, stderr: Stdio) -> Child {
    Command::new(env!("CARGO_BIN_EXE_nerveshub-agent"))
        .args(["send-file", path])
        .env_clear()
        .envs(&device.env)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(stderr)
        .spawn()
        .expect("command")
}

#[test]
fn a_file_reaches_the_console_and_the_command_says_so() {
    let (hub, device, _agent) = bench();
    let (path, bytes) = write(&device, 20_000);
    let said = done(&device, &["send-file", &path]);
    assert_eq!(said, format!("{path}: sent, 20000 bytes\n"));
    let name = json!({"filename": "report.bin"});
    hub.expect_push("console", "file-data/start", |payload| *payload == name);
    hub.expect_push("console", "file-data/stop", |payload| *payload == name);
    let mut received = Vec::new();
    for payload in hub.transcript().pushes("console", "file-data") {
        let data = payload["data"].as_str().expect("data");
        received.extend(STANDARD.decode(data).expect("base64"));
    }
    assert!(received == bytes, "{} bytes", received.len());
}

#[test]
fn one_at_a_time_with_progress_until_somebody_cancels_it() {
    let (hub, device, agent) = bench();
    let (path, _) = write(&device, 2_000_000);
    let mut peer = Peer::connect(&device);
    let params = json!({"path": path, "progress": true});
    peer.say(&json!({"id": 1, "method": "send-file", "params": params}));
    let progress = peer.read();
    assert_eq!(progress["id"], 1);
    assert_eq!(progress["progress"]["size"], 2_000_000);
    assert!(
        progress["progress"]["sent"].as_u64() > Some(0),
        "{progress}"
    );
    let (said, code) = cli(&device, &["send-file", &path]);
    assert_eq!(code, 75, "{said}");
    assert!(said.contains("report.bin is being sent"), "{said}");
    // What people type is not held up by it.
    let terminal = Terminal::open(&hub, Way::Console);
    terminal.expect(PROMPT);
    assert_eq!(done(&device, &["send-file", "--cancel"]), "cancelled\n");
    let answer = loop {
        let said = peer.read();
        if said.get("progress").is_none() {
            break said;
        }
    };
    assert_eq!(answer["error"]["message"], "cancelled");
    let (said, code) = cli(&device, &["send-file", "--cancel"]);
    assert_eq!((said.contains("no file is being sent"), code), (true, 69));
    assert_eq!(hub.connections(), 1);
    agent.wait_log("report.bin not sent: cancelled");
}

#[test]
fn a_command_that_is_interrupted_takes_its_file_along() {
    let (hub, device, agent) = bench();
    let (path, _) = write(&device, 2_000_000);
    let mut child = start(&device, &path, Stdio::null());
    hub.expect_push("console", "file-data", |_| true);
    child.kill().expect("killed");
    child.wait().expect("status");
    agent.wait_log("not sent: who asked for it is gone");
    // The next is whole.
    let (path, _) = write(&device, 100);
    done(&device, &["send-file", &path]);
}

#[test]
fn progress_is_shown_on_a_terminal() {
    let (_hub, device, _agent) = bench();
    let (path, _) = write(&device, 100_000);
    let shown = shown_on_terminal(|stderr| start(&device, &path, stderr));
    assert!(shown.contains("report.bin: "), "{shown:?}");
    assert!(shown.contains(" % of 98 KiB"), "{shown:?}");
    assert!(shown.ends_with("\r\x1b[K"), "{shown:?}");
}

#[test]
fn what_cannot_be_sent_says_why() {
    let (hub, device, agent) = bench();
    let (said, code) = cli(&device, &["send-file", "/dev/null"]);
    assert_eq!(code, 74);
    assert!(said.contains("not a regular file"), "{said}");
    assert_eq!(cli(&device, &["send-file", "/no/such/file"]).1, 66);
    let (path, _) = write(&device, 2_000_000);
    let child = start(&device, &path, Stdio::piped());
    hub.expect_push("console", "file-data", |_| true);
    hub.cut_tcp();
    let output = child.wait_with_output().expect("output");
    assert_eq!(output.status.code(), Some(74));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("the console is gone"), "{said}");
    agent.wait_log_times("console channel joined", 2);
    assert_eq!(joins(&hub, "console"), 2);
}

#[test]
fn where_no_console_is_there_is_nowhere_to_send_it() {
    let hub = rig::hub().start();
    let (device, agent) = rig::launch(&hub);
    agent.wait_log(OPEN);
    let (path, _) = write(&device, 10);
    let (said, code) = cli(&device, &["send-file", &path]);
    assert_eq!(code, 69);
    assert!(said.contains("NERVES_HUB_CONSOLE"), "{said}");
}
