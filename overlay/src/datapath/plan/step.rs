//! Steps: what a plan is made of, and how they read.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use crate::datapath::announcer::Announcement;
use crate::datapath::desired::{Bridge, Port, Remote, Tunnel, Uplink};
use crate::datapath::firewall::{Set, Table};
use crate::datapath::foreign_chains::{AcceptRule, ChainName};
use crate::datapath::observed::{Altered, Flow};
use crate::model::addr::{IfName, IpVersion, Mac};
use crate::model::id::{EndpointId, NetworkId};

/// One change of the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// In the host's namespace.
    Host(HostStep),
    /// In, or of, a network's namespace.
    Segment(NetworkId, SegmentStep),
}

/// A change in the host's namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostStep {
    /// Turn forwarding on: containers reach the world through the host.
    EnableForwarding(IpVersion),
    /// Replace our table.
    ReplaceFirewall(Table),
    /// Forget the connections to ports that lead elsewhere now.
    ForgetFlows(BTreeSet<Flow>),
    /// Give a chain of somebody else's just these rules of ours, and leave all else in it.
    SetAcceptRules(ChainName, BTreeSet<AcceptRule>),
}

/// A change of one segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SegmentStep {
    /// Make the namespace: loopback up, and these versions of IP forwarded; without IPv6 it has none of its own.
    Create(BTreeSet<IpVersion>),
    /// Replace our table.
    ReplaceFirewall(Table),
    /// Replace our table of what passes the bridge.
    ReplaceFilter(Table),
    /// Give these sets of it just their elements, and leave all else.
    UpdateFilter(Vec<Set>),
    /// Remove it.
    DeleteFilter,
    /// Forget the connections to ports that lead elsewhere now.
    ForgetFlows(BTreeSet<Flow>),
    /// Make the bridge.
    CreateBridge(Bridge),
    /// Give the bridge these attributes and exactly these addresses.
    UpdateBridge(Bridge),
    /// Make the VXLAN device: its socket in the host's namespace, itself in the segment.
    CreateTunnel(Tunnel),
    /// Make the tunnel a port of the bridge that neither learns nor floods, with this MTU in bytes, and up.
    ConnectTunnel {
        /// MTU in bytes.
        mtu: u32,
    },
    /// Remove the VXLAN device.
    DeleteTunnel,
    /// Make the uplink with its addresses and routes; what is left of an older one goes first.
    CreateUplink(Uplink),
    /// Give the ends of the uplink exactly these addresses and routes, and set them up.
    UpdateUplink(Uplink),
    /// Remove the uplink.
    DeleteUplink,
    /// Set these attributes back, which another program or a person has changed.
    Restore(BTreeSet<Altered>),
    /// Make an endpoint's veth pair and set up the container's end; marked as whole at the end.
    CreatePort(EndpointId, Port),
    /// Give both ends of a pair the port's MTU, the container's first: what is seen of it is the other one's.
    UpdatePort(Port),
    /// Make the port one of the bridge's, with the container's MAC as its only entry, and up.
    ConnectPort(Port),
    /// Remove a veth pair.
    DeletePort(IfName),
    /// Write or remove an entry of a table that may have thousands.
    Row(RowStep),
    /// Tell the containers of this host which MAC addresses have now that had another one.
    Announce(Announcement),
    /// Remove the namespace and all in it.
    Delete,
}

/// A change of one entry. No entry depends on another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowStep {
    /// Make a MAC reachable through the tunnel, wherever it was before.
    PutRemote(Mac, Remote),
    /// Remove a MAC from the tunnel.
    DeleteRemote(Mac),
    /// Answer ARP or neighbour discovery for an address.
    PutNeighbour(IpAddr, Mac),
    /// Stop to answer for an address.
    DeleteNeighbour(IpAddr),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(HostStep::EnableForwarding(version)) => write!(f, "turn on {version} forwarding"),
            Self::Host(HostStep::ForgetFlows(_)) => f.write_str("forget the connections to ports that have changed"),
            Self::Host(HostStep::ReplaceFirewall(_)) => f.write_str("set the rules of the host"),
            Self::Host(HostStep::SetAcceptRules(chain, rules)) if rules.is_empty() => {
                write!(f, "take the rules for containers out of the chain {chain}")
            }
            Self::Host(HostStep::SetAcceptRules(chain, _)) => write!(f, "let containers pass the chain {chain}"),
            Self::Segment(id, step) => write!(f, "{step} of network {}", id.short()),
        }
    }
}

impl fmt::Display for SegmentStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create(_) => f.write_str("make the namespace"),
            Self::ReplaceFirewall(_) => f.write_str("set the rules"),
            Self::ReplaceFilter(_) => f.write_str("set the rules for the bridge"),
            Self::UpdateFilter(_) => f.write_str("change the rules for the bridge"),
            Self::DeleteFilter => f.write_str("remove the rules for the bridge"),
            Self::ForgetFlows(_) => f.write_str("forget the connections to ports that have changed"),
            Self::CreateBridge(_) => f.write_str("make the bridge"),
            Self::UpdateBridge(_) => f.write_str("set up the bridge"),
            Self::CreateTunnel(tunnel) => {
                write!(f, "make the tunnel with VNI {} on UDP port {}", tunnel.vni, tunnel.port)
            }
            Self::ConnectTunnel { .. } => f.write_str("connect the tunnel"),
            Self::DeleteTunnel => f.write_str("remove the tunnel"),
            Self::DeleteUplink => f.write_str("remove the uplink"),
            Self::CreateUplink(uplink) => write!(f, "make the uplink {}", uplink.host_ifname),
            Self::UpdateUplink(uplink) => write!(f, "set up the uplink {}", uplink.host_ifname),
            Self::Restore(altered) => {
                let names: Vec<String> = altered.iter().map(|one| format!("{} of {}", one.attribute, one.of)).collect();
                write!(f, "set back {}", names.join(", "))
            }
            Self::CreatePort(_, port) => write!(f, "make {} in {}", port.ifname, port.netns.path.display()),
            Self::UpdatePort(port) => write!(f, "set the MTU of {} in {}", port.ifname, port.netns.path.display()),
            Self::ConnectPort(port) => write!(f, "connect the port {}", port.host_ifname),
            Self::DeletePort(ifname) => write!(f, "remove the port {ifname}"),
            Self::Row(row) => row.fmt(f),
            Self::Announce(Announcement { macs, .. }) => match macs.first_key_value() {
                Some((address, mac)) if macs.len() == 1 => {
                    write!(f, "tell the containers that {address} is at {mac} now")
                }
                _ => write!(f, "tell the containers which MACs {} addresses have now", macs.len()),
            },
            Self::Delete => f.write_str("remove the namespace"),
        }
    }
}

impl fmt::Display for RowStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PutRemote(mac, remote) => write!(f, "point {mac} at {}", remote.vtep),
            Self::DeleteRemote(mac) => write!(f, "withdraw {mac}"),
            Self::PutNeighbour(address, _) => write!(f, "answer {} for {address}", discovery(*address)),
            Self::DeleteNeighbour(address) => write!(f, "answer {} for {address} no more", discovery(*address)),
        }
    }
}

impl From<RowStep> for SegmentStep {
    fn from(row: RowStep) -> Self {
        Self::Row(row)
    }
}

/// How a MAC is asked for (RFC 826, RFC 4861).
pub(crate) fn discovery(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "ARP" } else { "neighbour discovery" }
}
