//! The arithmetic of parts: which bytes each has, which are missing, who fetches what. Pure.

use std::ops::Range;

use crate::wire::PART;

/// A file in parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    size: u64,
    /// Whether each part is held.
    held: Vec<bool>,
}

impl Plan {
    /// Refuses when `parts` is not the number that `size` bytes make.
    ///
    /// # Errors
    /// Both numbers, in words.
    pub fn new(size: u64, parts: usize) -> Result<Self, String> {
        let expected = size.div_ceil(PART);
        if size == 0 || expected != parts as u64 {
            return Err(format!(
                "{size} bytes make {expected} parts, but there are {parts} checksums of parts"
            ));
        }
        let held = vec![false; parts];
        Ok(Self { size, held })
    }

    /// How many parts there are.
    pub fn parts(&self) -> usize {
        self.held.len()
    }

    /// The bytes of a part.
    pub fn bytes(&self, part: usize) -> Range<u64> {
        let begin = part as u64 * PART;
        begin..(begin + PART).min(self.size)
    }

    /// How many bytes a part has.
    pub fn length(&self, part: usize) -> u64 {
        let bytes = self.bytes(part);
        bytes.end - bytes.start
    }

    /// Notes that a part is held, or that it turned out not to be.
    pub fn set_held(&mut self, part: usize, held: bool) {
        self.held[part] = held;
    }

    pub fn is_held(&self, part: usize) -> bool {
        self.held[part]
    }

    /// Bytes of all parts held.
    pub fn held_bytes(&self) -> u64 {
        let held = (0..self.parts()).filter(|part| self.held[*part]);
        held.map(|part| self.length(part)).sum()
    }

    /// The missing parts as at most `most` runs of neighbours, in order, none much longer
    /// than its share.
    pub fn runs(&self, most: usize) -> Vec<Range<usize>> {
        let missing = self.held.iter().filter(|held| !**held).count();
        let share = missing.div_ceil(most.max(1)).max(1);
        let mut runs: Vec<Range<usize>> = Vec::new();
        for part in (0..self.parts()).filter(|part| !self.held[*part]) {
            match runs.last_mut() {
                Some(run) if run.end == part && run.len() < share => run.end += 1,
                _ => runs.push(part..part + 1),
            }
        }
        runs.truncate(most.max(1));
        runs
    }

    /// One run from the first missing part to the last, held ones in between included.
    pub fn span(&self) -> Vec<Range<usize>> {
        let first = self.held.iter().position(|held| !held);
        let last = self.held.iter().rposition(|held| !held);
        first
            .zip(last)
            .map(|(first, last)| first..last + 1)
            .into_iter()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_size_and_its_number_of_parts_must_agree() {
        for (size, parts, good) in [
            (1, 1, true),
            (PART, 1, true),
            (PART + 1, 2, true),
            (PART + 1, 1, false),
            (PART, 2, false),
            (0, 0, false),
            (0, 1, false),
            (u64::MAX, 1, false),
        ] {
            assert_eq!(Plan::new(size, parts).is_ok(), good, "{size} {parts}");
        }
    }

    proptest! {
        #[test]
        fn parts_cover_the_file_once(size in 1..40 * PART) {
            let plan = Plan::new(size, size.div_ceil(PART) as usize).unwrap();
            let mut at = 0;
            for part in 0..plan.parts() {
                let bytes = plan.bytes(part);
                prop_assert_eq!(bytes.start, at);
                prop_assert!(bytes.end > bytes.start && plan.length(part) <= PART);
                at = bytes.end;
            }
            prop_assert_eq!(at, size);
        }

        #[test]
        fn runs_are_disjoint_missing_and_end_the_work(
            held in prop::collection::vec(any::<bool>(), 1..60),
            most in 0..9_usize,
        ) {
            let size = held.len() as u64 * PART - 7;
            let mut plan = Plan::new(size, held.len()).unwrap();
            for (part, held) in held.iter().enumerate() {
                plan.set_held(part, *held);
            }
            let mut rounds = 0;
            loop {
                let runs = plan.runs(most);
                prop_assert!(runs.len() <= most.max(1));
                let before = plan.held_bytes();
                let mut last = 0;
                for run in &runs {
                    prop_assert!(run.start >= last && run.end > run.start);
                    last = run.end;
                    for part in run.clone() {
                        prop_assert!(!plan.is_held(part));
                        plan.set_held(part, true);
                    }
                }
                if runs.is_empty() {
                    break;
                }
                prop_assert!(plan.held_bytes() > before);
                rounds += 1;
                prop_assert!(rounds <= held.len());
            }
            prop_assert_eq!(plan.held_bytes(), size);
        }
    }
}
