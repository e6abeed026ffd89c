//! Thread `installer`: has the firmware of one feed applied, by fwup or by the integrator's
//! own program.
//!
//! Owns when an installation begins (with the first piece of the feed, which says whether
//! the firmware comes in pieces or lies in a file), starts over and ends. How each tool is
//! driven is in `fwup` and `program`, what their processes have in common in `process` and
//! `listener`. Right before it starts anything it looks whether the running slot is still
//! safe, and it notes in the journal what must outlive the agent. Must not know how the
//! firmware was downloaded.

mod error;
mod fwup;
mod listener;
mod manners;
mod process;
mod program;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use crate::config::{FwupSettings, Installer};
use crate::core::effect::InstallOrder;
use crate::core::event::{Event, InstallEvent, JobId};
use crate::system::channel::Sender;
use crate::system::durable;
use crate::system::firmware_file;
use crate::system::http::Cancel;
use crate::system::slots::Guard;
use crate::update::feed::{Chunk, Drain, Feed};
use crate::update::journal::Journal;
use error::Problem;

/// Applies what the feed brings, failing or not; `Finished` is the last event.
///
/// # Errors
/// None; failures are in [`InstallEvent::Finished`].
pub fn run(
    job: JobId,
    order: InstallOrder,
    feed: Drain,
    cancel: &Cancel,
    journal: &Journal,
    guard: &Guard,
    inbox: &Sender<Event>,
) -> Result<(), String> {
    let mut installation = Installation {
        job,
        settings: &guard.settings.fwup,
        order,
        cancel,
        inbox,
        has_begun: false,
    };
    let result = installation.run(&feed, journal, guard);
    let uuid = &installation.order.offer.uuid;
    match &result {
        // Before anybody hears of it: whatever happens next, the reboot is owed.
        Ok(()) => journal.installed(uuid, guard.record()),
        Err(_) if installation.has_begun && guard.take_back(uuid) => journal.clear(),
        // Nothing was noted, or what was is still to be put right.
        Err(_) => {}
    }
    // A download that waits for room in the feed must end, too.
    drop(feed);
    cancel.cancel();
    // The dispatcher is gone only when the process leaves.
    let _ = inbox.send(Event::Install(job, InstallEvent::Finished(result)));
    Ok(())
}

/// What all processes of one installation share.
struct Installation<'a> {
    job: JobId,
    settings: &'a FwupSettings,
    order: InstallOrder,
    cancel: &'a Cancel,
    inbox: &'a Sender<Event>,
    /// A process may have been started.
    has_begun: bool,
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
    fn run(&mut self, feed: &Drain, journal: &Journal, guard: &Guard) -> Result<(), String> {
        let settings = self.settings;
        // The hub recognises "fwup error".
        let failed = |reason| format!("{} error: {reason}", settings.installer.tool());
        loop {
            let source =
                first_piece(feed, self.cancel).map_err(|problem| failed(problem.to_string()))?;
            self.order.devpath = guard.aim()?;
            journal.applying(&self.order.offer.uuid);
            self.has_begun = true;
            let outcome = match &settings.installer {
                Installer::Fwup => fwup::install(self, source, feed),
                Installer::Command(path) => program::install(self, path, source, feed),
            };
            match outcome.map_err(failed)? {
                Outcome::Installed => return Ok(()),
                Outcome::StartOver => info!("the installer starts over"),
            }
        }
    }

    /// A file of somebody else's is opened more than once, by whoever does something to it:
    /// it must be the same each time, and after it, as it was when it was judged.
    fn see_unchanged(&self) -> Result<(), Problem> {
        let Some(path) = &self.order.file else {
            return Ok(());
        };
        match firmware_file::stamp(path) {
            Ok(stamp) if stamp == self.order.stamp => Ok(()),
            Ok(_) => Err(Problem::Changed),
            Err(error) => Err(Problem::Read {
                path: path.clone(),
                error,
            }),
        }
    }

    /// A file that nothing but its judge's word proves, and the judge said no: the next
    /// attempt must not begin with it. One that somebody has put there is left alone.
    fn discard_unproven(&self, path: &Path, problem: &Problem) {
        if !problem.is_its_word() || self.order.file.is_some() {
            return;
        }
        warn!("removing {}: {problem}", path.display());
        if let Err(error) = durable::remove(path) {
            warn!("cannot remove {}: {error}", path.display());
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
