//! A lease: who may use a block, or one address delegated out of a block. The rules are those of the ledger.

use crate::model::id::HostId;

/// How new a lease is. Only the holder writes the next; everybody keeps the highest.
///
/// A block's lease has `count` 0. An address's lease has the epoch of its block at the time and a count within it,
/// so a block that moves on to its next epoch outdates all that was delegated before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Version {
    /// The block's epoch, from 1; 0 means that nobody ever wrote a lease.
    pub epoch: u64,
    /// The address's count within the epoch.
    pub count: u64,
}

/// Whom an address is delegated to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Holder {
    /// It is where its block is.
    Home,
    /// This host borrowed it.
    Host(HostId),
}

/// The lease of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockLease {
    /// From 1.
    pub epoch: u64,
    /// The only host that may allocate from the block, delegate out of it, or write its next lease.
    pub holder: HostId,
}

/// The lease of one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressLease {
    /// How new it is.
    pub version: Version,
    /// Who may use the address.
    pub holder: Holder,
}
