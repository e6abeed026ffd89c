//! The integrator's own extensions.
//!
//! Owns these settings' types and how they are read.

use crate::config::reader::Reader;

/// The integrator's own extensions.
#[derive(Clone, Debug, Default)]
pub struct CustomSettings {}

pub(super) fn read(_r: &mut Reader) -> CustomSettings {
    CustomSettings {}
}
