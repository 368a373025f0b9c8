//! When requested work is to be done: a few requests at once, more at a limited rate, none forgotten. Pure; time is an argument.

use tokio::time::Instant;

use crate::task::token_bucket::TokenBucket;

/// Work that is requested from time to time. Requests that come before the work is done are served together.
#[derive(Debug)]
pub(crate) struct Throttle {
    bucket: TokenBucket,
    due: Option<Instant>,
}

impl Throttle {
    /// Work that takes a token of `bucket` each time.
    pub fn new(bucket: TokenBucket) -> Self {
        Self { bucket, due: None }
    }

    /// Requests the work.
    pub fn request(&mut self, now: Instant) {
        self.due.get_or_insert_with(|| self.bucket.next(now));
    }

    /// When [`Throttle::take`] will next be true; `None` if nothing is requested.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Whether the work is to be done now. True once per time that it is due.
    pub fn take(&mut self, now: Instant) -> bool {
        let taken = self.due.is_some_and(|due| due <= now) && self.bucket.take(now);
        if taken {
            self.due = None;
        }
        taken
    }
}

#[cfg(test)]
mod tests;
