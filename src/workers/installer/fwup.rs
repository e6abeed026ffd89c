//! Drives fwup: the firmware framed on its stdin, or named with `-i`; one process each way.
//!
//! Owns fwup's command line, and that a file nobody has proven is verified before it is
//! applied. Must not start fwup without a device to write to.

use std::path::Path;
use std::process::Command;

use super::error::Problem;
use super::manners::{Input, Manners, Speech, Watch};
use super::process::{Fate, Process};
use super::{Installation, Outcome, Source};
use crate::system::http::Cancel;
use crate::update::feed::{Drain, Feed};

/// The process's name in the log.
const NAME: &str = "fwup";
/// Far more than a zip's directory has, which is what follows its last file.
const DIRECTORY: usize = 1024 * 1024;

/// One attempt, from the first piece to fwup's end.
pub(super) fn install(
    site: &Installation,
    source: Source,
    feed: &Drain,
) -> Result<Outcome, String> {
    apply(site, source, feed).map_err(|problem| problem.to_string())
}

fn apply(site: &Installation, source: Source, feed: &Drain) -> Result<Outcome, Problem> {
    match source {
        Source::Stream(first) => {
            let process = start(site, command(site, None)?, Input::Pipe)?;
            match process.take_in(first, feed, site.cancel) {
                Fate::StartOver => return Ok(Outcome::StartOver),
                Fate::Ended {
                    verdict,
                    everything,
                } => {
                    verdict?;
                    if !everything {
                        return see_the_end(feed, site.cancel);
                    }
                }
            }
        }
        Source::File { path, proven } => {
            site.see_unchanged()?;
            if !proven {
                info!("nothing but its signature proves the file: fwup verifies it first");
                let verdict = start(site, verification(site, &path), Input::Nothing)?.finish();
                verdict.inspect_err(|problem| site.discard_unproven(&path, problem))?;
            }
            site.see_unchanged()?;
            start(site, command(site, Some(&path))?, Input::Nothing)?.finish()?;
            site.see_unchanged()?;
        }
    }
    Ok(Outcome::Installed)
}

/// fwup need not read what follows the last file, but only at the feed's end is all of it
/// proven.
fn see_the_end(feed: &Drain, cancel: &Cancel) -> Result<Outcome, Problem> {
    let mut left = DIRECTORY;
    loop {
        match feed.next(cancel) {
            Some(Feed::Chunk(chunk)) => {
                left = left
                    .checked_sub(chunk.payload().len())
                    .ok_or(Problem::Unread)?;
                feed.give_back(chunk);
            }
            Some(Feed::Restart) => return Ok(Outcome::StartOver),
            Some(Feed::End) => return Ok(Outcome::Installed),
            Some(Feed::File { .. }) | None => return Err(Problem::Cancelled),
        }
    }
}

fn start(site: &Installation, command: Command, input: Input) -> Result<Process, Problem> {
    let manners = Manners {
        name: NAME.to_owned(),
        speech: Speech::Frames,
        input,
        watch: Watch::Stall(site.settings.stall_timeout),
        cancel: Some(site.cancel.clone()),
    };
    Process::start(site, command, manners)
}

/// Applies the task, from stdin or a file.
fn command(site: &Installation, file: Option<&Path>) -> Result<Command, Problem> {
    let settings = site.settings;
    let devpath = site.order.devpath.as_ref().ok_or(Problem::NoDevice)?;
    info!("applying task {} to {}", settings.task, devpath.display());
    let mut command = bare(site);
    command.args(["--framing", "--apply", "--no-unmount"]);
    if let Some(file) = file {
        command.arg("-i").arg(file);
    }
    command.arg("-d").arg(devpath);
    command.args(["--task", &settings.task]);
    keys(site, &mut command);
    command.args(&settings.extra_options);
    Ok(command)
}

/// Checks signature and hashes, writes nothing.
fn verification(site: &Installation, file: &Path) -> Command {
    let mut command = bare(site);
    command.args(["--framing", "-V", "-i"]).arg(file);
    keys(site, &mut command);
    command
}

fn bare(site: &Installation) -> Command {
    let mut command = Command::new(&site.settings.path);
    super::process::environment(&mut command, site);
    command
}

fn keys(site: &Installation, command: &mut Command) {
    for key in &site.order.public_keys {
        command.args(["--public-key", key]);
    }
}
