//! What the servers did, counted.

use std::sync::atomic::{AtomicU64, Ordering};

/// What the servers did since they began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Questions answered out of the zone, with "no" as well.
    pub answered: u64,
    /// Questions answered by the host's nameservers.
    pub forwarded: u64,
    /// Messages that are no question for us, told so. Datagrams that hickory-server can't read are refused by itself and
    /// not counted.
    pub refused: u64,
    /// Questions not answered and connections closed because of a limit.
    pub limited: u64,
    /// Questions that none of the host's nameservers answered.
    pub failed: u64,
}

/// [`Counts`] in the making.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub answered: Counter,
    pub forwarded: Counter,
    pub refused: Counter,
    pub limited: Counter,
    pub failed: Counter,
}

/// One of them. The counters say nothing about each other, so their order in memory does not matter.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Counters {
    /// What they say now.
    pub fn read(&self) -> Counts {
        Counts {
            answered: self.answered.get(),
            forwarded: self.forwarded.get(),
            refused: self.refused.get(),
            limited: self.limited.get(),
            failed: self.failed.get(),
        }
    }
}
