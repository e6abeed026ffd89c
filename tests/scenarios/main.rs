//! Scenarios: the real agent as a process against the development hub, over real sockets,
//! with real TLS, processes and files.

mod rig;
mod update;
