//! An endpoint: one interface of one container in one network, as all hosts know it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::model::addr::Mac;
use crate::model::id::{EndpointId, NetworkId};
use crate::model::lease::Version;
use crate::model::network::{Lamport, Name};

/// One address of an endpoint and the lease that allows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Assigned {
    /// The address.
    pub address: IpAddr,
    /// The lease under which the endpoint has it: of two hosts that claim an address, the higher lease is right.
    pub lease: Version,
}

/// What a host says of one of its endpoints.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// Its identity.
    pub id: EndpointId,
    /// The network it is in.
    pub network: NetworkId,
    /// Its name, unique in the network.
    pub name: Name,
    /// Further names; several endpoints may share one.
    pub aliases: BTreeSet<Name>,
    /// Its addresses, at least one.
    pub addresses: Vec<Assigned>,
    /// Its MAC.
    pub mac: Mac,
    /// When it was attached.
    pub created: Lamport,
}

impl Endpoint {
    /// Its name and aliases.
    pub fn names(&self) -> impl Iterator<Item = &Name> {
        std::iter::once(&self.name).chain(&self.aliases)
    }

    /// Does it have this address?
    pub fn has(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|a| a.address == address)
    }
}
