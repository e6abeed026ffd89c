//! The shells people at the hub open: when one is started, ended and started again, and what
//! of its output goes to the hub now. The same for the console and for the local shell.
//!
//! Nothing runs until somebody looks: the page at the hub tells its size when it opens; most
//! hubs ask for a local shell as soon as the extension is attached. A shell survives the loss
//! of the connection; its output waits in the `outlet`.

use std::sync::Arc;
use std::time::Duration;

use super::Core;
use super::channel::Phase;
use super::effect::{Effect, ShellOrder};
use super::event::{ShellEnd, ShellEvent, ShellId, ShellKind};
use super::outlet::Outlet;
use super::timers::Timer;
use crate::config::values::show_duration;
use crate::wire::{ConsolePush, ExtensionPush, Outbound, WindowSize};

/// Between two pushes of output: what a person sees as immediate, in few frames.
const PACE: Duration = Duration::from_millis(20);
/// The same while firmware is on its way: the line and the processor are the update's.
const PACE_DURING_UPDATE: Duration = Duration::from_millis(200);

/// Both shells.
pub struct Shells {
    console: Shell,
    local: Shell,
}

struct Shell {
    life: Life,
    /// Numbers the runs.
    runs: u64,
    size: WindowSize,
    outlet: Outlet,
    /// The hub waits to hear whether the shell has started.
    asked: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    /// Whoever opens the page starts it.
    Unopened,
    Running(ShellId),
    Ending(ShellId, Then),
    /// The terminal says that a key starts it again.
    Over,
}

/// What comes after an end that was ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Unopened,
    /// As unopened, but it was opened again before the end.
    Anew,
    Over,
    Again,
}

impl Shell {
    fn new() -> Self {
        Self {
            life: Life::Unopened,
            runs: 0,
            size: WindowSize::default(),
            outlet: Outlet::default(),
            asked: false,
        }
    }

    /// Whose orders and events count.
    fn id(&self) -> Option<ShellId> {
        match self.life {
            Life::Running(id) | Life::Ending(id, _) => Some(id),
            Life::Unopened | Life::Over => None,
        }
    }
}

impl Shells {
    pub(super) fn new() -> Self {
        Self {
            console: Shell::new(),
            local: Shell::new(),
        }
    }

    /// A program runs in it.
    pub(super) fn is_open(&self, kind: ShellKind) -> bool {
        let shell = match kind {
            ShellKind::Console => &self.console,
            ShellKind::Local => &self.local,
        };
        shell.id().is_some()
    }

    fn get(&mut self, kind: ShellKind) -> &mut Shell {
        match kind {
            ShellKind::Console => &mut self.console,
            ShellKind::Local => &mut self.local,
        }
    }
}

/// What a person's terminal shows next, by the way of this shell.
fn output(kind: ShellKind, text: Arc<str>) -> Outbound {
    match kind {
        ShellKind::Console => Outbound::Console(ConsolePush::Output(text)),
        ShellKind::Local => Outbound::Extension(ExtensionPush::ShellOutput(text)),
    }
}

/// Terminals answer a program's questions (where is the cursor?) as if keys were pressed;
/// those of a scrollback that is shown again must not start a shell.
fn is_pressed(keys: &str) -> bool {
    !keys.starts_with('\x1b')
}

/// What was pressed only to start the shell again.
fn is_only_a_knock(keys: &str) -> bool {
    matches!(keys, "\r" | "\n" | "\r\n" | " ")
}

impl Core {
    pub(super) fn on_keys(&mut self, kind: ShellKind, keys: String) {
        let shell = self.shells.get(kind);
        match shell.life {
            Life::Running(id) => {
                self.effect(Effect::Shell(id, ShellOrder::Input(keys)));
                self.note_activity(kind);
            }
            Life::Ending(id, _) if is_pressed(&keys) => shell.life = Life::Ending(id, Then::Again),
            Life::Over if !is_pressed(&keys) => {}
            Life::Unopened | Life::Over => {
                let id = self.start_shell(kind);
                if !is_only_a_knock(&keys) {
                    self.effect(Effect::Shell(id, ShellOrder::Input(keys)));
                }
            }
            Life::Ending(..) => {}
        }
    }

    pub(super) fn on_window_size(&mut self, kind: ShellKind, size: WindowSize) {
        let shell = self.shells.get(kind);
        shell.size = size;
        match shell.life {
            Life::Running(id) => {
                self.effect(Effect::Shell(id, ShellOrder::Resize(size)));
                self.note_activity(kind);
            }
            Life::Unopened => {
                self.start_shell(kind);
            }
            Life::Ending(id, Then::Unopened) => shell.life = Life::Ending(id, Then::Anew),
            Life::Ending(..) | Life::Over => {}
        }
    }

