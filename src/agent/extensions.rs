//! Extensions: which are enabled, and their threads' start and orders.

use std::sync::Arc;

use super::Agent;
use crate::config::Config;
use crate::core::effect::ExtensionOrder;
use crate::core::event::{Event, ExtensionEvent, ExtensionId, Worker};
use crate::core::extensions::{Enabled, Way};
use crate::extensions::link::Handle;
use crate::extensions::{BUILT_IN, Extension, Kind, Life, Link, Site};
use crate::wire::extensions::LOCAL_SHELL_VERSIONS;
use crate::wire::{LOCAL_SHELL, Offered};

/// The extensions that are enabled, in the order of their ids.
#[derive(Default)]
pub(super) struct Extensions {
    site: Option<Arc<Site>>,
    enabled: Vec<Slot>,
}

struct Slot {
    /// `None`: there is no thread to start.
    kind: Option<&'static Kind>,
    handle: Option<Handle>,
}

impl Extensions {
    /// What is enabled; a name that nobody knows is told.
    pub(super) fn new(config: &Config, identifier: &str) -> (Self, Vec<Enabled>) {
        let site = Site {
            settings: config.extensions.clone(),
            identifier: identifier.to_owned(),
            data_path: config.data_path.clone(),
        };
        let mut extensions = Self {
            site: Some(Arc::new(site)),
            enabled: Vec::new(),
        };
        let mut offers = Vec::new();
        if config.shells.policy.local {
            extensions.enabled.push(Slot {
                kind: None,
                handle: None,
            });
            offers.push(Enabled {
                offered: offered(LOCAL_SHELL, &LOCAL_SHELL_VERSIONS),
                way: Way::Shell,
            });
        }
        for name in &config.extensions.enabled {
            let Some(kind) = BUILT_IN.iter().find(|kind| kind.name == name) else {
                explain(name, config);
                continue;
            };
            extensions.enabled.push(Slot {
                kind: Some(kind),
                handle: None,
            });
            offers.push(Enabled {
                offered: offered(kind.name, kind.versions),
                way: Way::Thread {
                    always: kind.life == Life::Always,
                },
            });
        }
        (extensions, offers)
    }
}

fn offered(name: &str, versions: &[&str]) -> Offered {
    Offered {
        name: name.to_owned(),
        versions: versions
            .iter()
            .map(|version| (*version).to_owned())
            .collect(),
    }
}

fn explain(name: &str, config: &Config) {
    match name {
        "none" => {}
        LOCAL_SHELL if config.shells.policy.local => {}
        LOCAL_SHELL => log::warn!(
            "NERVES_HUB_EXTENSIONS: local_shell opens a shell to people at the hub; it is \
             enabled by NERVES_HUB_LOCAL_SHELL=1 only"
        ),
        _ => {
            let known: Vec<&str> = BUILT_IN.iter().map(|kind| kind.name).collect();
            log::warn!(
                "NERVES_HUB_EXTENSIONS: {name:?} is not in this build; there are {}",
                known.join(", ")
            );
        }
    }
}

impl Agent {
    pub(super) fn extension(&mut self, id: ExtensionId, order: ExtensionOrder) {
        match order {
            ExtensionOrder::Start => self.start_extension(id),
            ExtensionOrder::Say(word) => {
                let handle = &self.extensions.enabled[id.0].handle;
                if handle.as_ref().is_some_and(|handle| !handle.say(word)) {
                    self.own
                        .push_back(Event::Extension(id, ExtensionEvent::Stuck));
                }
            }
            ExtensionOrder::End => {
                if let Some(handle) = self.extensions.enabled[id.0].handle.take() {
                    handle.end();
                }
            }
        }
    }

    fn start_extension(&mut self, id: ExtensionId) {
        let slot = &mut self.extensions.enabled[id.0];
        let (Some(kind), Some(site)) = (slot.kind, &self.extensions.site) else {
            return;
        };
        let (mut link, handle) = Link::new(id, self.crew.inbox());
        slot.handle = Some(handle);
        let mut extension: Box<dyn Extension> = (kind.build)(site);
        self.spawn("extension", Worker::Extension(id), move || {
            extension.run(&mut link)
        });
    }

    /// Nobody waits for one that hangs.
    pub(super) fn end_extensions(&mut self) {
        for slot in &mut self.extensions.enabled {
            if let Some(handle) = slot.handle.take() {
                handle.end();
            }
        }
    }
}
