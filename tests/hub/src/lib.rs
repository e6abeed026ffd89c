//! The development hub: the server's side of the device protocol, for tests and demos.
//!
//! It is written from the protocol, not from the agent: nothing here depends on the agent,
//! and it is as strict as the real server. What crashes a channel there crashes it here.
//!
//! * [`Hub`] is one server: device sockets, a transcript of every frame, and waits with a
//!   deadline ([`Hub::expect_join`], [`Hub::expect_push`], …) that print the transcript
//!   when they fail.
//! * [`store::Store`] serves firmware over HTTP(S), with faults on demand.
//! * [`proxy::Proxy`] is a logging CONNECT proxy.
//! * [`relay::Relay`] is a network that harms what it carries.
//! * [`certs`] makes CAs, server and client certificates.
//!
//! One thread per connection; shared state is one mutex with a condition variable that is
//! notified on every change, so no wait polls.

mod accept;
pub mod auth;
mod blake2b;
pub mod books;
mod builder;
pub mod catalog;
pub mod certs;
mod commands;
mod conn;
pub mod control;
mod der;
mod expect;
mod extensions;
mod firmware;
mod frame;
mod gate;
pub mod http;
mod hub;
mod net;
pub mod proxy;
pub mod relay;
mod session;
mod state;
pub mod store;
mod terminal;
mod tls;
mod transcript;
mod wake;
pub mod zip;

pub use builder::{Builder, Store as StoreMode, Tls};
pub use firmware::Firmware;
pub use frame::{Frame, Vsn};
pub use gate::{DateHeader, Gate, Refusal};
pub use hub::{Hub, Join};
pub use state::{TlsInfo, Upgrade};
pub use transcript::{Dir, Entry, Transcript};
