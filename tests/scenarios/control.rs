//! The control socket and the commands that use it, against the running agent.

mod apply;
mod asked;
mod decider;
mod file;
mod fuzz;
pub mod peer;
mod socket;

use std::io::{BufRead, BufReader, Read};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::board::{Board, with_environment};
use crate::config::run;
use crate::rig::{self, Device, IDENTIFIER, JOINED, PATIENCE, RUNNING_UUID, standin};
use crate::stage::Stage;
use peer::Peer;

/// Logged once the socket can be connected to.
const OPEN: &str = "control.sock is open";

/// What a command printed to standard output, and its exit code.
fn cli(device: &Device, arguments: &[&str]) -> (String, i32) {
    let output = run(&device.env, arguments);
    let code = output.status.code().expect("a code");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let said = String::from_utf8(output.stdout).expect("UTF-8");
    match code {
        0 => assert_eq!(errors, "", "{arguments:?}"),
        _ => assert_eq!(said, "", "{arguments:?}"),
    }
    (if code == 0 { said } else { errors }, code)
}

fn done(device: &Device, arguments: &[&str]) -> String {
    let (said, code) = cli(device, arguments);
    assert_eq!(code, 0, "{arguments:?}: {said}");
    said
}

fn status(device: &Device) -> Value {
    serde_json::from_str(&done(device, &["status", "--json"])).expect("JSON")
}

fn code(device: &Device, arguments: &[&str]) -> i32 {
    cli(device, arguments).1
}

/// A command that goes on; what it prints, line by line.
struct Watch {
    child: Child,
    lines: std::sync::mpsc::Receiver<String>,
}

impl Watch {
    fn start(device: &Device, arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_nerveshub-agent"))
            .args(arguments)
            .env_clear()
            .envs(&device.env)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("command");
        let out = child.stdout.take().expect("stdout");
        let (sender, lines) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self { child, lines }
    }

