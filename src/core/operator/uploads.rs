//! Files from the hub's console: which are taken, how much of each, and for how long.
//!
//! A file begins with its start, takes what comes under its name in the order of arrival,
//! and is whole with its stop. Anything else (no start, too much, garbage, a pause, the
//! end of the channel) leaves nothing of it. Writing is the worker's.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::core::Core;
use crate::core::effect::{Effect, UploadStep};
use crate::core::event::UploadId;
use crate::core::timers::Timer;
use crate::wire::FileEvent;

/// Files at a time.
const UPLOADS_MAX: usize = 8;
/// A file of which nothing came for so long is given up.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest name a file system takes, in bytes.
const NAME_MAX: usize = 255;
/// What the worker's temporary files begin with.
pub const TEMPORARY: &str = ".upload-";

/// The state of all files.
#[derive(Default)]
pub(super) struct Uploads {
    last: u64,
    files: Vec<Upload>,
    /// Names whose data is of no use, as has been said.
    ignored: Vec<String>,
}

struct Upload {
    id: UploadId,
    /// As the hub knows it.
    name: String,
    size: u64,
    heard: Instant,
    phase: Phase,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Coming,
    /// All is there; the worker makes it last.
    Finishing,
    /// The rest of it is not looked at.
    Failed,
}

impl Uploads {
    /// The one that may still grow.
    fn named(&mut self, name: &str) -> Option<&mut Upload> {
        let open = |file: &&mut Upload| file.name == name && file.phase != Phase::Finishing;
        self.files.iter_mut().find(open)
    }

    /// Says so once: a file comes in thousands of pieces.
    fn ignore(&mut self, name: &str) {
        if self.ignored.iter().any(|other| other == name) {
            return;
        }
        warn!("file {name:.60?} ignored: it did not begin");
        self.remember_ignored(name);
    }

    fn remember_ignored(&mut self, name: &str) {
        if self.ignored.len() == UPLOADS_MAX {
            self.ignored.remove(0);
        }
        self.ignored.push(name.to_owned());
    }

    fn is_at_work(&self) -> bool {
        self.files.iter().any(|file| file.phase != Phase::Failed)
    }
}

impl Core {
    pub(in crate::core) fn on_file_event(&mut self, event: FileEvent) {
        match event {
            FileEvent::Start { name } => self.on_upload_started(name),
            FileEvent::Data { name, bytes } => self.on_upload_data(&name, bytes),
            FileEvent::Stop { name } => self.on_upload_stopped(&name),
        }
    }

    fn on_upload_started(&mut self, name: String) {
        self.discard_upload(&name);
        let safe = match self.why_not_take() {
            Some(reason) => Err(reason),
            None => safe_name(&name),
        };
        let safe = match safe {
            Ok(safe) => safe,
            Err(reason) => return self.refuse_upload(&name, &reason),
        };
        let uploads = &mut self.operator.uploads;
        uploads.ignored.retain(|other| *other != name);
        uploads.last += 1;
        let id = UploadId(uploads.last);
        info!("receiving file {safe:?} from the hub");
        uploads.files.push(Upload {
            id,
            name,
            size: 0,
            heard: self.now,
            phase: Phase::Coming,
        });
        self.effect(Effect::Upload(UploadStep::Open {
            upload: id,
            name: safe,
        }));
        self.watch_uploads();
    }

    fn why_not_take(&self) -> Option<String> {
        if self.setup.operator.upload_max == 0 {
            Some("no files are taken on this device (NERVES_HUB_UPLOAD_MAX)".to_owned())
        } else if self.leaving {
            Some("the agent on this device is about to end".to_owned())
        } else if self.operator.uploads.files.len() >= UPLOADS_MAX {
            Some(format!("{UPLOADS_MAX} files are being sent already"))
        } else {
            None
        }
    }

    fn on_upload_data(&mut self, name: &str, bytes: Option<Vec<u8>>) {
        let (now, max) = (self.now, self.setup.operator.upload_max);
        let Some(file) = self.operator.uploads.named(name) else {
            return self.operator.uploads.ignore(name);
        };
        file.heard = now;
        if file.phase == Phase::Failed {
            return;
        }
        let upload = file.id;
        let Some(bytes) = bytes else {
            return self.fail_upload(upload, "what came was not base64");
        };
        file.size += bytes.len() as u64;
        if file.size > max {
            let reason = format!("larger than {max} bytes (NERVES_HUB_UPLOAD_MAX)");
            return self.fail_upload(upload, &reason);
        }
        self.effect(Effect::Upload(UploadStep::Append { upload, bytes }));
    }

    fn on_upload_stopped(&mut self, name: &str) {
        let now = self.now;
        let Some(file) = self.operator.uploads.named(name) else {
            self.operator.uploads.ignore(name);
            return self.operator.uploads.ignored.retain(|other| other != name);
        };
        let id = file.id;
        match file.phase {
            Phase::Coming => {
                (file.phase, file.heard) = (Phase::Finishing, now);
                self.effect(Effect::Upload(UploadStep::Finish(id)));
            }
            Phase::Failed | Phase::Finishing => self.forget_upload(id),
        }
    }

