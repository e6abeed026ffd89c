//! Where the device is said to be.
//!
//! Owns these settings' types and how they are read.

use std::time::Duration;

use crate::config::address;
use crate::config::error::Problem;
use crate::config::reader::Reader;
use crate::config::table::setting;

/// gpsd's own.
const GPSD_PORT: u16 = 2947;

/// Where the device is said to be.
#[derive(Clone, Debug, Default)]
pub struct GeoSettings {
    pub source: GeoSource,
    /// Of the geoip service.
    pub url: String,
    /// How long its answer is good for.
    pub cache: Duration,
}

/// Who knows where the device is.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum GeoSource {
    /// A service that looks the device's internet address up.
    #[default]
    GeoIp,
    Fixed {
        latitude: f64,
        longitude: f64,
        /// Metres.
        accuracy: Option<f64>,
    },
    /// Run through `/bin/sh -c`.
    Command(String),
    Gpsd {
        host: String,
        port: u16,
    },
}

pub(super) fn read(r: &mut Reader) -> GeoSettings {
    GeoSettings {
        source: r
            .parsed(setting!("NERVES_HUB_GEO"), source)
            .unwrap_or_default(),
        url: r
            .parsed(setting!("NERVES_HUB_GEO_URL"), url)
            .unwrap_or_default(),
        cache: r.duration(setting!("NERVES_HUB_GEO_CACHE")),
    }
}

fn source(text: &str) -> Result<GeoSource, Problem> {
    match text.split_once(':') {
        None if text == "geoip" => Ok(GeoSource::GeoIp),
        Some(("fixed", place)) => fixed(place),
        Some(("command", command)) if !command.trim().is_empty() => {
            Ok(GeoSource::Command(command.trim().to_owned()))
        }
        Some(("gpsd", place)) => {
            let (host, port) = address::place(place, GPSD_PORT)?;
            Ok(GeoSource::Gpsd { host, port })
        }
        _ => Err(Problem::new(
            "is no source of locations",
            "use geoip, fixed:LAT,LON, command:COMMAND or gpsd:HOST",
        )),
    }
}

fn fixed(text: &str) -> Result<GeoSource, Problem> {
    let mut words = text.split(',');
    let mut next = |limit: f64| {
        let number = degrees(words.next()?.trim())?;
        (number.abs() <= limit).then_some(number)
    };
    let (latitude, longitude) = (next(90.0), next(180.0));
    let accuracy = words.next().map(|word| degrees(word.trim()));
    match (latitude, longitude, accuracy, words.next()) {
        (Some(latitude), Some(longitude), None, None) => Ok(GeoSource::Fixed {
            latitude,
            longitude,
            accuracy: None,
        }),
        (Some(latitude), Some(longitude), Some(Some(accuracy)), None) if accuracy >= 0.0 => {
            Ok(GeoSource::Fixed {
                latitude,
                longitude,
                accuracy: Some(accuracy),
            })
        }
        _ => Err(Problem::new(
            "is no place",
            "use degrees between -90 and 90, between -180 and 180, and metres: fixed:52.52,13.4,20",
        )),
    }
}

/// By the JSON parser: that of the standard library would only be here for this.
fn degrees(text: &str) -> Option<f64> {
    serde_json::from_slice::<serde_json::Value>(text.as_bytes())
        .ok()?
        .as_f64()
}

fn url(text: &str) -> Result<String, Problem> {
    let is_url = ["https://", "http://"].iter().any(|scheme| {
        let rest = text.strip_prefix(scheme);
        rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['/', '?', '#']))
    });
    match is_url && !text.contains(['#', ' ']) {
        true => Ok(text.to_owned()),
        false => Err(Problem::new("is no URL", "use https://HOST/PATH")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_understood() {
        let gpsd = |host: &str, port| GeoSource::Gpsd {
            host: host.to_owned(),
            port,
        };
        let fixed = |latitude, longitude, accuracy| GeoSource::Fixed {
            latitude,
            longitude,
            accuracy,
        };
        for (text, expected) in [
            ("geoip", GeoSource::GeoIp),
            ("fixed:52.5,-13", fixed(52.5, -13.0, None)),
            ("fixed: -90, 180, 20", fixed(-90.0, 180.0, Some(20.0))),
            ("command: a b:c ", GeoSource::Command("a b:c".into())),
            ("gpsd:gps.lan", gpsd("gps.lan", 2947)),
            ("gpsd:[::1]:3000", gpsd("::1", 3000)),
        ] {
            assert_eq!(source(text), Ok(expected), "{text}");
        }
        for bad in [
            "",
            "gps",
            "geoip:",
            "fixed:",
            "fixed:1",
            "fixed:91,0",
            "fixed:0,180.5",
            "fixed:0,0,-1",
            "fixed:0,0,1,1",
            "fixed:0,0,",
            "fixed:N,E",
            "command: ",
            "gpsd:",
            "gpsd:h:0",
        ] {
            assert!(source(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn urls_are_those_of_http() {
        for good in ["https://h/", "http://127.0.0.1:80/x?a=b"] {
            assert_eq!(url(good).as_deref(), Ok(good));
        }
        for bad in ["h", "ftp://h", "https://", "https:///x", "https://h/#a"] {
            assert!(url(bad).is_err(), "{bad}");
        }
    }
}
