//! The `extensions` channel: what is offered, what the hub attaches, and what it detaches.
//!
//! Extensions speak with `push_extension`, which sends only what the hub has attached.
//! They never cost the connection. Their threads are `threads`'s.

#[cfg(test)]
mod tests;
mod threads;

use std::collections::VecDeque;
use std::time::Duration;

use serde_json::{Map, Value};

use super::channel::Phase;
use super::effect::Word;
use super::event::ShellKind;
use super::timers::Timer;
use super::{Core, Setup};
use crate::wire::extensions::agreed;
use crate::wire::{
    Advertised, ExtensionPush, ExtensionsEvent, LOCAL_SHELL, LocalShellEvent, Offered, Outbound,
    Said, Selection, Topic,
};
use threads::{Question, Thread};

/// How long a hub may take to ask for extensions before they are offered unasked.
const UNASKED: Duration = Duration::from_secs(5);
/// Pushes remembered, in case the hub answers one with "detach".
const REMEMBERED: usize = 32;

/// One extension that is enabled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enabled {
    pub offered: Offered,
    pub way: Way,
}

/// How an extension does its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// With a shell of the core's.
    Shell,
    /// On a thread of its own.
    Thread {
        /// From the start on, attached or not.
        always: bool,
    },
}

/// The extensions' state.
pub struct Extensions {
    all: Vec<Entry>,
    /// What the hub said it takes, this time.
    advertised: Option<Advertised>,
    /// The latest pushes.
    spoken_for: VecDeque<(u64, usize)>,
    /// Pushes nobody wanted.
    dropped: u64,
    questions: Vec<Question>,
    last_question: u64,
}

/// One extension; its place is its [`ExtensionId`].
struct Entry {
    offered: Offered,
    way: Way,
    is_attached: bool,
    thread: Thread,
}

impl Extensions {
    pub(super) fn new(setup: &Setup) -> Self {
        let entry = |enabled: &Enabled| Entry {
            offered: enabled.offered.clone(),
            way: enabled.way,
            is_attached: false,
            thread: Thread::default(),
        };
        Self {
            all: setup.extensions.iter().map(entry).collect(),
            advertised: None,
            spoken_for: VecDeque::new(),
            dropped: 0,
            questions: Vec::new(),
            last_question: 0,
        }
    }

    fn find(&self, name: &str) -> Option<usize> {
        self.all.iter().position(|entry| entry.offered.name == name)
    }

