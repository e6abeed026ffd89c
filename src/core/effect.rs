//! What to do: imperatives from the core, performed by `agent`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::endpoint::Endpoint;
use super::event::{
    ClientId, ConnId, ExtensionId, JobId, RunId, ScriptId, SendId, ShellId, UploadId,
};
use crate::config::{Hook, Secret};
use crate::wire::control::Outgoing;
use crate::wire::{Archive, Offer, Push, WindowSize};

/// An order for a worker. Performing one never blocks the dispatcher.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    Connect(ConnId, Attempt),
    /// Flush, say goodbye and close; the connection's events are stale from now on.
    Disconnect(ConnId),
    Push(ConnId, Push),
    StartHeartbeat(ConnId),
    StopHeartbeat,
    FindInterface(ConnId, IpAddr),
    ReadValidation,
    /// Run the integrator's check of the running firmware.
    CheckFirmware(String),
    /// Mark the running firmware valid for the bootloader.
    MarkValid,
    /// Unless it is marked valid by now: remember on disk that this is reboot number
    /// `number` of this unvalidated firmware.
    CountTrialReboot {
        uuid: String,
        number: u64,
    },
    ForgetTrialReboots,
    StartInstall(JobId, Box<InstallOrder>),
    CancelInstall(JobId),
    /// Another URL of the same file, for a download that waits for it.
    RenewUrl(JobId, Secret),
    /// What does this file say of itself, and is it signed with one of these keys?
    ReadFirmware {
        path: PathBuf,
        public_keys: Vec<String>,
    },
    StartArchive(JobId, Box<ArchiveOrder>),
    /// What it has of the file stays.
    CancelArchive(JobId),
    /// Keep these for the next start.
    KeepKeys(HubKeys),
    Shell(ShellId, ShellOrder),
    Extension(ExtensionId, ExtensionOrder),
    RunScript(ScriptId, Box<ScriptOrder>),
    Upload(UploadStep),
    /// No file is being taken any more.
    EndUploads,
    /// Run the identify command, or blink.
    Identify,
    RunHook(RunId, Box<HookOrder>),
    /// How far is the next update window? The hub's time (unix seconds) is for a device that
    /// has none, or a wrong one.
    FindWindow {
        hub_time: Option<u64>,
    },
    /// Read this file, for the console.
    StartSending(SendId, PathBuf),
    /// Its next frame may come.
    SendMore(SendId),
    CancelSending(SendId),
    /// Flush disks and run the reboot command.
    Reboot,
    /// Flush disks and have the kernel reboot at once.
    ForceReboot,
    /// The way here is done: what only it needed may go.
    Settle,
    /// Say this to a client of the control socket; one that is gone does not mind.
    Tell(ClientId, Box<Outgoing>),
    /// Read certificates and keys again before the next attempt.
    ReloadCredentials,
    Exit,
}

/// What a shell's thread is told.
#[derive(Clone, Debug, PartialEq)]
pub enum ShellOrder {
    Start(WindowSize),
    Input(String),
    Resize(WindowSize),
    Signal(i32),
    /// The last output is with the hub, or kept for it: more may come, but not before
    /// `pace` after it.
    More {
        pace: Duration,
    },
    /// Hang up, kill what stays, and reap it.
    End,
}

/// What an extension's thread is told, or what becomes of it.
#[derive(Clone, Debug, PartialEq)]
pub enum ExtensionOrder {
    /// There is none of it now.
    Start,
    Say(Word),
    /// Tell it to return; its end is an event.
    End,
    /// The same to one that may never return: nobody waits for that when the agent leaves.
    Abandon,
}

/// What an extension is told. The last three come from its link, not from here.
#[derive(Clone, Debug, PartialEq)]
pub enum Word {
    /// From now on the hub takes what is pushed, in this version. Also after a reconnect.
    Attached { version: String },
    /// Pushes would be dropped from now on: the hub is away.
    Away,
    /// The hub's event, without the extension's name: `check` of `health:check`.
    Said {
        event: String,
        payload: Value,
        alarms: Alarms,
    },
    /// A client of the control socket, to be answered with [`Link::answer`](crate::extensions::Link::answer).
    Asked {
        question: u64,
        what: String,
        params: Value,
        alarms: Alarms,
    },
    /// [`Nudger::nudge`](crate::extensions::Nudger::nudge) was called, once or several times.
    Nudged,
    /// The instant given to [`Link::next`](crate::extensions::Link::next) has come.
    Due,
    /// Return.
    Over,
}

/// The agent's alarms that are raised: name and description.
pub type Alarms = Vec<(String, String)>;

impl Word {
    /// The core waits for its end.
    pub fn is_work(&self) -> bool {
        match self {
            Self::Said { .. } | Self::Asked { .. } => true,
            Self::Attached { .. } | Self::Away | Self::Nudged | Self::Due | Self::Over => false,
        }
    }
}

/// One connection attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempt {
    pub endpoint: Endpoint,
    /// Unix seconds to sign with; `None` means the device's own clock.
    pub signing_time: Option<u64>,
    /// False when a redirect left TLS: credentials stay behind.
    pub send_credentials: bool,
    /// The network has not been seen yet: give TCP 2 s only.
    pub probing: bool,
}

/// One run of a hook.
#[derive(Clone, Debug, PartialEq)]
pub struct HookOrder {
    pub hook: Hook,
    /// An object, for its standard input.
    pub input: Value,
}

/// Which file it was, and as of when: what has changed since is not what was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileStamp {
    pub device: u64,
    pub inode: u64,
    pub size: u64,
    /// Seconds and nanoseconds.
    pub modified: (i64, i64),
    pub changed: (i64, i64),
}

/// Everything needed to install one offer.
#[derive(Clone, Debug, PartialEq)]
pub struct InstallOrder {
    pub offer: Offer,
    /// Where it is already, and belongs to somebody else; `None`: to be downloaded.
    pub file: Option<PathBuf>,
    /// That file's when it was looked at.
    pub stamp: FileStamp,
    /// Never `None` for fwup.
    pub devpath: Option<PathBuf>,
    pub public_keys: Vec<String>,
    /// The device's.
    pub identifier: String,
}

/// Everything needed to fetch, verify and place one archive.
#[derive(Clone, Debug, PartialEq)]
pub struct ArchiveOrder {
    pub archive: Archive,
    pub public_keys: Vec<String>,
}

/// Keys the hub sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HubKeys {
    pub firmware: Vec<String>,
    pub archive: Vec<String>,
}

/// Everything needed to run one script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptOrder {
    pub text: String,
    /// From now to its end.
    pub limit: Duration,
}

/// What to do with a file from the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UploadStep {
    /// The name is safe: one component, nothing special.
    Open {
        upload: UploadId,
        name: String,
    },
    Append {
        upload: UploadId,
        bytes: Vec<u8>,
    },
    /// Everything is there: make it last, give it its name, and say so.
    Finish(UploadId),
    /// Leave nothing of it. No event follows.
    Discard(UploadId),
}
