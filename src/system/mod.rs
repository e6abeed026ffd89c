//! Where the agent touches the machine: network, clock, processes, files.

#[cfg(panic = "abort")]
mod backtrace;
pub mod channel;
pub mod command;
pub mod configure;
pub mod dial;
pub mod durable;
pub mod firmware_file;
pub mod footprint;
pub mod hook;
pub mod http;
pub mod identity;
pub mod interface;
pub mod kv;
pub mod local_time;
pub mod lock;
pub mod metadata;
pub mod notify;
#[cfg(small_p256)]
mod p256;
pub mod reboot;
pub mod session;
pub mod slots;
pub mod stream;
pub mod tally;
pub mod thread;
pub mod time;
pub mod tls;
pub mod trust;
pub mod uboot_env;
pub mod waker;
