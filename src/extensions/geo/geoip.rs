//! A service that knows where internet addresses are: one request, and its proof that it
//! was the service that answered. Must not keep anything.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::Read;
use std::time::Instant;

use serde_json::Value;

use super::{DEADLINE, located};
use crate::config::extensions::GeoSettings;
use crate::extensions::Site;
use crate::system::http::{self, Cancel, Limits};

/// The service's answer has a few hundred bytes.
const MAX_BODY: u64 = 64 * 1024;

pub(super) fn ask(settings: &GeoSettings, site: &Site, ends: Instant) -> Result<Value, String> {
    let name = http::without_query(&settings.url);
    fetch(settings, site, ends).map_err(|error| format!("{name}: {error}"))
}

fn fetch(settings: &GeoSettings, site: &Site, ends: Instant) -> Result<Value, String> {
    let limits = Limits {
        idle: DEADLINE,
        ends,
    };
    let dialer = site.dialer.clone().ok_or("there is no way to reach it")?;
    let cancel = Cancel::new().map_err(|error| error.to_string())?;
    let client = http::client(dialer, limits, site.allow_insecure, cancel);
    // The standard library keys its hasher with the system's random source.
    let nonce = format!("{:016x}", RandomState::new().build_hasher().finish());
    let separator = if settings.url.contains('?') { '&' } else { '?' };
    let response = client
        .get(format!("{}{separator}nonce={nonce}", settings.url))
        .header("accept", "application/json")
        .call()
        .map_err(|error| http::explain(&error))?;
    if response.status().as_u16() != 200 {
        return Err(format!("HTTP {}", response.status().as_u16()));
    }
    let echo = response.headers().get("x-nonce");
    if echo.is_none_or(|echo| echo.as_bytes() != nonce.as_bytes()) {
        return Err("its nonce did not come back: something on the way answered".to_owned());
    }
    let mut body = Vec::new();
    response
        .into_body()
        .into_reader()
        .take(MAX_BODY + 1)
        .read_to_end(&mut body)
        .map_err(|error| error.to_string())?;
    if body.len() as u64 > MAX_BODY {
        return Err(format!("the answer has more than {MAX_BODY} bytes"));
    }
    let mut said: Value =
        serde_json::from_slice(&body).map_err(|error| format!("the answer is no JSON: {error}"))?;
    if let Some(said) = said.as_object_mut() {
        // That is what this is, whatever it says.
        said.insert("source".to_owned(), "geoip".into());
    }
    located(&said, "geoip")
}
