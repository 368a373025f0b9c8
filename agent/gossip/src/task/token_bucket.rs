//! A token bucket: a few pieces of work at once, and a limited rate over time. Pure; time is an argument.

use std::time::Duration;

use tokio::time::Instant;

/// Holds up to `burst` tokens. Each piece of work takes one, and one comes back every `refill`.
///
/// In any period of length `t` at most `burst + t / refill` tokens are taken.
#[derive(Debug)]
pub(crate) struct TokenBucket {
    refill: Duration,
    /// The time in which all tokens but one come back: a bucket that is full after this time has one token now.
    reserve: Duration,
    /// When the bucket is full, if nothing is taken until then.
    full_at: Instant,
}

impl TokenBucket {
    /// A full bucket. A `burst` of 0 counts as 1.
    pub fn new(burst: u32, refill: Duration, now: Instant) -> Self {
        Self { refill, reserve: refill * burst.saturating_sub(1), full_at: now }
    }

    /// When the next token is there: `now`, or later.
    pub fn next(&self, now: Instant) -> Instant {
        now + self.full_at.saturating_duration_since(now + self.reserve)
    }

    /// Takes a token, if there is one.
    pub fn take(&mut self, now: Instant) -> bool {
        let has_token = self.next(now) <= now;
        if has_token {
            self.full_at = self.full_at.max(now) + self.refill;
        }
        has_token
    }
}

#[cfg(test)]
mod tests;
