//! The extension `geo`: says where the device is when the hub asks, and only then.
//!
//! Owns the shape of an answer, the codes of errors and what is kept of an answer that a
//! public service gave.

mod geoip;
mod gpsd;
#[cfg(test)]
mod tests;

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use super::{Extension, Kind, Life, Link, Site, Word};
use crate::config::extensions::GeoSource;
use crate::system::command;
use crate::system::time::unix_now;

/// For any way to find out; half of what the extension has, if that is less.
const DEADLINE: Duration = Duration::from_secs(10);
/// How often the link's end is looked for.
const TICK: Duration = Duration::from_millis(250);
/// An error of the service is good for so long, however often the hub asks.
const ERROR_FOR: Duration = Duration::from_secs(60);
/// What a command may print.
const COMMAND_OUTPUT: usize = 64 * 1024;
/// Characters of a text from elsewhere.
const MAX_TEXT: usize = 200;

pub const KIND: Kind = Kind {
    name: "geo",
    versions: &["0.0.1"],
    life: Life::Attached,
    build: |site| Box::new(Geo { site: site.clone() }),
};

struct Geo {
    site: Arc<Site>,
}

/// Why there is no location. The hub shows both to people.
#[derive(Debug, PartialEq)]
struct Trouble {
    /// An interface (etc/doc/geo.md).
    code: String,
    description: String,
}

impl Trouble {
    fn new(code: &str, description: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            description: description.into(),
        }
    }
}

impl Extension for Geo {
    fn run(&mut self, link: &mut Link) -> Result<(), String> {
        loop {
            match link.next(None) {
                Word::Over => return Ok(()),
                Word::Said { event, .. } if event == "location:request" => {
                    let update = self.update(link);
                    if !link.is_over() {
                        link.push("location:update", update);
                    }
                }
                Word::Said { event, .. } => warn!("geo: ignoring unknown event {event:?}"),
                Word::Asked { question, .. } => {
                    let answer = "geo cannot be asked: the hub does that";
                    link.answer(question, Err(answer.to_owned()));
                }
                Word::Attached { .. } | Word::Away | Word::Nudged | Word::Due => {}
            }
        }
    }
}

impl Geo {
    /// What the hub is told.
    fn update(&self, link: &Link) -> Value {
        let settings = &self.site.settings;
        let patience = DEADLINE.min(settings.timeout / 2);
        let found = match &settings.geo.source {
            GeoSource::GeoIp => return self.geoip(link, patience),
            GeoSource::Fixed {
                latitude,
                longitude,
                accuracy,
            } => location((*latitude, *longitude), "fixed", *accuracy)
                .map_err(|error| Trouble::new("CONFIG_ERROR", error)),
            GeoSource::Command(text) => ask_command(text, link, patience),
            GeoSource::Gpsd { host, port } => {
                let ends = Instant::now() + patience;
                gpsd::ask((host, *port), self.site.dialer.as_deref(), link, ends)
            }
        };
        told(found)
    }

    fn geoip(&self, link: &Link, patience: Duration) -> Value {
        if let Some(known) = self.recall(unix_now()) {
            return known;
        }
        let found = geoip::ask(&self.site, link, patience);
        let is_cut_short = found.is_err() && link.is_over();
        let update = told(found.map_err(|error| Trouble::new("HTTP_ERROR", error)));
        if !is_cut_short {
            self.keep(unix_now(), &update);
        }
        update
    }

    /// What the service said lately.
    fn recall(&self, now: u64) -> Option<Value> {
        let kept = self.site.kept.lock();
        let kept = kept.unwrap_or_else(PoisonError::into_inner);
        recalled(kept.get(KIND.name)?, now, self.site.settings.geo.cache).cloned()
    }

    /// In the site, for a detach must not make the service be asked again.
    fn keep(&self, now: u64, update: &Value) {
        let mut entry = Map::new();
        entry.insert("at".to_owned(), now.into());
        entry.insert("update".to_owned(), update.clone());
        let kept = self.site.kept.lock();
        let mut kept = kept.unwrap_or_else(PoisonError::into_inner);
        kept.insert(KIND.name.to_owned(), entry.into());
    }
}

/// A clock that was set back makes what is kept old, too.
fn recalled(entry: &Value, now: u64, good_for: Duration) -> Option<&Value> {
    let update = entry.get("update")?;
    let age = now.checked_sub(entry.get("at")?.as_u64()?)?;
    let good_for = match update.get("error_code") {
        Some(_) => good_for.min(ERROR_FOR),
        None => good_for,
    };
    (age < good_for.as_secs()).then_some(update)
}

fn told(found: Result<Value, Trouble>) -> Value {
    let trouble = match found {
        Ok(location) => return location,
        Err(trouble) => trouble,
    };
    let Trouble { code, description } = trouble;
    warn!("geo: {description} ({code})");
    let mut update = Map::new();
    update.insert("error_code".to_owned(), clipped(&code).into());
    update.insert("error_description".to_owned(), clipped(&description).into());
    update.into()
}

/// The answer with a place in it, which is on this planet.
fn location(
    (latitude, longitude): (f64, f64),
    source: &str,
    accuracy: Option<f64>,
) -> Result<Value, String> {
    if !(latitude.abs() <= 90.0 && longitude.abs() <= 180.0) {
        return Err("latitude or longitude is out of range".to_owned());
    }
    let mut update = Map::new();
    update.insert("latitude".to_owned(), latitude.into());
    update.insert("longitude".to_owned(), longitude.into());
    update.insert("source".to_owned(), clipped(source).into());
    // The hub takes whole metres.
    if let Some(metres) = accuracy.filter(|metres| (0.0..1e9).contains(metres)) {
        update.insert("accuracy".to_owned(), (metres.ceil() as u64).into());
    }
    Ok(update.into())
}

/// A place that others put into words: numbers, or texts with numbers in them.
fn located(said: &Value, source: &str) -> Result<Value, String> {
    let number = |name: &str| degrees(said.get(name)?);
    let (Some(latitude), Some(longitude)) = (number("latitude"), number("longitude")) else {
        return Err("latitude or longitude is missing, or no number".to_owned());
    };
    let source = said.get("source").and_then(Value::as_str).unwrap_or(source);
    location((latitude, longitude), source, number("accuracy"))
}

fn degrees(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        // The parser that is here anyway.
        Value::String(text) => serde_json::from_slice::<Value>(text.as_bytes())
            .ok()?
            .as_f64(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

fn ask_command(text: &str, link: &Link, patience: Duration) -> Result<Value, Trouble> {
    let trouble = |description: String| Trouble::new("COMMAND_ERROR", description);
    let is_over = || link.is_over();
    let ran = command::capture_until(
        &mut command::shell(text),
        patience,
        COMMAND_OUTPUT,
        &is_over,
    );
    let output = ran.map_err(|error| trouble(format!("the command: {error}")))?;
    command::verdict(&output).map_err(|error| trouble(format!("the command: {error}")))?;
    let said: Value = serde_json::from_slice(&output.stdout)
        .map_err(|error| trouble(format!("the command printed no JSON: {error}")))?;
    let word = |name: &str| said.get(name).and_then(Value::as_str);
    if let Some(code) = word("error_code") {
        let description = word("error_description").unwrap_or_default();
        return Err(Trouble::new(code, description));
    }
    located(&said, "command").map_err(|error| trouble(format!("the command's answer: {error}")))
}

fn clipped(text: &str) -> String {
    let characters = text.chars().filter(|c| !c.is_control());
    characters.take(MAX_TEXT).collect()
}
