//! Thread `download`: fetches one offer and feeds it to the installer.

use crate::config::{CacheSettings, Strategy};
use crate::core::event::{Event, InstallEvent, JobId};
use crate::system::channel::Sender;
use crate::update::means::Means;
use crate::update::patience::Failure;
use crate::update::{caching, parts, streaming};
use crate::wire::Offer;

/// Runs one download to its end.
///
/// # Errors
/// None; failures are [`InstallEvent`]s.
pub fn run(
    job: JobId,
    offer: &Offer,
    cache: &CacheSettings,
    means: &Means,
    inbox: &Sender<Event>,
) -> Result<(), String> {
    let ended = match cache.strategy {
        Strategy::Streaming => streaming::run(offer, means),
        Strategy::Caching => caching::run(offer, cache, means),
        Strategy::Parts => parts::run(offer, cache, means),
    };
    match ended {
        Ok(()) | Err(Failure::Abandoned) => {}
        Err(Failure::Failed(reason)) => {
            // The dispatcher is gone only when the process leaves.
            let _ = inbox.send(Event::Install(job, InstallEvent::DownloadFailed(reason)));
        }
    }
    Ok(())
}
