//! Scenarios: the real agent as a process against the development hub, over real sockets,
//! with real TLS, processes and files.

mod archives;
mod channel;
mod clock;
mod config;
mod faults;
mod frames;
mod fwup;
mod gate;
mod keys;
mod link;
mod memory;
mod mtls;
mod outage;
mod proxy;
mod redirect;
mod refusals;
mod rig;
mod secrets;
mod serializer;
mod signals;
mod stage;
mod tls;
mod update;
