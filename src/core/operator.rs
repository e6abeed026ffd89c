//! What people at the hub's page ask for: support scripts, files, identify. Pure.
//!
//! Rules kept here: every script is answered before the hub gives up; each kind of work is
//! bounded in number and size; nothing here touches the link or an update.

mod scripts;
mod uploads;

use std::time::Duration;

use super::Core;
use super::effect::Effect;
use super::event::ShellKind;
use crate::wire::occurrence::Occurrence;
use scripts::Scripts;
pub use uploads::TEMPORARY;
use uploads::Uploads;

/// One support script. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScriptId(pub u64);

/// One file from the hub. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UploadId(pub u64);

/// What the integrator allows.
#[derive(Clone, Copy, Debug, Default)]
pub struct OperatorSetup {
    pub scripts: bool,
    /// Most bytes of one file; 0: none is taken.
    pub upload_max: u64,
    pub reboot_during_update: bool,
}

/// Everything needed to run one script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptOrder {
    pub text: String,
    /// From now to its end.
    pub limit: Duration,
}

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

/// The state of all that.
#[derive(Default)]
pub struct Operator {
    scripts: Scripts,
    uploads: Uploads,
    pub(super) is_identifying: bool,
}

impl Core {
    pub(super) fn on_identify_requested(&mut self) {
        log::info!("identify: this is device {}", self.setup.identifier);
        self.publish(Occurrence::Identify);
        if self.leaving || self.operator.is_identifying {
            return log::info!("identify: under way already");
        }
        self.operator.is_identifying = true;
        self.effect(Effect::Identify);
    }

    /// A line of its own on the terminal of the hub's console.
    fn tell_operator(&mut self, text: &str) {
        self.announce(ShellKind::Console, text);
    }
}

#[cfg(test)]
mod tests;
