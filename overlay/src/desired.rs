//! Kernel state as it should be: a function of the cluster and of this host's intents.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use crate::addr::{IfName, Mac, Subnet};
use crate::cluster::{Cluster, NetworkView};
use crate::firewall::Table;
use crate::host::Liveness;
use crate::id::{EndpointId, HostId, NetworkId, Vni};
use crate::intent::{Attachment, Intents, NetnsRef, Seat};
use crate::links::Links;
use crate::network::{Driver, Network};
use crate::publish::{HostPort, Target};

mod isolation;
mod tables;

use tables::{host_table, segment_table};

/// All that should be ours in the kernel of this host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Desired {
    /// Our table in the host's namespace.
    pub firewall: Table,
    /// The segments: the networks that this host has endpoints in.
    pub segments: BTreeMap<NetworkId, Segment>,
}

/// This host's part of one network, in a namespace of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Our table in it.
    pub firewall: Table,
    /// Our table of what passes the bridge; none if all may.
    pub filter: Option<Table>,
    /// The bridge.
    pub bridge: Bridge,
    /// The VXLAN device; none if the network is on this host only.
    pub tunnel: Option<Tunnel>,
    /// The link to the host's namespace; none if there is no way out.
    pub uplink: Option<Uplink>,
    /// The local endpoints.
    pub ports: BTreeMap<EndpointId, Port>,
    /// Where the MACs of the other hosts' endpoints are.
    pub remotes: BTreeMap<Mac, Remote>,
    /// What ARP is answered for.
    pub neighbours: BTreeMap<IpAddr, Mac>,
}

/// An address with the length of its prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Prefixed {
    /// The address.
    pub address: IpAddr,
    /// Prefix length in bits.
    pub len: u8,
}

/// The bridge `br0` of a segment. It is up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bridge {
    /// The anycast gateway's MAC: the same on every host.
    pub mac: Mac,
    /// MTU in bytes.
    pub mtu: u32,
    /// The anycast gateway's addresses and the service address, sorted.
    pub addresses: Vec<Prefixed>,
}

/// The VXLAN device `vx0` of a segment; its socket is in the host's namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tunnel {
    /// The identifier that it receives.
    pub vni: Vni,
    /// UDP port.
    pub port: u16,
    /// The VTEP's address.
    pub local: IpAddr,
    /// MTU in bytes: the underlay's less the overhead.
    pub mtu: u32,
}

/// The veth pair between a segment (`up0`) and the host's namespace (`ovu` and twelve digits). Both ends are up, and the
/// segment's default route leads over it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uplink {
    /// The host's end.
    pub host_ifname: IfName,
    /// The address of the host's end: the even one of a /31 (RFC 3021).
    pub host: IpAddr,
    /// The address of the segment's end: the odd one.
    pub segment: IpAddr,
    /// What the host routes into the segment: the subnets of a network that is not masqueraded.
    pub routed: BTreeSet<Subnet>,
}

/// The veth pair of a local endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// The end in the segment: `ovp` and twelve digits.
    pub host_ifname: IfName,
    /// The container's namespace.
    pub netns: NetnsRef,
    /// The end in the container.
    pub ifname: IfName,
    /// The container's MAC.
    pub mac: Mac,
    /// The container's addresses.
    pub addresses: Vec<Prefixed>,
    /// The container's default route; none if there is no way out.
    pub gateway: Option<IpAddr>,
    /// The metric of its routes.
    pub metric: u32,
    /// MTU in bytes.
    pub mtu: u32,
}

/// The other end of the tunnel for one MAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Remote {
    /// The VTEP's address.
    pub vtep: IpAddr,
    /// The VTEP's UDP port.
    pub port: u16,
    /// The identifier that the receiver takes the network's packets under.
    pub vni: Vni,
}

/// What this host is, for all its networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Its identity.
    pub me: HostId,
    /// Its VTEP's address.
    pub vtep: IpAddr,
    /// Its VTEP's UDP port.
    pub vxlan_port: u16,
    /// MTU of its underlay in bytes.
    pub underlay_mtu: u32,
}

/// Where each segment answers DNS besides its gateway: the same on every network and host, so that one resolv.conf
/// serves all. Link-local (RFC 3927), so it never leaves a segment.
pub const SERVICE_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 53, 53);