    /// Reads on until a line has this.
    fn expect(&self, text: &str) -> String {
        let mut seen = vec![];
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) if line.contains(text) => return line,
                Ok(line) => seen.push(line),
                Err(_) => panic!("no {text:?} among {seen:?}"),
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_status_says_who_where_and_what() {
    let stage = Stage::new(&standin(), &[]);
    stage.agent.wait_log(OPEN);
    let report = status(&stage.device);
    assert_eq!(report["identifier"], IDENTIFIER);
    assert_eq!(report["connection"]["state"], "joined");
    assert_eq!(report["firmware"]["uuid"], RUNNING_UUID);
    assert_eq!(report["firmware"]["slot"], "a");
    assert_eq!(report["update"]["state"], "idle");
    let words = done(&stage.device, &["status"]);
    for part in [
        IDENTIFIER,
        "joined, ws://",
        "demo 1.0.0",
        "slot a, validated",
    ] {
        assert!(words.contains(part), "{part}: {words}");
    }
}

#[test]
fn the_status_of_an_update_has_its_progress_and_its_end() {
    let stage = Stage::new(&standin(), &[]);
    stage.agent.wait_log(OPEN);
    let watch = Watch::start(&stage.device, &["status", "--watch"]);
    watch.expect("idle");
    let firmware = rig::demo(&stage.hub);
    stage.offer_halting_at(1_000_000, &firmware);
    while watch.expect("% downloaded, ").contains(" 0 % downloaded") {}
    let update = status(&stage.device)["update"].clone();
    assert_eq!(update["state"], "installing");
    assert_eq!(update["offer"]["uuid"], *firmware.uuid);
    let downloaded = update["downloaded_percent"].as_u64().expect("per cent");
    assert!((1..100).contains(&downloaded), "{update}");
    let words = done(&stage.device, &["update-status"]);
    assert!(words.starts_with("installing demo 2.0.0 ("), "{words}");
    assert!(words.contains("% downloaded"), "{words}");
    stage.hub.store().release();
    watch.expect("rebooting");
    stage.expect_installed();
    assert_eq!(status(&stage.device)["reboot"], "update");
}

#[test]
fn a_failed_update_is_still_to_be_seen() {
    let stage = Stage::new(&standin(), &[]);
    stage.agent.wait_log(OPEN);
    stage.hub.offer(&stage.firmware("wrong-key-2.0.2.fw"));
    let reason = stage.expect_failed();
    assert_eq!(status(&stage.device)["update"]["last_error"], *reason);
    let words = done(&stage.device, &["update-status"]);
    assert!(words.contains(&format!(
        "last error: {}",
        reason.lines().next().expect("text")
    )));
}

#[test]
fn without_an_agent_the_way_out_is_told() {
    let hub = rig::hub().start();
    let mut device = Device::new(&hub);
    for command in [
        "status",
        "connected",
        "reconnect",
        "events",
        "update-status",
    ] {
        let (said, code) = cli(&device, &[command]);
        assert_eq!(code, 69, "{command}");
        let path = device.path("control.sock").display().to_string();
        for part in ["no agent is running", &path, "nerveshub-agent run"] {
            assert!(said.contains(part), "{command}: {said}");
        }
    }
    device.set("CONTROL_SOCKET", "off");
    let (said, code) = cli(&device, &["status"]);
    assert_eq!(code, 69);
    assert!(said.contains("NERVES_HUB_CONTROL_SOCKET is off"), "{said}");
    let mut agent = device.start();
    agent.wait_log(JOINED);
    assert!(agent.logged("control").is_empty());
    assert_eq!(agent.stop(), 0);
    device.set("CONTROL_MODE", "rw-rw----");
    assert_eq!(code_of_start(&device), 78);
}

fn code_of_start(device: &Device) -> i32 {
    run(&device.env, &["run"]).status.code().expect("a code")
}

#[test]
fn connected_answers_by_its_exit_code_alone() {
    let stage = Stage::new(&standin(), &[]);
    stage.agent.wait_log(JOINED);
    stage.agent.wait_log(OPEN);
    for (options, code) in [
        (&[][..], 0),
        (&["--device"], 0),
        (&["--socket", "--device"], 0),
        (&["--console"], 1),
        (&["--device", "--extensions"], 1),
        (&["--moon"], 64),
    ] {
        let arguments = [&["connected"], options].concat();
        let (said, found) = cli(&stage.device, &arguments);
        assert_eq!(found, code, "{options:?}");
        assert_eq!(said.is_empty(), code != 64, "{said}");
    }
    stage.hub.kill();
    stage.agent.wait_log("next attempt in");
    assert_eq!(code(&stage.device, &["connected"]), 1);
    assert_eq!(code(&stage.device, &["connected", "--socket"]), 1);
    let down = status(&stage.device);
    assert!(down["connection"]["last_error"].is_string(), "{down}");
    assert_eq!(down["alarms"]["Disconnected"], "the hub is not reached");
    stage.hub.restart();
    stage.agent.wait_log_times(JOINED, 2);
    assert_eq!(code(&stage.device, &["connected"]), 0);
}

#[test]
fn a_reconnect_does_not_wait_for_the_back_off() {
    let hub = rig::hub().start();
    let mut device = Device::new(&hub);
    device.set("RECONNECT_MIN", "1h").set("RECONNECT_MAX", "1h");
    let agent = device.start();
    agent.wait_log(JOINED);
    agent.wait_log(OPEN);
    hub.drop_tcp();
    agent.wait_log("next attempt in");
    assert_eq!(done(&device, &["reconnect"]), "reconnecting\n");
    agent.wait_log_times(JOINED, 2);
    // Also while there is nothing wrong with the connection.
    done(&device, &["reconnect"]);
    agent.wait_log_times(JOINED, 3);
    assert_eq!(hub.connections(), 3);
}

#[test]
fn events_tell_of_an_update_from_the_offer_to_the_reboot() {
    let stage = Stage::new(&standin(), &[]);
    stage.agent.wait_log(OPEN);
    let mut peer = Peer::connect(&stage.device);
    let kinds = json!({"events": ["update", "reboot", "identify"]});
    let answer = peer.ask("subscribe", kinds);
    assert_eq!(
        answer["result"]["events"],
        json!(["update", "reboot", "identify"])
    );
    let watch = Watch::start(&stage.device, &["events", "identify", "reboot"]);
    stage.agent.wait_log("control client 2:");
    // Its subscription is in place once another one's question was answered after it.
    let deadline = std::time::Instant::now() + PATIENCE;
    while watch.lines.try_recv().is_err() {
        assert!(std::time::Instant::now() < deadline, "no event");
        stage.hub.identify();
        assert_eq!(peer.event()["event"], "identify");
    }
    stage.hub.offer(&rig::demo(&stage.hub));
    let mut seen = vec![];
    let mut last = 0;
    loop {
        let event = peer.event();
        let name = event["event"].as_str().expect("a name").to_owned();
        match name.as_str() {
            "update-progress" if event["stage"] == "updating" => {
                let percent = event["percent"].as_u64().expect("per cent");
                assert!(percent >= last, "{percent} after {last}");
                last = percent;
            }
            "update-progress" | "identify" => {}
            _ => seen.push(name.clone()),
        }
        if name == "reboot-pending" {
            assert_eq!(event["why"], "update");
            break;
        }
    }
    assert_eq!(
        seen,
        [
            "update-offered",
            "update-started",
            "update-completed",
            "reboot-pending"
        ]
    );
    assert_eq!(last, 100);
    let line = watch.expect("reboot-pending");
    let event: Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(event, json!({"event": "reboot-pending", "why": "update"}));
}

#[test]
fn alarms_are_set_listed_and_cleared() {
    let hub = rig::hub().start();
    let (device, agent) = rig::launch(&hub);
    agent.wait_log(JOINED);
    agent.wait_log(OPEN);
    assert_eq!(done(&device, &["alarm", "list"]), "");
    done(&device, &["alarm", "set", "PumpBlocked", "no", "flow"]);
    done(&device, &["alarm", "set", "Open"]);
    let listed = done(&device, &["alarm", "list"]);
    assert_eq!(listed, "Open: \nPumpBlocked: no flow\n");
    assert!(done(&device, &["status"]).contains("PumpBlocked: no flow"));
    done(&device, &["alarm", "clear", "PumpBlocked"]);
    done(&device, &["alarm", "clear", "PumpBlocked"]);
    let listed: Value =
        serde_json::from_str(&done(&device, &["alarm", "list", "--json"])).expect("JSON");
    assert_eq!(listed, json!({"Open": ""}));
    let (said, code) = cli(&device, &["alarm", "set", "Disconnected", "x"]);
    assert_eq!(code, 69);
    assert!(said.contains("the agent's own"), "{said}");
    for wrong in [
        &["alarm"][..],
        &["alarm", "set"],
        &["alarm", "set", "a b"],
        &["alarm", "clear"],
    ] {
        assert_eq!(cli(&device, wrong).1, 64, "{wrong:?}");
    }
}

#[test]
fn what_is_not_there_yet_is_69_and_says_why() {
    let hub = rig::hub().start();
    let (device, agent) = rig::launch(&hub);
    agent.wait_log(JOINED);
    agent.wait_log(OPEN);
    for (arguments, part) in [
        (&["health"][..], "extension health is not enabled"),
        (
            &["log", "info", "hello"],
            "extension logging is not enabled",
        ),
    ] {
        let (said, code) = cli(&device, arguments);
        assert_eq!(code, 69, "{arguments:?}");
        assert!(said.contains(part), "{said}");
    }
}

#[test]
fn scripts_raise_alarms_with_files() {
    let hub = rig::hub().start();
    let mut device = Device::new(&hub);
    let folder = device.path("run/alarms");
    device.set("ALARM_DIR", &folder.display().to_string());
    std::fs::create_dir_all(&folder).expect("folder");
    std::fs::write(folder.join("Early"), "before the agent\n").expect("file");
    let mut agent = device.start();
    agent.wait_log(OPEN);
    agent.wait_log("alarm Early set: before the agent");
    std::fs::write(folder.join("PumpBlocked"), "no flow\n").expect("file");
    agent.wait_log("alarm PumpBlocked set: no flow");
    let listed = done(&device, &["alarm", "list"]);
    assert!(listed.ends_with("Early: before the agent\nPumpBlocked: no flow\n"));
    // The same bounds as on the socket.
    std::fs::write(folder.join("Disconnected"), "no").expect("file");
    agent.wait_log("\"Disconnected\" is no alarm: the alarm Disconnected is the agent's own");
    std::fs::write(folder.join("two words"), "no").expect("file");
    agent.wait_log("\"two words\" is no alarm: ");
    std::fs::write(folder.join("Long"), "x".repeat(257)).expect("file");
    agent.wait_log("\"Long\" is no alarm: ");
    for index in 0..31 {
        std::fs::write(folder.join(format!("More{index}")), "").expect("file");
    }
    agent.wait_log("32 alarms are set already");
    for index in 0..31 {
        std::fs::remove_file(folder.join(format!("More{index}"))).expect("file");
    }
    std::fs::remove_file(folder.join("PumpBlocked")).expect("file");
    agent.wait_log("alarm PumpBlocked cleared");
    assert_eq!(agent.stop(), 0);
    // Files outlive the agent, and so do their alarms.
    let agent = device.start();
    agent.wait_log("alarm Early set: before the agent");
}

#[test]
fn firmware_marked_by_the_command_is_known_to_the_agent_at_once() {
    let hub = rig::hub().start();
    let mut device = Device::new(&hub);
    with_environment(&mut device);
    Board(&device).begin(false);
    let agent = device.start();
    let join = hub.expect_join("device");
    assert_eq!(join.params["meta"]["firmware_validated"], false);
    agent.wait_log(JOINED);
    agent.wait_log(OPEN);
    let alarms = done(&device, &["alarm", "list"]);
    assert!(alarms.contains("FirmwareNotValidated"), "{alarms}");
    let before = std::time::Instant::now();
    done(&device, &["validate"]);
    hub.expect_push("device", "firmware_validated", |_| true);
    // Sooner than it would have looked by itself.
    assert!(before.elapsed() < std::time::Duration::from_secs(9));
    assert_eq!(done(&device, &["alarm", "list"]), "");
}

#[test]
fn a_program_has_the_firmware_marked_over_the_socket() {
    let hub = rig::hub().start();
    let mut device = Device::new(&hub);
    with_environment(&mut device);
    Board(&device).begin(false);
    let agent = device.start();
    agent.wait_log(JOINED);
    agent.wait_log(OPEN);
    let mut peer = Peer::connect(&device);
    Board(&device).lock(true);
    let refused = peer.ask("validate", json!({}));
    assert_eq!(refused["error"]["code"], "failed", "{refused}");
    Board(&device).lock(false);
    let answer = peer.ask("validate", json!({}));
    assert_eq!(answer["result"], json!({"validated": true}));
    assert_eq!(Board(&device).mark("a").as_deref(), Some("1"));
    hub.expect_push("device", "firmware_validated", |_| true);
}

#[test]
fn a_status_of_the_integrators_reaches_the_hub_when_it_can_take_it() {
    let stage = Stage::new(&standin(), &[]);
    stage.agent.wait_log(OPEN);
    let mut peer = Peer::connect(&stage.device);
    let later = json!({"status": "rescheduled", "seconds": 300, "reason": "busy"});
    let refused = peer.ask("send-status", later.clone());
    assert_eq!(refused["error"]["code"], "refused");
    let firmware = rig::demo(&stage.hub);
    stage.offer_halting_at(1_000_000, &firmware);
    assert_eq!(
        peer.ask("send-status", later)["result"],
        json!({"sent": true})
    );
    let told = stage.hub.expect_status("rescheduled");
    assert_eq!(told["delay_for"], 300_000);
    assert_eq!(told["reason"], "busy");
    stage.hub.store().release();
    stage.hub.expect_status("completed");
    assert_eq!(stage.hub.connections(), 1);
}

/// What a command that succeeds shows on a terminal.
fn shown_on_terminal(start: impl FnOnce(Stdio) -> Child) -> String {
    let pty = nix::pty::openpty(None, None).expect("pty");
    let stderr = pty.slave.as_fd().try_clone_to_owned().expect("descriptor");
    let mut child = start(stderr.into());
    drop(pty.slave);
    let mut shown = String::new();
    // Its end is an error of a terminal.
    let _ = std::fs::File::from(pty.master).read_to_string(&mut shown);
    assert!(child.wait().expect("status").success(), "{shown}");
    shown
}
