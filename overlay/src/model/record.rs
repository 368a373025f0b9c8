//! Records: what hosts say of themselves. Each is written by one host only, so records never conflict; what they mean
//! together is for [`crate::cluster::derive`] to say.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::model::endpoint::Endpoint;
use crate::model::host::{HostInfo, Liveness};
use crate::model::id::{EndpointId, HostId, NetworkId, Vni};
use crate::model::lease::Version;
use crate::model::links::Links;
use crate::model::member::{Seal, Stamp};
use crate::model::network::{BlockId, Driver, Network};

/// All that one host says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    /// Itself; `None` until that part has arrived.
    pub host: Option<HostInfo>,
    /// The networks that it keeps alive, and under which VNI it receives their packets, if it does.
    pub networks: BTreeMap<NetworkId, Arc<NetworkMembership>>,
    /// The networks that it knows to be deleted.
    pub tombstones: BTreeSet<NetworkId>,
    /// The blocks that it holds.
    pub blocks: BTreeMap<NetworkId, Vec<Run>>,
    /// The addresses that it has borrowed out of the blocks of others.
    pub borrowed: BTreeMap<NetworkId, BTreeMap<IpAddr, Version>>,
    /// The leases that it wrote for others and that they have not yet confirmed.
    pub outbox: BTreeMap<NetworkId, BTreeSet<Statement>>,
    /// What it knows of the links of the networks that it keeps alive.
    pub links: BTreeMap<NetworkId, Links>,
    /// Its endpoints.
    pub endpoints: BTreeMap<EndpointId, Arc<Endpoint>>,
    /// The hosts that it deals with no more.
    pub seals: BTreeMap<HostId, Seal>,
}

impl Record {
    /// Do both say the same, but for how far the ledger has come?
    pub fn says_the_same(&self, other: &Self) -> bool {
        let hosts_are_alike = match (&self.host, &other.host) {
            (Some(one), Some(two)) => {
                let revision = two.stamp.revision;
                *two == HostInfo { stamp: Stamp { revision, ..one.stamp }, ..one.clone() }
            }
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        let Self { host: _, networks, tombstones, blocks, borrowed, outbox, links, endpoints, seals } = self;
        hosts_are_alike
            && (networks, tombstones, blocks) == (&other.networks, &other.tombstones, &other.blocks)
            && (borrowed, outbox, links) == (&other.borrowed, &other.outbox, &other.links)
            && (endpoints, seals) == (&other.endpoints, &other.seals)
    }

    /// What other hosts are told: nothing of the networks that are on this host only.
    pub fn for_others(&self) -> Cow<'_, Self> {
        let local = |membership: &Arc<NetworkMembership>| membership.network.settings.driver == Driver::Bridge;
        if !self.networks.values().any(local) {
            return Cow::Borrowed(self);
        }
        let mut told = self.clone();
        let own: BTreeSet<NetworkId> =
            self.networks.iter().filter(|(_, membership)| local(membership)).map(|(id, _)| *id).collect();
        told.networks.retain(|id, _| !own.contains(id));
        told.blocks.retain(|id, _| !own.contains(id));
        told.borrowed.retain(|id, _| !own.contains(id));
        told.outbox.retain(|id, _| !own.contains(id));
        told.links.retain(|id, _| !own.contains(id));
        told.endpoints.retain(|_, endpoint| !own.contains(&endpoint.network));
        Cow::Owned(told)
    }
}

/// A host's part in a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkMembership {
    /// The definition.
    pub network: Network,
    /// The identifier that it receives the network's packets under; `None` while it has no endpoint there.
    pub vni: Option<Vni>,
}

/// Neighbouring blocks that a host holds under one epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Run {
    /// The first block.
    pub start: BlockId,
    /// How many, from 1.
    pub len: u16,
    /// The epoch of their leases.
    pub epoch: u64,
}

impl Run {
    /// Its blocks, each with the epoch.
    pub fn blocks(&self) -> impl Iterator<Item = (BlockId, u64)> + use<> {
        let Self { start, len, epoch } = *self;
        let end = start.index.saturating_add(len);
        (start.index..end).map(move |index| (BlockId { index, ..start }, epoch))
    }

    /// Does the block come right after its last one?
    pub fn is_followed_by(&self, block: BlockId) -> bool {
        self.start.range == block.range && u32::from(self.start.index) + u32::from(self.len) == u32::from(block.index)
    }
}

/// A lease that its writer tells the world of until it has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Statement {
    /// A block went to another host.
    Transfer {
        /// The block.
        block: BlockId,
        /// Its new epoch.
        epoch: u64,
        /// Its new holder.
        to: HostId,
    },
    /// An address was delegated.
    Delegate {
        /// The address.
        address: IpAddr,
        /// The version of its lease.
        version: Version,
        /// The borrower.
        to: HostId,
    },
    /// A borrowed address goes home.
    Return {
        /// The address.
        address: IpAddr,
        /// The version of its lease.
        version: Version,
    },
}

/// One life of a host's agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incarnation {
    /// Higher than that of every life before.
    pub generation: u64,
    /// Has all arrived that it said when it started?
    pub complete: bool,
    /// Is it there?
    pub liveness: Liveness,
    /// What it says; shared, since it is large and mostly the same from look to look.
    pub record: Arc<Record>,
}

/// What all hosts say, newest life of each first.
pub type Records = BTreeMap<HostId, Vec<Incarnation>>;

#[cfg(test)]
mod tests;
