//! Thread `installer`: has the firmware of one feed applied, by fwup or by the integrator's
//! own program.
//!
//! Owns when an installation begins (with the first piece of the feed, which says whether
//! the firmware comes in pieces or lies in a file), starts over and ends. How each tool is
//! driven is in `fwup` and `program`, what their processes have in common in `process` and
//! `listener`. Notes in the journal what must outlive the agent. Must not know how the firmware was downloaded.

mod error;
mod fwup;
mod listener;
mod process;
mod program;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use crossbeam_channel::Sender;

use crate::config::{FwupSettings, Installer};
use crate::core::effect::InstallOrder;
use crate::core::event::{Event, InstallEvent, JobId};
use crate::system::durable;
use crate::system::http::Cancel;
use crate::update::feed::{Chunk, Drain, Feed};
use crate::update::journal::{Journal, Stage};
use error::Problem;

/// Applies what the feed brings, failing or not; `Finished` is the last event.
///
/// # Errors
/// None; failures are in [`InstallEvent::Finished`].
pub fn run(
    job: JobId,
    settings: &FwupSettings,
    order: &InstallOrder,
    feed: Drain,
    cancel: &Cancel,
    journal: &Journal,
    inbox: &Sender<Event>,
) -> Result<(), String> {
    let installation = Installation {
        job,
        settings,
        order,
        cancel,
        journal,
        inbox,
    };
    let verdict = installation.run(&feed);
    match verdict {
        // Before anybody hears of it: whatever happens next, the reboot is owed.
        Ok(()) => journal.write(Stage::Installed, &order.offer.uuid),
        Err(_) => journal.clear(),
    }
    // A download that waits for room in the feed must end, too.
    drop(feed);
    cancel.cancel();
    // The hub recognises "fwup error".
    let result = verdict.map_err(|reason| format!("{} error: {reason}", settings.installer.tool()));
    // The dispatcher is gone only when the process leaves.
    let _ = inbox.send(Event::Install(job, InstallEvent::Finished(result)));
    Ok(())
}

/// What all processes of one installation share.
struct Installation<'a> {
    job: JobId,
    settings: &'a FwupSettings,
    order: &'a InstallOrder,
    cancel: &'a Cancel,
    journal: &'a Journal,
    inbox: &'a Sender<Event>,
}

/// Where the firmware is.
enum Source {
    /// This is its beginning; the rest follows in the feed.
    Stream(Chunk),
    /// All of it is here; nothing follows.
    File { path: PathBuf, proven: bool },
}

/// How an attempt ended that did not fail.
enum Outcome {
    Installed,
    /// What came so far is void, and has been cleaned up.
    StartOver,
}

impl Installation<'_> {
    fn run(&self, feed: &Drain) -> Result<(), String> {
        loop {
            let source = first_piece(feed, self.cancel).map_err(|problem| problem.to_string())?;
            self.journal.write(Stage::Applying, &self.order.offer.uuid);
            let outcome = match &self.settings.installer {
                Installer::Fwup => fwup::install(self, source, feed)?,
                Installer::Command(path) => program::install(self, path, source, feed)?,
            };
            match outcome {
                Outcome::Installed => return Ok(()),
                Outcome::StartOver => log::info!("the installer starts over"),
            }
        }
    }
}

/// Nothing is started, and nothing on the device touched, before there is something to
/// write. A download that is cancelled ends the wait, mostly by dropping its end of the feed.
fn first_piece(feed: &Drain, cancel: &Cancel) -> Result<Source, Problem> {
    loop {
        match feed.next(cancel) {
            Some(Feed::Chunk(chunk)) => return Ok(Source::Stream(chunk)),
            Some(Feed::File { path, proven }) => return Ok(Source::File { path, proven }),
            Some(Feed::Restart) => {}
            Some(Feed::End) => return Err(Problem::Empty),
            None => return Err(Problem::Cancelled),
        }
    }
}

/// A file that nothing but its judge's word proves, and the judge said no: the next attempt
/// must not begin with it.
fn discard_unproven(path: &Path, problem: &Problem) {
    if !problem.is_its_word() {
        return;
    }
    log::warn!("removing {}: {problem}", path.display());
    if let Err(error) = durable::remove(path) {
        log::warn!("cannot remove {}: {error}", path.display());
    }
}
