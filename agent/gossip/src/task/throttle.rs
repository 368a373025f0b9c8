//! A leading-edge throttle: the first request is served at once, later ones at a limited rate, and none is forgotten. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// When a piece of work that was asked for is to be done.
#[derive(Debug)]
pub(crate) struct Throttle {
    spacing: Duration,
    served: Option<Instant>,
    due: Option<Instant>,
}

impl Throttle {
    /// Work at most every `spacing`.
    pub fn new(spacing: Duration) -> Self {
        Self { spacing, served: None, due: None }
    }

    /// Notes that the work is wanted.
    pub fn request(&mut self, now: Instant) {
        let earliest = self.served.map_or(now, |served| now.max(served + self.spacing));
        self.due.get_or_insert(earliest);
    }

    /// When [`Throttle::take`] will next be true; `None` if nothing is wanted.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Whether the work is to be done now. True once per time that it is due.
    pub fn take(&mut self, now: Instant) -> bool {
        let ripe = self.due.is_some_and(|due| due <= now);
        if ripe {
            self.served = Some(now);
            self.due = None;
        }
        ripe
    }
}

#[cfg(test)]
mod tests;
