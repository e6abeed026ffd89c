//! Whether what stands in a file may be run, or believed, with the agent's own rights.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::unistd::geteuid;

/// Whoever can write to it has the device.
///
/// # Errors
/// Why it is not to be trusted, and the way out.
pub fn judge(found: &Metadata) -> Result<(), &'static str> {
    if found.uid() != 0 && found.uid() != geteuid().as_raw() {
        Err("belongs to another user (chown it)")
    } else if found.mode() & 0o002 != 0 {
        Err("can be written by everybody (chmod o-w)")
    } else {
        Ok(())
    }
}

/// The same by its path.
///
/// # Errors
/// As [`judge`], or it cannot be looked at.
pub fn judge_path(path: &Path) -> Result<(), String> {
    let found = path.metadata().map_err(|error| error.to_string())?;
    judge(&found).map_err(str::to_owned)
}
