//! A host: what it says of itself, and what the others think of it.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use crate::model::addr::Subnet;
use crate::model::id::HostId;
use crate::model::member::Stamp;
use crate::model::network::Name;

/// What a host says of itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostInfo {
    /// What people call it.
    pub name: Name,
    /// Where it receives tunnelled packets: the VTEP's address.
    pub vtep: IpAddr,
    /// The UDP port of the VTEP.
    pub vxlan_port: u16,
    /// Where it answers other agents.
    pub peer: SocketAddr,
    /// MTU of the underlay in bytes.
    pub underlay_mtu: u32,
    /// What it routes elsewhere of the [pools](crate::model::pool) that subnets of networks come from.
    pub routed: BTreeSet<Subnet>,
    /// How far it had come when it said so.
    pub stamp: Stamp,
    /// May it act on its leases?
    pub phase: Phase,
    /// Who founded the cluster that it belongs to; none before it belongs to one.
    pub founder: Option<HostId>,
}

impl HostInfo {
    /// Does it belong to another cluster than the one that `founder` founded? Of a host that belongs to none yet nobody can say so.
    pub fn is_apart_from(&self, founder: Option<HostId>) -> bool {
        matches!((founder, self.founder), (Some(ours), Some(theirs)) if ours != theirs)
    }
}

/// What a host has seen of its ways to others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ways {
    /// MTU of the underlay in bytes.
    pub underlay_mtu: u32,
    /// What it routes elsewhere of the [pools](crate::model::pool) that subnets of networks come from.
    pub routed: BTreeSet<Subnet>,
}

/// How far a host is with becoming, or being again, one that may act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Phase {
    /// It waits until a majority of the members has acknowledged it.
    Joining,
    /// It has booted and waits until members have confirmed that its leases still hold.
    Unchecked,
    /// It may.
    #[default]
    Established,
}

/// Is a host there? Says the failure detector; an argument of everything that is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Liveness {
    /// Heard of lately.
    Live,
    /// Silent for longer than it ever was: its names are withdrawn, its tunnel entries kept.
    Suspect,
    /// Silent for too long: its tunnel entries are withdrawn too. All is back when it is heard again.
    Dead,
}
