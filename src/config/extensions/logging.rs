//! Which log lines are sent to the hub.
//!
//! Owns these settings' types and how they are read.

use crate::config::reader::Reader;

/// Which log lines are sent to the hub.
#[derive(Clone, Debug, Default)]
pub struct LoggingSettings {}

pub(super) fn read(_r: &mut Reader) -> LoggingSettings {
    LoggingSettings {}
}
