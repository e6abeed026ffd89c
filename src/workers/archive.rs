//! Thread `archive`: fetches, verifies and places one archive, then runs the ready command.
//!
//! Each step leaves something on the disk that the next run goes on from, so that power
//! may fail between any two: the file so far; its place in the ledger; its final name; the
//! count of the ready command's starts. What was not handled to its end is verified
//! anew.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::config::{ArchiveSettings, FwupSettings, Hook};
use crate::core::effect::ArchiveOrder;
use crate::core::event::{ArchiveEnd, Event, HookEnd, JobId};
use crate::system::channel::Sender;
use crate::system::command::{self, CommandError};
use crate::system::hook::{Call, Site};
use crate::system::http::Cancel;
use crate::update::archive::{self, Ways};
use crate::update::cache::Names;
use crate::update::ledger::Ledger;
use crate::wire::occurrence::Occurrence;

/// Verifying may take this long, and longer for large files.
const VERIFY_MIN: Duration = Duration::from_secs(300);
/// Bytes that even a slow device verifies in a second.
const VERIFY_SPEED: u64 = 256 * 1024;
/// The ready command is killed when it takes longer.
const READY_DEADLINE: Duration = Duration::from_secs(300);
/// The hook may take so many times as long as others.
const READY_PATIENCE: u32 = 30;
const COMMAND_OUTPUT: usize = 64 * 1024;
/// fwup's status when the archive is not good, mostly; others speak of fwup itself.
const NOT_GOOD: i32 = 1;

/// What the work needs besides its order.
pub struct Tools {
    pub settings: ArchiveSettings,
    pub fwup: FwupSettings,
    pub ways: Ways,
    /// Folder of the ledger.
    pub data_path: PathBuf,
    /// Where `archive-ready` is.
    pub hooks: Site,
}

/// Works on one archive; how that ended is its only event.
///
/// # Errors
/// None; failures are in [`ArchiveEnd`].
pub fn run(
    job: JobId,
    order: &ArchiveOrder,
    tools: &Tools,
    cancel: &Cancel,
    inbox: &Sender<Event>,
) -> Result<(), String> {
    let work = Work {
        order,
        tools,
        cancel,
        uuid: &order.archive.uuid,
        names: Names::of_archive(&tools.settings, &order.archive.uuid),
    };
    let end = match work.run() {
        Ok(()) => ArchiveEnd::Handled(work.names.placed()),
        Err(end) => end,
    };
    // The dispatcher is gone only when the process leaves.
    let _ = inbox.send(Event::ArchiveEnded(job, end));
    Ok(())
}

struct Work<'a> {
    order: &'a ArchiveOrder,
    tools: &'a Tools,
    cancel: &'a Cancel,
    uuid: &'a str,
    names: Names,
}