/// The addresses of the transit links, a /31 each for [`Seat::TRANSIT_LINKS`] of them.
const TRANSIT: Ipv4Addr = Ipv4Addr::new(169, 254, 128, 0);
const TRANSIT_LEN: u8 = 17;
const _: () = assert!(1 << (31 - TRANSIT_LEN) == Seat::TRANSIT_LINKS);

/// What VXLAN adds to a packet in bytes (RFC 7348): outer IP, UDP 8, VXLAN 8, inner Ethernet 14.
const fn overhead(underlay: IpAddr) -> u32 {
    match underlay {
        IpAddr::V4(_) => 50,
        IpAddr::V6(_) => 70,
    }
}

/// What should be in the kernel of this host.
pub fn desire(cluster: &Cluster, intents: &Intents, place: &Place) -> Desired {
    let segments: BTreeMap<NetworkId, Segment> = intents
        .networks
        .values()
        .filter_map(|network| {
            let attached: Vec<&Attachment> = intents.attached(network.id).collect();
            let seat = intents.seats.get(&network.id).filter(|_| !attached.is_empty())?;
            let links = intents.links.get(&network.id);
            Some((network.id, segment((network, links), *seat, &attached, cluster, place)))
        })
        .collect();
    let ways = |network: NetworkId| {
        let uplink = segments.get(&network).and_then(|segment| segment.uplink.as_ref());
        uplink.into_iter().flat_map(move |uplink| intents.attached(network).flat_map(|a| ways(a, uplink)))
    };
    let routed = segments.values().filter_map(|s| s.uplink.as_ref()).flat_map(|u| u.routed.iter().copied()).collect();
    let firewall = host_table(place.vxlan_port, segments.keys().copied().flat_map(ways), &routed);
    Desired { firewall, segments }
}

fn segment(
    (network, links): (&Network, Option<&Links>),
    seat: Seat,
    attached: &[&Attachment],
    cluster: &Cluster,
    place: &Place,
) -> Segment {
    let view = cluster.networks.get(&network.id);
    let mtu = mtu(network, view, cluster, place);
    let tunnel = Tunnel { vni: seat.vni, port: place.vxlan_port, local: place.vtep, mtu };
    let tunnel = (network.settings.driver == Driver::Vxlan).then_some(tunnel);
    let elsewhere = view.filter(|_| tunnel.is_some());
    let (remotes, neighbours) = rows(elsewhere, attached, cluster, place.me);
    let mut addresses: Vec<Prefixed> = network
        .ranges
        .iter()
        .map(|range| Prefixed { address: range.gateway, len: range.subnet.prefix_len() })
        .chain([Prefixed { address: SERVICE_ADDRESS.into(), len: 32 }])
        .collect();
    addresses.sort();
    let uplink = (!network.settings.internal).then(|| uplink(network, seat));
    let ways = uplink.iter().flat_map(|uplink| attached.iter().flat_map(|a| ways(a, uplink)));
    Segment {
        firewall: segment_table(network, ways),
        filter: (!network.settings.icc).then(|| isolation::table(view, links, attached)),
        bridge: Bridge { mac: gateway_mac(network.id), mtu, addresses },
        tunnel,
        uplink,
        ports: attached.iter().map(|a| (a.endpoint.id, port(network, a, mtu))).collect(),
        remotes,
        neighbours,
    }
}

/// A published port on its way to an endpoint.
struct Way<'a> {
    host: HostPort,
    target: &'a Target,
    segment: Ipv4Addr,
    endpoint: Ipv4Addr,
}

/// The ways to an endpoint's published ports, over its segment's uplink.
fn ways<'a>(attachment: &'a Attachment, uplink: &Uplink) -> impl Iterator<Item = Way<'a>> + use<'a> {
    let v4 = |address: IpAddr| match address {
        IpAddr::V4(v4) => Some(v4),
        IpAddr::V6(_) => None,
    };
    let ends = v4(uplink.segment).zip(attachment.endpoint.addresses.iter().find_map(|a| v4(a.address)));
    ends.into_iter().flat_map(|(segment, endpoint)| {
        attachment.published.iter().map(move |(host, target)| Way { host: *host, target, segment, endpoint })
    })
}

fn port(network: &Network, attachment: &Attachment, mtu: u32) -> Port {
    let endpoint = &attachment.endpoint;
    let ranges: Vec<_> =
        endpoint.addresses.iter().filter_map(|a| Some((a.address, network.range_of(a.address)?.1))).collect();
    Port {
        host_ifname: port_ifname(endpoint.id),
        netns: attachment.netns.clone(),
        ifname: attachment.ifname.clone(),
        mac: endpoint.mac,
        addresses: ranges
            .iter()
            .map(|(address, r)| Prefixed { address: *address, len: r.subnet.prefix_len() })
            .collect(),
        gateway: ranges.first().map(|(_, range)| range.gateway).filter(|_| !network.settings.internal),
        metric: attachment.metric,
        mtu,
    }
}

