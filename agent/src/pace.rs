//! How soon a piece of work may follow another: a token bucket whose tokens are time. A lone piece is not delayed, a few may follow each
//! other at once, and of a burst most changes share one.

use std::time::{Duration, Instant};

/// The bucket. Time is an argument; an earlier one than before counts as the same.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// What may be spent at once.
    size: Duration,
    /// When the bucket is, or was, full again.
    full: Instant,
}

impl Pace {
    /// A full bucket of this size.
    pub(crate) fn new(size: Duration, now: Instant) -> Self {
        Self { size, full: now }
    }

    /// Spends so much; gives from when on the bucket owes nothing. What costs more than the bucket holds is paid off first.
    pub(crate) fn spend(&mut self, cost: Duration, now: Instant) -> Instant {
        // What is missing to a full bucket is the time until it is full.
        self.full = self.full.max(now) + cost;
        self.full.checked_sub(self.size).map_or(now, |begin| begin.max(now))
    }
}

#[cfg(test)]
mod tests;
