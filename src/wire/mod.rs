//! Bytes to types and back. Pure: no I/O, no clock, no decisions.

pub mod console;
pub mod external_term;
pub mod file;
pub mod frame_limit;
pub mod fwup_frame;
pub mod inbound;
pub mod installer_line;
pub mod outbound;
pub mod phoenix;
pub mod script_text;

pub use console::{ConsoleEvent, ConsolePush};
pub use file::{FileEvent, FilePush};
pub use inbound::{Archive, DeviceEvent, Inbound, Offer, PART, Reply, ScriptRequest};
pub use outbound::{DevicePush, Outbound, Push, ScriptAnswer, Stage};
pub use phoenix::{Topic, WireError};
