//! What happens is made known here, to hooks and to subscribers of the control socket; and
//! the hook that is asked for reconnect delays. Pure.
//!
//! Rules kept here: at most one run of a kind at a time; what is new meanwhile waits, and
//! only the newest of it; nothing waits for any of them.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::Core;
use super::channel::Phase;
use super::effect::Effect;
use super::event::{HookEnd, RunId, ShellKind};
use super::timers::Timer;
use crate::config::{Hook, values};
use crate::wire::occurrence::Occurrence;

/// Pause between the starts of two runs of a kind.
const PAUSE: Duration = Duration::from_millis(500);
/// Most delays taken from `reconnect-backoff`, and their range.
const MAX_DELAYS: usize = 32;
const DELAY_MIN: Duration = Duration::from_millis(100);
const DELAY_MAX: Duration = Duration::from_secs(86_400);

/// The runs of hooks that decide nothing.
#[derive(Default)]
pub(super) struct Notices {
    kinds: Vec<Kind>,
    /// The run that is asked for delays.
    backoff: Option<RunId>,
    /// The hub is reached: stays so while the channel is joined anew on purpose.
    connected: bool,
    /// Somebody at the hub has a console.
    console_active: bool,
}

/// Hooks that take turns: of a link that comes and goes the last state counts.
struct Kind {
    hook: Hook,
    running: Option<(RunId, Hook)>,
    last: Instant,
    waiting: Option<(Hook, Value)>,
}

fn kind_of(hook: Hook) -> Hook {
    match hook {
        Hook::Disconnected => Hook::Connected,
        other => other,
    }
}

fn hook_for(occurrence: &Occurrence) -> Option<Hook> {
    match occurrence {
        Occurrence::Connected => Some(Hook::Connected),
        Occurrence::Disconnected { .. } => Some(Hook::Disconnected),
        Occurrence::UpdateProgress { .. } => Some(Hook::UpdateProgress),
        Occurrence::UpdateCompleted { .. } => Some(Hook::UpdateCompleted),
        Occurrence::UpdateFailed { .. } => Some(Hook::UpdateFailed),
        // Told by the threads that see to these; or only to subscribers.
        Occurrence::ArchiveReady { .. }
        | Occurrence::Identify
        | Occurrence::UpdateOffered(_)
        | Occurrence::UpdateIgnored { .. }
        | Occurrence::UpdateStarted { .. }
        | Occurrence::RebootPending(_)
        | Occurrence::ConsoleActive(_)
        | Occurrence::FirmwareValidated
        | Occurrence::AlarmSet { .. }
        | Occurrence::AlarmCleared { .. } => None,
    }
}

impl Notices {
    pub(super) fn is_connected(&self) -> bool {
        self.connected
    }
}

impl Core {
    /// The one place where what happens is made known.
    pub(super) fn publish(&mut self, occurrence: Occurrence) {
        self.tell_hook(&occurrence);
        self.tell_subscribers(&occurrence);
    }

    fn tell_hook(&mut self, occurrence: &Occurrence) {
        let Some(hook) = hook_for(occurrence) else {
            return;
        };
        let kind = kind_of(hook);
        let kinds = &mut self.notices.kinds;
        let index = kinds.iter().position(|other| other.hook == kind);
        let index = index.unwrap_or_else(|| {
            kinds.push(Kind {
                hook: kind,
                running: None,
                last: self.now.checked_sub(PAUSE).unwrap_or(self.now),
                waiting: None,
            });
            kinds.len() - 1
        });
        kinds[index].waiting = Some((hook, occurrence.fields()));
        self.run_waiting();
    }

