//! Intents: what this host was asked for, as it is kept on disk.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use crate::model::addr::IfName;
use crate::model::endpoint::Endpoint;
use crate::model::id::{EndpointId, NetworkId, Vni};
use crate::model::links::Links;
use crate::model::network::{Name, Network};
use crate::model::publish::{HostPort, Protocol, Published};

/// A network namespace, named so that another one at the same path is not taken for it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NetnsRef {
    /// Where it can be opened, like `/run/netns/web` or `/proc/4242/ns/net`.
    pub path: PathBuf,
    /// The kernel's number for it, never used twice between two boots (socket option `SO_NETNS_COOKIE`).
    pub cookie: u64,
}

/// What is found where a [`NetnsRef`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtPath {
    /// The namespace that is meant, or something that can't be told: nothing is released on a doubt.
    Same,
    /// Nothing, or another one.
    Gone,
}

/// An endpoint of this host and where its container is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attachment {
    /// What the others are told.
    pub endpoint: Endpoint,
    /// The container's namespace.
    pub netns: NetnsRef,
    /// The interface's name in there.
    pub ifname: IfName,
    /// Of the container's ways out the one with the lowest metric is taken; no other interface of ours in there has it.
    pub metric: u32,
    /// The ports of this host that lead to it.
    pub published: Published,
}

/// What this host needs to take part in a network, chosen once, so that a restart changes no packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seat {
    /// The identifier under which this host receives the network's packets; no other network here has it.
    pub vni: Vni,
    /// Number of the transit link, from 0: which /31 of the transit range it has.
    pub transit: u16,
}

/// All that this host was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Intents {
    /// The networks that this host knows of.
    pub networks: BTreeMap<NetworkId, Network>,
    /// Its seats in those where it has endpoints.
    pub seats: BTreeMap<NetworkId, Seat>,
    /// Its endpoints.
    pub attachments: BTreeMap<EndpointId, Arc<Attachment>>,
    /// What it knows of the links in networks that it keeps alive.
    pub links: BTreeMap<NetworkId, Links>,
    /// Networks that were deleted; their ids are never used again.
    pub tombstones: BTreeSet<NetworkId>,
}

impl Seat {
    /// How many transit links a host can have: the /31s of a /17.
    pub const TRANSIT_LINKS: u16 = 1 << 14;
}

impl Intents {
    /// This host's endpoints in a network.
    pub fn attached(&self, network: NetworkId) -> impl Iterator<Item = &Arc<Attachment>> {
        self.attachments.values().filter(move |a| a.endpoint.network == network)
    }

    /// The endpoints that are in one container, the one first that its packets to the world leave by.
    pub fn together(&self, netns: &NetnsRef) -> Vec<&Arc<Attachment>> {
        let mut together: Vec<_> = self.attachments.values().filter(|a| a.netns.cookie == netns.cookie).collect();
        together.sort_by_key(|a| (a.metric, a.endpoint.id));
        together
    }

    /// The endpoint of that name in a network.
    pub fn find(&self, network: NetworkId, name: &Name) -> Option<&Arc<Attachment>> {
        self.attached(network).find(|a| a.endpoint.name == *name)
    }

    /// The endpoint that has this address in a network.
    pub fn at(&self, network: NetworkId, address: IpAddr) -> Option<&Arc<Attachment>> {
        self.attached(network).find(|a| a.endpoint.has(address))
    }

    /// The endpoints that a port of this host leads to already, or those that could not be told from it.
    pub fn publishers(&self, port: &HostPort) -> impl Iterator<Item = (&Arc<Attachment>, HostPort)> {
        let all = self.attachments.values().flat_map(|a| a.published.keys().map(move |host| (a, *host)));
        all.filter(move |(_, host)| host.overlaps(port))
    }

    /// The ports on the way to the endpoints of a network.
    pub fn vias(&self, network: NetworkId) -> BTreeSet<(Protocol, u16)> {
        let published = self.attached(network).flat_map(|a| &a.published);
        published.map(|(host, target)| (host.protocol, target.via)).collect()
    }

    /// A seat for a network: the one it has, or the network's proposed VNI (the next free one on a clash) and the
    /// lowest free transit link. `None` if no transit link is free.
    pub fn seat(&self, network: NetworkId) -> Option<Seat> {
        if let Some(seat) = self.seats.get(&network) {
            return Some(*seat);
        }
        let vnis: BTreeSet<Vni> = self.seats.values().map(|s| s.vni).collect();
        let links: BTreeSet<u16> = self.seats.values().map(|s| s.transit).collect();
        let mut vni = Vni::proposal(network);
        while vnis.contains(&vni) {
            vni = vni.next();
        }
        let transit = (0..Seat::TRANSIT_LINKS).find(|n| !links.contains(n))?;
        Some(Seat { vni, transit })
    }
}
