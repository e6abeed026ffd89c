//! Support scripts: which run, which wait, and that each is answered in time.
//!
//! The hub gives up 15 s after it has asked and then forgets the script's reference, so
//! that is what every deadline here is made from. It knows the reference in one join of
//! the device channel only: an answer whose join is over is logged and dropped, and what
//! still waited for its turn is not run.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::config::values::show_duration;
use crate::core::Core;
use crate::core::effect::{Effect, ScriptOrder};
use crate::core::event::{ConnId, ScriptEnd, ScriptHow, ScriptId};
use crate::core::timers::Timer;
use crate::wire::script_text::{SCRIPT_MAX, looks_like_elixir};
use crate::wire::{DevicePush, ScriptAnswer, ScriptRequest};

/// How long a script may take when the hub does not say.
const LIMIT: Duration = Duration::from_secs(10);
/// Most that it may take: the hub waits for 15 s, the way there and back included.
const LIMIT_MAX: Duration = Duration::from_secs(12);
/// A script that was to end but has not told how is answered for.
const GRACE: Duration = Duration::from_millis(1500);
const RUNNING_MAX: usize = 4;
const WAITING_MAX: usize = 16;
/// The hub's name for what is run on every connect.
const CONNECTING_CODE: &str = "connecting_code";

/// The state of all scripts.
#[derive(Default)]
pub(super) struct Scripts {
    last: u64,
    running: Vec<(ScriptId, Script)>,
    waiting: VecDeque<Script>,
}

#[derive(Debug)]
struct Script {
    request: ScriptRequest,
    /// The join that its answer belongs to.
    asker: (ConnId, u64),
    limit: Duration,
    /// Its time is over then, whether it has run or not.
    end: Instant,
    is_answered: bool,
}

impl Scripts {
    /// When somebody has to be answered whether or not there is something to tell.
    fn next_due(&self) -> Option<Instant> {
        let waiting = self.waiting.iter().map(|script| script.end);
        let running = self.running.iter().map(|(_, script)| script);
        let overdue = running.filter(|script| !script.is_answered);
        waiting
            .chain(overdue.map(|script| script.end + GRACE))
            .min()
    }
}

impl Core {
    pub(in crate::core) fn on_script_requested(&mut self, request: ScriptRequest) {
        let Some(asker) = self.device_join() else {
            return debug!("support script of a channel that is not joined ignored");
        };
        if let Some(reason) = self.why_not_run(&request) {
            warn!("support script {} refused: {reason}", request.reference);
            return self.answer(request.reference, String::new(), Err(reason));
        }
        if request.reference == CONNECTING_CODE {
            // Of an earlier join, whose answer nobody waits for.
            let waiting = &mut self.operator.scripts.waiting;
            waiting.retain(|script| script.request.reference != CONNECTING_CODE);
        }
        let limit = request.timeout.unwrap_or(LIMIT).min(LIMIT_MAX);
        self.operator.scripts.waiting.push_back(Script {
            asker,
            limit,
            end: self.now + limit,
            is_answered: false,
            request,
        });
        self.start_scripts();
    }

    fn why_not_run(&self, request: &ScriptRequest) -> Option<String> {
        let reason = if !self.setup.operator.scripts {
            "support scripts are not enabled on this device (NERVES_HUB_SCRIPTS)".to_owned()
        } else if self.leaving {
            "the agent on this device is about to end".to_owned()
        } else if request.text.trim().is_empty() {
            "the script is empty".to_owned()
        } else if request.text.len() > SCRIPT_MAX {
            let size = request.text.len();
            format!("the script has {size} bytes; at most {SCRIPT_MAX} are taken")
        } else if self.operator.scripts.waiting.len() >= WAITING_MAX {
            format!("{RUNNING_MAX} scripts are running and {WAITING_MAX} waiting; try again later")
        } else {
            return None;
        };
        Some(reason)
    }

