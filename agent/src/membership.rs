//! What this host asks of the other hosts by itself: to be admitted, to take leases that were written for them, and whether a host
//! that gossip no longer hears is still there. And the clock of its ledger.

pub mod admission;
pub mod clock;
pub mod outbox;
pub mod probe;