/// Forwarding entries and neighbours for the endpoints of the other hosts. A silent host keeps its entries until it is
/// given up: its agent may be restarting, and its packets still flow. Whatever the others say, what a local endpoint has,
/// or the gateway, is never led away.
fn rows(
    view: Option<&NetworkView>,
    attached: &[&Attachment],
    cluster: &Cluster,
    me: HostId,
) -> (BTreeMap<Mac, Remote>, BTreeMap<IpAddr, Mac>) {
    let mut remotes = BTreeMap::new();
    let mut neighbours = BTreeMap::new();
    let gateway = view.map(|v| gateway_mac(v.network.id));
    let macs: BTreeSet<Mac> = attached.iter().map(|a| a.endpoint.mac).chain(gateway).collect();
    let addresses: BTreeSet<IpAddr> = attached.iter().flat_map(|a| &a.endpoint.addresses).map(|a| a.address).collect();
    let others = view.into_iter().flat_map(|v| v.endpoints.values());
    for located in others.filter(|l| l.host != me && !macs.contains(&l.endpoint.mac)) {
        let host = cluster.hosts.get(&located.host).filter(|h| h.liveness != Liveness::Dead);
        let vni = view.and_then(|v| v.vnis.get(&located.host));
        let (Some(host), Some(vni)) = (host, vni) else { continue };
        remotes.insert(located.endpoint.mac, Remote { vtep: host.info.vtep, port: host.info.vxlan_port, vni: *vni });
        let free = located.addresses().filter(|a| !addresses.contains(a));
        neighbours.extend(free.map(|address| (address, located.endpoint.mac)));
    }
    (remotes, neighbours)
}

/// What all links on the way carry, if not less was asked for: with tunnels, the smallest underlay MTU of the hosts in the
/// network less the overhead.
fn mtu(network: &Network, view: Option<&NetworkView>, cluster: &Cluster, place: &Place) -> u32 {
    let carried = match network.settings.driver {
        Driver::Bridge => place.underlay_mtu,
        Driver::Vxlan => {
            let others = view.into_iter().flat_map(|v| v.vnis.keys()).filter_map(|host| cluster.hosts.get(host));
            let smallest = others.map(|h| h.info.underlay_mtu).chain([place.underlay_mtu]).min();
            smallest.unwrap_or(place.underlay_mtu).saturating_sub(overhead(place.vtep))
        }
    };
    network.settings.mtu.map_or(carried, |most| carried.min(most.into())).max(MIN_MTU)
}

/// What every IPv4 link carries (RFC 791).
const MIN_MTU: u32 = 68;

fn gateway_mac(network: NetworkId) -> Mac {
    let id = network.as_bytes();
    // 0e: locally administered, unicast, and never the 02:42 of an endpoint.
    Mac::new([0x0e, id[0], id[1], id[2], id[3], id[4]]).expect("the first byte is even and not zero")
}

fn uplink(network: &Network, seat: Seat) -> Uplink {
    let base = u32::from(TRANSIT) + 2 * u32::from(seat.transit);
    let routed = network.ranges.iter().filter(|_| !network.settings.masquerade);
    Uplink {
        host_ifname: uplink_ifname(network.id),
        host: Ipv4Addr::from(base).into(),
        segment: Ipv4Addr::from(base + 1).into(),
        routed: routed.map(|range| range.subnet).collect(),
    }
}

/// The name of the host's end of a segment's uplink.
pub fn uplink_ifname(network: NetworkId) -> IfName {
    format!("ovu{}", network.tag()).parse().expect("three letters and twelve digits")
}

/// The name of the segment's end of an endpoint's veth pair.
pub fn port_ifname(endpoint: EndpointId) -> IfName {
    format!("ovp{}", endpoint.tag()).parse().expect("three letters and twelve digits")
}

fn transit_range() -> Subnet {
    Subnet::of(TRANSIT.into(), TRANSIT_LEN).expect("the transit range is IPv4")
}

/// Is it an address of an uplink's end?
pub fn is_transit(address: IpAddr) -> bool {
    transit_range().contains(address)
}

#[cfg(test)]
mod tests;
