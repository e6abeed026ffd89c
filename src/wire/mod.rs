//! Bytes to types and back. Pure: no I/O, no clock, no decisions.

pub mod external_term;
pub mod frame_limit;
pub mod fwup_frame;
pub mod inbound;
pub mod installer_line;
pub mod occurrence;
pub mod outbound;
pub mod phoenix;
pub mod verdict;

pub use inbound::{Archive, DeviceEvent, Inbound, Offer, PART, Reply};
pub use outbound::{DevicePush, Outbound, Push, Stage};
pub use phoenix::{Topic, WireError};
