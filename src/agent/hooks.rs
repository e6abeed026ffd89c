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
            let now = match time::is_plausible() {
                true => Some(time::unix_now()),
                false => hub_time,
            };
            let Some(now) = now else {
                return Event::WindowFound(Opening::ClockUnset);
            };
            local_time::read_zone();
            let wait = window::opens_in(&windows, now, &local_time::offset);
            Event::WindowFound(wait.map_or(Opening::Never, Opening::In))
        });
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
