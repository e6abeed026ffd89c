//! Thread `download`: fetches one offer and feeds it to the installer.

use crossbeam_channel::Sender;

use crate::core::event::{Event, InstallEvent, JobId};
use crate::update::streaming::{self, Failure, Means};
use crate::wire::Offer;

/// Runs one download to its end.
///
/// # Errors
/// None; failures are [`InstallEvent`]s.
pub fn run(job: JobId, offer: &Offer, means: &Means, inbox: &Sender<Event>) -> Result<(), String> {
    match streaming::run(offer, means) {
        Ok(()) | Err(Failure::Abandoned) => {}
        Err(Failure::Failed(reason)) => {
            // The dispatcher is gone only when the process leaves.
            let _ = inbox.send(Event::Install(job, InstallEvent::DownloadFailed(reason)));
        }
    }
    Ok(())
}
