//! Bytes to types and back. Pure: no I/O, no clock, no decisions.

pub mod console;
pub mod control;
pub mod device;
pub mod extensions;
pub mod external_term;
pub(crate) mod fields;
pub mod file;
pub mod frame_limit;
pub mod fwup_frame;
pub mod inbound;
pub mod installer_line;
pub mod json;
pub mod occurrence;
pub mod outbound;
pub mod phoenix;
pub mod script_text;
pub mod verdict;

pub use console::{ConsoleEvent, ConsolePush, WindowSize};
pub use device::{Archive, DeviceEvent, Offer, PART, ScriptRequest, is_uuid};
pub use extensions::{
    Advertised, ExtensionPush, ExtensionsEvent, LOCAL_SHELL, LocalShellEvent, Offered, Said,
    Selection,
};
pub(crate) use fields::clip;
pub use file::{FileEvent, FilePush};
pub use inbound::{Inbound, Reply};
pub use outbound::{DevicePush, Outbound, Push, ScriptAnswer, Stage};
pub use phoenix::{Topic, WireError};
