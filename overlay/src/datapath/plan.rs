//! The plan: ordered steps from the kernel as it is to the kernel as it should be.
//!
//! Segment by segment. Making goes: rules first, so that nothing ever runs unfiltered; then devices; then forwarding
//! entries; then the neighbours that point at them. Taking away goes the other way round. Everything is safe to do
//! again, and whatever a step could not do, the next look at the kernel finds missing.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use crate::datapath::desired::{Bridge, Desired, Port, Remote, Segment, Tunnel, Uplink};
use crate::datapath::firewall::{Field, Marks, Set, Table, key_part};
use crate::datapath::foreign_chains::{self, ChainName, Pass};
use crate::datapath::observed::{Flow, Observed, ObservedSegment, ObservedTunnel};
use crate::model::addr::{IfName, IpVersion, Mac};
use crate::model::id::{EndpointId, NetworkId};

mod order;

/// How much of the cluster this host knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Knowledge {
    /// It has just started: what it has not heard of may well be there. Nothing of other hosts is taken away.
    Partial,
    /// It has caught up with the others.
    Whole,
}

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
    SetGate(ChainName, BTreeSet<Pass>),
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
    /// Remove the uplink.
    DeleteUplink,
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

/// The steps from `observed` to `desired`. Empty if there is nothing to do.
pub fn plan(observed: &Observed, desired: &Desired, knowledge: Knowledge) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut stale = observed.unforgotten.clone();
    if observed.firewall.as_ref() != Some(&desired.firewall.marks()) {
        steps.push(Step::Host(HostStep::ReplaceFirewall(desired.firewall.clone())));
        // Behind the address of the host, which is one part or four.
        stale.extend(moved(observed.firewall.as_ref(), &desired.firewall, [("@ports", 1), ("@ports6", 4)]));
    }
    steps.extend((!stale.is_empty()).then_some(Step::Host(HostStep::ForgetFlows(stale))));
    let unforwarded = desired.forwarding.difference(&observed.forwarding);
    steps.extend(unforwarded.map(|version| Step::Host(HostStep::EnableForwarding(*version))));
    // After our own rules, which judge what then passes.
    let gates = foreign_chains::changes(&observed.others, desired).into_iter();
    steps.extend(gates.map(|(chain, passes)| Step::Host(HostStep::SetGate(chain, passes))));
    for id in observed.segments.keys().filter(|id| !desired.segments.contains_key(id)) {
        steps.push(Step::Segment(*id, SegmentStep::Delete));
    }
    for (id, want) in &desired.segments {
        let segment = plan_segment(observed.segments.get(id), want, knowledge);
        steps.extend(segment.into_iter().map(|step| Step::Segment(*id, step)));
    }
    steps
}

fn plan_segment(have: Option<&ObservedSegment>, want: &Segment, knowledge: Knowledge) -> Vec<SegmentStep> {
    let nothing = ObservedSegment::default();
    let mut steps = Vec::new();
    if have.is_none() {
        steps.push(SegmentStep::Create(want.versions()));
    }
    let have = have.unwrap_or(&nothing);
    let mut stale = have.unforgotten.clone();
    if have.firewall.as_ref() != Some(&want.firewall.marks()) {
        steps.push(SegmentStep::ReplaceFirewall(want.firewall.clone()));
        stale.extend(moved(have.firewall.as_ref(), &want.firewall, [("@published", 0), ("@published6", 0)]));
    }
    steps.extend((!stale.is_empty()).then_some(SegmentStep::ForgetFlows(stale)));
    set_filter(have, want, knowledge, &mut steps);
    withdraw_rows(have, want, knowledge, &mut steps);
    withdraw_ports(have, want, &mut steps);
    make_devices(have, want, &mut steps);
    make_ports(have, want, &mut steps);
    put_rows(have, want, &mut steps);
    steps
}

