//! The extensions' threads: started when needed, told things, watched, ended.
//!
//! Rules kept here: one thread for each extension at most; who works upon one thing for too
//! long, ends unasked, or talks too much is detached and reported, and may be attached
//! again; a client's question is answered once, if not by the extension.

use std::time::Instant;

use serde_json::Value;

use super::Way;
use crate::core::Core;
use crate::core::control::Answer;
use crate::core::effect::{Effect, ExtensionOrder, Word};
use crate::core::event::{ClientId, ExtensionEvent, ExtensionId};
use crate::core::timers::Timer;
use crate::wire::control::{Code, Fault};
use crate::wire::{ExtensionPush, Said};

/// Questions of clients that may be open.
const MAX_QUESTIONS: usize = 16;
/// Things said to an extension whose last run has not ended; more are lost.
const MAX_WAITING: usize = 8;
/// Pushes of one extension at once.
const BURST: u32 = 100;
/// Pushes a second, in the long run.
const RATE: u32 = 20;

/// An extension's thread.
#[derive(Default)]
pub(super) struct Thread {
    stage: Stage,
    /// Things it was told and has not dealt with.
    busy: usize,
    allowance: Allowance,
    /// What the hub has said to the next run already.
    waiting: Vec<Word>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    None,
    Running,
    /// Told to return. `wanted`: to be started anew.
    Ending {
        wanted: bool,
    },
}

/// How many pushes it may make.
struct Allowance {
    left: u32,
    /// Nothing has been used up since then; `None`: ever.
    since: Option<Instant>,
}

impl Default for Allowance {
    fn default() -> Self {
        Self {
            left: BURST,
            since: None,
        }
    }
}

impl Allowance {
    fn take(&mut self, now: Instant) -> bool {
        let since = *self.since.get_or_insert(now);
        let gained = now.saturating_duration_since(since).as_millis() * u128::from(RATE) / 1000;
        if gained > 0 {
            self.left = BURST.min(
                self.left
                    .saturating_add(gained.min(u128::from(BURST)) as u32),
            );
            self.since = Some(now);
        }
        let may = self.left > 0;
        self.left = self.left.saturating_sub(1);
        may
    }
}

/// A client's question to an extension.
pub(super) struct Question {
    number: u64,
    extension: usize,
    client: ClientId,
    id: Value,
}

impl Core {
    /// Those that collect something from the start on.
    pub(in crate::core) fn start_extensions(&mut self) {
        for index in 0..self.extensions.all.len() {
            if self.extensions.all[index].way == (Way::Thread { always: true }) {
                self.run_extension(index);
            }
        }
    }

    pub(super) fn on_extension_attached(&mut self, index: usize) {
        if self.run_extension(index) {
            self.tell_attached(index);
        }
    }

    fn tell_attached(&mut self, index: usize) {
        let version = self
            .extensions
            .version(index)
            .unwrap_or_default()
            .to_owned();
        self.say_to_extension(index, Word::Attached { version });
    }

    /// Whether it can be told something now.
    fn run_extension(&mut self, index: usize) -> bool {
        let id = ExtensionId(index);
        let thread = &mut self.extensions.all[index].thread;
        match thread.stage {
            Stage::Running => true,
            Stage::None => {
                *thread = Thread {
                    stage: Stage::Running,
                    ..Thread::default()
                };
                self.effect(Effect::Extension(id, ExtensionOrder::Start));
                true
            }
            Stage::Ending { .. } => {
                thread.stage = Stage::Ending { wanted: true };
                self.set_timer(Timer::Extension(id), self.setup.extension_timeout);
                false
            }
        }
    }

    /// Not if it does not run, and will not soon.
    pub(super) fn say_to_extension(&mut self, index: usize, word: Word) {
        let id = ExtensionId(index);
        let thread = &mut self.extensions.all[index].thread;
        match thread.stage {
            Stage::Running => {}
            // Whether the hub is there it is told when it starts.
            Stage::Ending { wanted: true } if word.is_work() => {
                if thread.waiting.len() < MAX_WAITING {
                    thread.waiting.push(word);
                }
                return;
            }
            Stage::Ending { .. } | Stage::None => return,
        }
        if word.is_work() {
            thread.busy += 1;
            if thread.busy == 1 {
                self.set_timer(Timer::Extension(id), self.setup.extension_timeout);
            }
        }
        self.effect(Effect::Extension(id, ExtensionOrder::Say(word)));
    }

    pub(super) fn end_extension(&mut self, index: usize) {
        self.end_extension_by(index, ExtensionOrder::End);
    }

    fn end_extension_by(&mut self, index: usize, order: ExtensionOrder) {
        let id = ExtensionId(index);
        let thread = &mut self.extensions.all[index].thread;
        match thread.stage {
            Stage::None => return,
            Stage::Running => self.effect(Effect::Extension(id, order)),
            Stage::Ending { .. } => {}
        }
        let thread = &mut self.extensions.all[index].thread;
        thread.stage = Stage::Ending { wanted: false };
        thread.waiting.clear();
        self.timers.cancel(Timer::Extension(id));
        self.clear_alarms_of(id);
        self.refuse_questions(index, "the extension was detached");
    }

    pub(in crate::core) fn on_extension(&mut self, id: ExtensionId, event: ExtensionEvent) {
        let index = id.0;
        if self.extensions.all[index].thread.stage != Stage::Running {
            // Last words of one that has been told to return.
            return;
        }
        match event {
            ExtensionEvent::Idle => self.on_extension_idle(index),
            ExtensionEvent::Stuck => self.fail_extension(index, "it does not listen"),
            ExtensionEvent::Push { event, payload } => {
                self.on_extension_push(index, event, payload)
            }
            ExtensionEvent::Answer { question, answer } => {
                let answer = answer.map_err(|reason| Fault::new(Code::Failed, reason));
                self.answer_question(index, question, answer);
            }
            ExtensionEvent::Alarm { name, description } => {
                self.set_alarm_of(id, name, description);
            }
        }
    }

