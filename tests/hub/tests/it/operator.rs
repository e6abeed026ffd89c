//! `hub script` and `hub upload`, against a raw device that answers.

use crate::client::{Client, connect, hub};
use devhub::catalog::Catalog;
use devhub::control::Control;
use devhub::{Hub, Vsn};
use serde_json::{Value, json};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;

fn start() -> (Arc<Hub>, Control, Client) {
    let hub = Arc::new(hub());
    let catalog = Catalog::new(None, Default::default());
    let control = Control::start(hub.clone(), catalog, ([127, 0, 0, 1], 0).into()).unwrap();
    let mut client = connect(&hub, "dev", Vsn::Json);
    client.join_device("uuid-1", None);
    client.join("console", json!({}));
    (hub, control, client)
}

/// The command, running: it waits for what the device says.
fn begin(control: &Control, words: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hub"));
    command
        .args(words)
        .args(["--control", &control.address().to_string()]);
    let piped = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    piped.spawn().unwrap()
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_script_s_output_is_printed_and_its_status_counts() {
    let (_hub, control, mut client) = start();
    for (result, status, reason, is_fine) in [
        ("completed", "0", Value::Null, true),
        ("completed", "3", Value::Null, false),
        ("error", "", json!("killed"), false),
    ] {
        let child = begin(&control, &["script", "dev", "uname -a"]);
        let request = client.receive_event("scripts/run").payload;
        assert_eq!(request["text"], "uname -a");
        let answer = json!({
            "ref": request["ref"],
            "result": result,
            "output": "Linux\n",
            "return": status,
            "reason": reason,
        });
        // An answer to something else is none to this.
        client.push(
            "device",
            "scripts/run",
            json!({"ref": "other", "output": "no"}),
        );
        client.push("device", "scripts/run", answer);
        let output = child.wait_with_output().unwrap();
        let (said, complaint) = texts(&output);
        assert_eq!(said, "Linux\n");
        assert_eq!(output.status.success(), is_fine, "{complaint}");
        let why = reason.as_str().unwrap_or(status);
        assert!(is_fine || complaint.contains(why), "{complaint}");
    }
}

#[test]
fn a_file_is_sent_as_the_page_does_and_what_the_device_says_is_printed() {
    let (_hub, control, mut client) = start();
    let file = std::env::temp_dir().join(format!("devhub-upload-{}.txt", std::process::id()));
    std::fs::write(&file, [b'x'; 1500]).unwrap();
    let name = file.file_name().unwrap().to_str().unwrap().to_owned();
    for (word, is_fine) in [("received", true), ("not received", false)] {
        let child = begin(&control, &["upload", "dev", file.to_str().unwrap()]);
        let start = client.receive_event("file-data/start").payload;
        assert_eq!(start, json!({ "filename": name }));
        let sizes = [1368, 636].map(|size| {
            let data = client.receive_event("file-data").payload;
            assert_eq!(data["filename"], *name);
            assert_eq!(data["data"].as_str().unwrap().len(), size);
            data["chunk"].as_u64().unwrap()
        });
        assert_eq!(sizes, [0, 1]);
        client.receive_event("file-data/stop");
        let text = format!("\r\n[{word} {name}]\r\n");
        client.push("console", "up", json!({"data": "unrelated"}));
        client.push("console", "up", json!({"data": text}));
        let output = child.wait_with_output().unwrap();
        let (said, complaint) = texts(&output);
        assert_eq!(output.status.success(), is_fine);
        assert!((said + &complaint).contains(&format!("[{word} {name}]")));
    }
    std::fs::remove_file(file).unwrap();
}
