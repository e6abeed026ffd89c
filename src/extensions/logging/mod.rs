//! The extension `logging`: lines of the device's logs, to the hub.
//!
//! ```text
//! own ─┐                       (the log's threads)
//! sources: follow, kmsg, program ─▶ ring ─▶ pace ─▶ pushes
//! control socket ──────────────────┘
//! ```
//! Owns what is sent when. Lines are collected from the agent's start on, and wait in the
//! ring, which has a bound, until the hub takes them. Must not log what sending causes.

mod follow;
mod journal;
mod kmsg;
mod line;
pub mod own;
mod pace;
mod program;
mod retry;
mod ring;
mod sources;
mod splitter;
mod syslog;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};

use super::{Extension, Kind, Life, Link, Site, Word};
use crate::config::extensions::{LogSource, Severity};
use crate::system::command;
use follow::Follower;
use kmsg::Kmsg;
use line::{Clock, Line, Meta};
use pace::Pace;
use program::Program;
use ring::Intake;
use sources::{Source, Sources};

const NAME: &str = "logging";
/// Text of one push: more waits for the next.
const PUSH_BYTES: usize = 32 * 1024;
/// Values that a client of the control socket may add to a line.
const META_MAX: usize = 16;

pub const KIND: Kind = Kind {
    name: NAME,
    versions: &["0.1.0", "0.0.1"],
    life: Life::Always,
    build: |site: &Arc<Site>| {
        let intake = own::intake(&site.settings);
        Box::new(Logging::new(Arc::clone(site), intake))
    },
};

/// Where things are that tests have elsewhere.
struct Places {
    kmsg: PathBuf,
    journalctl: &'static str,
}

struct Logging {
    site: Arc<Site>,
    places: Places,
    intake: Arc<Intake>,
    pace: Pace,
    clock: Clock,
    is_attached: bool,
}

impl Extension for Logging {
    fn run(&mut self, link: &mut Link) -> Result<(), String> {
        // Ends with this.
        let _sources = Sources::start(self.sources(), Arc::clone(&self.intake))?;
        self.is_attached = false;
        let mut until = None;
        loop {
            match link.next(until) {
                Word::Attached { version } => {
                    self.pace.agree(&version);
                    self.is_attached = true;
                }
                Word::Away => self.is_attached = false,
                Word::Said { event, .. } => debug!("the hub says {event:?}, unknown here"),
                Word::Asked {
                    question,
                    what,
                    params,
                    ..
                } => link.answer(question, self.on_asked(&what, &params)),
                Word::Nudged | Word::Due => {}
                Word::Over => return Ok(()),
            }
            until = self.send(link);
        }
    }
}

impl Logging {
    fn new(site: Arc<Site>, intake: Arc<Intake>) -> Self {
        let now = Instant::now();
        Self {
            site,
            places: Places {
                kmsg: PathBuf::from("/dev/kmsg"),
                journalctl: "journalctl",
            },
            intake,
            pace: Pace::new("0.0.1", now),
            clock: Clock::new(now, unix_micros()),
            is_attached: false,
        }
    }

    fn sources(&self) -> Vec<Box<dyn Source>> {
        let now = Instant::now();
        let settings = &self.site.settings.logging;
        let mut sources: Vec<Box<dyn Source>> = Vec::new();
        for source in &settings.sources {
            match source {
                // It comes to the ring by itself.
                LogSource::Agent => {}
                LogSource::Syslog => {
                    let path = settings.syslog_file.clone();
                    sources.push(Box::new(Follower::new(path, syslog::line, now)));
                }
                LogSource::Kmsg => {
                    sources.push(Box::new(Kmsg::new(self.places.kmsg.clone(), now)));
                }
                LogSource::Journald => {
                    let command = journal::command(self.places.journalctl);
                    let take: fn(&[u8], &Intake) =
                        |bytes, intake| journal::entry(bytes, unix_micros(), intake);
                    let program = Program::new("journald", command, journal::ENTRY_MAX, take);
                    sources.push(Box::new(program));
                }
                LogSource::Command(text) => {
                    let take: fn(&[u8], &Intake) = |bytes, intake| {
                        if let Some(line) = syslog::plain(bytes) {
                            intake.put(line);
                        }
                    };
                    let command = command::shell(text);
                    let program = Program::new("command", command, line::MESSAGE_MAX + 8, take);
                    sources.push(Box::new(program));
                }
            }
        }
        sources
    }

    /// Sends what may be sent now. When there may be more, unless a nudge comes first.
    fn send(&mut self, link: &Link) -> Option<Instant> {
        while self.is_attached && self.intake.has_lines(link.nudger()) {
            let now = Instant::now();
            let next = self.pace.next(now);
            if next > now {
                return Some(next);
            }
            self.clock.adjust(now, unix_micros());
            let lines = self.intake.take(self.pace.batch.unwrap_or(1), PUSH_BYTES);
            let lines = lines.into_iter();
            let mut lines = lines.map(|line| line.payload(&mut self.clock));
            let push = match self.pace.batch {
                None => lines.next(),
                Some(_) => {
                    let mut push = Map::new();
                    push.insert("lines".to_owned(), Value::Array(lines.collect()));
                    Some(Value::Object(push))
                }
            };
            if let Some(push) = push {
                link.push("send", push);
                self.pace.spend(now);
            }
        }
        None
    }

    /// A line by the control socket.
    fn on_asked(&self, what: &str, params: &Value) -> Result<Value, String> {
        if what != "line" {
            return Err(format!(
                "logging can be given a \"line\" only, not {what:?}"
            ));
        }
        let level = match &params["level"] {
            Value::Null => Severity::INFO,
            Value::String(level) => Severity::parse(level).ok_or_else(|| {
                format!("{level:?} is no level; use error, warning, notice, info or debug")
            })?,
            _ => return Err("\"level\" is not a text".to_owned()),
        };
        let message = params["message"].as_str().unwrap_or_default();
        let line = Line::new(level, message, meta(&params["meta"])?);
        let line = line.ok_or("\"message\" is missing, or empty")?;
        let mut answer = Map::new();
        answer.insert("queued".to_owned(), self.intake.put(line).into());
        Ok(Value::Object(answer))
    }
}

/// What a client adds to its line. The hub drops lines with values that are no texts.
fn meta(given: &Value) -> Result<Meta, String> {
    let mut meta = syslog::source("control");
    let given = match given {
        Value::Null => return Ok(meta),
        Value::Object(given) => given,
        _ => return Err("\"meta\" is not an object".to_owned()),
    };
    if given.len() > META_MAX {
        return Err(format!("\"meta\" has more than {META_MAX} values"));
    }
    for (name, value) in given {
        let value = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        if name.len() > 64 {
            return Err(format!("{name:?} in \"meta\" is longer than 64 bytes"));
        }
        meta.push((Cow::Owned(name.clone()), value.into()));
    }
    Ok(meta)
}

/// What the device's clock shows.
fn unix_micros() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
    })
}
