//! Which peers have just exchanged states with this host. Pure; time is an argument.
//!
//! In chitchat each of two peers begins an exchange with the other in every round. A single exchange already brings either side what
//! the other has. So after a peer's exchange has ended well, this host begins none with it for the rest of the round. If a message of
//! the exchange is lost, both peers try as before.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// The exchanges of the last round that peers began.
#[derive(Debug)]
pub(crate) struct Exchanges {
    fresh: Duration,
    done: BTreeMap<SocketAddr, Instant>,
}

impl Exchanges {
    /// None so far; `interval` is the time between two rounds.
    pub fn new(interval: Duration) -> Self {
        // Less than a round, so that the peer's next one comes before this one is stale; more than half of one, or both of two whose
        // rounds are half a round apart would go on.
        Self { fresh: interval * 3 / 4, done: BTreeMap::new() }
    }

    /// Notes that `peer` has acknowledged the end of an exchange that it began.
    pub fn complete(&mut self, peer: SocketAddr, now: Instant) {
        self.done.insert(peer, now);
    }

    /// Notes that `peer` has something that this host misses, whatever it has told before.
    pub fn want(&mut self, peer: SocketAddr) {
        self.done.remove(&peer);
    }

    /// Whether an exchange with `peer` would only repeat the last one.
    pub fn is_fresh(&mut self, peer: SocketAddr, now: Instant) -> bool {
        self.done.retain(|_, at| now.saturating_duration_since(*at) < self.fresh);
        self.done.contains_key(&peer)
    }
}

#[cfg(test)]
mod tests;
