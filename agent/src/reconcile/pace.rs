//! How soon one round may follow another: a token bucket. A lone change is not delayed, and of a burst most changes share a round.

use std::time::{Duration, Instant};

/// So many rounds may follow each other at once.
const BURST: u32 = 4;
/// After this a further one may.
const REFILL: Duration = Duration::from_millis(10);

/// The bucket. Time is an argument; an earlier one than before counts as the same.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// When the bucket is, or was, full again.
    full: Instant,
}

impl Pace {
    /// A full bucket.
    pub(super) fn new(now: Instant) -> Self {
        Self { full: now }
    }

    /// Takes a token; gives when the round may begin that it is for.
    pub(super) fn take(&mut self, now: Instant) -> Instant {
        // What is missing to a full bucket is the time until it is full.
        self.full = self.full.max(now) + REFILL;
        let most = REFILL * BURST;
        self.full.checked_sub(most).map_or(now, |begin| begin.max(now))
    }
}

#[cfg(test)]
mod tests;