    /// Starts what may start; the timer comes back for the rest.
    pub(super) fn run_waiting(&mut self) {
        let mut next: Option<Instant> = None;
        for index in 0..self.notices.kinds.len() {
            let kind = &mut self.notices.kinds[index];
            if kind.running.is_some() || kind.waiting.is_none() {
                continue;
            }
            let due = kind.last + PAUSE;
            if due > self.now {
                next = Some(next.map_or(due, |other| other.min(due)));
                continue;
            }
            if let Some((hook, input)) = kind.waiting.take() {
                let run = self.run_hook(hook, input);
                let kind = &mut self.notices.kinds[index];
                (kind.running, kind.last) = (Some((run, hook)), self.now);
            }
        }
        if let Some(at) = next {
            self.timers.set(Timer::Notice, at);
        }
    }

    pub(super) fn on_hook_ended(&mut self, run: RunId, end: HookEnd) {
        // What running it has brought into memory is not needed between hooks.
        self.effect(Effect::Settle);
        if self.on_hook_answered(run, &end) {
            return;
        }
        if self.notices.backoff == Some(run) {
            self.notices.backoff = None;
            return self.on_delays_told(end);
        }
        let mut kinds = self.notices.kinds.iter_mut();
        let ended = |(running, _): &mut (RunId, Hook)| *running == run;
        let Some((_, hook)) = kinds.find_map(|kind| kind.running.take_if(ended)) else {
            return;
        };
        let name = hook.name();
        match end {
            HookEnd::Absent | HookEnd::Exited { code: 0, .. } => {}
            HookEnd::Exited { code, .. } => warn!("hook {name} exited with {code}"),
            HookEnd::Failed(reason) => warn!("hook {name}: {reason}"),
        }
        self.run_waiting();
    }

    /// Asked while the hub is well, so that the answer is there when it is needed.
    pub(super) fn ask_for_delays(&mut self) {
        if self.notices.backoff.is_none() && self.setup.endpoint.is_some() {
            let run = self.run_hook(Hook::ReconnectBackoff, Value::Object(Default::default()));
            self.notices.backoff = Some(run);
        }
    }

    /// Anything but delays leaves the settings' in force.
    fn on_delays_told(&mut self, end: HookEnd) {
        let name = Hook::ReconnectBackoff.name();
        let delays = match end {
            HookEnd::Absent => Ok(Vec::new()),
            HookEnd::Exited { code: 0, output } => delays(&output),
            HookEnd::Exited { code, .. } => Err(format!("exited with {code}")),
            HookEnd::Failed(reason) => Err(reason),
        };
        let delays = delays.unwrap_or_else(|reason| {
            error!("hook {name}: {reason}; waiting as the settings say");
            Vec::new()
        });
        self.link.set_delays(delays);
    }

    /// A join on its way changes nothing: a crashed channel has said so before, and one that
    /// is joined anew for a fresh offer was never away.
    pub(super) fn tend_connected(&mut self) {
        let connected = match self.channels.device.phase {
            Phase::Joined(_) => true,
            Phase::Joining(_) => return,
            Phase::Left => false,
        };
        if connected == std::mem::replace(&mut self.notices.connected, connected) {
            return;
        }
        self.publish(match connected {
            true => Occurrence::Connected,
            false => {
                let reason = self.link.last_error.clone();
                let reason = reason.unwrap_or_else(|| "left by this device".to_owned());
                Occurrence::Disconnected { reason }
            }
        });
    }
}

impl Core {
    pub(super) fn tend_console(&mut self) {
        let active = self.shells.is_open(ShellKind::Console);
        if active != std::mem::replace(&mut self.notices.console_active, active) {
            self.publish(Occurrence::ConsoleActive(active));
        }
    }
}

/// The words of a list: durations, seconds without a unit.
fn delays(text: &str) -> Result<Vec<Duration>, String> {
    let words = values::list(text);
    if words.is_empty() || words.len() > MAX_DELAYS {
        return Err(format!(
            "prints {} delays; print 1 to {MAX_DELAYS}, such as 1 2 5 10 60",
            words.len()
        ));
    }
    let delay = |word: &String| {
        values::duration_in(word, DELAY_MIN, DELAY_MAX).map_err(|problem| {
            let shown: String = word.chars().take(40).collect();
            format!("{shown:?} {}; {}", problem.what, problem.fix)
        })
    };
    words.iter().map(delay).collect()
}
