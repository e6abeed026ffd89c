//! One file, one thread. Workers turn the world into events and carry effects out;
//! nothing here decides.

pub mod archive;
pub mod control;
pub mod download;
pub mod heartbeat;
pub mod installer;
pub mod signals;
pub mod socket;
pub mod spawn;
