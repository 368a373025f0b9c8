//! When the task looks at chitchat's states. Pure; time is an argument.
//!
//! A change is looked at as soon as there is a token. A new heartbeat changes nothing that a consumer sees, so heartbeats are
//! looked at a few times per round. If nothing happens at all, the next look is due when a silent host has to be judged anew.

use std::time::Duration;

use tokio::time::Instant;

use crate::task::throttle::Throttle;
use crate::task::token_bucket::TokenBucket;

/// Looks at changes that can follow each other at once.
const BURST: u32 = 8;
/// Over time there is at most one look at changes per this time, and per tenth of a round of gossip.
pub(crate) const LOOK_REFILL: Duration = Duration::from_millis(25);
/// After a look at changes the task rests for so many times as long as the look took: in a large cluster where much changes,
/// looks take a tenth of a processor at most. The rest ends when the next look at heartbeats may be due, so that no heartbeat is
/// seen late.
const REST_PER_WORK: u32 = 10;
/// Looks at heartbeats per round of gossip.
const PULSES: u32 = 4;

/// What decides when the next look is due.
#[derive(Debug)]
pub(crate) struct LookSchedule {
    changes: Throttle,
    pulse_spacing: Duration,
    /// When the last look began.
    looked: Instant,
    /// From the beginning of the last look to the earliest look at changes.
    rest: Duration,
    /// When heartbeats that may have come are to be looked at.
    pulse: Option<Instant>,
}

impl LookSchedule {
    /// For gossip with `interval` between two rounds. A look has just begun.
    pub fn new(interval: Duration, now: Instant) -> Self {
        let bucket = TokenBucket::new(BURST, LOOK_REFILL.max(interval / 10), now);
        Self {
            changes: Throttle::new(bucket),
            pulse_spacing: interval / PULSES,
            looked: now,
            rest: Duration::ZERO,
            pulse: None,
        }
    }

    /// Notes that something may have changed.
    pub fn note_change(&mut self, now: Instant) {
        self.changes.request(now);
    }

    /// Notes that heartbeats may have come.
    pub fn note_heartbeats(&mut self, now: Instant) {
        self.pulse.get_or_insert(now.max(self.looked + self.pulse_spacing));
    }

    /// When the next look is due; `idle` after the last one at the latest.
    pub fn due(&self, idle: Duration) -> Instant {
        let change = self.changes.due().map(|due| due.max(self.looked + self.rest));
        change.or(self.pulse).map_or(self.looked + idle, |due| due.min(self.looked + idle))
    }

    /// Whether to look now. If so, the look begins now.
    pub fn take(&mut self, idle: Duration, now: Instant) -> bool {
        // A look at changes sees heartbeats, too. So heartbeats wait for one that is due soon.
        let heartbeats = self.changes.due().is_none() && self.pulse.is_some_and(|due| due <= now);
        let changes = now >= self.looked + self.rest && self.changes.take(now);
        let taken = changes || heartbeats || now >= self.looked + idle;
        if taken {
            (self.looked, self.pulse) = (now, None);
        }
        taken
    }

    /// Notes how long the look took that [`LookSchedule::take`] began.
    pub fn note_work(&mut self, took: Duration) {
        self.rest = (took * REST_PER_WORK).min(self.pulse_spacing);
    }
}

#[cfg(test)]
mod tests;
