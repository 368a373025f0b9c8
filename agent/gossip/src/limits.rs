//! The limits of gossip, and how much of each is in use. Owns the numbers; enforces nothing.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::incarnation::announce::MAX_VALUE;

/// Most bytes of a digest, as it is sent. A digest names every incarnation that is known, and a message is one UDP datagram of
/// chitchat's with at most 65,507 bytes: the rest is for changes.
///
/// After compression an incarnation takes 27 bytes if all hosts started at about the same time, and 37 if they are of all ages:
/// 16 are the host's ID, the others tell addresses, starts, heartbeats and versions apart. So a cluster ends at 1,600 to 2,200 hosts.
/// Incarnations that ended within the last seven and a half minutes count, too.
pub(crate) const MAX_DIGEST: usize = 60_000;
/// Most incarnations in a digest, whatever their bytes.
pub(crate) const MAX_INCARNATIONS: usize = 2_200;
/// Sessions that a receiver remembers. The process of each living host has one.
pub(crate) const MAX_SESSIONS: usize = 2_048;
const _: () = assert!(MAX_SESSIONS <= MAX_INCARNATIONS);

/// In percent: a limit of which so much is in use is near.
const NEAR: usize = 80;

/// What gossip bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Limit {
    /// Bytes of the digest. Beyond the limit all other hosts drop this host's gossip.
    Digest,
    /// Incarnations that this host knows. A living host has one of them, and one session. Beyond the limit this host derives a key
    /// for many of the datagrams, and soon drops all gossip.
    Incarnations,
    /// Bytes of the largest value that this host announces. A larger value is not announced; the others keep the last one.
    Value,
}

impl Limit {
    /// All limits, in the order of their declaration.
    pub const ALL: [Self; 3] = [Self::Digest, Self::Incarnations, Self::Value];

    /// The limit itself.
    pub const fn most(self) -> usize {
        match self {
            Self::Digest => MAX_DIGEST,
            Self::Incarnations => MAX_SESSIONS,
            Self::Value => MAX_VALUE,
        }
    }

    /// The limit's name for metrics and JSON: snake case, stable.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Digest => "digest_bytes",
            Self::Incarnations => "incarnations",
            Self::Value => "value_bytes",
        }
    }
}

/// How much of a limit is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// The limit.
    pub limit: Limit,
    /// In the limit's own unit; may be more than [`Limit::most`].
    pub used: usize,
}

impl Usage {
    /// Whether 80 % or more of the limit is in use.
    pub const fn is_near(self) -> bool {
        self.used.saturating_mul(100) >= self.limit.most() * NEAR
    }
}

/// The last known use of each limit.
#[derive(Debug, Default)]
pub(crate) struct Gauges([AtomicUsize; Limit::ALL.len()]);

impl Gauges {
    pub fn set(&self, limit: Limit, used: usize) {
        self.0[limit as usize].store(used, Ordering::Relaxed);
    }

    pub fn get(&self, limit: Limit) -> usize {
        self.0[limit as usize].load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests;
