//! One file, one thread. Workers turn the world into events and carry effects out;
//! nothing here decides.

pub mod alarm_files;
pub mod archive;
pub mod control;
pub mod download;
pub mod heartbeat;
pub mod hook;
pub mod identify;
pub mod installer;
pub mod script;
pub mod send_file;
pub mod shell;
pub mod signals;
pub mod socket;
pub mod spawn;
pub mod uploads;
