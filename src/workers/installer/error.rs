//! Why an installation did not succeed, in words for the hub.

use std::fmt;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

/// Why an installation did not succeed. The tool's name is put before it.
#[derive(Debug)]
pub(super) enum Problem {
    /// The download ended without a byte.
    Empty,
    /// fwup must never choose by itself where to write.
    NoDevice,
    Start {
        path: String,
        error: io::Error,
    },
    /// The downloaded file cannot be read.
    Read {
        path: PathBuf,
        error: io::Error,
    },
    /// Somebody's file is not what was looked at, or was written to since.
    Changed,
    /// The process's own words.
    Said(String),
    Ended {
        status: ExitStatus,
        stderr: String,
    },
    /// It succeeded with something that was not all.
    Unread,
    NoVerdict,
    /// SIGKILL did not end it.
    Undead,
    Stalled(Duration),
    Overdue(Duration),
    /// Its pipes or its framing failed.
    Broken(String),
    Cancelled,
}

impl Problem {
    /// The process itself said no; a signal, for one, is somebody else's doing.
    pub(super) fn is_its_word(&self) -> bool {
        match self {
            Self::Said(_) => true,
            Self::Ended { status, .. } => status.code().is_some(),
            Self::Empty
            | Self::NoDevice
            | Self::Start { .. }
            | Self::Read { .. }
            | Self::Changed
            | Self::Unread
            | Self::NoVerdict
            | Self::Undead
            | Self::Stalled(_)
            | Self::Overdue(_)
            | Self::Broken(_)
            | Self::Cancelled => false,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the firmware is empty"),
            Self::NoDevice => f.write_str(
                "no device to write to: set NERVES_HUB_FWUP_DEVPATH or nerves_fw_devpath",
            ),
            Self::Start { path, error } => write!(f, "cannot start {path}: {error}"),
            Self::Read { path, error } => write!(f, "cannot read {}: {error}", path.display()),
            Self::Changed => f.write_str("the file changed while it was installed"),
            Self::Said(text) | Self::Broken(text) => f.write_str(text),
            Self::Ended { status, stderr } => {
                match (status.code(), status.signal()) {
                    (Some(code), _) => write!(f, "exit status {code}")?,
                    (None, signal) => write!(f, "killed by signal {}", signal.unwrap_or(0))?,
                }
                if stderr.is_empty() {
                    Ok(())
                } else {
                    write!(f, ": {stderr}")
                }
            }
            Self::Unread => f.write_str("ended before it had read the whole firmware"),
            Self::NoVerdict => f.write_str("ended without saying whether it succeeded"),
            Self::Undead => f.write_str("killed, but it does not go away"),
            Self::Stalled(limit) => {
                write!(f, "no sign of life for {} s; killed", limit.as_secs_f64())
            }
            Self::Overdue(limit) => {
                write!(f, "not done after {} s; killed", limit.as_secs_f64())
            }
            Self::Cancelled => f.write_str("cancelled"),
        }
    }
}
