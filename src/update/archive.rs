//! Gets an archive's file from its URL to its place, resuming what an earlier run left.
//!
//! Owns the files: `UUID.download` while it is not verified, `UUID.fw` afterwards, and
//! `UUID.doubt` once it was found to be bad for the first time. Whether it is any good is
//! for others to say.

use std::fs;
use std::sync::{Arc, OnceLock};

use super::cache::Names;
use super::feed;
use super::means::Means;
use super::patience::Failure;
use super::store::{self, Wanted};
use crate::config::{ArchiveSettings, DownloadSettings};
use crate::core::event::{ArchiveEnd, InstallEvent};
use crate::system::channel;
use crate::system::dial::Dialer;
use crate::system::durable;
use crate::system::http::Cancel;
use crate::wire::Archive;

/// Most bytes of the note of a first no: some public keys.
const DOUBT_MAX: usize = 64 * 1024;

/// How files are fetched.
pub struct Ways {
    pub settings: DownloadSettings,
    pub dialer: Arc<Dialer>,
    pub allow_insecure: bool,
}

/// Fetches what is missing of the file.
///
/// # Errors
/// Why it is not whole.
pub fn fetch(
    archive: &Archive,
    names: &Names,
    ways: &Ways,
    cancel: &Cancel,
) -> Result<(), ArchiveEnd> {
    if let Some(size) = archive.size {
        names.shelf.allows(size).map_err(ArchiveEnd::Refused)?;
    }
    let refusal = OnceLock::new();
    let tell = |event| {
        if let InstallEvent::UrlRefused { reason, .. } = event {
            // The download ends with the first.
            let _ = refusal.set(reason);
        }
    };
    // No installer follows, and a refused URL is the end: the next one starts a new job.
    let (feed, _) = feed::channel();
    let (_, fresh_urls) = channel::bounded(0);
    let means = Means {
        settings: ways.settings,
        dialer: ways.dialer.clone(),
        allow_insecure: ways.allow_insecure,
        cancel,
        feed: &feed,
        tell: &tell,
        fresh_urls,
    };
    let wanted = Wanted {
        url: &archive.url,
        size: archive.size,
        checksum: None,
        partials: &[],
    };
    let fetched = store::keep(wanted, names, &means);
    match fetched {
        Ok(()) => Ok(()),
        Err(Failure::Failed(reason)) => Err(ArchiveEnd::Failed(reason)),
        Err(Failure::Abandoned) => Err(match refusal.get() {
            Some(reason) if !cancel.is_cancelled() => ArchiveEnd::UrlRefused {
                reason: reason.clone(),
                held: fs::metadata(names.partial()).map_or(0, |found| found.len()),
            },
            _ => ArchiveEnd::Cancelled,
        }),
    }
}

/// Gives the whole, verified and synced file its name; it is there from now on, whatever
/// happens.
///
/// # Errors
/// The system's.
pub fn place(names: &Names) -> Result<(), ArchiveEnd> {
    let (from, to) = (names.partial(), names.placed());
    fs::rename(&from, &to)
        .map_err(|error| failed(names.shelf.unusable("rename", &from, &error)))?;
    discard(names)?;
    names.shelf.sync().map_err(failed)
}

/// Removes what the download has left.
///
/// # Errors
/// The system's.
pub fn discard(names: &Names) -> Result<(), ArchiveEnd> {
    store::remove(names).map_err(failed)?;
    trust(names)
}

/// Removes a file that is no good any more.
///
/// # Errors
/// The system's.
pub fn remove_placed(names: &Names) -> Result<(), ArchiveEnd> {
    names.shelf.remove(&names.placed()).map_err(failed)?;
    trust(names)
}

/// Whether the file was found to be bad before, by these keys.
pub fn is_doubted(names: &Names, keys: &str) -> bool {
    let noted = durable::read(&names.doubt(), DOUBT_MAX).ok().flatten();
    noted.is_some_and(|noted| noted == keys.as_bytes())
}

/// Notes that it was.
///
/// # Errors
/// The system's.
pub fn doubt(names: &Names, keys: &str) -> Result<(), ArchiveEnd> {
    let path = names.doubt();
    durable::write(&path, keys.as_bytes())
        .map_err(|error| failed(names.shelf.unusable("write", &path, &error)))
}

/// Takes that back.
///
/// # Errors
/// The system's.
pub fn trust(names: &Names) -> Result<(), ArchiveEnd> {
    names.shelf.remove(&names.doubt()).map_err(failed)
}

/// Removes earlier archives: only the newest is kept.
pub fn tidy<'a>(settings: &ArchiveSettings, earlier: impl Iterator<Item = &'a str>) {
    for uuid in earlier {
        let names = Names::of_archive(settings, uuid);
        let path = names.placed();
        if fs::symlink_metadata(&path).is_ok() {
            info!("removing {}: a newer archive is here", path.display());
            if let Err(Failure::Failed(reason)) = names.shelf.remove(&path) {
                // Tried again with the next archive.
                warn!("{reason}");
            }
        }
    }
}

/// A failure of the folder's, as the worker's.
pub fn failed(failure: Failure) -> ArchiveEnd {
    match failure {
        Failure::Failed(reason) => ArchiveEnd::Failed(reason),
        Failure::Abandoned => ArchiveEnd::Cancelled,
    }
}