    pub(super) fn on_restart_requested(&mut self, kind: ShellKind) {
        info!("{}: the hub asks for a new shell", kind.name());
        match self.shells.get(kind).life {
            Life::Running(_) | Life::Ending(..) => {
                self.announce(kind, "restarting");
                self.end_shell(kind, Then::Again);
            }
            Life::Unopened | Life::Over => {
                self.start_shell(kind);
            }
        }
    }

    pub(super) fn on_shell_requested(&mut self, kind: ShellKind) {
        let shell = self.shells.get(kind);
        match shell.life {
            Life::Unopened | Life::Over => {
                shell.asked = true;
                self.start_shell(kind);
            }
            Life::Ending(id, Then::Unopened | Then::Anew) => {
                shell.asked = true;
                shell.life = Life::Ending(id, Then::Anew);
            }
            Life::Running(_) | Life::Ending(..) => {
                self.say(
                    kind,
                    Outbound::Extension(ExtensionPush::ShellStatus(Ok(()))),
                );
            }
        }
    }

    pub(super) fn on_kill_requested(&mut self, kind: ShellKind, signal: i32) {
        if let Life::Running(id) = self.shells.get(kind).life {
            info!("{}: signal {signal} from the hub", kind.name());
            self.effect(Effect::Shell(id, ShellOrder::Signal(signal)));
        }
    }

    /// Nobody has pressed a key for long.
    pub(super) fn on_shell_idle(&mut self, kind: ShellKind) {
        if let Life::Running(_) = self.shells.get(kind).life {
            let limit = show_duration(self.setup.shells.timeout);
            info!("{}: no key pressed for {limit}", kind.name());
            let text = format!("session timeout: no key for {limit}; press a key to start again");
            self.announce(kind, &text);
            self.end_shell(kind, Then::Over);
        }
    }

    fn note_activity(&mut self, kind: ShellKind) {
        let timeout = self.setup.shells.timeout;
        if !timeout.is_zero() {
            self.set_timer(Timer::ShellIdle(kind), timeout);
        }
    }

    fn start_shell(&mut self, kind: ShellKind) -> ShellId {
        let shell = self.shells.get(kind);
        shell.runs += 1;
        let run = shell.runs;
        let id = ShellId { kind, run };
        shell.life = Life::Running(id);
        shell.outlet.owes_more = false;
        let size = shell.size;
        self.effect(Effect::Shell(id, ShellOrder::Start(size)));
        self.note_activity(kind);
        id
    }

    fn end_shell(&mut self, kind: ShellKind, then: Then) {
        self.timers.cancel(Timer::ShellIdle(kind));
        let shell = self.shells.get(kind);
        match shell.life {
            Life::Running(id) => {
                shell.life = Life::Ending(id, then);
                self.effect(Effect::Shell(id, ShellOrder::End));
            }
            Life::Ending(id, _) => shell.life = Life::Ending(id, then),
            Life::Unopened | Life::Over => {}
        }
    }

    /// The hub does not want it any more.
    pub(super) fn withdraw_shell(&mut self, kind: ShellKind) {
        self.end_shell(kind, Then::Unopened);
        let shell = self.shells.get(kind);
        shell.outlet.clear();
        if shell.life == Life::Over {
            shell.life = Life::Unopened;
        }
        self.pump(kind);
    }

    /// The hub can show what it says, and may have forgotten what it said before: where the
    /// terminal was empty, opening it starts a shell.
    pub(super) fn on_shell_watched(&mut self, kind: ShellKind) {
        let shell = self.shells.get(kind);
        if shell.life == Life::Over {
            shell.life = Life::Unopened;
        }
        self.pump(kind);
    }

    /// The channel is away: what the shell says is kept from now on.
    pub(super) fn on_shell_unwatched(&mut self, kind: ShellKind) {
        self.pump(kind);
    }

    /// The one place where events of earlier runs are dropped.
    pub(super) fn on_shell_event(&mut self, id: ShellId, event: ShellEvent) {
        let (kind, shell) = (id.kind, self.shells.get(id.kind));
        if shell.id() != Some(id) {
            return;
        }
        match event {
            ShellEvent::Started { pid, program } => {
                info!("{}: opened by the hub: {program}, pid {pid}", kind.name());
                if std::mem::take(&mut shell.asked) {
                    let status = ExtensionPush::ShellStatus(Ok(()));
                    self.say(kind, Outbound::Extension(status));
                }
            }
            ShellEvent::Output(text) => {
                shell.outlet.owes_more = true;
                self.say(kind, output(kind, text.into()));
            }
            ShellEvent::Ended(end) => self.on_shell_ended(kind, end),
        }
    }

