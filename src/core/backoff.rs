//! Delays between attempts: doubling with jitter, from a generator seeded once. Pure.

use std::time::Duration;

use crate::config::LinkSettings;

/// The list of delays and the place in it.
#[derive(Debug)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    jitter_percent: u8,
    attempt: u32,
    /// In place of doubling, if there are any.
    delays: Vec<Duration>,
    state: u64,
}

impl Backoff {
    /// `seed` must differ between devices, or a fleet reconnects in step.
    pub fn new(settings: &LinkSettings, seed: u64) -> Self {
        Self::between(
            settings.reconnect_min,
            settings.reconnect_max,
            settings.reconnect_jitter,
            seed,
        )
    }

    /// The same for other things than connections.
    pub fn between(min: Duration, max: Duration, jitter_percent: u8, seed: u64) -> Self {
        Self {
            min,
            max,
            jitter_percent,
            attempt: 0,
            delays: Vec::new(),
            state: seed,
        }
    }

    pub fn reset(&mut self) {
        self.attempt = 0;
    }

    /// One after the other, the last one for ever; none: doubling again.
    pub fn set_delays(&mut self, delays: Vec<Duration>) {
        self.delays = delays;
    }

    fn base(&self) -> Duration {
        let factor = 1u32.checked_shl(self.attempt).unwrap_or(u32::MAX);
        let last = self.delays.len().saturating_sub(1);
        match self.delays.get(last.min(self.attempt as usize)) {
            Some(delay) => *delay,
            None => self.min.saturating_mul(factor).min(self.max),
        }
    }

    /// The delay before the next attempt: min·2ⁿ up to max, plus 0 ..= jitter per cent.
    pub fn next_delay(&mut self) -> Duration {
        let base = self.base();
        self.attempt = (self.attempt + 1).min(31);
        let share = (self.next_random() >> 11) as f64 / (1u64 << 53) as f64;
        base + base.mul_f64(share * f64::from(self.jitter_percent) / 100.0)
    }

    /// SplitMix64: every seed gives a full-period, well-mixed sequence.
    fn next_random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
