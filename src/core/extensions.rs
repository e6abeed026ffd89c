//! The `extensions` channel: what is offered, what the hub attaches, and what it detaches.
//!
//! An extension is a variant of [`Extension`]: a name and versions there, a line in each
//! `match` here. It says something with `push_extension`, which sends only what the
//! hub has attached. Extensions never cost the connection.

use std::collections::VecDeque;
use std::time::Duration;

use super::channel::Phase;
use super::event::ShellKind;
use super::timers::Timer;
use super::{Core, Setup};
use crate::wire::extensions::offer;
use crate::wire::{
    Advertised, Extension, ExtensionPush, ExtensionsEvent, LocalShellEvent, Outbound, Selection,
    Topic,
};

/// How long a hub may take to ask for extensions before they are offered unasked.
const UNASKED: Duration = Duration::from_secs(5);
/// Pushes remembered, in case the hub answers one with "detach".
const REMEMBERED: usize = 32;

/// The extensions' state.
pub struct Extensions {
    enabled: Vec<Extension>,
    /// What the hub said it takes, this time.
    advertised: Option<Advertised>,
    attached: Vec<Extension>,
    /// The latest pushes.
    spoken_for: VecDeque<(u64, Extension)>,
    /// Pushes nobody wanted.
    dropped: u64,
}

impl Extensions {
    pub(super) fn new(setup: &Setup) -> Self {
        let enabled = |extension: &Extension| match extension {
            Extension::LocalShell => setup.shells.local,
        };
        Self {
            enabled: Extension::ALL.into_iter().filter(enabled).collect(),
            advertised: None,
            attached: Vec::new(),
            spoken_for: VecDeque::new(),
            dropped: 0,
        }
    }

    fn selected(&self, selection: &Selection) -> Vec<String> {
        let all = self.enabled.iter().map(|known| known.name().to_owned());
        match selection {
            Selection::All => all.collect(),
            Selection::Names(names) => names.clone(),
        }
    }
}

impl Core {
    pub(super) fn await_extensions_get(&mut self) {
        if !self.extensions.enabled.is_empty() && self.channels.extensions.phase == Phase::Left {
            self.set_timer(Timer::ExtensionsUnasked, UNASKED);
        }
    }

    /// Also when the hub has not asked in time: older ones never do.
    pub(super) fn on_extensions_get(&mut self, advertised: Option<Advertised>) {
        self.timers.cancel(Timer::ExtensionsUnasked);
        let is_news = self.extensions.advertised != advertised;
        self.extensions.advertised = advertised;
        match is_news {
            true if self.channels.extensions.is_joined() => self.rejoin_now(Topic::Extensions),
            true | false => self.join_extensions(),
        }
    }

    pub(super) fn join_extensions(&mut self) {
        let extensions = &self.extensions;
        let payload = offer(&extensions.enabled, extensions.advertised.as_ref());
        if payload.is_empty() {
            return log::debug!("no extension is enabled that the hub takes");
        }
        if self.channels.device.is_joined() {
            self.join(Topic::Extensions, payload);
        }
    }

    pub(super) fn on_extensions_joined(&mut self, attach: Vec<String>) {
        log::info!("extensions channel joined; the hub attaches {attach:?}");
        let attached = std::mem::take(&mut self.extensions.attached);
        for extension in self.extensions.enabled.clone() {
            if !attach.iter().any(|name| name == extension.name()) {
                self.stop_extension(extension);
            }
        }
        if self.extensions.dropped > 0 && attached.is_empty() {
            log::debug!(
                "{} pushes were dropped while detached",
                self.extensions.dropped
            );
            self.extensions.dropped = 0;
        }
        self.attach(attach);
    }

    /// The channel is away: what is attached stays so here, and the next join says whether
    /// it stays so at the hub.
    pub(super) fn suspend_extensions(&mut self) {
        self.timers.cancel(Timer::ExtensionsUnasked);
        self.extensions.spoken_for.clear();
        self.on_shell_unwatched(ShellKind::Local);
    }

