//! One log line: its bounds, and its shape for the hub. Pure.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use crate::config::extensions::Severity;
use crate::wire::fields::cut;

/// Longest message, in bytes.
pub const MESSAGE_MAX: usize = 8 * 1024;
/// Longest value beside it.
const META_MAX: usize = 256;
/// A clock that is off by more was set; by less, it was only corrected.
const STEP: i64 = 500_000;

/// Names and values beside a message; the hub wants texts.
pub type Meta = Vec<(Cow<'static, str>, Cow<'static, str>)>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub level: Severity,
    pub message: Box<str>,
    pub meta: Meta,
    /// Not the time of day: lines may be older than a clock that is right.
    pub at: Instant,
    /// Lines that are missing without this one.
    pub stands_for: u64,
}

impl Line {
    /// With what is not too long of both; `None` without a message.
    pub fn new(level: Severity, message: &str, mut meta: Meta) -> Option<Self> {
        let message = cut(message, MESSAGE_MAX).trim_end();
        for (_, value) in &mut meta {
            if value.len() > META_MAX {
                *value = Cow::Owned(cut(value, META_MAX).to_owned());
            }
        }
        (!message.is_empty()).then(|| Self {
            level,
            message: message.into(),
            meta,
            at: Instant::now(),
            stands_for: 1,
        })
    }

    /// In place of `count` lines, the last of which was of `at`.
    pub fn notice(count: u64, at: Instant) -> Self {
        let message = match count {
            1 => "1 log line was dropped".to_owned(),
            _ => format!("{count} log lines were dropped"),
        };
        Self {
            level: Severity::WARNING,
            message: message.into(),
            meta: vec![(
                Cow::Borrowed("application"),
                Cow::Borrowed("nerveshub-agent"),
            )],
            at,
            stands_for: count,
        }
    }

    /// Bytes of memory.
    pub fn size(&self) -> usize {
        let meta = self.meta.iter().map(|pair| {
            let owned = |text: &Cow<str>| match text {
                Cow::Owned(text) => text.capacity(),
                Cow::Borrowed(_) => 0,
            };
            size_of_val(pair) + owned(&pair.0) + owned(&pair.1)
        });
        size_of::<Self>() + self.message.len() + meta.sum::<usize>()
    }

    /// As the hub takes it.
    pub fn payload(self, clock: &mut Clock) -> Value {
        let mut meta = Map::new();
        for (name, value) in self.meta {
            meta.insert(name.into_owned(), value.into_owned().into());
        }
        meta.insert("time".to_owned(), clock.micros(self.at).to_string().into());
        let mut line = Map::new();
        line.insert("level".to_owned(), self.level.name().into());
        line.insert("message".to_owned(), self.message.into_string().into());
        line.insert("meta".to_owned(), Value::Object(meta));
        Value::Object(line)
    }
}

/// A message of bytes, with `�` for what is no UTF-8.
pub fn text(bytes: &[u8]) -> Cow<'_, str> {
    let mut end = bytes.len().min(MESSAGE_MAX);
    // Not within a character, which has three more bytes at most.
    for _ in 0..3 {
        if bytes.get(end).is_some_and(|byte| byte & 0xc0 == 0x80) {
            end -= 1;
        }
    }
    String::from_utf8_lossy(&bytes[..end])
}

/// The time of day of instants. It changes its mind only when the device's clock is set, so
/// that lines keep their order.
pub struct Clock {
    base: Instant,
    /// At `base`, in microseconds.
    unix: i64,
    last: i64,
}

impl Clock {
    pub fn new(now: Instant, unix: i64) -> Self {
        let last = 0;
        Self {
            base: now,
            unix,
            last,
        }
    }

    /// What the device's clock shows now.
    pub fn adjust(&mut self, now: Instant, unix: i64) {
        if (self.at(now) - unix).abs() > STEP {
            *self = Self::new(now, unix);
        }
    }

    fn at(&self, at: Instant) -> i64 {
        let micros = |time: Duration| i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
        match at.checked_duration_since(self.base) {
            Some(after) => self.unix.saturating_add(micros(after)),
            None => self.unix.saturating_sub(micros(self.base - at)),
        }
    }

    /// The hub sorts by this alone: lines of the same microsecond get different ones.
    fn micros(&mut self, at: Instant) -> i64 {
        let time = self.at(at);
        let is_near = time <= self.last && self.last - time < 1000;
        self.last = if is_near { self.last + 1 } else { time };
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn messages_are_cut_between_characters_and_what_is_no_text_is_marked() {
        for (character, bytes) in [("a", 1), ("ä", 2), ("€", 3), ("😀", 4)] {
            for shift in 0..bytes {
                let long = "x".repeat(shift) + &character.repeat(MESSAGE_MAX);
                let expected = shift + (MESSAGE_MAX - shift) / bytes * bytes;
                assert_eq!(text(long.as_bytes()), long[..expected]);
                let line = Line::new(Severity::INFO, &long, vec![]).unwrap();
                assert_eq!(*line.message, long[..expected]);
            }
        }
        assert_eq!(text(b"caf\xe9 \xff."), "caf\u{fffd} \u{fffd}.");
        let garbage = [0x80; MESSAGE_MAX * 2];
        let line = Line::new(Severity::INFO, &text(&garbage), vec![]).unwrap();
        assert!(line.message.len() <= MESSAGE_MAX);
        assert_eq!(Line::new(Severity::INFO, " \n", vec![]), None);
        let meta = vec![("unit".into(), "€".repeat(100).into())];
        let line = Line::new(Severity::INFO, "a", meta).unwrap();
        assert_eq!(line.meta[0].1, "€".repeat(85));
    }

    #[test]
    fn the_shape_is_the_hubs() {
        let now = Instant::now();
        let mut clock = Clock::new(now, 1_700_000_000_000_000);
        let meta = vec![
            ("source".into(), "kmsg".into()),
            ("pid".into(), "12".to_owned().into()),
        ];
        let mut line = Line::new(Severity::ERROR, "no disk\n", meta).unwrap();
        line.at = now + SECOND;
        assert_eq!(
            line.payload(&mut clock),
            json!({"level": "error", "message": "no disk", "meta": {
                "time": "1700000001000000", "source": "kmsg", "pid": "12"}})
        );
    }

    #[test]
    fn times_differ_and_follow_a_clock_that_is_set() {
        let now = Instant::now() + 10 * SECOND;
        let mut clock = Clock::new(now, 5_000_000);
        assert_eq!(clock.micros(now - SECOND), 4_000_000);
        assert_eq!(clock.micros(now), 5_000_000);
        for more in 1..4 {
            assert_eq!(clock.micros(now), 5_000_000 + more);
        }
        // What came late keeps its time.
        assert_eq!(clock.micros(now - SECOND), 4_000_000);
        clock.adjust(now + SECOND, 6_400_000);
        assert_eq!(clock.micros(now + SECOND), 6_000_000);
        // The network's time arrives: it is that of earlier lines, too.
        clock.adjust(now + SECOND, 1_700_000_000_000_000);
        assert_eq!(clock.micros(now), 1_699_999_999_000_000);
    }
}
