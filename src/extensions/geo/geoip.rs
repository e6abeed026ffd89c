//! A service that knows where internet addresses are: one request, and its proof that it
//! was the service that answered. Must not keep anything.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{TICK, located};
use crate::extensions::{Link, Site};
use crate::system::channel::{self, RecvTimeoutError};
use crate::system::http::{self, Cancel, Limits};
use crate::system::thread;

/// The service's answer has a few hundred bytes.
const MAX_BODY: u64 = 64 * 1024;

/// Comes back soon after the link is over.
pub(super) fn ask(site: &Arc<Site>, link: &Link, patience: Duration) -> Result<Value, String> {
    let found = await_answer(site, link, patience);
    let name = http::without_query(&site.settings.geo.url);
    found.map_err(|error| format!("{name}: {error}"))
}

/// On a thread of its own, for a name lookup or a connect cannot be interrupted: it is left
/// to its deadline then.
fn await_answer(site: &Arc<Site>, link: &Link, patience: Duration) -> Result<Value, String> {
    let cancel = Cancel::new().map_err(|error| error.to_string())?;
    let (sender, answers) = channel::bounded(1);
    let (last_words, site, stop) = (sender.clone(), site.clone(), cancel.clone());
    // Nobody listens any more after a detach.
    let on_panic = move |panic| drop(last_words.send(Err(panic)));
    let work = move || drop(sender.send(fetch(&site, patience, stop)));
    thread::spawn("geoip", on_panic, work).map_err(|error| error.to_string())?;
    loop {
        match answers.recv_timeout(TICK) {
            Ok(answer) => return answer,
            Err(RecvTimeoutError::Timeout) if !link.is_over() => {}
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                cancel.cancel();
                return Err("it is not wanted any more".to_owned());
            }
        }
    }
}

fn fetch(site: &Site, patience: Duration, cancel: Cancel) -> Result<Value, String> {
    let settings = &site.settings.geo;
    let limits = Limits {
        idle: patience,
        ends: Instant::now() + patience,
    };
    let dialer = site.dialer.clone().ok_or("there is no way to reach it")?;
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
