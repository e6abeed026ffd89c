//! What runs behind the names on the extensions topic.
//!
//! Each extension is a thread of its own that talks to the core through a [`Link`] only:
//! one that panics, hangs or floods is detached, and nobody else notices. A built-in one is
//! a file in this folder and a line in [`BUILT_IN`]; the integrator's own are `program`s. Extensions must not know each other, the hub's connection or the core.

pub mod link;
#[cfg(debug_assertions)]
mod mischief;
#[cfg(feature = "ext-custom")]
pub mod program;

use std::path::PathBuf;
use std::sync::Arc;

use crate::config::ExtensionSettings;
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
pub struct Site {
    pub settings: ExtensionSettings,
    pub identifier: String,
    /// The agent's own folder.
    pub data_path: PathBuf,
}

/// Those that are part of the agent, in the order in which they are offered.
pub static BUILT_IN: &[Kind] = &[
    #[cfg(debug_assertions)]
    mischief::KIND,
];
