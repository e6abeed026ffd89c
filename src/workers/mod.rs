//! One file, one thread. Workers turn the world into events and carry effects out;
//! nothing here decides.

pub mod archive;
pub mod download;
pub mod heartbeat;
pub mod hook;
pub mod installer;
pub mod signals;
pub mod socket;
pub mod spawn;
