//! Extensions: which are enabled, and their threads' start and orders.

use std::sync::Arc;

use super::Agent;
use crate::config::Config;
use crate::core::effect::ExtensionOrder;
use crate::core::event::{Event, ExtensionEvent, ExtensionId, Worker};
use crate::core::extensions::{Enabled, Way};
use crate::extensions::link::Handle;
#[cfg(feature = "ext-custom")]
use crate::extensions::program::{self, Program, Runner};
use crate::extensions::{BUILT_IN, Extension, Kind, Life, Link, Site};
use crate::system::dial::Dialer;
use crate::wire::extensions::LOCAL_SHELL_VERSIONS;
use crate::wire::{LOCAL_SHELL, Offered};

/// The extensions that are enabled, in the order of their ids.
#[derive(Default)]
pub(super) struct Extensions {
    site: Option<Arc<Site>>,
    enabled: Vec<Slot>,
}

struct Slot {
    maker: Maker,
    handle: Option<Handle>,
}

/// What makes an extension.
enum Maker {
    /// The core's own: there is no thread to start.
    Shell,
    BuiltIn(&'static Kind),
    #[cfg(feature = "ext-custom")]
    Program(Program),
}

impl Extensions {
    /// What is enabled; a name that nobody knows is told.
    pub(super) fn new(
        config: &Config,
        identifier: &str,
        dialer: &Arc<Dialer>,
    ) -> (Self, Vec<Enabled>) {
        let site = Site {
            settings: config.extensions.clone(),
            identifier: identifier.to_owned(),
            data_path: config.data_path.clone(),
            dialer: Some(dialer.clone()),
            allow_insecure: config.allow_insecure,
            ..Site::default()
        };
        let mut extensions = Self {
            site: Some(Arc::new(site)),
            enabled: Vec::new(),
        };
        let mut offers: Vec<Enabled> = Vec::new();
        let mut add = |maker: Maker, offered: Offered, way: Way| {
            if offers
                .iter()
                .any(|other| other.offered.name == offered.name)
            {
                return error!("extension {}: there is one already", offered.name);
            }
            offers.push(Enabled { offered, way });
            let handle = None;
            extensions.enabled.push(Slot { maker, handle });
        };
        match (
            config.shells.policy.local,
            cfg!(feature = "ext-local-shell"),
        ) {
            (true, true) => {
                let offered = offered(LOCAL_SHELL, &LOCAL_SHELL_VERSIONS);
                add(Maker::Shell, offered, Way::Shell);
            }
            (true, false) => warn!("NERVES_HUB_LOCAL_SHELL: {LOCAL_SHELL} is not in this build"),
            (false, _) => {}
        }
        for name in &config.extensions.enabled {
            let Some(kind) = BUILT_IN.iter().find(|kind| kind.name == name) else {
                explain(name, config);
                continue;
            };
            let always = kind.life == Life::Always;
            let offered = offered(kind.name, kind.versions);
            add(Maker::BuiltIn(kind), offered, Way::Thread { always });
        }
        #[cfg(feature = "ext-custom")]
        for program in program::find(&config.extensions.custom.folder) {
            let offered = Offered {
                name: program.name.clone(),
                versions: program.versions.clone(),
            };
            let way = Way::Thread { always: false };
            add(Maker::Program(program), offered, way);
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
        LOCAL_SHELL => warn!(
            "NERVES_HUB_EXTENSIONS: local_shell opens a shell to people at the hub; it is \
             enabled by NERVES_HUB_LOCAL_SHELL=1 only"
        ),
        _ => {
            let known: Vec<&str> = BUILT_IN.iter().map(|kind| kind.name).collect();
            warn!(
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
            ExtensionOrder::End => self.end_extension(id),
            ExtensionOrder::Abandon => {
                self.end_extension(id);
                self.crew.abandon(Worker::Extension(id));
            }
        }
    }

    fn end_extension(&mut self, id: ExtensionId) {
        if let Some(handle) = self.extensions.enabled[id.0].handle.take() {
            handle.end();
        }
    }

    fn start_extension(&mut self, id: ExtensionId) {
        let slot = &mut self.extensions.enabled[id.0];
        let Some(site) = &self.extensions.site else {
            return;
        };
        let mut extension: Box<dyn Extension> = match &slot.maker {
            Maker::Shell => return,
            Maker::BuiltIn(kind) => (kind.build)(site),
            #[cfg(feature = "ext-custom")]
            Maker::Program(program) => Box::new(Runner::new(program, site)),
        };
        let (mut link, handle) = Link::new(id, self.crew.inbox());
        slot.handle = Some(handle);
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
