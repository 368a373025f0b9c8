//! Kernel state as it is. Only what is ours or in its way, and only what a plan needs to know.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::datapath::desired::{Bridge, Remote, Uplink};
use crate::datapath::firewall::ObservedTable;
use crate::datapath::foreign_chains::Others;
use crate::model::addr::{IfName, IpVersion, Mac, Subnet};
use crate::model::id::{EndpointId, NetworkId, Vni};
use crate::model::intent::AtPath;

/// All that is ours in the kernel of this host, and what it meets there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Observed {
    /// The smallest MTU in bytes of the routes to the other hosts. While no other host is known, it is the MTU of the link that has the
    /// VTEP's address; if that link is the loopback interface, that of the default route. `None` if there is no such link.
    pub underlay_mtu: Option<u32>,
    /// What the host routes elsewhere of the pools that subnets of networks come from; `None` if the host was not looked at.
    pub routed: Option<BTreeSet<Subnet>>,
    /// What the host's namespace forwards.
    pub forwarding: BTreeSet<IpVersion>,
    /// Our table in the host's namespace; `None` if there is none.
    pub firewall: Option<ObservedTable>,
    /// Connections that were to be forgotten and could not be.
    pub unforgotten: BTreeSet<Flow>,
    /// What others have in the host's namespace that packets of ours meet.
    pub others: Others,
    /// The segments, each a namespace of ours.
    pub segments: BTreeMap<NetworkId, ObservedSegment>,
}

/// What is in the namespace of one network.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ObservedSegment {
    /// Our table; `None` if there is none.
    pub firewall: Option<ObservedTable>,
    /// Connections that were to be forgotten and could not be.
    pub unforgotten: BTreeSet<Flow>,
    /// Our table of what passes the bridge; `None` if there is none.
    pub filter: Option<ObservedTable>,
    /// The bridge, if it is there.
    pub bridge: Option<ObservedBridge>,
    /// The VXLAN device, if it is there.
    pub tunnel: Option<ObservedTunnel>,
    /// The link to the host's namespace, if both ends are there and belong to each other.
    pub uplink: Option<ObservedUplink>,
    /// The host ends of the containers' veth pairs.
    pub ports: BTreeMap<IfName, ObservedPort>,
    /// The tunnel's forwarding entries: only those whose both rows, the bridge's and the tunnel's, are there.
    pub remotes: Arc<BTreeMap<Mac, Remote>>,
    /// MACs that have not exactly one lasting row of each.
    pub half_remotes: BTreeSet<Mac>,
    /// Permanent neighbours on the bridge: what it answers ARP from.
    pub neighbours: Arc<BTreeMap<IpAddr, Mac>>,
    /// The attributes that another program or a person has changed, and that the agent itself never sets.
    pub altered: BTreeSet<Altered>,
}

/// An attribute of an object of ours that the agent itself never sets, and that another program or a person has changed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Altered {
    /// What it is of: the name of a link; `all` and `default` stand for all links of the segment, and for those to come.
    pub of: String,
    /// Its name.
    pub attribute: String,
    /// Can it be set back? What was put beside it, such as a limit of the rate, stays and is told.
    pub can_be_restored: bool,
}

/// An uplink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedUplink {
    /// Its ends, and what is routed over it, as far as that is there.
    pub uplink: Uplink,
    /// Both ends are up, and have their addresses and routes and no others.
    pub in_place: bool,
}

/// Packets to a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flow {
    /// The number of the protocol in IP headers.
    pub protocol: u8,
    /// The port.
    pub port: u16,
}

/// A bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedBridge {
    /// Its attributes and addresses.
    pub bridge: Bridge,
    /// Up, and forwarding all alike: no spanning tree, no VLANs, no snooping.
    pub running: bool,
}

/// A VXLAN device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObservedTunnel {
    /// The identifier that it receives.
    pub vni: Vni,
    /// Its UDP port.
    pub port: u16,
    /// Its own end's address.
    pub local: IpAddr,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Up, a port of the bridge, not learning, not flooding (neither as a port nor by rows for all), and with ARP
    /// suppression.
    pub connected: bool,
}

/// The host end of a container's veth pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedPort {
    /// The endpoint, if its container's end was once completely set up; `None` after a failure half-way.
    pub endpoint: Option<EndpointId>,
    /// Its MTU in bytes; the container's end was given the same before.
    pub mtu: u32,
    /// Up, a port of the bridge, not learning, no unknown frames flooded to it, and with this MAC as its only entry.
    pub connected: Option<Mac>,
}

impl Observed {
    /// Has the container of an endpoint ended? A path alone does not tell: `/proc/PID/ns/net` goes with one process while
    /// the namespace lives on in others. A port does: the kernel removes both ends of a veth pair with the namespace of
    /// either. But a port may also be gone because somebody deleted it, and can be made again as long as there is a path.
    pub fn is_lost(&self, network: NetworkId, endpoint: EndpointId, at_path: AtPath) -> bool {
        let mut ports = self.segments.get(&network).into_iter().flat_map(|segment| segment.ports.values());
        at_path == AtPath::Gone && !ports.any(|port| port.endpoint == Some(endpoint))
    }
}

#[cfg(test)]
mod tests;
