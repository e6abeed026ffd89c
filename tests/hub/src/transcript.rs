//! The transcript: every frame in either direction and every event on the connections, with
//! its printed form. Append only.

use crate::frame::Frame;
use std::fmt;
use std::time::Duration;

/// Payloads longer than this are cut when printed.
const PRINTED: usize = 600;

/// Who an entry comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dir {
    /// Device to hub.
    Device,
    /// Hub to device.
    Server,
    /// Something that happened: connected, refused, closed, crashed.
    Note,
}

/// One line of the transcript.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Since the hub started.
    pub t: Duration,
    /// Number of the upgrade request the connection began with; 0 for the hub itself.
    pub conn: u64,
    pub dir: Dir,
    /// Absent for notes and for raw messages.
    pub frame: Option<Frame>,
    /// What happened; empty for frames.
    pub note: String,
}

impl Entry {
    /// The frame, when the device sent it on that topic with that event.
    pub fn from_device(&self, topic: &str, event: &str) -> Option<&Frame> {
        let frame = self.frame.as_ref().filter(|_| self.dir == Dir::Device)?;
        (frame.topic == topic && frame.event == event).then_some(frame)
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let arrow = match self.dir {
            Dir::Device => "device →",
            Dir::Server => "server ←",
            Dir::Note => "        ",
        };
        write!(f, "{:8.3} #{} {arrow} ", self.t.as_secs_f64(), self.conn)?;
        match &self.frame {
            None => write!(f, "{}", cut(&self.note)),
            Some(frame) => {
                let refs = (frame.join_ref.as_deref(), frame.reference.as_deref());
                let (join_ref, reference) = (refs.0.unwrap_or("-"), refs.1.unwrap_or("-"));
                let payload = frame.payload.to_string();
                write!(
                    f,
                    "[{join_ref},{reference}] {} {} ",
                    frame.topic, frame.event
                )?;
                write!(f, "{}", cut(&payload))
            }
        }
    }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(PRINTED) {
        None => text.to_string(),
        Some((at, _)) => format!("{}… ({} bytes)", &text[..at], text.len()),
    }
}

/// All entries so far.
#[derive(Debug, Clone, Default)]
pub struct Transcript {
    pub entries: Vec<Entry>,
}

impl Transcript {
    /// Payloads the device pushed on `topic` with `event`, oldest first.
    pub fn pushes<'a>(
        &'a self,
        topic: &'a str,
        event: &'a str,
    ) -> impl Iterator<Item = &'a serde_json::Value> {
        self.entries
            .iter()
            .filter_map(move |entry| entry.from_device(topic, event))
            .map(|frame| &frame.payload)
    }

    /// Whether a note contains `text`.
    pub fn noted(&self, text: &str) -> bool {
        self.entries
            .iter()
            .any(|entry| entry.dir == Dir::Note && entry.note.contains(text))
    }
}

impl fmt::Display for Transcript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.entries
            .iter()
            .try_for_each(|entry| writeln!(f, "{entry}"))
    }
}