/// What passes the bridge. To whom a link leads is not known before all are heard: until then it stays, but between those that are
/// known.
fn set_filter(have: &ObservedSegment, want: &Segment, knowledge: Knowledge, steps: &mut Vec<SegmentStep>) {
    let (Some(filter), Some(seen)) = (&want.filter, &have.filter) else {
        steps.extend(want.filter.clone().map(SegmentStep::ReplaceFilter));
        steps.extend(have.filter.as_ref().map(|_| SegmentStep::DeleteFilter));
        return;
    };
    let here = want.ports.values().flat_map(|port| port.addresses.iter().map(|a| a.address));
    let known: BTreeSet<IpAddr> = here.chain(want.neighbours.keys().copied()).collect();
    let is_unknown = |field: &Field| matches!(field, Field::Address(address) if !known.contains(address));
    let filter = match knowledge {
        Knowledge::Whole => filter.clone(),
        Knowledge::Partial => filter.with(seen, |element| element.key.iter().any(is_unknown)),
    };
    match filter.changed_sets(seen) {
        None => steps.push(SegmentStep::ReplaceFilter(filter)),
        Some(sets) if !sets.is_empty() => steps.push(SegmentStep::UpdateFilter(sets)),
        Some(_) => {}
    }
}

/// What leads elsewhere than before by these maps, in whose keys protocol and port are from the given part on.
fn moved(have: Option<&Marks>, want: &Table, maps: [(&str, usize); 2]) -> BTreeSet<Flow> {
    let elements = |marks: &Marks| -> BTreeSet<(usize, String)> {
        let part = |name: &str| maps.iter().find(|(map, _)| *map == name).map(|(_, part)| *part);
        let found = marks.iter().filter_map(|(name, elements)| Some((part(name)?, elements)));
        found.flat_map(|(part, elements)| elements.iter().map(move |mark| (part, mark.clone()))).collect()
    };
    let flow = |(part, mark): &(usize, String)| {
        let [protocol, ..] = key_part(mark, *part)?;
        let [high, low, ..] = key_part(mark, part + 1)?;
        Some(Flow { protocol, port: u16::from_be_bytes([high, low]) })
    };
    // A table that was not there has led nothing anywhere.
    let have = have.map(elements).unwrap_or_default();
    have.symmetric_difference(&elements(&want.marks())).filter_map(flow).collect()
}

/// Neighbours before the entries they rely on.
fn withdraw_rows(have: &ObservedSegment, want: &Segment, knowledge: Knowledge, steps: &mut Vec<SegmentStep>) {
    // What is now here can't be elsewhere, however little is known of the others.
    let here_ip = |ip: &IpAddr| want.ports.values().any(|p| p.addresses.iter().any(|a| a.address == *ip));
    let here_mac = |mac: &Mac| want.ports.values().any(|p| p.mac == *mac);
    let whole = knowledge == Knowledge::Whole;
    let neighbours = have.neighbours.keys().filter(|ip| !want.neighbours.contains_key(ip));
    steps.extend(neighbours.filter(|ip| whole || here_ip(ip)).map(|ip| RowStep::DeleteNeighbour(*ip).into()));
    let remotes = have.remotes.keys().chain(&have.half_remotes).filter(|mac| !want.remotes.contains_key(mac));
    steps.extend(remotes.filter(|mac| whole || here_mac(mac)).map(|mac| RowStep::DeleteRemote(*mac).into()));
}

/// Ports that nobody wants, and those that a failure left half-made.
fn withdraw_ports(have: &ObservedSegment, want: &Segment, steps: &mut Vec<SegmentStep>) {
    let wanted =
        |ifname: &IfName, endpoint| want.ports.iter().any(|(id, p)| Some(*id) == endpoint && p.host_ifname == *ifname);
    let stale = have.ports.iter().filter(|(ifname, port)| !wanted(ifname, port.endpoint));
    steps.extend(stale.map(|(ifname, _)| SegmentStep::DeletePort(ifname.clone())));
}

