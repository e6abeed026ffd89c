//! Proving who the device is. Pure: keys, text and time in, headers out.

pub mod server_clock;
pub mod shared_secret;
