//! How often one client may ask: a token bucket for each. The questions of a client that asks more often wait, and a question that would
//! wait too long gets no answer: no answer means "asked too often" to every resolver.
//!
//! Pure: time is an argument.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// The buckets of all clients.
#[derive(Debug)]
pub(crate) struct Buckets<K> {
    rate: f64,
    burst: f64,
    capacity: usize,
    buckets: HashMap<K, Bucket>,
    // Clients without a bucket of their own share this one.
    others: Bucket,
    swept: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

/// Clients that are known one by one; source addresses can be forged, memory can't.
const CAPACITY: usize = 8192;
/// So long a question waits for its turn, and once more to be forwarded: less than the time after which the C libraries ask again (musl:
/// 2.5 s), unless they are told to ask again sooner.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// A sweep looks at every bucket, so it is not made for every question.
const SWEEP: Duration = Duration::from_secs(1);

impl<K: Hash + Eq> Buckets<K> {
    /// Full buckets of `burst` questions that fill at `rate` questions a second.
    pub fn new(rate: u32, burst: u32, now: Instant) -> Self {
        let (rate, burst) = (f64::from(rate), f64::from(burst));
        let others = Bucket { tokens: burst, at: now };
        Self { rate, burst, capacity: CAPACITY, buckets: HashMap::new(), others, swept: now }
    }

    /// How long a question of this client has to wait; `None` if that is longer than [`LONGEST_WAIT`].
    pub fn admit(&mut self, client: K, now: Instant) -> Option<Duration> {
        let (rate, burst) = (self.rate, self.burst);
        if self.buckets.len() >= self.capacity && now.saturating_duration_since(self.swept) >= SWEEP {
            // A full bucket says no more than none.
            self.buckets.retain(|_, bucket| bucket.filled(rate, burst, now) < burst);
            self.swept = now;
        }
        let room = self.buckets.len() < self.capacity;
        let bucket = match self.buckets.get_mut(&client) {
            Some(bucket) => bucket,
            None if room => self.buckets.entry(client).or_insert(Bucket { tokens: burst, at: now }),
            None => &mut self.others,
        };
        bucket.take(rate, burst, now)
    }
}

impl Bucket {
    fn filled(&self, rate: f64, burst: f64, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        (self.tokens + passed * rate).min(burst)
    }

    /// Takes a token, also one that is still to come.
    fn take(&mut self, rate: f64, burst: f64, now: Instant) -> Option<Duration> {
        let left = self.filled(rate, burst, now) - 1.0;
        let wait = Duration::try_from_secs_f64((-left).max(0.0) / rate.max(f64::MIN_POSITIVE)).ok();
        let wait = wait.filter(|wait| *wait <= LONGEST_WAIT)?;
        *self = Self { tokens: left, at: self.at.max(now) };
        Some(wait)
    }
}

#[cfg(test)]
mod tests;
