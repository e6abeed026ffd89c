//! Lines on their way to the hub: as many as there is room for, in order, and how many are
//! missing where. Owns the one place where sources and the extension meet.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::line::Line;
use crate::config::extensions::Severity;
use crate::extensions::Nudger;

/// Memory for lines.
const BYTES: usize = 256 * 1024;
/// Lines that leave together: a flood would otherwise leave single lines between notices.
const RUN: usize = 20;
/// Bytes of such lines.
const RUN_BYTES: usize = 32 * 1024;

/// Lines in order. When there is no room, the oldest that are not about to leave give way.
struct Ring {
    /// About to leave.
    run: VecDeque<Line>,
    /// How many lines are missing between the two, the last of which was of this time.
    lost: Option<(u64, Instant)>,
    lines: VecDeque<Line>,
    most: usize,
    /// Of both.
    bytes: usize,
}

impl Ring {
    fn new(most: usize) -> Self {
        Self {
            run: VecDeque::new(),
            lost: None,
            lines: VecDeque::new(),
            most,
            bytes: 0,
        }
    }

    fn add(&mut self, line: Line) {
        self.bytes += line.size();
        self.lines.push_back(line);
        while self.lines.len() > self.most || self.bytes > BYTES {
            let Some(oldest) = self.lines.pop_front() else {
                return;
            };
            self.bytes -= oldest.size();
            let before = self.lost.map_or(0, |(count, _)| count);
            self.lost = Some((before + oldest.stands_for, oldest.at));
        }
    }

    fn next(&mut self) -> Option<Line> {
        if self.run.is_empty() {
            self.prepare();
        }
        let line = self.run.pop_front()?;
        self.bytes = self.bytes.saturating_sub(line.size());
        Some(line)
    }

    fn prepare(&mut self) {
        if let Some((count, at)) = self.lost.take() {
            let notice = Line::notice(count, at);
            self.bytes += notice.size();
            self.run.push_back(notice);
        }
        let mut bytes = 0;
        while self.run.len() < RUN && bytes < RUN_BYTES {
            let Some(line) = self.lines.pop_front() else {
                return;
            };
            bytes += line.size();
            self.run.push_back(line);
        }
    }

    fn is_empty(&self) -> bool {
        self.run.is_empty() && self.lost.is_none() && self.lines.is_empty()
    }
}

/// Where sources put lines in.
pub struct Intake {
    /// The least severe that are taken.
    level: Severity,
    // Held for a few moves of memory only, by code that neither logs nor panics: whoever
    // logs may wait for it.
    state: Mutex<State>,
}

struct State {
    ring: Ring,
    /// Wants to hear of the next line.
    waiting: Option<Nudger>,
}

impl Intake {
    pub fn new(level: Severity, most: usize) -> Self {
        let ring = Ring::new(most);
        let waiting = None;
        let state = Mutex::new(State { ring, waiting });
        Self { level, state }
    }

    /// Whether lines of this level are taken at all.
    pub fn takes(&self, level: Severity) -> bool {
        level <= self.level
    }

    /// False when it is not severe enough.
    pub fn put(&self, line: Line) -> bool {
        if !self.takes(line.level) {
            return false;
        }
        let waiting = {
            let mut state = self.state();
            state.ring.add(line);
            state.waiting.take()
        };
        if let Some(nudger) = waiting {
            nudger.nudge();
        }
        true
    }

    /// So many lines never came in.
    pub fn lost(&self, count: u64) {
        self.put(Line::notice(count, Instant::now()));
    }

    /// The next lines: so many at most, and none more once they have `bytes`.
    pub fn take(&self, most: usize, bytes: usize) -> Vec<Line> {
        let mut state = self.state();
        let (mut lines, mut size) = (Vec::new(), 0);
        while lines.len() < most && size < bytes {
            let Some(line) = state.ring.next() else {
                break;
            };
            size += line.message.len();
            lines.push(line);
        }
        lines
    }

    /// Whether there are lines; if there are none, `nudger` hears of the next one.
    pub fn has_lines(&self, nudger: Nudger) -> bool {
        let mut state = self.state();
        let has_lines = !state.ring.is_empty();
        state.waiting = (!has_lines).then_some(nudger);
        has_lines
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        self.state().ring.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Line {
        Line::new(Severity::INFO, text, vec![]).unwrap()
    }

    fn messages(lines: &[Line]) -> Vec<&str> {
        lines.iter().map(|line| &*line.message).collect()
    }

    #[test]
    fn the_oldest_give_way_and_a_line_in_their_place_tells_how_many() {
        let intake = Intake::new(Severity::INFO, 3);
        for number in 0..5 {
            assert!(intake.put(line(&number.to_string())));
        }
        let taken = intake.take(10, usize::MAX);
        assert_eq!(
            messages(&taken),
            ["2 log lines were dropped", "2", "3", "4"]
        );
        assert!(taken.is_sorted_by_key(|line| line.at));
        assert_eq!(taken[0].level, Severity::WARNING);
        assert_eq!(intake.take(10, usize::MAX), []);
        assert_eq!(intake.bytes(), 0);
    }

    #[test]
    fn lines_about_to_leave_do_so_together_and_the_gap_is_behind_them() {
        let intake = Intake::new(Severity::INFO, 30);
        for number in 0..30 {
            intake.put(line(&number.to_string()));
        }
        assert_eq!(messages(&intake.take(1, usize::MAX)), ["0"]);
        for number in 30..100 {
            intake.put(line(&number.to_string()));
        }
        let taken = intake.take(100, usize::MAX);
        let all = messages(&taken);
        assert_eq!(
            all[..19],
            (1..20).map(|n| n.to_string()).collect::<Vec<_>>()
        );
        assert_eq!(all[19..22], ["50 log lines were dropped", "70", "71"]);
        assert_eq!(all.last(), Some(&"99"));
        assert_eq!(all.len(), 50);
    }

    #[test]
    fn a_notice_that_is_dropped_counts_for_what_it_stood_for() {
        let intake = Intake::new(Severity::INFO, 2);
        intake.put(line("a"));
        intake.lost(7);
        intake.put(line("b"));
        assert_eq!(
            messages(&intake.take(9, 999)),
            ["1 log line was dropped", "7 log lines were dropped", "b"]
        );
        intake.lost(7);
        for _ in 0..3 {
            intake.put(line("c"));
        }
        assert_eq!(
            messages(&intake.take(9, 999)),
            ["8 log lines were dropped", "c", "c"]
        );
    }

    #[test]
    fn bytes_are_bounded_and_so_is_what_leaves_at_a_time() {
        let intake = Intake::new(Severity::INFO, 100_000);
        let long = "x".repeat(8000);
        for _ in 0..100 {
            intake.put(line(&long));
            assert!(intake.bytes() <= BYTES);
        }
        assert!(intake.bytes() > BYTES - 2 * 8192);
        assert_eq!(intake.take(100, 10_000).len(), 3, "a notice and two");
        for number in 0..100_000 {
            intake.put(line(&number.to_string()));
        }
        assert!(intake.bytes() <= BYTES);
    }

    #[test]
    fn what_is_not_severe_enough_is_not_taken() {
        let intake = Intake::new(Severity::WARNING, 10);
        assert!(!intake.put(line("info")));
        assert!(intake.put(Line::new(Severity::WARNING, "warning", vec![]).unwrap()));
        assert_eq!(messages(&intake.take(9, 999)), ["warning"]);
    }
}