    fn on_extension_idle(&mut self, index: usize) {
        let timer = Timer::Extension(ExtensionId(index));
        let thread = &mut self.extensions.all[index].thread;
        thread.busy = thread.busy.saturating_sub(1);
        match thread.busy {
            0 => {
                self.timers.cancel(timer);
                // Those that work all the time would have their code back at once.
                if self.extensions.all[index].way == (Way::Thread { always: false }) {
                    self.effect(Effect::Settle);
                }
            }
            _ => self.set_timer(timer, self.setup.extension_timeout),
        }
    }

    fn on_extension_push(&mut self, index: usize, event: String, payload: Value) {
        let now = self.now;
        let entry = &mut self.extensions.all[index];
        if !entry.thread.allowance.take(now) {
            return self
                .fail_extension(index, &format!("it says more than {RATE} things a second"));
        }
        let name = entry.offered.name.clone();
        let said = Said {
            name,
            event,
            payload,
        };
        self.push_extension(index, ExtensionPush::Said(said));
    }

    pub(in crate::core) fn on_extension_overdue(&mut self, id: ExtensionId) {
        let seconds = self.setup.extension_timeout.as_secs_f64();
        match self.extensions.all[id.0].thread.stage {
            Stage::None => {}
            Stage::Running => self.fail_extension(id.0, &format!("it hangs for {seconds} s")),
            Stage::Ending { .. } => {
                let reason = format!("its last run has not ended for {seconds} s");
                self.fail_extension(id.0, &reason);
            }
        }
    }

    /// The thread has ended; nothing comes from it any more.
    pub(in crate::core) fn on_extension_ended(
        &mut self,
        id: ExtensionId,
        result: Result<(), String>,
    ) {
        let index = id.0;
        let stage = std::mem::take(&mut self.extensions.all[index].thread.stage);
        self.timers.cancel(Timer::Extension(id));
        match stage {
            Stage::None => {}
            Stage::Running => {
                let reason = result.err();
                self.fail_extension(index, reason.as_deref().unwrap_or("it has ended"));
            }
            Stage::Ending { wanted } => {
                let thread = &mut self.extensions.all[index].thread;
                let waiting = std::mem::take(&mut thread.waiting);
                if wanted {
                    self.run_extension(index);
                    if self.extensions.all[index].is_attached
                        && self.channels.extensions.is_joined()
                    {
                        self.tell_attached(index);
                    }
                    for word in waiting {
                        self.say_to_extension(index, word);
                    }
                }
            }
        }
    }

    /// Detached for its own fault; everything else goes on.
    fn fail_extension(&mut self, index: usize, reason: &str) {
        let entry = &mut self.extensions.all[index];
        let name = entry.offered.name.clone();
        let was_attached = std::mem::take(&mut entry.is_attached);
        error!("extension {name}: {reason}");
        self.refuse_questions(index, reason);
        self.end_extension_by(index, ExtensionOrder::Abandon);
        self.clear_alarms_of(ExtensionId(index));
        if was_attached {
            let reason = reason.to_owned();
            self.send_extension(ExtensionPush::Error { name, reason });
        }
    }

    /// A client wants something of an extension.
    pub(in crate::core) fn on_extension_asked(
        &mut self,
        client: ClientId,
        id: Value,
        (name, what): (&str, &str),
        params: Value,
    ) {
        let fault = match self.extensions.find(name) {
            None => Fault::new(
                Code::Unavailable,
                format!("extension {name} is not enabled: see NERVES_HUB_EXTENSIONS"),
            ),
            Some(_) if self.extensions.questions.len() >= MAX_QUESTIONS => {
                Fault::new(Code::Busy, "too many wait for extensions already")
            }
            Some(index) if !self.run_extension(index) => {
                let text = format!("extension {name} is about to end: try again");
                Fault::new(Code::Busy, text)
            }
            Some(extension) => {
                self.extensions.last_question += 1;
                let number = self.extensions.last_question;
                self.extensions.questions.push(Question {
                    number,
                    extension,
                    client,
                    id,
                });
                let word = Word::Asked {
                    question: number,
                    what: what.to_owned(),
                    params,
                    alarms: self.raised_alarms(),
                };
                return self.say_to_extension(extension, word);
            }
        };
        self.reply(client, id, Err(fault));
    }

    fn answer_question(&mut self, index: usize, number: u64, answer: Answer) {
        let questions = &mut self.extensions.questions;
        let open = |question: &Question| question.number == number && question.extension == index;
        // Its client may have left.
        if let Some(place) = questions.iter().position(open) {
            let Question { client, id, .. } = questions.swap_remove(place);
            self.reply(client, id, answer);
        }
    }

    fn refuse_questions(&mut self, index: usize, reason: &str) {
        let mut questions = self.extensions.questions.iter();
        while let Some(question) = questions.find(|question| question.extension == index) {
            let fault = Fault::new(Code::Failed, reason);
            self.answer_question(index, question.number, Err(fault));
            questions = self.extensions.questions.iter();
        }
    }

    pub(in crate::core) fn forget_questions_of(&mut self, client: ClientId) {
        let questions = &mut self.extensions.questions;
        questions.retain(|question| question.client != client);
    }

    pub(super) fn raised_alarms(&self) -> Vec<(String, String)> {
        let raised = self.raised();
        raised
            .map(|(name, description)| (name.to_owned(), description.to_owned()))
            .collect()
    }
}
