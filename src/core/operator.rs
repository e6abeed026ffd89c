//! What people at the hub's page ask for: support scripts, files, identify. Pure.
//!
//! Rules kept here: every script is answered before the hub gives up; each kind of work is
//! bounded in number and size; nothing here touches the link or an update.

mod scripts;
mod uploads;

use super::Core;
use super::effect::Effect;
use super::event::ShellKind;
use crate::wire::occurrence::Occurrence;
use scripts::Scripts;
pub use uploads::TEMPORARY;
use uploads::Uploads;

/// What the integrator allows.
#[derive(Clone, Copy, Debug, Default)]
pub struct OperatorSetup {
    pub scripts: bool,
    /// Most bytes of one file; 0: none is taken.
    pub upload_max: u64,
    pub reboot_during_update: bool,
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
        info!("identify: this is device {}", self.setup.identifier);
        self.publish(Occurrence::Identify);
        if self.leaving || self.operator.is_identifying {
            return info!("identify: under way already");
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
