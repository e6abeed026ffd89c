//! The integrator's own extensions.
//!
//! Owns these settings' types and how they are read.

use std::path::PathBuf;

use crate::config::reader::Reader;
use crate::config::table::setting;

/// The integrator's own extensions.
#[derive(Clone, Debug, Default)]
pub struct CustomSettings {
    /// Each executable in it is one.
    pub folder: PathBuf,
}

pub(super) fn read(r: &mut Reader) -> CustomSettings {
    let folder = r.path(setting!("NERVES_HUB_EXTENSIONS_DIR"));
    CustomSettings {
        folder: folder.unwrap_or_default(),
    }
}
