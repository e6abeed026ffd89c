//! Drives the integrator's own installer, `PATH begin|finish|abort` (etc/doc/installers.md).
//!
//! Owns the order of the verbs: `finish` only after a `begin` that succeeded with every
//! byte, proven as far as the offer allows; after anything else that follows a start of
//! `begin`, exactly one `abort`. Must not judge the firmware: the program does.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::error::Problem;
use super::manners::{Input, Manners, Speech, Watch};
use super::process::{Fate, Process, environment};
use super::{Installation, Outcome, Source};
use crate::system::durable;
use crate::update::feed::{Chunk, Drain, Feed};

/// A program that counts the bytes may end before the feed's end is seen here.
const END_FOLLOWS: Duration = Duration::from_secs(1);
/// Where the firmware lies, if it lies in a file.
const FILE: &str = "NERVES_HUB_FIRMWARE_FILE";

/// One attempt, from the first piece to the end of `finish` or `abort`.
pub(super) fn install(
    site: &Installation,
    path: &Path,
    source: Source,
    feed: &Drain,
) -> Result<Outcome, String> {
    let (file, proven) = match &source {
        Source::Stream(_) => (None, site.order.offer.checksum.is_some()),
        Source::File { path, proven } => (Some(path.clone()), *proven),
    };
    let program = Program { site, path, file };
    let failed = |verb: &str, problem: Problem| format!("{verb}: {problem}");
    let (opened, begin) = site
        .see_unchanged()
        .and_then(|()| Opened::open(source))
        .and_then(|opened| Ok((opened, program.start("begin")?)))
        .map_err(|problem| failed("begin", problem))?;
    let fed = program
        .feed(begin, opened, feed)
        .and_then(|outcome| site.see_unchanged().map(|()| outcome));
    let installed = match fed {
        Ok(Outcome::Installed) => {
            if !proven && site.order.file.is_none() {
                warn!("finishing although the hub named no checksum to prove the file by");
            }
            let finished = program.finish().map(|()| Outcome::Installed);
            finished.map_err(|problem| ("finish", problem))
        }
        Ok(Outcome::StartOver) => Ok(Outcome::StartOver),
        Err(problem) => Err(("begin", problem)),
    };
    if !matches!(installed, Ok(Outcome::Installed)) {
        program.abort();
    }
    installed.map_err(|(verb, problem)| {
        if let Some(file) = program.file.as_deref().filter(|_| !proven) {
            site.discard_unproven(file, &problem);
        }
        failed(verb, problem)
    })
}

/// What `begin` is fed.
enum Opened {
    Stream(Chunk),
    File(File, PathBuf),
}

impl Opened {
    /// A file that cannot be read is no reason to start anything.
    fn open(source: Source) -> Result<Self, Problem> {
        match source {
            Source::Stream(first) => Ok(Self::Stream(first)),
            Source::File { path, .. } => {
                match durable::open(&path, OpenOptions::new().read(true)) {
                    Ok(file) => Ok(Self::File(file, path)),
                    Err(error) => Err(Problem::Read { path, error }),
                }
            }
        }
    }
}

struct Program<'a> {
    site: &'a Installation<'a>,
    path: &'a Path,
    file: Option<PathBuf>,
}

impl Program<'_> {
    fn start(&self, verb: &str) -> Result<Process, Problem> {
        let limit = self.site.settings.stall_timeout;
        let begins = verb == "begin";
        let manners = Manners {
            name: format!("{} {verb}", self.site.settings.installer.tool()),
            speech: Speech::Lines,
            input: match begins {
                true => Input::Pipe,
                false => Input::Nothing,
            },
            watch: match begins {
                true => Watch::Stall(limit),
                false => Watch::Deadline(limit),
            },
            // What was cancelled must still be cleaned up.
            cancel: (verb != "abort").then(|| self.site.cancel.clone()),
        };
        Process::start(self.site, self.command(verb), manners)
    }

    /// Values that are not known are empty, so that scripts may run under `set -u`.
    fn command(&self, verb: &str) -> Command {
        let order = &self.site.order;
        let offer = &order.offer;
        let mut command = Command::new(self.path);
        command.arg(verb);
        environment(&mut command, self.site);
        let checksum = offer.checksum.unwrap_or_default();
        let checksum: String = checksum.iter().map(|b| format!("{b:02X}")).collect();
        for (name, value) in [
            ("NERVES_HUB_INSTALL_UUID", offer.uuid.as_str()),
            ("NERVES_HUB_INSTALL_VERSION", &offer.version),
            ("NERVES_HUB_INSTALL_PRODUCT", &offer.product),
            (
                "NERVES_HUB_INSTALL_SIZE",
                &offer.size.map_or(String::new(), |size| size.to_string()),
            ),
            (
                "NERVES_HUB_INSTALL_CHECKSUM",
                offer.checksum.map_or("", |_| &checksum),
            ),
            (
                "NERVES_HUB_INSTALL_PUBLIC_KEYS",
                &order.public_keys.join(" "),
            ),
            ("NERVES_HUB_DEVICE_IDENTIFIER", &order.identifier),
        ] {
            command.env(name, value);
        }
        let devpath = order.devpath.as_deref().unwrap_or(Path::new(""));
        command.env("NERVES_HUB_INSTALL_DEVPATH", devpath);
        match &self.file {
            Some(file) => command.env(FILE, file),
            None => command.env_remove(FILE),
        };
        command
    }

    /// `begin` gets all bytes, or what came so far turns out to be void.
    fn feed(&self, begin: Process, opened: Opened, feed: &Drain) -> Result<Outcome, Problem> {
        match opened {
            Opened::Stream(first) => match begin.take_in(first, feed, self.site.cancel) {
                Fate::StartOver => return Ok(Outcome::StartOver),
                Fate::Ended {
                    verdict,
                    everything,
                } => {
                    verdict?;
                    if !everything && !end_follows(feed) {
                        return Err(Problem::Unread);
                    }
                }
            },
            // It may read the file itself and leave its input alone.
            Opened::File(file, path) => begin.pour_in(file, &path)?,
        }
        match self.site.cancel.is_cancelled() {
            true => Err(Problem::Cancelled),
            false => Ok(Outcome::Installed),
        }
    }

    fn finish(&self) -> Result<(), Problem> {
        self.start("finish")?.finish()
    }

    /// Its failure changes nothing: the installation has failed already.
    fn abort(&self) {
        if let Err(problem) = self.start("abort").and_then(Process::finish) {
            let tool = self.site.settings.installer.tool();
            warn!("{tool} abort: {problem}");
        }
    }
}

fn end_follows(feed: &Drain) -> bool {
    matches!(feed.pieces().recv_timeout(END_FOLLOWS), Ok(Feed::End))
}
