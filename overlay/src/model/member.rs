//! Membership: which life of a host speaks, and which hosts are forgotten. The rules are those of the ledger.

use crate::model::id::HostId;

/// One boot of a host's machine. What an earlier boot said is no longer believed once a later one is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Boot {
    /// One more than that of the boot before; 0 for the boot in which the identity was made.
    pub generation: u64,
    /// Drawn at random: two boots from the same old disk have the same generation, but not the same nonce.
    pub nonce: u64,
}

impl Boot {
    /// Is this another boot than `other`, and not an earlier one?
    pub fn supersedes(self, other: Self) -> bool {
        self.generation > other.generation
    }

    /// May this be the newest boot of a host of which `other` was seen?
    pub fn follows(self, other: Self) -> bool {
        self == other || self.supersedes(other)
    }
}

/// How far a host had come when it said something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Stamp {
    /// The boot.
    pub boot: Boot,
    /// How often its ledger had changed: a host that comes with a lower number than one seen before has an old disk.
    pub revision: u64,
}

/// A host that others deal with no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seal {
    /// The host that takes what the forgotten one held.
    pub heir: HostId,
    /// Has it? Before, the heir waits for the other members to seal it as well.
    pub done: bool,
}
