//! Why fwup did not succeed, in words for the hub.

use std::fmt;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

/// Why fwup did not succeed. The text starts with "fwup error", which the hub recognises.
#[derive(Debug)]
pub(super) enum FwupError {
    Start {
        path: String,
        error: io::Error,
    },
    /// fwup's own words.
    Said(String),
    Ended {
        status: ExitStatus,
        stderr: String,
    },
    NoVerdict,
    Stalled(Duration),
    Unframed(String),
    Cancelled,
}

impl fmt::Display for FwupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("fwup error: ")?;
        match self {
            Self::Start { path, error } => write!(f, "cannot start {path}: {error}"),
            Self::Said(text) => f.write_str(text),
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
            Self::NoVerdict => f.write_str("ended without saying whether it succeeded"),
            Self::Stalled(limit) => {
                write!(f, "no sign of life for {} s; killed", limit.as_secs_f64())
            }
            Self::Unframed(text) => f.write_str(text),
            Self::Cancelled => f.write_str("cancelled"),
        }
    }
}
