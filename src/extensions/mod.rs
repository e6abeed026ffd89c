//! What runs behind the names on the extensions topic.
//!
//! Each extension is a thread of its own that talks to the core through a [`Link`] only:
//! one that panics, hangs or floods is detached, and nobody else notices. A built-in one is
//! a file in this folder and a line in [`BUILT_IN`]; the integrator's own are
//! `program`s. Extensions must not know each other, the hub's connection or the core.

#[cfg(feature = "ext-geo")]
pub mod geo;
#[cfg(feature = "ext-health")]
pub mod health;
pub mod link;
#[cfg(feature = "ext-logging")]
pub mod logging;
#[cfg(debug_assertions)]
mod mischief;
#[cfg(feature = "ext-network-identity")]
pub mod network_identity;
#[cfg(feature = "ext-custom")]
pub mod program;
#[cfg(test)]
mod testing;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use serde_json::{Map, Value};

use crate::config::ExtensionSettings;
use crate::system::dial::Dialer;
pub use link::{Alarms, Link, Nudger, Speaker, Word};

/// What an extension does, on a thread of its own.
pub trait Extension: Send {
    /// Runs until [`Link::next`] says [`Word::Over`]; must then return soon. An error is
    /// reported to the hub as `NAME:error`, and the extension counts as detached.
    ///
    /// # Errors
    /// Why it cannot go on; for the hub and the log.
    fn run(&mut self, link: &mut Link) -> Result<(), String>;
}

/// When an extension's thread runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// From the first time it is attached, or asked for something, until it is detached.
    Attached,
    /// From the agent's start on, for there is something to collect.
    Always,
}

/// What there is to know about an extension before it runs.
pub struct Kind {
    pub name: &'static str,
    /// Newest first.
    pub versions: &'static [&'static str],
    pub life: Life,
    /// Makes it ready to run; cheap, for the dispatcher calls it.
    pub build: fn(&Arc<Site>) -> Box<dyn Extension>,
}

/// Where extensions run.
#[derive(Default)]
pub struct Site {
    pub settings: ExtensionSettings,
    pub identifier: String,
    /// The agent's own folder.
    pub data_path: PathBuf,
    /// What clients of the control socket gave an extension, by its name: outlives a detach.
    pub kept: Mutex<Map<String, Value>>,
    /// How other machines are reached, as downloads are. `None`: they are not.
    pub dialer: Option<Arc<Dialer>>,
    /// As for firmware: plain `http://` to other machines is allowed.
    pub allow_insecure: bool,
}

/// Those that are part of the agent, in the order in which they are offered.
pub static BUILT_IN: &[Kind] = &[
    #[cfg(feature = "ext-health")]
    health::KIND,
    #[cfg(feature = "ext-geo")]
    geo::KIND,
    #[cfg(feature = "ext-network-identity")]
    network_identity::KIND,
    #[cfg(feature = "ext-logging")]
    logging::KIND,
    #[cfg(debug_assertions)]
    mischief::KIND,
];
