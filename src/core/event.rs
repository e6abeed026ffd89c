//! What happened: past-tense facts that workers tell the dispatcher.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::effect::FileStamp;
use crate::wire::control::Request;
use crate::wire::{FilePush, Inbound, Offer};

/// One connection attempt and the connection it may become. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(pub u64);

/// One installation of one offer, or one attempt at an archive. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobId(pub u64);

/// One connection to the control socket. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId(pub u64);

/// One question put to the decider. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuestionId(pub u64);

/// One run of a hook. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunId(pub u64);

/// One file on its way to the hub's console. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendId(pub u64);

/// One of the extensions that are enabled: its place in [`crate::core::Setup`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtensionId(pub usize);

/// A fact for the dispatcher's one inbox.
#[derive(Debug)]
pub enum Event {
    Started,
    /// `fwup --version` answered (`None`: it could not).
    FwupVersionRead(Option<String>),
    HeartbeatDue(ConnId),
    Socket(ConnId, SocketEvent),
    /// Which interface holds the connection's local address.
    InterfaceFound(ConnId, Option<String>),
    /// Whether the running firmware is marked valid, read again; `None`: it cannot be read.
    ValidationRead(Option<bool>),
    /// The integrator's check of the running firmware ended; `Err` names what it found.
    FirmwareChecked(Result<(), String>),
    /// The running firmware's mark was set; `Err` names what went wrong.
    ValidMarked(Result<(), String>),
    TrialRebootCounted(Counted),
    Install(JobId, InstallEvent),
    /// What a firmware file on this device says of itself; `Err` names what is wrong.
    FirmwareRead(Result<(Box<Offer>, FileStamp), String>),
    /// The only event of an archive's job, and its last.
    ArchiveEnded(JobId, ArchiveEnd),
    /// Keys from the hub were written down; `Err` names what went wrong.
    KeysKept(Result<(), String>),
    Shell(ShellId, ShellEvent),
    /// The reboot command ended; `Err` names what went wrong.
    RebootCommandEnded(Result<(), String>),
    /// The kernel refused to reboot; when it does not, nobody is left to tell.
    ForcedRebootFailed(String),
    /// The only event of a support script, and its last.
    ScriptEnded(ScriptId, ScriptEnd),
    /// The only event of a file from the hub: where it is and how long, or why it is not.
    UploadEnded(UploadId, Result<(PathBuf, u64), String>),
    /// The only event of a run.
    HookEnded(RunId, HookEnd),
    WindowFound(Opening),
    Signal(Signal),
    Control(ClientId, ControlEvent),
    SendFile(SendId, SendEvent),
    Extension(ExtensionId, ExtensionEvent),
    /// A file in the folder of alarms is new or says something else; `None`: it is gone.
    AlarmFile {
        name: String,
        description: Option<String>,
    },
    /// Files that settings name were read again: public keys for firmware and for archives.
    KeysReread {
        firmware: Vec<String>,
        archive: Vec<String>,
    },
    /// The device's clock, which was before the agent was built, shows a later time.
    ClockSet,
    WorkerExited(Worker, Result<(), String>),
}

/// From the socket thread.
#[derive(Debug)]
pub enum SocketEvent {
    Opened {
        local: Option<IpAddr>,
        interface: Option<String>,
    },
    Received(Inbound),
    /// The kernel has taken the push of this reference, and would take more.
    Sent(u64),
    /// The attempt failed before the socket was open.
    ConnectFailed(ConnectFailure),
    /// The open socket ended.
    Closed(String),
}

/// Why a connection attempt failed.
#[derive(Debug)]
pub enum ConnectFailure {
    /// Name resolution or TCP: the network may not be there yet.
    Network(String),
    /// TLS, the upgrade or a deadline after TCP was up.
    Protocol(String),
    /// The hub answered the upgrade with a status that is neither 101 nor 3xx.
    Refused {
        status: u16,
        reason: Option<String>,
        date: Option<u64>,
    },
    /// The hub answered 3xx with this `location`.
    Redirected(String),
}

/// From the threads of an installation.
#[derive(Debug)]
pub enum InstallEvent {
    /// Bytes received so far; throttled by the sender to whole per cents.
    Downloading {
        percent: u8,
    },
    /// Every byte is with the installer, and the checksum (if any) matched.
    Downloaded,
    DownloadFailed(String),
    /// The URL is not, or no longer, good; the download has so many bytes and waits for
    /// another one.
    UrlRefused {
        reason: String,
        held: u64,
    },
    /// The installer's own progress, per cent.
    Progress(u8),
    /// Last event of a job: the installer ended, its process is reaped.
    Finished(Result<(), String>),
}

/// What came of counting a reboot of firmware that nobody marked valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Counted {
    /// Not marked valid just now, and the count will survive the reboot.
    Persisted,
    /// Marked valid after all; nothing was counted.
    Validated,
    /// Not to be relied upon, for this reason.
    Failed(String),
}

