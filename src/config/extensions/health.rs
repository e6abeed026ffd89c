//! What the health extension measures and reports.
//!
//! Owns these settings' types and how they are read.

use crate::config::reader::Reader;

/// What the health extension measures and reports.
#[derive(Clone, Debug, Default)]
pub struct HealthSettings {}

pub(super) fn read(_r: &mut Reader) -> HealthSettings {
    HealthSettings {}
}
