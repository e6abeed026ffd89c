//! Hooks and update windows: their threads' start and stop, and what is asked at the start.

use super::Agent;
use crate::config::{Config, Hook, MetadataSettings};
use crate::core::effect::HookOrder;
use crate::core::event::{Errand, Event, HookEnd, Opening, RunId, Worker};
use crate::core::window;
use crate::system::hook::{Call, Site};
use crate::system::metadata::Firmware;
use crate::system::{local_time, time};
use crate::workers::hook;

/// The hub told its time because it refused the device's: seconds by which they may differ
/// all the same.
const DIFFERENCE: u64 = 300;

impl Agent {
    pub(super) fn run_hook(&mut self, id: RunId, order: HookOrder) {
        let (site, inbox) = (self.hooks.clone(), self.crew.inbox());
        self.spawn("hook", Worker::Hook(id), move || {
            hook::run(id, &order, &site, &inbox)
        });
    }

    pub(super) fn find_window(&mut self, hub_time: Option<u64>) {
        let windows = self.config.policy.windows.clone();
        self.errand(Errand::Window, move || {
            let own = time::is_plausible().then(time::unix_now);
            let Some(now) = time_of_day(own, hub_time) else {
                return Event::WindowFound(Opening::ClockUnset);
            };
            local_time::read_zone();
            let wait = window::opens_in(&windows, now, &local_time::offset);
            Event::WindowFound(wait.map_or(Opening::Never, Opening::In))
        });
    }
}

/// The device's own, unless it has none, or one that the hub knows better.
fn time_of_day(own: Option<u64>, hub: Option<u64>) -> Option<u64> {
    match (own, hub) {
        (Some(own), Some(hub)) if own.abs_diff(hub) > DIFFERENCE => Some(hub),
        (own, hub) => own.or(hub),
    }
}

/// The hooks of this device.
pub(super) fn site(config: &Config, identifier: &str, firmware: &Firmware) -> Site {
    let value = |key: &str| firmware.keys.get(key).cloned().unwrap_or_default();
    let environment = vec![
        ("NERVES_HUB_DEVICE_IDENTIFIER", identifier.to_owned()),
        ("NERVES_HUB_FIRMWARE_UUID", value("nerves_fw_uuid")),
        ("NERVES_HUB_FIRMWARE_VERSION", value("nerves_fw_version")),
    ];
    Site::new(config.hooks.clone(), environment)
}

/// Before the dispatcher runs: what hooks know better than the metadata.
pub(super) fn correct(firmware: &mut Firmware, config: &Config, site: &Site) {
    let overrides = &config.metadata.overrides;
    if let Some(validated) = is_validated(&config.metadata, site) {
        firmware.validated = validated;
    }
    if !overrides.contains_key("auto_revert_detected")
        && let Some(detected) = yes_or_no(site, Hook::FirmwareAutoRevertDetected)
    {
        firmware.auto_revert_detected = detected;
    }
}

/// What the hook says; `None`: the metadata's word counts.
pub(super) fn is_validated(metadata: &MetadataSettings, site: &Site) -> Option<bool> {
    if metadata.overrides.contains_key("validated") {
        return None;
    }
    yes_or_no(site, Hook::FirmwareValidated)
}

/// Blocks.
fn yes_or_no(site: &Site, hook: Hook) -> Option<bool> {
    let reason = match site.run(&Call::new(hook)) {
        HookEnd::Absent => return None,
        HookEnd::Exited { code: 0, .. } => return Some(true),
        HookEnd::Exited { code: 1, .. } => return Some(false),
        HookEnd::Exited { code, .. } => format!("exited with {code}, neither 0 nor 1"),
        HookEnd::Failed(reason) => reason,
    };
    error!("hook {}: {reason}; going by the metadata", hook.name());
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hub_s_time_goes_before_one_that_is_far_off() {
        for (own, hub, expected) in [
            (None, None, None),
            (Some(1000), None, Some(1000)),
            (None, Some(1000), Some(1000)),
            (Some(1000), Some(1300), Some(1000)),
            (Some(1000), Some(1301), Some(1301)),
            (Some(1000), Some(699), Some(699)),
        ] {
            assert_eq!(time_of_day(own, hub), expected, "{own:?} {hub:?}");
        }
    }
}