/// How the work on an archive ended.
#[derive(Debug)]
pub enum ArchiveEnd {
    /// Verified, in its place (this), remembered, and the ready command has run.
    Handled(PathBuf),
    /// It is not, or cannot be, what this device takes.
    Refused(String),
    /// May go better another time.
    Failed(String),
    /// The URL is not, or no longer, good; so many bytes are kept.
    UrlRefused {
        reason: String,
        held: u64,
    },
    Cancelled,
}

/// By which way the hub reaches a shell. There is at most one for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShellKind {
    /// The `console` channel.
    Console,
    /// The `local_shell` extension.
    Local,
}

impl ShellKind {
    pub const ALL: [Self; 2] = [Self::Console, Self::Local];

    /// The thread's name, and the shell's in the log.
    pub fn name(self) -> &'static str {
        match self {
            Self::Console => "console",
            Self::Local => "local-shell",
        }
    }
}

/// One run of a shell. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShellId {
    pub kind: ShellKind,
    pub run: u64,
}

/// From a shell's thread.
#[derive(Debug)]
pub enum ShellEvent {
    Started {
        pid: i32,
        program: String,
    },
    /// What it printed. Another comes only once the thread was told that it may.
    Output(String),
    /// Last event of a run: the shell and what it left behind are gone.
    Ended(ShellEnd),
}

/// How a shell ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShellEnd {
    Exited(i32),
    Signalled(i32),
    NotStarted(String),
    /// Its thread failed.
    Lost(String),
}

/// How far away the next update window is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// Zero: it is open.
    In(Duration),
    /// Neither the device nor the hub has told the time of day.
    ClockUnset,
    /// The windows never open, whatever the zone does.
    Never,
}

/// From a client of the control socket.
#[derive(Debug)]
pub enum ControlEvent {
    Asked(Request),
    /// What the decider says to this question.
    Answered {
        question: QuestionId,
        text: String,
    },
    /// Last event of a client.
    Left,
}

/// From the thread that reads a file for the hub's console.
#[derive(Debug)]
pub enum SendEvent {
    /// Another comes only once the thread was told that it may.
    Frame(FilePush),
    /// Bytes so far, and all.
    Progress { sent: u64, size: u64 },
    /// Last event of a file: how many bytes it had.
    Ended(Result<u64, String>),
}

/// From an extension's thread.
#[derive(Debug)]
pub enum ExtensionEvent {
    /// What it was last told has been dealt with.
    Idle,
    /// It could not be told something: too much waits for it already.
    Stuck,
    /// For the hub: `NAME:event`.
    Push { event: String, payload: Value },
    /// To a client of the control socket.
    Answer {
        question: u64,
        answer: Result<Value, String>,
    },
    /// Raised or described anew; `None`: cleared.
    Alarm {
        name: String,
        description: Option<String>,
    },
}

/// How a run of a hook ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HookEnd {
    /// There is none, which is fine.
    Absent,
    /// It ended by itself; so much it printed.
    Exited { code: i32, output: String },
    /// It could not be run, or was killed.
    Failed(String),
}

/// Signals the agent acts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM or SIGINT.
    Terminate,
    /// SIGHUP.
    Reload,
    /// SIGUSR1.
    Status,
}

/// Threads whose end matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Worker {
    Socket(ConnId),
    Heartbeat,
    Download(JobId),
    Installer(JobId),
    Archive(JobId),
    Shell(ShellId),
    Script(ScriptId),
    /// Writes files from the hub; numbered, for one may still end while the next begins.
    Uploads(u64),
    Identify,
    Signals,
    Control,
    AlarmFiles,
    Hook(RunId),
    SendFile(SendId),
    Extension(ExtensionId),
    /// Short jobs that answer with an event of their own.
    Errand(Errand),
}

/// Short jobs on a thread of their own; each answers with one event, its end at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Errand {
    FwupVersion,
    Interface,
    Validation,
    FirmwareCheck,
    MarkValid,
    CountTrialReboot,
    ForgetTrialReboots,
    Reboot,
    ForceReboot,
    Keys,
    Window,
    FirmwareFile,
}

impl Errand {
    /// The thread's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::FwupVersion => "fwup-version",
            Self::Interface => "interface",
            Self::Validation => "validation",
            Self::FirmwareCheck => "fw-check",
            Self::MarkValid => "mark-valid",
            Self::CountTrialReboot => "trial-count",
            Self::ForgetTrialReboots => "trial-forget",
            Self::Reboot => "reboot",
            Self::ForceReboot => "force-reboot",
            Self::Keys => "keys",
            Self::Window => "window",
            Self::FirmwareFile => "fw-file",
        }
    }
}

/// One support script. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScriptId(pub u64);

/// One file from the hub. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UploadId(pub u64);

/// How a script ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptEnd {
    pub output: String,
    pub how: ScriptHow,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScriptHow {
    Exited(i32),
    /// By this signal, and not by ours.
    Killed(i32),
    TimedOut,
    /// It never ran, or nobody knows how it ended.
    Failed(String),
}