    fn start_scripts(&mut self) {
        while self.operator.scripts.running.len() < RUNNING_MAX {
            let Some(script) = self.operator.scripts.waiting.pop_front() else {
                break;
            };
            let reference = &script.request.reference;
            if self.device_join() != Some(script.asker) {
                warn!("support script {reference} not run: whoever asked is gone");
                continue;
            }
            info!("support script {reference} started");
            let scripts = &mut self.operator.scripts;
            scripts.last += 1;
            let id = ScriptId(scripts.last);
            let order = ScriptOrder {
                text: script.request.text.clone(),
                limit: script.end.saturating_duration_since(self.now),
            };
            scripts.running.push((id, script));
            self.effect(Effect::RunScript(id, Box::new(order)));
        }
        self.set_script_timer();
    }

    fn set_script_timer(&mut self) {
        match self.operator.scripts.next_due() {
            Some(at) => self.timers.set(Timer::Script, at),
            None => self.timers.cancel(Timer::Script),
        }
    }

    pub(in crate::core) fn on_script_ended(&mut self, id: ScriptId, end: ScriptEnd) {
        let running = &mut self.operator.scripts.running;
        let Some(index) = running.iter().position(|(other, _)| *other == id) else {
            return;
        };
        let (_, script) = running.swap_remove(index);
        let reference = script.request.reference.clone();
        let (output, result) = verdict(end, script.limit);
        let result_text = match &result {
            Ok(status) => format!("exit status {status}"),
            Err(reason) => reason.clone(),
        };
        info!("support script {reference} ended: {result_text}");
        if self.device_join() != Some(script.asker) {
            warn!("answer to support script {reference} dropped: whoever asked is gone");
        } else if !script.is_answered {
            let hint = result != Ok(0) && looks_like_elixir(&script.request.text);
            let output = match hint {
                true => with_note(
                    output,
                    "this looks like Elixir; the agent on this device runs shell scripts, or \
                     what a #! line names",
                ),
                false => output,
            };
            self.answer(reference, output, result);
        }
        self.start_scripts();
    }

    /// The thread is gone without a word.
    pub(in crate::core) fn on_script_lost(&mut self, id: ScriptId, reason: String) {
        let how = ScriptHow::Failed(format!("internal error: {reason}"));
        let output = String::new();
        self.on_script_ended(id, ScriptEnd { output, how });
    }

    /// Someone's time is over.
    pub(in crate::core) fn on_script_due(&mut self) {
        let now = self.now;
        let scripts = &mut self.operator.scripts;
        let mut late = Vec::new();
        scripts.waiting.retain_mut(|script| {
            let is_late = script.end <= now;
            if is_late {
                let limit = show_duration(script.limit);
                let reason =
                    format!("not run: {RUNNING_MAX} other scripts were running for all of {limit}");
                late.push((script.asker, script.request.reference.clone(), reason));
            }
            !is_late
        });
        for (_, script) in &mut scripts.running {
            if script.end + GRACE <= now && !script.is_answered {
                script.is_answered = true;
                let reason = "the script does not end, although it was killed".to_owned();
                late.push((script.asker, script.request.reference.clone(), reason));
            }
        }
        for (asker, reference, reason) in late {
            warn!("support script {reference}: {reason}");
            if self.device_join() == Some(asker) {
                let (output, result) = failed(String::new(), reason);
                self.answer(reference, output, result);
            }
        }
        self.set_script_timer();
    }

    fn answer(&mut self, reference: String, output: String, result: Result<i32, String>) {
        self.push_device(DevicePush::Script(ScriptAnswer {
            reference,
            output,
            result,
        }));
    }
}

/// What was printed, with a note where the status does not say it all; and the status.
fn verdict(end: ScriptEnd, limit: Duration) -> (String, Result<i32, String>) {
    match end.how {
        ScriptHow::Exited(status) => (end.output, Ok(status)),
        // As shells count.
        ScriptHow::Killed(signal) => (
            with_note(end.output, &format!("killed by signal {signal}")),
            Ok(128 + signal),
        ),
        ScriptHow::TimedOut => {
            let limit = show_duration(limit);
            failed(end.output, format!("killed: not done within {limit}"))
        }
        ScriptHow::Failed(reason) => failed(end.output, reason),
    }
}

/// The hub's page shows the output and not the reason.
fn failed(output: String, reason: String) -> (String, Result<i32, String>) {
    (with_note(output, &reason), Err(reason))
}

fn with_note(mut output: String, note: &str) -> String {
    if !output.is_empty() && !output.ends_with('\n') {
        output.push('\n');
    }
    output.push_str(&format!("[{note}]"));
    output
}