fn make_devices(have: &ObservedSegment, want: &Segment, steps: &mut Vec<SegmentStep>) {
    match &have.bridge {
        None => steps.push(SegmentStep::CreateBridge(want.bridge.clone())),
        Some(have) if !have.running || have.bridge != want.bridge => {
            steps.push(SegmentStep::UpdateBridge(want.bridge.clone()));
        }
        Some(_) => {}
    }
    make_tunnel(have, want, steps);
    match &want.uplink {
        Some(uplink) if have.uplink.as_ref() != Some(uplink) => steps.push(SegmentStep::CreateUplink(uplink.clone())),
        None if have.uplink.is_some() => steps.push(SegmentStep::DeleteUplink),
        Some(_) | None => {}
    }
}

fn make_tunnel(have: &ObservedSegment, want: &Segment, steps: &mut Vec<SegmentStep>) {
    let same = |t: &ObservedTunnel, w: &Tunnel| (t.vni, t.port, t.local) == (w.vni, w.port, w.local);
    match (&have.tunnel, &want.tunnel) {
        (Some(there), Some(tunnel)) if same(there, tunnel) => {
            if !there.connected || there.mtu != tunnel.mtu || have.bridge.is_none() {
                steps.push(SegmentStep::ConnectTunnel { mtu: tunnel.mtu });
            }
        }
        (there, tunnel) => {
            steps.extend(there.map(|_| SegmentStep::DeleteTunnel));
            let make =
                |tunnel: &Tunnel| [SegmentStep::CreateTunnel(*tunnel), SegmentStep::ConnectTunnel { mtu: tunnel.mtu }];
            steps.extend(tunnel.iter().flat_map(make));
        }
    }
}

fn make_ports(have: &ObservedSegment, want: &Segment, steps: &mut Vec<SegmentStep>) {
    for (id, port) in &want.ports {
        let seen = have.ports.get(&port.host_ifname).filter(|p| p.endpoint == Some(*id));
        match seen {
            None => steps.push(SegmentStep::CreatePort(*id, port.clone())),
            Some(seen) if seen.mtu != port.mtu => steps.push(SegmentStep::UpdatePort(port.clone())),
            Some(_) => {}
        }
        if have.bridge.is_none() || seen.is_none_or(|p| p.connected != Some(port.mac)) {
            steps.push(SegmentStep::ConnectPort(port.clone()));
        }
    }
}

/// Entries before the neighbours that rely on them. A tunnel or a bridge that is made anew has lost them all.
fn put_rows(have: &ObservedSegment, want: &Segment, steps: &mut Vec<SegmentStep>) {
    let anew = have.bridge.is_none() || steps.iter().any(|s| matches!(s, SegmentStep::CreateTunnel(_)));
    let remotes = want.remotes.iter().filter(|(mac, remote)| anew || have.remotes.get(mac) != Some(remote));
    steps.extend(remotes.map(|(mac, remote)| RowStep::PutRemote(*mac, *remote).into()));
    let neighbours =
        want.neighbours.iter().filter(|(ip, mac)| have.bridge.is_none() || have.neighbours.get(ip) != Some(mac));
    steps.extend(neighbours.map(|(ip, mac)| RowStep::PutNeighbour(*ip, *mac).into()));
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(HostStep::EnableForwarding(version)) => write!(f, "turn on {version} forwarding"),
            Self::Host(HostStep::ForgetFlows(_)) => f.write_str("forget the connections to ports that have changed"),
            Self::Host(HostStep::ReplaceFirewall(_)) => f.write_str("set the rules of the host"),
            Self::Host(HostStep::SetGate(chain, passes)) if passes.is_empty() => {
                write!(f, "take the rules for containers out of the chain {chain}")
            }
            Self::Host(HostStep::SetGate(chain, _)) => write!(f, "let containers pass the chain {chain}"),
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
            Self::CreatePort(_, port) => write!(f, "make {} in {}", port.ifname, port.netns.path.display()),
            Self::UpdatePort(port) => write!(f, "set the MTU of {} in {}", port.ifname, port.netns.path.display()),
            Self::ConnectPort(port) => write!(f, "connect the port {}", port.host_ifname),
            Self::DeletePort(ifname) => write!(f, "remove the port {ifname}"),
            Self::Row(row) => row.fmt(f),
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

#[cfg(test)]
pub(crate) mod tests;
