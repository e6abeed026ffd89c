//! The control port and the `hub` command that drives it.

use crate::client::{connect, hub};
use devhub::catalog::Catalog;
use devhub::control::Control;
use devhub::{Hub, Vsn};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;

fn start() -> (Arc<Hub>, Control) {
    let hub = Arc::new(hub());
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../data/fw");
    let catalog = Catalog::new(Some(folder), Default::default());
    let control = Control::start(hub.clone(), catalog, ([127, 0, 0, 1], 0).into()).unwrap();
    (hub, control)
}

fn run(control: &Control, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hub"));
    command
        .args(words)
        .args(["--control", &control.address().to_string()]);
    command.output().unwrap()
}

fn says(control: &Control, words: &[&str]) -> String {
    let output = run(control, words);
    assert!(
        output.status.success(),
        "{words:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn complains(control: &Control, words: &[&str]) -> String {
    let output = run(control, words);
    assert!(!output.status.success(), "{words:?} should fail");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_device_is_driven_from_the_command_line() {
    let (hub, control) = start();
    assert_eq!(says(&control, &["devices"]), "");
    let name = "dev/1 ä";
    let mut client = connect(&hub, name, Vsn::Json);
    client.join_device("uuid-1", None);
    client.receive_event("extensions:get");
    assert_eq!(
        says(&control, &["devices"]),
        format!("{name}  online  uuid-1\n")
    );
    says(&control, &["offer", name, "small-2.0.1.fw"]);
    assert_eq!(
        client.receive().payload["firmware_meta"]["version"],
        "2.0.1"
    );
    says(&control, &["reboot", name]);
    assert_eq!(client.receive().event, "reboot");
    says(&control, &["identify", name]);
    assert_eq!(client.receive().event, "identify");
    says(
        &control,
        &[
            "push",
            name,
            "device",
            "scripts/run",
            r#"{"ref":"1","text":"id"}"#,
        ],
    );
    assert_eq!(client.receive().payload["text"], "id");
    let device: Value = serde_json::from_str(&says(&control, &["devices", name])).unwrap();
    assert_eq!(device["in_flight"]["status"], "requested");
    assert!(says(&control, &["transcript"]).contains("device scripts/run"));
    says(&control, &["close", name, "1001"]);
    assert_eq!(client.receive_end(), Some(1001));
}

#[test]
fn firmware_is_listed_and_deployed() {
    let (hub, control) = start();
    let all: Value = serde_json::from_str(&says(&control, &["firmware"])).unwrap();
    assert!(
        all.as_array()
            .unwrap()
            .iter()
            .any(|one| one["name"] == "small-2.0.1.fw")
    );
    says(&control, &["deploy", "small-2.0.1.fw"]);
    let mut client = connect(&hub, "dev", Vsn::Json);
    client.join_device("uuid-1", None);
    assert_eq!(
        client.receive_event("update").payload["firmware_meta"]["version"],
        "2.0.1"
    );
    says(&control, &["deploy", "--none"]);
}

#[test]
fn mistakes_are_explained() {
    let (hub, control) = start();
    assert!(complains(&control, &["reboot", "dev"]).contains("unknown device dev"));
    let mut client = connect(&hub, "dev", Vsn::Json);
    client.join("console", serde_json::json!({}));
    let complaint = complains(&control, &["reboot", "dev"]);
    assert!(
        complaint.contains("dev has not joined device"),
        "{complaint}"
    );
    assert!(complains(&control, &["offer", "dev", "none.fw"]).contains("none.fw"));
    assert!(complains(&control, &["offer", "dev"]).contains("wrong arguments"));
    assert!(complains(&control, &["fly"]).contains("unknown command fly"));
    assert!(complains(&control, &["push", "dev", "a", "b", "{"]).contains("payload"));
    let gone = control.address().to_string();
    drop(control);
    let output = Command::new(env!("CARGO_BIN_EXE_hub"))
        .args(["devices", "--control", &gone])
        .output();
    assert!(String::from_utf8_lossy(&output.unwrap().stderr).contains("no hub at"));
}

/// A `hub serve` that is killed when the test ends.
struct Served {
    child: Child,
    settings: Vec<String>,
}

impl Served {
    fn start(words: &[&str]) -> Served {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hub"));
        command
            .arg("serve")
            .args(["--listen", "127.0.0.1:0", "--control", "127.0.0.1:0"]);
        command
            .args(["--firmware-listen", "127.0.0.1:0"])
            .args(words)
            .stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap())
            .lines()
            .map(Result::unwrap);
        let settings = lines.take_while(|line| line != "# ready").collect();
        Served { child, settings }
    }

    fn setting(&self, start: &str) -> &str {
        let found = self
            .settings
            .iter()
            .find_map(|line| line.strip_prefix(start));
        found
            .unwrap_or_else(|| panic!("no {start} in {:?}", self.settings))
            .trim()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn serve_says_how_to_connect() {
    let served = Served::start(&[]);
    assert!(
        served
            .setting("NERVES_HUB_HOST=")
            .starts_with("ws://127.0.0.1:")
    );
    assert!(
        served
            .setting("NERVES_HUB_PRODUCT_KEY=")
            .starts_with("nhp_")
    );
    let control = served.setting("# control       http://").to_owned();
    let output = Command::new(env!("CARGO_BIN_EXE_hub"))
        .args(["devices", "--control", &control])
        .output();
    assert!(output.unwrap().status.success());
}

#[test]
fn serve_keeps_its_authorities() {
    let state = state_folder();
    let folder = state.to_str().unwrap();
    let first = Served::start(&["--tls", "--mtls", "--state", folder]);
    let ca = std::fs::read_to_string(first.setting("NERVES_HUB_CA_FILE=")).unwrap();
    drop(first);
    let hub = env!("CARGO_BIN_EXE_hub");
    let output = Command::new(hub)
        .args(["cert", "serial-1", "--state", folder])
        .output()
        .unwrap();
    assert!(output.status.success());
    assert!(state.join("serial-1.key").exists());
    let second = Served::start(&["--tls12", "--mtls", "--state", folder]);
    let same = std::fs::read_to_string(second.setting("NERVES_HUB_CA_FILE=")).unwrap();
    assert_eq!(ca, same);
    drop(second);
    std::fs::remove_dir_all(state).unwrap();
}

fn state_folder() -> PathBuf {
    std::env::temp_dir().join(format!("devhub-state-{}", std::process::id()))
}
