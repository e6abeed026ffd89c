//! What one shell has said and the hub has not got yet. Bounded, and pure.
//!
//! One push at a time is with the socket thread, and the shell says more only once it is
//! told to, so a flood stays where it comes from. While the hub is away the last 64 KiB are
//! kept. What was sent is kept as well until the hub has answered something sent after it:
//! a link that died in silence has swallowed it.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::wire::{ConsolePush, ExtensionPush, Outbound};

/// Kept of each, at least, when there is more.
const KEPT: usize = 64 * 1024;

/// The pushes of one shell, oldest first.
#[derive(Debug, Default)]
pub(super) struct Outlet {
    waiting: Queue,
    /// With the socket thread, and its reference there.
    in_flight: Option<(u64, Outbound)>,
    /// Sent, not known to have arrived.
    unconfirmed: Queue,
    references: VecDeque<u64>,
    /// Bytes that were dropped since the hub heard of it last.
    lost: usize,
    /// Bytes of unconfirmed pushes that are not kept.
    forgotten: usize,
    /// The shell waits to be told that it may go on.
    pub owes_more: bool,
}

#[derive(Debug, Default)]
struct Queue {
    pushes: VecDeque<Outbound>,
    bytes: usize,
}

impl Queue {
    fn push_back(&mut self, push: Outbound) {
        self.bytes += weight(&push);
        self.pushes.push_back(push);
    }

    fn push_front(&mut self, push: Outbound) {
        self.bytes += weight(&push);
        self.pushes.push_front(push);
    }

    fn pop_front(&mut self) -> Option<Outbound> {
        let push = self.pushes.pop_front()?;
        self.bytes -= weight(&push);
        Some(push)
    }

    fn pop_back(&mut self) -> Option<Outbound> {
        let push = self.pushes.pop_back()?;
        self.bytes -= weight(&push);
        Some(push)
    }

    /// True when the oldest can go and enough stays.
    fn overflows(&self) -> bool {
        let oldest = self.pushes.front().map_or(0, weight);
        self.bytes - oldest >= KEPT
    }
}

/// Bytes it counts for: text, and a little for everything else.
fn weight(push: &Outbound) -> usize {
    match push {
        Outbound::Console(ConsolePush::Output(text))
        | Outbound::Extension(ExtensionPush::ShellOutput(text)) => text.len(),
        Outbound::Heartbeat
        | Outbound::Join(..)
        | Outbound::Device(_)
        | Outbound::Console(ConsolePush::File(_))
        | Outbound::Extension(_) => 64,
    }
}

impl Outlet {
    pub(super) fn say(&mut self, push: Outbound) {
        self.waiting.push_back(push);
    }

    /// Nothing waits and nothing is under way.
    pub(super) fn is_clear(&self) -> bool {
        self.in_flight.is_none() && self.waiting.pushes.is_empty()
    }

    /// Keeps what there is room for; for as long as nothing can be sent.
    pub(super) fn trim(&mut self) {
        while self.waiting.overflows() {
            self.lost += self.waiting.pop_front().as_ref().map_or(0, weight);
        }
    }

    /// What is to be sent now, if anything. `tell` makes a push of a notice's text.
    pub(super) fn next(&mut self, tell: impl Fn(Arc<str>) -> Outbound) -> Option<Outbound> {
        if self.in_flight.is_some() {
            return None;
        }
        match std::mem::take(&mut self.lost) {
            0 => self.waiting.pop_front(),
            lost => {
                // Colours may have been left on by what is missing.
                let text = format!("\x1b[0m\r\n[{lost} bytes of output were lost here]\r\n");
                Some(tell(text.into()))
            }
        }
    }

    pub(super) fn note_pushed(&mut self, reference: u64, push: Outbound) {
        self.in_flight = Some((reference, push));
    }

    /// The kernel has it; true when it was ours.
    pub(super) fn on_sent(&mut self, reference: u64) -> bool {
        let Some((_, push)) = self.in_flight.take_if(|(own, _)| *own == reference) else {
            return false;
        };
        self.unconfirmed.push_back(push);
        self.references.push_back(reference);
        while self.unconfirmed.overflows() {
            self.references.pop_front();
            self.forgotten += self.unconfirmed.pop_front().as_ref().map_or(0, weight);
        }
        true
    }

    /// The hub has answered what was sent after everything below `reference`.
    pub(super) fn on_answered(&mut self, reference: u64) {
        while self.references.front().is_some_and(|own| *own < reference) {
            self.references.pop_front();
            self.unconfirmed.pop_front();
            self.forgotten = 0;
        }
    }

