//! What the test files share: the recorded data, framing, and running a command.
#![allow(dead_code)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use sha2::{Digest, Sha256};

/// The stand-in under test.
pub const STANDIN: &str = env!("CARGO_BIN_EXE_fwup-standin");

/// A file of the recorded firmware data.
pub fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../data/fw")
        .join(name)
}

pub fn read(name: &str) -> Vec<u8> {
    let path = data(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub fn json(name: &str) -> Value {
    serde_json::from_slice(&read(name)).expect("the recorded JSON is valid")
}

pub fn public_key() -> String {
    String::from_utf8(read("signing-key.pub"))
        .expect("base64")
        .trim()
        .to_string()
}

pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02X}"))
        .collect()
}

/// Archive bytes as the framed protocol carries them, with the end marker.
pub fn framed(bytes: &[u8]) -> Vec<u8> {
    let mut out = framed_open(bytes);
    out.extend_from_slice(&[0; 4]);
    out
}

/// The same without the end marker.
pub fn framed_open(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for chunk in bytes.chunks(64 * 1024) {
        out.extend_from_slice(&(chunk.len() as u32).to_be_bytes());
        out.extend_from_slice(chunk);
    }
    out
}

/// How a command ended.
#[derive(Debug, PartialEq, Eq, Clone)]
pub struct Outcome {
    pub status: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Outcome {
    /// The output frames: kind, code, text.
    pub fn frames(&self) -> Vec<(String, u16, String)> {
        let mut frames = Vec::new();
        let mut rest = self.stdout.as_slice();
        while rest.len() >= 8 {
            let length = u32::from_be_bytes(rest[..4].try_into().expect("four")) as usize;
            let payload = &rest[4..4 + length];
            frames.push((
                String::from_utf8_lossy(&payload[..2]).into_owned(),
                u16::from_be_bytes([payload[2], payload[3]]),
                String::from_utf8_lossy(&payload[4..]).into_owned(),
            ));
            rest = &rest[4 + length..];
        }
        frames
    }

    /// The frames other than progress, as `KIND text`.
    pub fn said(&self) -> Vec<String> {
        self.frames()
            .into_iter()
            .filter(|(kind, _, _)| kind != "PR")
            .map(|(kind, _, text)| format!("{kind} {text}"))
            .collect()
    }
}

/// Runs a program in a directory with the given stdin.
pub fn run(program: &Path, dir: &Path, args: &[&str], input: &[u8]) -> Outcome {
    let mut child = Command::new(program)
        .args(args)
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.to_vec();
    let writer = std::thread::spawn(move || {
        // A program that has failed stops reading.
        let _ = stdin.write_all(&input);
    });
    let output = child.wait_with_output().expect("waits");
    writer.join().expect("the writer does not panic");
    Outcome {
        status: output.status.code(),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

pub fn standin(dir: &Path, args: &[&str], input: &[u8]) -> Outcome {
    run(Path::new(STANDIN), dir, args, input)
}

pub fn temp() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}