    fn on_shell_ended(&mut self, kind: ShellKind, end: ShellEnd) {
        self.timers.cancel(Timer::ShellIdle(kind));
        info!("{}: closed: {}", kind.name(), in_words(&end));
        let shell = self.shells.get(kind);
        let then = match shell.life {
            Life::Ending(_, then) => Some(then),
            Life::Unopened | Life::Running(_) | Life::Over => None,
        };
        shell.asked &= then == Some(Then::Anew);
        shell.life = match then {
            Some(Then::Unopened | Then::Anew) => Life::Unopened,
            Some(Then::Over | Then::Again) | None => Life::Over,
        };
        match kind {
            ShellKind::Local if shell.life == Life::Over => self.report_end(&end),
            ShellKind::Local | ShellKind::Console => {}
        }
        match then {
            None => self.announce(
                kind,
                &format!("{}; press a key to start again", in_words(&end)),
            ),
            Some(Then::Again | Then::Anew) => {
                self.start_shell(kind);
            }
            Some(Then::Over | Then::Unopened) => {}
        }
    }

    /// To the hub, for programs; [`Core::announce`] is for people.
    fn report_end(&mut self, end: &ShellEnd) {
        let push = match end {
            ShellEnd::Exited(code) => ExtensionPush::ShellExited { code: *code },
            // As shells tell it.
            ShellEnd::Signalled(signal) => ExtensionPush::ShellExited { code: 128 + signal },
            ShellEnd::NotStarted(reason) | ShellEnd::Lost(reason) => {
                ExtensionPush::ShellStatus(Err(reason.clone()))
            }
        };
        self.say(ShellKind::Local, Outbound::Extension(push));
    }

    /// On the terminal.
    pub(super) fn announce(&mut self, kind: ShellKind, text: &str) {
        let text = format!("\x1b[0m\r\n[{text}]\r\n");
        self.say(kind, output(kind, text.into()));
    }

    fn say(&mut self, kind: ShellKind, push: Outbound) {
        self.shells.get(kind).outlet.say(push);
        self.pump(kind);
    }

    pub(super) fn on_sent(&mut self, reference: u64) {
        for kind in ShellKind::ALL {
            if self.shells.get(kind).outlet.on_sent(reference) {
                self.pump(kind);
            }
        }
        self.on_frame_sent(reference);
    }

    pub(super) fn on_hub_answered(&mut self, reference: u64) {
        for kind in ShellKind::ALL {
            self.shells.get(kind).outlet.on_answered(reference);
        }
    }

    pub(super) fn recall_output(&mut self, in_silence: bool) {
        for kind in ShellKind::ALL {
            self.shells.get(kind).outlet.recall(in_silence);
            self.pump(kind);
        }
    }

    fn is_watched(&self, kind: ShellKind) -> bool {
        match kind {
            ShellKind::Console => self.channels.console.is_joined(),
            ShellKind::Local => {
                let is_joined = matches!(self.channels.extensions.phase, Phase::Joined(_));
                is_joined && self.is_shell_attached()
            }
        }
    }

    /// Sends what can be sent, and lets the shell go on when nothing is left.
    fn pump(&mut self, kind: ShellKind) {
        let watched = self.is_watched(kind);
        if watched {
            self.push_next(kind);
        }
        let pace = match self.update.is_installing() {
            true => PACE_DURING_UPDATE,
            false => PACE,
        };
        let shell = self.shells.get(kind);
        if !watched {
            shell.outlet.trim();
        }
        if let Some(id) = shell.id().filter(|_| shell.outlet.owes_more)
            && (!watched || shell.outlet.is_clear())
        {
            shell.outlet.owes_more = false;
            self.effect(Effect::Shell(id, ShellOrder::More { pace }));
        }
    }

    fn push_next(&mut self, kind: ShellKind) {
        let outlet = &mut self.shells.get(kind).outlet;
        let Some(push) = outlet.next(|text| output(kind, text)) else {
            return;
        };
        let sent = match (kind, push.clone()) {
            (ShellKind::Local, Outbound::Extension(push)) => self.push_for_shell(push),
            (_, push) => match self.channels.console.phase {
                Phase::Joined(join_ref) => self.push(Some(join_ref), push),
                Phase::Left | Phase::Joining(_) => None,
            },
        };
        match sent {
            Some(reference) => self.shells.get(kind).outlet.note_pushed(reference, push),
            None => debug!("{}: output for nobody is dropped", kind.name()),
        }
    }
}

fn in_words(end: &ShellEnd) -> String {
    match end {
        ShellEnd::Exited(code) => format!("process exited with status {code}"),
        ShellEnd::Signalled(signal) => format!("process ended by signal {signal}"),
        ShellEnd::NotStarted(reason) => format!("cannot start: {reason}"),
        ShellEnd::Lost(reason) => format!("shell lost: {reason}"),
    }
}
