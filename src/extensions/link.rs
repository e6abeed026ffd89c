//! Between an extension's thread and the core: words in, pushes out. Owns the pace at which
//! an extension may wait; must not know what any of them does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use serde_json::Value;

pub use crate::core::effect::{Alarms, Word};
use crate::core::event::{Event, ExtensionEvent, ExtensionId};
use crate::system::channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};

/// Words that may wait for an extension; with more it counts as hanging.
pub const QUEUE: usize = 16;

/// The agent's end of a link.
#[derive(Clone)]
pub struct Handle {
    words: Sender<Word>,
    nudger: Nudger,
    is_over: Arc<AtomicBool>,
}

impl Handle {
    /// False when so many words wait already that it must be hanging.
    pub fn say(&self, word: Word) -> bool {
        !matches!(self.words.try_send(word), Err(TrySendError::Full(_)))
    }

    /// It should return; nobody waits for that.
    pub fn end(&self) {
        self.is_over.store(true, Ordering::SeqCst);
        self.nudger.nudge();
    }
}

/// An extension's way to the core.
pub struct Link {
    words: Receiver<Word>,
    nudger: Nudger,
    is_over: Arc<AtomicBool>,
    speaker: Speaker,
    /// A word is being worked upon whose end the core waits for.
    is_busy: bool,
}

impl Link {
    pub fn new(id: ExtensionId, inbox: Sender<Event>) -> (Self, Handle) {
        let (sender, words) = bounded(QUEUE);
        let nudger = Nudger {
            words: sender.clone(),
            is_pending: Arc::default(),
        };
        let handle = Handle {
            words: sender,
            nudger: nudger.clone(),
            is_over: Arc::default(),
        };
        let link = Self {
            words,
            nudger,
            is_over: Arc::clone(&handle.is_over),
            speaker: Speaker { id, inbox },
            is_busy: false,
        };
        (link, handle)
    }

    /// Waits for the next word, at most until `until`. Whoever does not come back here in
    /// `NERVES_HUB_EXTENSION_TIMEOUT` after a word of the hub's or a client's counts as
    /// hanging.
    pub fn next(&mut self, until: Option<Instant>) -> Word {
        if std::mem::take(&mut self.is_busy) {
            self.tell(ExtensionEvent::Idle);
        }
        if self.is_over() {
            return Word::Over;
        }
        let word = match until {
            Some(until) => self.words.recv_deadline(until),
            None => self
                .words
                .recv()
                .map_err(|_| RecvTimeoutError::Disconnected),
        };
        if self.is_over() {
            return Word::Over;
        }
        match word {
            Ok(word) => {
                self.is_busy = word.is_work();
                if word == Word::Nudged {
                    self.nudger.is_pending.store(false, Ordering::SeqCst);
                }
                word
            }
            Err(RecvTimeoutError::Timeout) => Word::Due,
            Err(RecvTimeoutError::Disconnected) => Word::Over,
        }
    }

    /// [`Word::Over`] would be next: whatever takes long should end.
    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }

    /// Says `NAME:event`; dropped and counted while the hub does not take it.
    pub fn push(&self, event: &str, payload: Value) {
        self.speaker.push(event, payload);
    }

    /// Answers [`Word::Asked`].
    pub fn answer(&self, question: u64, answer: Result<Value, String>) {
        self.tell(ExtensionEvent::Answer { question, answer });
    }

    /// Raises an alarm of the agent, or describes it anew; `None` clears it.
    pub fn alarm(&self, name: &str, description: Option<String>) {
        self.tell(ExtensionEvent::Alarm {
            name: name.to_owned(),
            description,
        });
    }

    /// For the extension's own threads.
    pub fn nudger(&self) -> Nudger {
        self.nudger.clone()
    }

    /// For the extension's own threads.
    pub fn speaker(&self) -> Speaker {
        self.speaker.clone()
    }

    fn tell(&self, event: ExtensionEvent) {
        self.speaker.tell(event);
    }
}

/// Says things to the hub for an extension.
#[derive(Clone)]
pub struct Speaker {
    id: ExtensionId,
    inbox: Sender<Event>,
}

impl Speaker {
    /// See [`Link::push`].
    pub fn push(&self, event: &str, payload: Value) {
        self.tell(ExtensionEvent::Push {
            event: event.to_owned(),
            payload,
        });
    }

    fn tell(&self, event: ExtensionEvent) {
        // The dispatcher is gone only when the process leaves.
        let _ = self.inbox.send(Event::Extension(self.id, event));
    }
}

/// Wakes an extension that waits in [`Link::next`]. Never blocks.
#[derive(Clone)]
pub struct Nudger {
    words: Sender<Word>,
    /// One waits already.
    is_pending: Arc<AtomicBool>,
}

impl Nudger {
    pub fn nudge(&self) {
        if !self.is_pending.swap(true, Ordering::SeqCst) {
            // With a full queue it wakes anyway.
            if self.words.try_send(Word::Nudged).is_err() {
                self.is_pending.store(false, Ordering::SeqCst);
            }
        }
    }
}
