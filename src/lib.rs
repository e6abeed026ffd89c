//! NervesHub device agent: a tour of the code.
//!
//! Worker threads turn the world into [`core::event::Event`]s; the dispatcher
//! ([`agent`]) hands each to the [`core`], which answers with
//! [`core::effect::Effect`]s; workers carry those out. Nothing else talks to anything else.
//!
//! * [`config`]: the environment, parsed once into types; the table of settings.
//! * [`wire`]: bytes to types and back. Pure.
//! * [`auth`]: proving who the device is. Pure.
//! * [`core`]: decides. Pure: tested as `(events, time) -> effects`.
//! * [`workers`]: one file, one thread.
//! * [`update`]: how firmware gets from a URL to the installer.
//! * [`extensions`]: what is sent to the hub beside updates, each apart from the rest.
//! * [`system`]: network, clock, processes, key-value stores.
//! * [`cli`]: the commands beside running.
//!
//! Firmware bytes never pass the dispatcher: download → bounded channel → installer.

// First, for its macros are known to what comes after.
#[macro_use]
pub mod say;

pub mod agent;
pub mod auth;
pub mod cli;
pub mod config;
pub mod core;
pub mod exit;
pub mod extensions;
pub mod logging;
pub mod system;
pub mod update;
pub mod wire;
pub mod workers;

/// Sent to the hub and to download servers.
pub const USER_AGENT: &str = concat!("nerveshub-agent/", env!("CARGO_PKG_VERSION"));
