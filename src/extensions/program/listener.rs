//! Thread `ext-out`: what the program prints, line by line, at a bounded pace. A program that
//! says too much waits: its pipe is not read meanwhile.

use std::io::{self, PipeReader, Read as _};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::Value;

use crate::extensions::Speaker;
use crate::system::http::Cancel;
use crate::wire::json::json;

/// Longest line taken, in bytes.
pub(super) const LINE_MAX: usize = 64 * 1024;
/// Lines that may come at once, and how long each takes in the long run.
pub(super) const BURST: u32 = 50;
pub(super) const PACE: Duration = Duration::from_millis(100);

/// Of one run of a program.
pub(super) struct Listener {
    name: String,
    speaker: Speaker,
    /// Nobody wants to hear more.
    deaf: Cancel,
    allowance: u32,
    since: Instant,
}

impl Listener {
    pub(super) fn new(name: &str, speaker: Speaker, deaf: Cancel) -> Self {
        Self {
            name: name.to_owned(),
            speaker,
            deaf,
            allowance: BURST,
            since: Instant::now(),
        }
    }

    /// Until its standard output ends.
    pub(super) fn hear(&mut self, mut out: PipeReader, mut err: PipeReader) {
        let (mut lines, mut complaints) = (Lines::default(), Lines::default());
        let mut hears_err = true;
        loop {
            let deaf = self.deaf.clone();
            let mut doors = [
                PollFd::new(deaf.waker.as_fd(), PollFlags::POLLIN),
                PollFd::new(out.as_fd(), PollFlags::POLLIN),
                PollFd::new(err.as_fd(), PollFlags::POLLIN),
            ];
            let watched = if hears_err { 3 } else { 2 };
            if poll(&mut doors[..watched], PollTimeout::NONE).is_err() {
                continue;
            }
            let ready = |door: &PollFd| door.revents().is_some_and(|found| !found.is_empty());
            let (on_out, on_err) = (ready(&doors[1]), hears_err && ready(&doors[2]));
            if deaf.is_cancelled() {
                return;
            }
            if on_err && !complaints.read(&mut err, &mut |line| self.complain(line)) {
                hears_err = false;
            }
            if on_out && !lines.read(&mut out, &mut |line| self.say(line)) {
                return;
            }
        }
    }

    fn say(&mut self, line: &[u8]) {
        self.wait();
        if self.deaf.is_cancelled() {
            return;
        }
        let value: Value = serde_json::from_slice(line).unwrap_or_default();
        match (value["event"].as_str(), &value["payload"]) {
            (Some(event), payload @ (Value::Object(_) | Value::Null)) if !event.is_empty() => {
                let payload = match payload {
                    Value::Null => json!({}),
                    other => other.clone(),
                };
                self.speaker.push(event, payload);
            }
            _ => warn!(
                "extension {}: not {{\"event\": \"…\", \"payload\": {{…}}}}: {:.80}",
                self.name,
                String::from_utf8_lossy(line)
            ),
        }
    }

    fn complain(&mut self, line: &[u8]) {
        self.wait();
        if self.deaf.is_cancelled() {
            return;
        }
        info!(
            "extension {}: {:.400}",
            self.name,
            String::from_utf8_lossy(line)
        );
    }

    /// Until one more line may be taken.
    fn wait(&mut self) {
        while self.allowance == 0 && !self.deaf.is_cancelled() {
            let elapsed = self.since.elapsed();
            let gained = (elapsed.as_millis() / PACE.as_millis()) as u32;
            if gained > 0 {
                self.allowance = BURST.min(gained);
                self.since = Instant::now();
            } else {
                std::thread::sleep(PACE.saturating_sub(elapsed));
            }
        }
        self.allowance = self.allowance.saturating_sub(1);
    }
}

/// Bytes to lines. One that is too long is left out.
#[derive(Default)]
struct Lines {
    begun: Vec<u8>,
    is_too_long: bool,
}

impl Lines {
    /// False at the end.
    fn read(&mut self, from: &mut PipeReader, each: &mut dyn FnMut(&[u8])) -> bool {
        let mut buffer = [0; 4096];
        let count = match from.read(&mut buffer) {
            Ok(0) => return false,
            Ok(count) => count,
            Err(error) => return error.kind() == io::ErrorKind::Interrupted,
        };
        let mut rest = &buffer[..count];
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            self.take(&rest[..end]);
            if std::mem::take(&mut self.is_too_long) {
                warn!("a line of an extension is longer than {LINE_MAX} bytes: left out");
            } else if !self.begun.is_empty() {
                each(&self.begun);
            }
            self.begun.clear();
            rest = &rest[end + 1..];
        }
        self.take(rest);
        true
    }

    fn take(&mut self, bytes: &[u8]) {
        self.is_too_long |= self.begun.len() + bytes.len() > LINE_MAX;
        if self.is_too_long {
            self.begun.clear();
        } else {
            self.begun.extend_from_slice(bytes);
        }
    }
}
