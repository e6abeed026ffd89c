//! Where the device is said to be.
//!
//! Owns these settings' types and how they are read.

use crate::config::reader::Reader;

/// Where the device is said to be.
#[derive(Clone, Debug, Default)]
pub struct GeoSettings {}

pub(super) fn read(_r: &mut Reader) -> GeoSettings {
    GeoSettings {}
}