    pub(super) fn on_extensions_event(&mut self, join_ref: Option<u64>, event: ExtensionsEvent) {
        if !self.channels.is_current(Topic::Extensions, join_ref) {
            return log::debug!("ignoring an event of an extensions channel that is not joined");
        }
        match event {
            ExtensionsEvent::Attach(selection) => {
                let names = self.extensions.selected(&selection);
                self.attach(names);
            }
            ExtensionsEvent::Detach(selection) => {
                for name in self.extensions.selected(&selection) {
                    match Extension::parse(&name) {
                        Some(extension) => self.detach(extension),
                        None => log::debug!("extension {name:?} cannot be detached: unknown"),
                    }
                }
            }
            ExtensionsEvent::LocalShell(event) if self.is_attached(Extension::LocalShell) => {
                self.on_local_shell_event(event);
            }
            ExtensionsEvent::LocalShell(_) => log::debug!("local_shell is not attached"),
            ExtensionsEvent::Unknown(event) => {
                log::warn!("ignoring unknown event {event:?} on topic \"extensions\"");
            }
        }
    }

    fn attach(&mut self, names: Vec<String>) {
        for name in names {
            let known = Extension::parse(&name);
            match known.filter(|known| self.extensions.enabled.contains(known)) {
                Some(extension) => {
                    if !self.is_attached(extension) {
                        self.extensions.attached.push(extension);
                    }
                    self.push_extension(extension, ExtensionPush::Attached(extension));
                    self.start_extension(extension);
                }
                None => {
                    log::warn!("the hub attaches extension {name:?}, which is not enabled");
                    let reason = "not enabled on this device".to_owned();
                    self.send_extension(ExtensionPush::Error { name, reason });
                }
            }
        }
    }

    fn detach(&mut self, extension: Extension) {
        if self.is_attached(extension) {
            log::info!("extension {} detached by the hub", extension.name());
            self.stop_extension(extension);
            self.extensions.attached.retain(|other| *other != extension);
        }
        self.send_extension(ExtensionPush::Detached(extension));
    }

    /// The hub answered a push with "detach".
    pub(super) fn on_detach_ordered(&mut self, reference: u64) {
        let mut spoken_for = self.extensions.spoken_for.iter();
        match spoken_for.find(|(own, _)| *own == reference) {
            Some((_, extension)) => self.detach(*extension),
            None => log::debug!("the hub wants a detach for a push it does not name"),
        }
    }

    pub(super) fn is_attached(&self, extension: Extension) -> bool {
        self.extensions.attached.contains(&extension)
    }

    /// Sends for an attached extension; the reference comes back. Anything else is dropped
    /// and counted.
    pub(super) fn push_extension(
        &mut self,
        extension: Extension,
        push: ExtensionPush,
    ) -> Option<u64> {
        let sent = match self.is_attached(extension) {
            true => self.send_extension(push),
            false => None,
        };
        match sent {
            Some(reference) => {
                let spoken_for = &mut self.extensions.spoken_for;
                spoken_for.truncate(REMEMBERED - 1);
                spoken_for.push_front((reference, extension));
            }
            None => self.extensions.dropped += 1,
        }
        sent
    }

    fn send_extension(&mut self, push: ExtensionPush) -> Option<u64> {
        match self.channels.extensions.phase {
            Phase::Joined(join_ref) => self.push(Some(join_ref), Outbound::Extension(push)),
            Phase::Left | Phase::Joining(_) => None,
        }
    }

    fn start_extension(&mut self, extension: Extension) {
        match extension {
            Extension::LocalShell => self.on_shell_watched(ShellKind::Local),
        }
    }

    fn stop_extension(&mut self, extension: Extension) {
        match extension {
            Extension::LocalShell => self.withdraw_shell(ShellKind::Local),
        }
    }

    fn on_local_shell_event(&mut self, event: LocalShellEvent) {
        let kind = ShellKind::Local;
        match event {
            LocalShellEvent::Request => self.on_shell_requested(kind),
            LocalShellEvent::Input(text) => self.on_keys(kind, text),
            LocalShellEvent::WindowSize(size) => self.on_window_size(kind, size),
            LocalShellEvent::Kill { signal } => self.on_kill_requested(kind, signal),
        }
    }
}