impl Work<'_> {
    fn run(&self) -> Result<(), ArchiveEnd> {
        let mut ledger = Ledger::open(&self.tools.data_path);
        let is_in_place = self.is_in_place()?;
        if !is_in_place {
            self.obtain()?;
        }
        // Before it gets its name: whatever has one can be found and removed later.
        ledger
            .note_verified(self.uuid)
            .map_err(ArchiveEnd::Failed)?;
        if !is_in_place {
            archive::place(&self.names)?;
        }
        archive::tidy(&self.tools.settings, ledger.others(self.uuid));
        self.announce(&mut ledger).map_err(ArchiveEnd::Failed)
    }

    /// An earlier run came so far.
    fn is_in_place(&self) -> Result<bool, ArchiveEnd> {
        let path = self.names.placed();
        let shelf = &self.names.shelf;
        shelf.clear_way(&path).map_err(archive::failed)?;
        if !path.exists() {
            return Ok(false);
        }
        match self.verify(&path) {
            Ok(()) => Ok(true),
            Err(ArchiveEnd::Refused(reason)) => {
                warn!("{} is no good any more: {reason}", path.display());
                archive::remove_placed(&self.names)?;
                Ok(false)
            }
            Err(end) => Err(end),
        }
    }

    fn obtain(&self) -> Result<(), ArchiveEnd> {
        let Tools { ways, .. } = self.tools;
        archive::fetch(&self.order.archive, &self.names, ways, self.cancel)?;
        let verified = self.verify(&self.names.partial());
        if let Err(ArchiveEnd::Refused(_)) = &verified {
            archive::discard(&self.names)?;
        }
        verified
    }

    /// fwup's trouble, such as too little memory, looks like a bad archive: only its second no
    /// with the same keys counts, and a file that took hours is kept until then.
    fn verify(&self, path: &Path) -> Result<(), ArchiveEnd> {
        let keys = self.order.public_keys.join(" ");
        match self.ask_fwup(path) {
            Err(ArchiveEnd::Refused(reason)) if !archive::is_doubted(&self.names, &keys) => {
                archive::doubt(&self.names, &keys)?;
                Err(ArchiveEnd::Failed(reason))
            }
            Ok(()) => archive::trust(&self.names),
            verdict => verdict,
        }
    }

    fn ask_fwup(&self, path: &Path) -> Result<(), ArchiveEnd> {
        let Tools { fwup, .. } = self.tools;
        let mut program = Command::new(&fwup.path);
        program.arg("-V").arg("-i").arg(path);
        for key in &self.order.public_keys {
            program.args(["--public-key", key]);
        }
        command::without_secrets(&mut program);
        program.envs(fwup.env.iter().map(|(key, value)| (key, value)));
        let size = fs::metadata(path).map_or(0, |found| found.len());
        let deadline = VERIFY_MIN + Duration::from_secs(size / VERIFY_SPEED);
        let is_over = || self.cancel.is_cancelled();
        let output = command::capture_until(&mut program, deadline, COMMAND_OUTPUT, &is_over);
        let output = output.map_err(|error| match error {
            CommandError::Stopped { .. } => ArchiveEnd::Cancelled,
            error => ArchiveEnd::Failed(error.to_string()),
        })?;
        command::verdict(&output).map_err(|problem| {
            let reason = format!("verification failed: {problem}");
            match output.status.code() {
                Some(NOT_GOOD) => ArchiveEnd::Refused(reason),
                _ => ArchiveEnd::Failed(reason),
            }
        })
    }

    fn announce(&self, ledger: &mut Ledger) -> Result<(), String> {
        let path = self.names.placed();
        info!("archive {} is ready: {}", self.uuid, path.display());
        let Tools {
            settings, hooks, ..
        } = self.tools;
        let command = settings.ready_command.as_ref();
        let is_wanted = command.is_some() || hooks.find(Hook::ArchiveReady).is_some();
        if is_wanted && ledger.may_start(self.uuid) {
            ledger.note_start(self.uuid)?;
            match command {
                Some(text) => self.run_ready_command(text, &path),
                None => self.run_ready_hook(&path),
            }
            if command.is_none() && hooks.is_stopped() {
                // It may have been killed: the next start runs it again.
                return Err("the agent leaves".to_owned());
            }
        }
        ledger.note_told(self.uuid)
    }

    /// What both are told.
    fn told(&self) -> [(&'static str, &str); 5] {
        let archive = &self.order.archive;
        [
            ("NERVES_HUB_ARCHIVE_UUID", &archive.uuid),
            ("NERVES_HUB_ARCHIVE_VERSION", &archive.version),
            ("NERVES_HUB_ARCHIVE_PLATFORM", &archive.platform),
            ("NERVES_HUB_ARCHIVE_ARCHITECTURE", &archive.architecture),
            ("NERVES_HUB_ARCHIVE_DESCRIPTION", &archive.description),
        ]
    }

    fn run_ready_hook(&self, path: &Path) {
        let archive = Box::new(self.order.archive.clone());
        let place = path.display().to_string();
        let ready = Occurrence::ArchiveReady {
            archive,
            path: place.clone(),
        };
        let mut environment = self.told().to_vec();
        environment.push(("NERVES_HUB_ARCHIVE_PATH", &place));
        let hook = Hook::ArchiveReady;
        let end = self.tools.hooks.run(&Call {
            input: &ready.fields().to_string(),
            argument: Some(path),
            environment: &environment,
            patience: READY_PATIENCE,
            ..Call::new(hook)
        });
        match end {
            HookEnd::Absent | HookEnd::Exited { code: 0, .. } => {}
            HookEnd::Exited { code, .. } => {
                error!("hook {} exited with {code}", hook.name());
            }
            HookEnd::Failed(reason) => error!("hook {}: {reason}", hook.name()),
        }
    }

    /// An update does not stop it: that would begin it again.
    fn run_ready_command(&self, text: &str, path: &Path) {
        let mut program = command::shell(text);
        program.env("NERVES_HUB_ARCHIVE_PATH", path);
        program.envs(self.told());
        let output = command::capture(&mut program, READY_DEADLINE, COMMAND_OUTPUT);
        let verdict = output.map_err(|error| error.to_string());
        if let Err(problem) = verdict.and_then(|output| command::verdict(&output)) {
            error!("NERVES_HUB_ARCHIVE_READY_COMMAND: {text:?}: {problem}");
        }
    }
}