    /// The connection is gone. What the socket thread had not sent is taken back; after a
    /// silence also what nobody has confirmed.
    pub(super) fn recall(&mut self, in_silence: bool) {
        if let Some((_, push)) = self.in_flight.take() {
            self.waiting.push_front(push);
        }
        while let Some(push) = self.unconfirmed.pop_back() {
            if in_silence {
                self.waiting.push_front(push);
            }
        }
        if in_silence {
            self.lost += self.forgotten;
        }
        self.forgotten = 0;
        self.references.clear();
        self.trim();
    }

    /// Whoever wanted it is gone.
    pub(super) fn clear(&mut self) {
        let owes_more = self.owes_more;
        *self = Self::default();
        self.owes_more = owes_more;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Outbound {
        Outbound::Console(ConsolePush::Output(text.into()))
    }

    fn shown(push: Option<Outbound>) -> String {
        match push {
            Some(Outbound::Console(ConsolePush::Output(text))) => text.to_string(),
            other => panic!("{other:?}"),
        }
    }

    fn next(outlet: &mut Outlet) -> Option<Outbound> {
        outlet.next(|text| Outbound::Console(ConsolePush::Output(text)))
    }

    /// Sends what waits, with references counted from `first`.
    fn send_all(outlet: &mut Outlet, first: u64) -> Vec<String> {
        let mut sent = Vec::new();
        while let Some(push) = next(outlet) {
            let reference = first + sent.len() as u64;
            outlet.note_pushed(reference, push.clone());
            assert!(next(outlet).is_none(), "one at a time");
            assert!(outlet.on_sent(reference));
            sent.push(shown(Some(push)));
        }
        sent
    }

    #[test]
    fn one_push_is_under_way_at_a_time_and_in_order() {
        let mut outlet = Outlet::default();
        for word in ["a", "b", "c"] {
            outlet.say(text(word));
        }
        assert_eq!(send_all(&mut outlet, 1), ["a", "b", "c"]);
        assert!(outlet.is_clear());
        assert!(!outlet.on_sent(7));
    }

    #[test]
    fn the_last_64_kib_are_kept_and_the_loss_is_told_once() {
        let mut outlet = Outlet::default();
        let block = "x".repeat(1000);
        for _ in 0..100 {
            outlet.say(text(&block));
            outlet.trim();
        }
        let sent = send_all(&mut outlet, 1);
        let kept = sent.len() - 1;
        assert_eq!(kept, 66, "65 536 bytes fit into 66 blocks");
        assert!(
            sent[0].contains(&format!("[{} bytes", (100 - kept) * 1000)),
            "{}",
            sent[0]
        );
        assert!(send_all(&mut outlet, 200).is_empty());
    }

    #[test]
    fn after_a_silence_what_was_not_confirmed_is_said_again() {
        let mut outlet = Outlet::default();
        for word in ["a", "b", "c"] {
            outlet.say(text(word));
        }
        send_all(&mut outlet, 1);
        // A heartbeat with reference 2 would lie between the first and the second.
        outlet.on_answered(2);
        outlet.recall(true);
        assert_eq!(send_all(&mut outlet, 10), ["b", "c"]);
        outlet.recall(false);
        assert!(outlet.is_clear(), "the hub was there to the end");
    }

    #[test]
    fn what_the_socket_thread_did_not_send_is_sent_again() {
        for in_silence in [false, true] {
            let mut outlet = Outlet::default();
            outlet.say(text("a"));
            outlet.say(text("b"));
            let push = next(&mut outlet).expect("push");
            outlet.note_pushed(1, push);
            outlet.recall(in_silence);
            assert_eq!(send_all(&mut outlet, 2), ["a", "b"]);
        }
    }

    #[test]
    fn unconfirmed_output_is_bounded_and_its_loss_is_told() {
        let mut outlet = Outlet::default();
        let block = "x".repeat(1024);
        for number in 0..200 {
            outlet.say(text(&block));
            send_all(&mut outlet, number);
        }
        assert_eq!(outlet.unconfirmed.bytes, KEPT);
        assert_eq!(outlet.references.len(), 64);
        outlet.recall(true);
        let sent = send_all(&mut outlet, 1000);
        assert_eq!(sent.len(), 65);
        assert!(
            sent[0].contains(&format!("[{} bytes", 136 * 1024)),
            "{}",
            sent[0]
        );
    }
}