    /// It is there, or the worker has given it up.
    pub(in crate::core) fn on_upload_ended(
        &mut self,
        id: UploadId,
        result: Result<(PathBuf, u64), String>,
    ) {
        let mut files = self.operator.uploads.files.iter_mut();
        let Some(file) = files.find(|file| file.id == id) else {
            return;
        };
        let (phase, name) = (file.phase, shown(&file.name));
        match result {
            Ok((path, size)) => {
                let text = format!("received {name}, {size} bytes → {}", path.display());
                info!("{text}");
                self.tell_operator(&text);
                self.forget_upload(id);
            }
            Err(reason) => {
                let text = format!("not received: {name}: {reason}");
                error!("{text}");
                self.tell_operator(&text);
                match phase {
                    // More of it will come.
                    Phase::Coming => file_failed(self, id),
                    Phase::Finishing | Phase::Failed => self.forget_upload(id),
                }
            }
        }
    }

    pub(in crate::core) fn on_uploads_lost(&mut self, reason: &str) {
        let ids: Vec<UploadId> = self.operator.uploads.files.iter().map(|f| f.id).collect();
        for id in ids {
            self.on_upload_ended(id, Err(format!("internal error: {reason}")));
        }
        self.effect(Effect::EndUploads);
    }

    pub(in crate::core) fn on_uploads_due(&mut self) {
        let now = self.now;
        let is_stale = |file: &&Upload| {
            file.phase != Phase::Finishing && now.saturating_duration_since(file.heard) >= PATIENCE
        };
        let files = self.operator.uploads.files.iter().filter(is_stale);
        let stale: Vec<(UploadId, Phase)> = files.map(|file| (file.id, file.phase)).collect();
        for (id, phase) in stale {
            if phase == Phase::Coming {
                let reason = format!("nothing came for {} s", PATIENCE.as_secs());
                self.fail_upload(id, &reason);
            }
            self.forget_upload(id);
        }
        self.watch_uploads();
    }

    /// The channel is gone; what is all there is still finished.
    pub(in crate::core) fn abandon_uploads(&mut self) {
        let files = self.operator.uploads.files.iter();
        let open = files.filter(|file| file.phase != Phase::Finishing);
        let names: Vec<String> = open.map(|file| file.name.clone()).collect();
        for name in names {
            warn!("file {name:.60?} not received: the console is gone");
            self.discard_upload(&name);
        }
    }

    /// Nothing stays of a file that has begun under this name.
    fn discard_upload(&mut self, name: &str) {
        let Some(file) = self.operator.uploads.named(name) else {
            return;
        };
        let (id, phase) = (file.id, file.phase);
        if phase == Phase::Coming {
            self.effect(Effect::Upload(UploadStep::Discard(id)));
        }
        self.forget_upload(id);
    }

    fn fail_upload(&mut self, id: UploadId, reason: &str) {
        self.effect(Effect::Upload(UploadStep::Discard(id)));
        self.on_upload_ended(id, Err(reason.to_owned()));
    }

    fn refuse_upload(&mut self, name: &str, reason: &str) {
        let text = format!("not received: {}: {reason}", shown(name));
        warn!("{text}");
        self.tell_operator(&text);
        self.operator.uploads.remember_ignored(name);
    }

    fn forget_upload(&mut self, id: UploadId) {
        self.operator.uploads.files.retain(|file| file.id != id);
        self.end_uploads_if_idle();
    }

    fn end_uploads_if_idle(&mut self) {
        if !self.operator.uploads.is_at_work() {
            self.effect(Effect::EndUploads);
        }
    }

    fn watch_uploads(&mut self) {
        let files = self.operator.uploads.files.iter();
        let heard = files.filter(|file| file.phase != Phase::Finishing);
        match heard.map(|file| file.heard).min() {
            Some(heard) => self.timers.set(Timer::Uploads, heard + PATIENCE),
            None => self.timers.cancel(Timer::Uploads),
        }
    }
}

fn file_failed(core: &mut Core, id: UploadId) {
    let mut files = core.operator.uploads.files.iter_mut();
    if let Some(file) = files.find(|file| file.id == id) {
        file.phase = Phase::Failed;
    }
    core.end_uploads_if_idle();
}

/// The last component of a name, if it is one that a file may have.
fn safe_name(name: &str) -> Result<String, String> {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let what = match last {
        "" | "." | ".." => "is no name for a file",
        last if last.chars().any(char::is_control) => "has a control character in its name",
        last if last.len() > NAME_MAX => "has too long a name, more than 255 bytes",
        last if last.starts_with(TEMPORARY) => "has a name that is kept for unfinished files",
        last => return Ok(last.to_owned()),
    };
    Err(what.to_owned())
}

/// A name for people: short, on one line, without effect on a terminal.
fn shown(name: &str) -> String {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let shown = last.chars().take(60);
    shown
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_reduced_to_their_last_component_or_refused() {
        for (name, safe) in [
            ("config.txt", "config.txt"),
            ("../../etc/passwd", "passwd"),
            ("/etc/shadow", "shadow"),
            ("C:\\temp\\a b.bin", "a b.bin"),
            (".bashrc", ".bashrc"),
            ("Größe.txt", "Größe.txt"),
            ("...", "..."),
        ] {
            assert_eq!(safe_name(name).as_deref(), Ok(safe));
        }
        let long = "x".repeat(256);
        for name in [
            "",
            ".",
            "..",
            "/",
            "a/",
            "../..",
            "a\0b",
            "a\nb",
            "\x1b[2J",
            ".upload-1",
            &long,
        ] {
            assert!(safe_name(name).is_err(), "{name:?}");
        }
        assert!(safe_name(&long[..255]).is_ok());
    }

    #[test]
    fn shown_names_have_no_effect_on_a_terminal() {
        assert_eq!(shown("a/\x1b[2Jb\r\n"), "?[2Jb??");
        assert_eq!(shown(&"ä".repeat(100)).chars().count(), 60);
    }
}
