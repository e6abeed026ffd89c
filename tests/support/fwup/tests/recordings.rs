//! Replays every recorded run of the real fwup and compares output, status and stderr.

mod common;

use common::{data, framed, json, read, sha256, standin, temp};
use serde_json::Value;

/// The archive that was fed to a recorded run, and whether it came on stdin.
fn archive_of(name: &str) -> (Vec<u8>, bool) {
    let demo = || read("demo-2.0.0.fw");
    match name {
        "ok-file" => (demo(), false),
        "wrong-key" | "no-key" => (read("wrong-key-2.0.2.fw"), true),
        "unsigned" => (read("unsigned-2.0.3.fw"), true),
        "tampered" => (tampered(), true),
        "truncated" => (demo()[..2_000_000].to_vec(), true),
        "not-a-zip" => (b"this is not a zip file\n".repeat(400), true),
        _ => (demo(), true),
    }
}

/// `demo-2.0.0.fw` with its middle byte inverted.
fn tampered() -> Vec<u8> {
    let mut bytes = read("demo-2.0.0.fw");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    bytes
}

fn strings(value: &Value) -> Vec<String> {
    let list = value.as_array().expect("a list");
    list.iter()
        .map(|item| item.as_str().expect("text").to_string())
        .collect()
}

fn replay(name: &str) -> common::Outcome {
    let recorded = &json("framing/README.json")[name];
    let dir = temp();
    let (archive, on_stdin) = archive_of(name);
    let input = if on_stdin {
        framed(&archive)
    } else {
        std::fs::write(dir.path().join("demo-2.0.0.fw"), &archive).expect("written");
        Vec::new()
    };
    let args = strings(&recorded["args"]);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let outcome = standin(dir.path(), &args, &input);
    assert_eq!(
        outcome.status.map(i64::from),
        recorded["exit"].as_i64(),
        "{name}: {outcome:?}"
    );
    assert_eq!(outcome.stderr, recorded["stderr"], "{name}");
    outcome
}

#[test]
fn every_recording_is_reproduced_byte_for_byte() {
    let all = json("framing/README.json");
    for name in all.as_object().expect("an object").keys() {
        let outcome = replay(name);
        let expected = read(&format!("framing/{name}.bin"));
        assert!(outcome.stdout == expected, "{name}: {:?}", outcome.frames());
    }
}

#[test]
fn the_tampered_archive_is_the_recorded_one() {
    let recorded = &json("fw.json")["tampered-2.0.0.fw"]["sha256"];
    assert_eq!(recorded, &sha256(&tampered()));
}

#[test]
fn images_have_the_recorded_content() {
    for name in ["demo-2.0.0.fw", "small-2.0.1.fw"] {
        let image = &json("fw.json")[name]["applied_image"];
        let dir = temp();
        let args = ["-a", "-q", "-d", "o.img", "-t", "upgrade", "-i"];
        let path = data(name).canonicalize().expect("exists");
        let args = [&args[..], &[path.to_str().expect("text")]].concat();
        assert_eq!(standin(dir.path(), &args, b"").status, Some(0), "{name}");
        let bytes = std::fs::read(dir.path().join("o.img")).expect("the image");
        let size = image["size"].as_u64().expect("a size") as usize;
        assert_eq!(image["sha256"], sha256(&bytes[..size]), "{name}");
        assert!(bytes[size..].iter().all(|byte| *byte == 0), "{name}");
    }
}

#[test]
fn metadata_is_what_was_recorded() {
    for (name, recorded) in json("fw.json").as_object().expect("an object") {
        if !data(name).exists() {
            continue;
        }
        let dir = temp();
        let outcome = standin(dir.path(), &["-m", "-i", "-"], &read(name));
        assert_eq!(outcome.status, Some(0), "{name}");
        let text = String::from_utf8(outcome.stdout).expect("text");
        let shown: Vec<(&str, &str)> = text
            .lines()
            .map(|line| line.split_once('=').expect("key=value"))
            .collect();
        let meta = recorded["meta"].as_object().expect("an object");
        assert_eq!(shown.len(), meta.len(), "{name}");
        for (key, value) in shown {
            let key = key.strip_prefix("meta-").expect("a meta key");
            if key == "nickname" {
                // Its words are the real fwup's own.
                continue;
            }
            assert_eq!(meta[key], value.trim_matches('"'), "{name}: {key}");
        }
    }
}
