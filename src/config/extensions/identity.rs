//! Which networks the device says it is known in.
//!
//! Owns these settings' types and how they are read.

use crate::config::reader::Reader;

/// Which networks the device says it is known in.
#[derive(Clone, Debug, Default)]
pub struct IdentitySettings {}

pub(super) fn read(_r: &mut Reader) -> IdentitySettings {
    IdentitySettings {}
}
