//! How much of a download is here, told in whole per cents.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::core::event::InstallEvent;

/// Counts bytes, from any number of threads.
pub struct Progress<'a> {
    tell: &'a (dyn Fn(InstallEvent) + Sync),
    /// 0: not known, so nothing can be told.
    size: AtomicU64,
    held: AtomicU64,
    /// The last one told.
    percent: AtomicU64,
}

impl<'a> Progress<'a> {
    pub fn new(tell: &'a (dyn Fn(InstallEvent) + Sync), size: Option<u64>, held: u64) -> Self {
        Self {
            tell,
            size: AtomicU64::new(size.unwrap_or(0)),
            held: AtomicU64::new(held),
            percent: AtomicU64::new(0),
        }
    }

    /// So many more bytes have come.
    pub fn add(&self, count: u64) {
        let held = self.held.fetch_add(count, Ordering::Relaxed) + count;
        let size = self.size.load(Ordering::Relaxed);
        if size == 0 {
            return;
        }
        let percent = (held.saturating_mul(100) / size).min(100);
        if self.percent.fetch_max(percent, Ordering::Relaxed) < percent {
            // At most 100 by the line above.
            let percent = percent as u8;
            (self.tell)(InstallEvent::Downloading { percent });
        }
    }

    /// The size became known.
    pub fn learn(&self, size: Option<u64>) {
        self.size.store(size.unwrap_or(0), Ordering::Relaxed);
    }

    /// Exactly so many bytes are here: some had to be forgotten.
    pub fn set(&self, held: u64) {
        self.held.store(held, Ordering::Relaxed);
    }
}
