//! The decider: the client that answers for the integrator. Pure. Which questions there are,
//! and what becomes of them without an answer, is `update`'s, `reboot`'s and `archive`'s.

use serde_json::Value;

use super::Answer;
use crate::core::Core;
use crate::core::event::{ClientId, QuestionId};
use crate::wire::control::{Code, Fault, Outgoing};
use crate::wire::json::json;
use crate::wire::verdict::{Asked, Question, Verdict};

/// Questions not yet answered.
pub(super) const MAX_QUESTIONS: usize = 8;

impl Core {
    pub(super) fn register_decider(&mut self, client: ClientId) -> Answer {
        match self.control.decider {
            Some(other) if other != client => {
                let text = format!("client {} is the decider: there can be one only", other.0);
                Err(Fault::new(Code::Busy, text))
            }
            Some(_) | None => {
                info!("client {} is the decider now", client.0);
                self.control.decider = Some(client);
                Ok(json!({ "decider": true }))
            }
        }
    }

    /// Puts a question to the decider; `None`: there is none, or it has enough to do. What
    /// comes of it arrives at [`Core::on_decided`], once, unless it is withdrawn before.
    pub(in crate::core) fn ask_decider(&mut self, question: Question) -> Option<QuestionId> {
        let decider = self.control.decider?;
        if self.control.open.len() >= MAX_QUESTIONS {
            return None;
        }
        self.control.last_question += 1;
        let id = QuestionId(self.control.last_question);
        self.control.open.push((id, question.asked()));
        self.tell(decider, Outgoing::Question(id.0, question));
        Some(id)
    }

    /// The question is void: too late, or there is nothing left to decide.
    pub(in crate::core) fn withdraw_question(&mut self, id: QuestionId) {
        let Some(index) = self.control.open.iter().position(|(open, _)| *open == id) else {
            return;
        };
        self.control.open.swap_remove(index);
        if let Some(decider) = self.control.decider {
            self.tell(decider, Outgoing::Withdrawn(id.0));
        }
    }

    /// A wrong answer leaves the question open.
    pub(super) fn on_verdict(&mut self, client: ClientId, id: QuestionId, text: &str) {
        let answer = self.take_verdict(client, id, text);
        let (reply, decided) = match answer {
            Ok((asked, verdict)) => {
                let reply = json!({ "question": id.0, "answer": verdict.word(asked) });
                (Ok(reply), Some((asked, verdict)))
            }
            Err(fault) => (Err(fault), None),
        };
        self.reply(client, Value::Null, reply);
        if let Some((asked, verdict)) = decided {
            self.pass_on(id, asked, Some(verdict));
        }
    }

    fn take_verdict(
        &mut self,
        client: ClientId,
        id: QuestionId,
        text: &str,
    ) -> Result<(Asked, Verdict), Fault> {
        if self.control.decider != Some(client) {
            let text = "only the decider answers questions: see the method decide";
            return Err(Fault::new(Code::Refused, text));
        }
        let open = &mut self.control.open;
        let Some(index) = open.iter().position(|(open, _)| *open == id) else {
            let text = format!("question {} is not open, or not any more", id.0);
            return Err(Fault::new(Code::Refused, text));
        };
        let asked = open[index].1;
        let verdict = Verdict::parse(asked, text);
        let verdict = verdict.map_err(|reason| Fault::new(Code::BadParams, reason))?;
        open.swap_remove(index);
        Ok((asked, verdict))
    }

    pub(super) fn on_decider_left(&mut self) {
        info!("the decider is gone");
        self.control.decider = None;
        for (id, asked) in std::mem::take(&mut self.control.open) {
            self.pass_on(id, asked, None);
        }
    }

    /// What came of a question; `None`: the decider is gone.
    fn pass_on(&mut self, id: QuestionId, asked: Asked, verdict: Option<Verdict>) {
        #[cfg(test)]
        self.control.decided.push((id, asked, verdict.clone()));
        self.on_decided(id, asked, verdict);
    }
}
