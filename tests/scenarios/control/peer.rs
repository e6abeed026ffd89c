//! A program on the device that speaks the control socket's protocol.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};

use crate::rig::{Device, PATIENCE};

pub struct Peer {
    pub stream: BufReader<UnixStream>,
    last_id: u64,
}

impl Peer {
    /// A client that has been greeted.
    pub fn connect(device: &Device) -> Self {
        let mut peer = Self::stranger(device);
        let hello = peer.read();
        assert_eq!(hello["hello"]["protocol"], 1, "{hello}");
        peer
    }

    pub fn stranger(device: &Device) -> Self {
        let stream = UnixStream::connect(device.path("control.sock")).expect("socket");
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("timeout");
        Self {
            stream: BufReader::new(stream),
            last_id: 0,
        }
    }

    pub fn say(&mut self, message: &Value) {
        let line = format!("{message}\n");
        self.stream
            .get_mut()
            .write_all(line.as_bytes())
            .expect("sent");
    }

    pub fn read(&mut self) -> Value {
        let mut line = String::new();
        self.stream.read_line(&mut line).expect("a line in time");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line:?}: {error}"))
    }

    /// The answer; events before it are skipped.
    pub fn ask(&mut self, method: &str, params: Value) -> Value {
        self.last_id += 1;
        self.say(&json!({"id": self.last_id, "method": method, "params": params}));
        loop {
            let said = self.read();
            if said["id"] == self.last_id {
                return said;
            }
            assert!(said.get("event").is_some(), "{said}");
        }
    }

    /// The next event.
    pub fn event(&mut self) -> Value {
        let said = self.read();
        assert!(said.get("event").is_some(), "{said}");
        said
    }

    /// The agent has ended the connection.
    pub fn is_over(&mut self) -> bool {
        let mut line = String::new();
        match self.stream.read_line(&mut line) {
            Ok(count) => count == 0,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}
