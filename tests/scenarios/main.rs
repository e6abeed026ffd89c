//! Scenarios: the real agent as a process against the development hub, over real sockets,
//! with real TLS, processes and files.

mod archives;
mod board;
mod channel;
mod clock;
mod config;
mod faults;
mod frames;
mod fwup;
mod gate;
mod hooks;
mod installer;
mod keys;
mod kill_sweep;
mod link;
mod matrix;
mod memory;
mod mtls;
mod outage;
mod patience;
mod policy;
mod proxy;
mod redirect;
mod refusals;
mod rig;
mod secrets;
mod serializer;
mod service;
mod signals;
mod slots;
mod stage;
mod storage;
mod tampering;
mod tls;
mod trial;
mod update;
