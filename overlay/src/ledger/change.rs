//! What a ledger writes.

use std::net::IpAddr;

use super::{Activation, Forget, Millis};
use crate::model::id::{EndpointId, HostId, NetworkId};
use crate::model::lease::{AddressLease, BlockLease};
use crate::model::member::{Boot, Seal, Stamp};
use crate::model::network::{BlockId, Name, Network};
use crate::model::record::Statement;

/// One durable change. Replaying all of them in order gives the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Change {
    /// A network is known.
    Open(Network),
    /// A network is deleted for good.
    Tombstone(NetworkId),
    /// All that was known of a network is forgotten.
    Close(NetworkId),
    /// The highest known lease of a block.
    Block(NetworkId, BlockId, BlockLease),
    /// The highest known lease of an address.
    Address(NetworkId, IpAddr, AddressLease),
    /// An endpoint of this host has the address.
    Bind(NetworkId, IpAddr, EndpointId),
    /// No endpoint of this host has it, or not any more; the address rests.
    Unbind(NetworkId, IpAddr, Rest),
    /// The address has rested, and whose it was is forgotten.
    Rested(NetworkId, IpAddr),
    /// A lease that was written for another host and has to reach it.
    Enqueue(NetworkId, Statement),
    /// It has reached it.
    Dequeue(NetworkId, Statement),
    /// May this host act?
    Activation(Activation),
    /// Who founded the cluster that this host belongs to from now on.
    Founder(HostId),
    /// The present boot of this host.
    Boot(Boot),
    /// A host is a member.
    Member(HostId),
    /// A host belongs to another cluster.
    Foreign(HostId),
    /// The newest boot and the highest revision of a host that this one has dealt with.
    Dealt(HostId, Stamp),
    /// A host with which this one deals no more.
    Seal(HostId, Seal),
    /// A host that this one is to forget, and how far it is with that.
    Forget(HostId, Forget),
    /// This host is not the one to forget it, or has done so.
    Withdraw(HostId),
    /// How often the ledger has changed.
    Revision(u64),
}

/// For whom an address is kept, and since when.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Rest {
    /// The name of the endpoint that had it; `None` for a borrowed address that no endpoint here has had yet.
    pub name: Option<Name>,
    /// When it was released or borrowed.
    pub since: Millis,
}
