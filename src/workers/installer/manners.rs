//! How an installer's process is spoken to and watched.

use std::time::Duration;

use crate::system::http::Cancel;

/// Of one process.
pub(super) struct Manners {
    /// In the log.
    pub name: String,
    pub speech: Speech,
    pub input: Input,
    pub watch: Watch,
    /// `None`: runs to its end even when the installation is cancelled.
    pub cancel: Option<Cancel>,
}

/// The language on its pipes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Speech {
    /// fwup's frames, both ways.
    Frames,
    /// Plain bytes in, lines out.
    Lines,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Input {
    Nothing,
    Pipe,
}

/// When it is killed.
#[derive(Clone, Copy)]
pub(super) enum Watch {
    /// After so long without a word and without taking the input it is offered.
    Stall(Duration),
    /// After so long.
    Deadline(Duration),
}

impl Watch {
    pub(super) fn limit(self) -> Duration {
        match self {
            Self::Stall(limit) | Self::Deadline(limit) => limit,
        }
    }
}
