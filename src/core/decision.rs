//! Questions to the integrator: the decider of the control socket first, the hook second,
//! and when neither answers, nobody. Pure.
//!
//! Rules kept here: at most one question of a kind is open; each ends in one answer, or is
//! forgotten; what somebody says too late is dropped. What an answer, or none, means is the
//! asker's: `policy`, `reboot` and `archive`.

use std::time::{Duration, Instant};

use super::Core;
use super::effect::Effect;
use super::event::{HookEnd, QuestionId, RunId};
use super::timers::Timer;
use crate::config::Hook;
use crate::wire::verdict::{Asked, Question, Verdict};

/// One question of each kind can be open.
const KINDS: usize = 3;
/// How long a decider has before the hook is asked instead.
const DECIDER_PATIENCE: Duration = Duration::from_secs(10);

/// The open questions.
#[derive(Default)]
pub(super) struct Decisions {
    open: Vec<Open>,
    last_run: u64,
}

struct Open {
    question: Question,
    put_to: Whom,
    /// The decider has until then.
    until: Instant,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Whom {
    Decider(QuestionId),
    Hook(RunId),
}

fn hook(asked: Asked) -> Hook {
    match asked {
        Asked::UpdateAvailable => Hook::UpdateAvailable,
        Asked::RebootRequest => Hook::RebootRequest,
        Asked::ArchiveAvailable => Hook::ArchiveAvailable,
    }
}

impl Core {
    /// Asks; the answer, or that there is none, comes with a later event.
    pub(super) fn ask(&mut self, question: Question) {
        self.forget_question(question.asked());
        // Whatever of its kind was open is forgotten by now.
        debug_assert!(self.decisions.open.len() < KINDS);
        let put_to = match self.ask_decider(question.clone()) {
            Some(id) => Whom::Decider(id),
            None => Whom::Hook(self.ask_hook(&question)),
        };
        let until = self.now + DECIDER_PATIENCE;
        self.decisions.open.push(Open {
            question,
            put_to,
            until,
        });
        self.set_decider_timer();
    }

    /// There is nothing left to decide.
    pub(super) fn forget_question(&mut self, asked: Asked) {
        let open = &mut self.decisions.open;
        let Some(index) = open.iter().position(|open| open.question.asked() == asked) else {
            return;
        };
        if let Whom::Decider(id) = open.swap_remove(index).put_to {
            self.withdraw_question(id);
        }
    }

    fn ask_hook(&mut self, question: &Question) -> RunId {
        self.run_hook(hook(question.asked()), question.subject())
    }

    /// For every hook: runs are counted here.
    pub(super) fn next_run(&mut self) -> RunId {
        self.decisions.last_run += 1;
        RunId(self.decisions.last_run)
    }

    /// What came of a question to the decider; `None`: it is gone.
    pub(super) fn on_decided(&mut self, id: QuestionId, asked: Asked, verdict: Option<Verdict>) {
        let is_it = |open: &Open| open.put_to == Whom::Decider(id);
        let Some(index) = self.decisions.open.iter().position(is_it) else {
            return debug!("question {} ({}) is not open", id.0, asked.name());
        };
        match verdict {
            Some(verdict) => {
                let open = self.decisions.open.swap_remove(index);
                self.on_answer(open.question, Some(verdict));
            }
            None => self.turn_to_hook(index),
        }
    }

    /// Deciders have had long enough.
    pub(super) fn on_decider_overdue(&mut self) {
        let now = self.now;
        let is_late = |open: &Open| matches!(open.put_to, Whom::Decider(_)) && open.until <= now;
        while let Some(index) = self.decisions.open.iter().position(is_late) {
            if let Whom::Decider(id) = self.decisions.open[index].put_to {
                warn!("the decider does not answer: asking the hook instead");
                self.withdraw_question(id);
            }
            self.turn_to_hook(index);
        }
        self.set_decider_timer();
    }

    /// For the question that has been with the decider for longest.
    fn set_decider_timer(&mut self) {
        let open = self.decisions.open.iter();
        let waiting = open.filter(|open| matches!(open.put_to, Whom::Decider(_)));
        match waiting.map(|open| open.until).min() {
            Some(at) => self.timers.set(Timer::Decider, at),
            None => self.timers.cancel(Timer::Decider),
        }
    }

    fn turn_to_hook(&mut self, index: usize) {
        let question = self.decisions.open[index].question.clone();
        self.decisions.open[index].put_to = Whom::Hook(self.ask_hook(&question));
    }

    /// True when that run was asked for a decision.
    pub(super) fn on_hook_answered(&mut self, run: RunId, end: &HookEnd) -> bool {
        let is_it = |open: &Open| open.put_to == Whom::Hook(run);
        let Some(index) = self.decisions.open.iter().position(is_it) else {
            return false;
        };
        let open = self.decisions.open.swap_remove(index);
        let asked = open.question.asked();
        let verdict = match end {
            HookEnd::Absent => None,
            HookEnd::Exited { code: 0, output } => Verdict::parse(asked, output)
                .inspect_err(|error| error!("hook {}: {error}", asked.name()))
                .ok(),
            HookEnd::Exited { code, .. } => {
                error!("hook {} exited with {code}: no answer", asked.name());
                None
            }
            HookEnd::Failed(reason) => {
                error!("hook {}: {reason}: no answer", asked.name());
                None
            }
        };
        self.on_answer(open.question, verdict);
        true
    }

    /// `None`: nobody has decided.
    fn on_answer(&mut self, question: Question, verdict: Option<Verdict>) {
        if let Some(verdict) = &verdict {
            let asked = question.asked();
            info!("{}: {}", asked.name(), verdict.word(asked));
        }
        match question {
            Question::UpdateAvailable(_) => self.on_update_decided(verdict),
            Question::RebootRequest(_) => self.on_reboot_decided(verdict),
            Question::ArchiveAvailable(archive) => self.on_archive_decided(&archive, verdict),
        }
    }
}

impl Core {
    pub(super) fn run_hook(&mut self, hook: Hook, input: serde_json::Value) -> RunId {
        let run = self.next_run();
        let order = super::effect::HookOrder { hook, input };
        self.effect(Effect::RunHook(run, Box::new(order)));
        run
    }
}