    /// The names, each once.
    fn selected(&self, selection: Selection) -> Vec<String> {
        let given = match selection {
            Selection::All => {
                let offered = |(index, _): &(usize, &Entry)| self.version(*index).is_some();
                let all = self.all.iter().enumerate().filter(offered);
                all.map(|(_, entry)| entry.offered.name.clone()).collect()
            }
            Selection::Names(names) => names,
        };
        let mut names: Vec<String> = Vec::new();
        for name in given {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    /// Only what has been offered can be attached.
    fn find_offered(&self, name: &str) -> Option<usize> {
        self.find(name)
            .filter(|index| self.version(*index).is_some())
    }

    fn find_shell(&self) -> Option<usize> {
        self.all.iter().position(|entry| entry.way == Way::Shell)
    }

    /// The version to speak.
    fn version(&self, index: usize) -> Option<&str> {
        agreed(&self.all[index].offered, self.advertised.as_ref())
    }

    /// The join's payload.
    fn offer(&self) -> Map<String, Value> {
        let mut payload = Map::new();
        for (index, entry) in self.all.iter().enumerate() {
            if let Some(version) = self.version(index) {
                payload.insert(entry.offered.name.clone(), version.into());
            }
        }
        payload
    }
}

impl Core {
    pub(super) fn await_extensions_get(&mut self) {
        if !self.extensions.all.is_empty() && self.channels.extensions.phase == Phase::Left {
            self.set_timer(Timer::ExtensionsUnasked, UNASKED);
        }
    }

    /// Also when the hub has not asked in time: older ones never do.
    pub(super) fn on_extensions_get(&mut self, advertised: Option<Advertised>) {
        self.timers.cancel(Timer::ExtensionsUnasked);
        let is_news = self.extensions.advertised != advertised;
        self.extensions.advertised = advertised;
        match is_news {
            true if self.channels.extensions.is_joined() => {
                self.suspend_extensions();
                self.rejoin_now(Topic::Extensions);
            }
            true | false => self.join_extensions(),
        }
    }

    pub(super) fn join_extensions(&mut self) {
        let payload = self.extensions.offer();
        if payload.is_empty() {
            return debug!("no extension is enabled that the hub takes");
        }
        if self.channels.device.is_joined() {
            self.join(Topic::Extensions, payload);
        }
    }

    pub(super) fn on_extensions_joined(&mut self, attach: Vec<String>) {
        info!("extensions channel joined; the hub attaches {attach:?}");
        for index in 0..self.extensions.all.len() {
            let entry = &mut self.extensions.all[index];
            let was_attached = std::mem::take(&mut entry.is_attached);
            if was_attached && !attach.contains(&entry.offered.name) {
                self.stop_extension(index);
            }
        }
        let dropped = std::mem::take(&mut self.extensions.dropped);
        if dropped > 0 {
            debug!("{dropped} pushes of extensions were dropped meanwhile");
        }
        self.attach(attach);
    }

    /// The channel is away: what is attached stays so here, and the next join says whether
    /// it stays so at the hub.
    pub(super) fn suspend_extensions(&mut self) {
        self.timers.cancel(Timer::ExtensionsUnasked);
        self.extensions.spoken_for.clear();
        self.on_shell_unwatched(ShellKind::Local);
        for index in 0..self.extensions.all.len() {
            if self.extensions.all[index].is_attached {
                self.say_to_extension(index, Word::Away);
            }
        }
    }

    pub(super) fn on_extensions_event(&mut self, join_ref: Option<u64>, event: ExtensionsEvent) {
        if !self.channels.is_current(Topic::Extensions, join_ref) {
            return debug!("ignoring an event of an extensions channel that is not joined");
        }
        match event {
            ExtensionsEvent::Attach(selection) => {
                let names = self.extensions.selected(selection);
                self.attach(names);
            }
            ExtensionsEvent::Detach(selection) => {
                for name in self.extensions.selected(selection) {
                    match self.extensions.find(&name) {
                        Some(index) => self.detach(index),
                        None => debug!("extension {name:?} cannot be detached: unknown"),
                    }
                }
            }
            ExtensionsEvent::LocalShell(event) if self.is_shell_attached() => {
                self.on_local_shell_event(event);
            }
            ExtensionsEvent::LocalShell(_) => debug!("{LOCAL_SHELL} is not attached"),
            ExtensionsEvent::Said(Said {
                name,
                event,
                payload,
            }) => match self.extensions.find(&name) {
                Some(index) if self.extensions.all[index].is_attached => {
                    let alarms = self.raised_alarms();
                    let word = Word::Said {
                        event,
                        payload,
                        alarms,
                    };
                    self.say_to_extension(index, word);
                }
                Some(_) => debug!("extension {name} is not attached: {event} ignored"),
                None => warn!(
                    "ignoring unknown event {:?} on topic \"extensions\"",
                    format!("{name}:{event}")
                ),
            },
            ExtensionsEvent::Unknown(event) => {
                warn!("ignoring unknown event {event:?} on topic \"extensions\"");
            }
        }
    }

    fn attach(&mut self, names: Vec<String>) {
        for name in names {
            match self.extensions.find_offered(&name) {
                Some(index) => {
                    self.extensions.all[index].is_attached = true;
                    self.push_extension(index, ExtensionPush::Attached(name));
                    self.start_extension(index);
                }
                None => {
                    warn!("the hub attaches extension {name:?}, which was not offered");
                    let reason = "not enabled on this device".to_owned();
                    self.send_extension(ExtensionPush::Error { name, reason });
                }
            }
        }
    }

    fn detach(&mut self, index: usize) {
        let entry = &mut self.extensions.all[index];
        let name = entry.offered.name.clone();
        if std::mem::take(&mut entry.is_attached) {
            info!("extension {name} detached by the hub");
            self.stop_extension(index);
        }
        self.send_extension(ExtensionPush::Detached(name));
    }

    /// The hub answered a push with "detach".
    pub(super) fn on_detach_ordered(&mut self, reference: u64) {
        let mut spoken_for = self.extensions.spoken_for.iter();
        match spoken_for.find(|(own, _)| *own == reference) {
            Some((_, index)) => self.detach(*index),
            None => debug!("the hub wants a detach for a push it does not name"),
        }
    }

    pub(super) fn is_shell_attached(&self) -> bool {
        let shell = self.extensions.find_shell();
        shell.is_some_and(|index| self.extensions.all[index].is_attached)
    }

    /// For the shell; the reference comes back.
    pub(super) fn push_for_shell(&mut self, push: ExtensionPush) -> Option<u64> {
        let shell = self.extensions.find_shell()?;
        self.push_extension(shell, push)
    }

    /// Sends for an attached extension; the reference comes back. Anything else is dropped
    /// and counted.
    fn push_extension(&mut self, index: usize, push: ExtensionPush) -> Option<u64> {
        let sent = match self.extensions.all[index].is_attached {
            true => self.send_extension(push),
            false => None,
        };
        match sent {
            Some(reference) => {
                let spoken_for = &mut self.extensions.spoken_for;
                spoken_for.truncate(REMEMBERED - 1);
                spoken_for.push_front((reference, index));
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

    fn start_extension(&mut self, index: usize) {
        match self.extensions.all[index].way {
            Way::Shell => self.on_shell_watched(ShellKind::Local),
            Way::Thread { .. } => self.on_extension_attached(index),
        }
    }

    /// It is not attached any more.
    fn stop_extension(&mut self, index: usize) {
        match self.extensions.all[index].way {
            Way::Shell => self.withdraw_shell(ShellKind::Local),
            Way::Thread { always: true } => self.say_to_extension(index, Word::Away),
            Way::Thread { always: false } => self.end_extension(index),
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
