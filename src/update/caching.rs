//! The strategy that keeps one file: downloaded, proven, then installed from it.
//!
//! The file survives crashes, reboots and power cuts: see [`store`].

use super::cache::Names;
use super::feed::Feed;
use super::means::Means;
use super::patience::Failure;
use super::store::{self, Wanted};
use crate::config::CacheSettings;
use crate::core::event::InstallEvent;
use crate::wire::Offer;

/// Downloads `offer` to its file, proves it, and gives it to the installer.
///
/// # Errors
/// See [`Failure`].
pub fn run(offer: &Offer, settings: &CacheSettings, means: &Means) -> Result<(), Failure> {
    let names = Names::new(settings, &offer.uuid);
    let wanted = Wanted {
        url: &offer.url,
        size: offer.size,
        checksum: offer.checksum,
        partials: &offer.partials,
    };
    store::keep(wanted, &names, means)?;
    (means.tell)(InstallEvent::Downloaded);
    means.send(Feed::File {
        path: names.partial(),
        proven: offer.checksum.is_some(),
    })
}
