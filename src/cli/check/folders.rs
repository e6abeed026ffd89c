//! The folders that the agent keeps things in: state, firmware, archives.
//!
//! Must not make them: that is the agent's.

use std::path::Path;

use nix::unistd::{AccessFlags, access};

use super::{Level, Report};
use crate::config::{ArchivePolicy, Config, Strategy};
use crate::update::cache;

const MIB: u64 = 1024 * 1024;
/// With less than this free no firmware will fit.
const LITTLE: u64 = 2 * MIB;

pub(super) fn examine(report: &mut Report, config: &Config) {
    check(
        report,
        "data path",
        &config.data_path,
        "NERVES_HUB_DATA_PATH",
    );
    if let Some(folder) = &config.service.alarms {
        check(report, "alarm files", folder, "NERVES_HUB_ALARM_DIR");
    }
    match config.cache.strategy {
        Strategy::Streaming => {}
        Strategy::Caching | Strategy::Parts => {
            let setting = "NERVES_HUB_CACHE_DIR";
            check_with_room(report, "cache", &config.cache.folder, setting);
        }
    }
    match config.archives.policy {
        ArchivePolicy::Ignore => {}
        ArchivePolicy::Ask | ArchivePolicy::Download => {
            let setting = "NERVES_HUB_ARCHIVE_DIR";
            check_with_room(report, "archives", &config.archives.folder, setting);
        }
    }
}

fn check(report: &mut Report, subject: &'static str, path: &Path, setting: &str) {
    match look_at(path, setting) {
        Ok((_, text)) => report.ok(subject, text),
        Err(text) => report.error(subject, text),
    }
}

/// For files that may be large.
fn check_with_room(report: &mut Report, subject: &'static str, path: &Path, setting: &str) {
    match look_at(path, setting) {
        Ok((folder, text)) => {
            let (level, text) = weigh_room(cache::free(folder), text, setting);
            report.add(level, subject, text);
        }
        Err(text) => report.error(subject, text),
    }
}

fn weigh_room(free: Option<u64>, text: String, setting: &str) -> (Level, String) {
    match free {
        Some(free) if free < LITTLE => (
            Level::Warn,
            format!("{text}, but has only {free} bytes free; make room or change {setting}"),
        ),
        Some(free) => (Level::Ok, format!("{text}, {} MiB free", free / MIB)),
        // The writes will tell.
        None => (Level::Ok, text),
    }
}

/// The folder itself or the one it would be made in, and what can be done there.
fn look_at<'a>(path: &'a Path, setting: &str) -> Result<(&'a Path, String), String> {
    let usable = AccessFlags::W_OK | AccessFlags::X_OK;
    // The end of a relative path's ancestors is the empty path.
    let here = |folder| {
        if folder == Path::new("") {
            Path::new(".")
        } else {
            folder
        }
    };
    let existing = path.ancestors().map(here).find(|folder| folder.exists());
    let shown = path.display();
    match existing {
        Some(folder) if !folder.is_dir() => Err(format!("{} is not a folder", folder.display())),
        Some(folder) if access(folder, usable).is_err() => Err(format!(
            "{} may not be written by this user; change it or {setting}",
            folder.display()
        )),
        Some(folder) if folder == path => Ok((folder, format!("{shown} is writable"))),
        other => Ok((
            other.unwrap_or(Path::new("/")),
            format!("{shown} can be created"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_room_is_a_warning() {
        for (free, level, end) in [
            (None, Level::Ok, "is writable"),
            (Some(2 * MIB), Level::Ok, "is writable, 2 MiB free"),
            (
                Some(2 * MIB - 1),
                Level::Warn,
                "has only 2097151 bytes free; make room or change SETTING",
            ),
        ] {
            let found = weigh_room(free, "/x is writable".to_owned(), "SETTING");
            assert!(found.0 == level && found.1.ends_with(end), "{}", found.1);
        }
    }
}
