//! Kernel state as it should be: a function of the cluster and of this host's intents.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use crate::cluster::{Cluster, NetworkView};
use crate::datapath::firewall::Table;
use crate::datapath::names::{PORT_PREFIX, UPLINK_PREFIX};
use crate::model::addr::{IfName, IpVersion, Mac, Subnet};
use crate::model::endpoint::Endpoint;
use crate::model::host::Liveness;
use crate::model::id::{EndpointId, HostId, NetworkId, Vni};
use crate::model::intent::{Attachment, Intents, NetnsRef, Seat};
use crate::model::links::Links;
use crate::model::network::{Driver, Network};
use crate::model::publish::{HostPort, Target};

mod isolation;
mod kept;
mod tables;

pub use crate::model::addr::Prefixed;
pub use kept::KeptDesired;
pub(in crate::datapath) use tables::{HOST_MAPS, SEGMENT_MAPS};
use tables::{host_table, segment_table};

/// All that should be ours in the kernel of this host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Desired {
    /// What the host forwards: IPv4, and IPv6 if a network with a way out has that.
    pub forwarding: BTreeSet<IpVersion>,
    /// Our table in the host's namespace.
    pub firewall: Table,
    /// The VTEPs of the other hosts: what the ways to them carry is what the underlay carries.
    pub peers: BTreeSet<IpAddr>,
    /// The segments: the networks that this host has endpoints in. Shared: one that has not changed can be the same `Arc`.
    pub segments: BTreeMap<NetworkId, Arc<Segment>>,
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
    /// What ARP and neighbour discovery are answered for.
    pub neighbours: BTreeMap<IpAddr, Mac>,
}

impl Segment {
    /// The versions of IP that it has: those of its gateways.
    pub fn versions(&self) -> BTreeSet<IpVersion> {
        let gateways = self.bridge.addresses.iter().filter(|a| a.address != SERVICE_ADDRESS);
        gateways.map(|a| IpVersion::of(a.address)).collect()
    }
}

/// The bridge `br0` of a segment. It is up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bridge {
    /// The anycast gateway's MAC: the same on every host.
    pub mac: Mac,
    /// MTU in bytes.
    pub mtu: u32,
    /// The anycast gateway's addresses, the service address, and for IPv6 the link-local one, sorted.
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
    /// The addresses of its ends: a pair for each version of IP that the network has, IPv4 first.
    pub transits: Vec<Transit>,
    /// What the host routes into the segment: the subnets of a network that is not masqueraded.
    pub routed: BTreeSet<Subnet>,
}

/// The addresses of an uplink in one version of IP, which are all of their subnet (RFC 3021, RFC 6164).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Transit {
    /// That of the host's end: the even one.
    pub host: IpAddr,
    /// That of the segment's end: the odd one.
    pub segment: IpAddr,
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
    /// Its default routes, at most one for each version of IP; none if there is no way out.
    pub gateways: Vec<IpAddr>,
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
pub struct HostConfig {
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

/// The gateway's address that its neighbours are asked under on behalf of others (RFC 4861, section 7.2.2), as Docker's bridges have it.
const LINK_LOCAL: Prefixed = Prefixed { address: IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1)), len: 64 };

/// The addresses of the transit links, a /31 each for [`Seat::TRANSIT_LINKS`] of them.
const TRANSIT: Ipv4Addr = Ipv4Addr::new(169, 254, 128, 0);
const TRANSIT_LEN: u8 = 17;
const _: () = assert!(1 << (31 - TRANSIT_LEN) == Seat::TRANSIT_LINKS);
/// The same for IPv6, a /127 each: a unique local prefix (RFC 4193) that is ours alone as far as chance allows, since link-local
/// addresses can't be translated to.
const TRANSIT6: Ipv6Addr = Ipv6Addr::new(0xfd6f, 0x7665, 0x726c, 0, 0, 0, 0, 0);
const TRANSIT6_LEN: u8 = 48;

/// What VXLAN adds to a packet in bytes (RFC 7348): outer IP, UDP 8, VXLAN 8, inner Ethernet 14.
const fn overhead(underlay: IpAddr) -> u32 {
    match underlay {
        IpAddr::V4(_) => 50,
        IpAddr::V6(_) => 70,
    }
}

/// What should be in the kernel of this host.
pub fn desire(cluster: &Cluster, intents: &Intents, host: &HostConfig) -> Desired {
    let attached = by_network(intents);
    let segments = attached.iter().filter_map(|(id, attached)| {
        let wish = Wish::of(*id, attached, intents)?;
        Some((*id, Arc::new(wish.segment(cluster, host))))
    });
    with_host(segments.collect(), &attached, peers(cluster, host.me), host)
}

/// The VTEPs of the hosts that are not given up.
fn peers(cluster: &Cluster, me: HostId) -> BTreeSet<IpAddr> {
    let others = cluster.hosts.iter().filter(|(id, host)| **id != me && host.liveness != Liveness::Dead);
    others.map(|(_, host)| host.info.vtep).collect()
}

/// The attachments of each network.
fn by_network(intents: &Intents) -> BTreeMap<NetworkId, Vec<&Attachment>> {
    let mut attached: BTreeMap<NetworkId, Vec<&Attachment>> = BTreeMap::new();
    for attachment in intents.attachments.values() {
        attached.entry(attachment.endpoint.network).or_default().push(attachment);
    }
    attached
}

/// All that should be in the kernel if these are the segments.
fn with_host(
    segments: BTreeMap<NetworkId, Arc<Segment>>,
    attached: &BTreeMap<NetworkId, Vec<&Attachment>>,
    peers: BTreeSet<IpAddr>,
    host: &HostConfig,
) -> Desired {
    let uplinks = || segments.iter().filter_map(|(id, segment)| Some((id, segment.uplink.as_ref()?)));
    let attached = |id| attached.get(id).into_iter().flatten();
    let ways = uplinks().flat_map(|(id, uplink)| attached(id).flat_map(|a| ways(a, uplink)));
    let routed = uplinks().flat_map(|(_, uplink)| uplink.routed.iter().copied()).collect();
    let transits = uplinks().flat_map(|(_, uplink)| &uplink.transits);
    let versions = transits.map(|transit| IpVersion::of(transit.host));
    let forwarding: BTreeSet<IpVersion> = versions.chain([IpVersion::V4]).collect();
    let firewall = host_table(host.vxlan_port, &forwarding, ways, &routed);
    Desired { forwarding, firewall, peers, segments }
}

/// What this host was asked for in one network.
struct Wish<'a> {
    network: &'a Network,
    /// What it knows of the links itself: of use while no host tells of the network.
    links: Option<&'a Links>,
    seat: Seat,
    attached: &'a [&'a Attachment],
}

impl<'a> Wish<'a> {
    /// None if there is no such network, or no seat in it.
    fn of(network: NetworkId, attached: &'a [&'a Attachment], intents: &'a Intents) -> Option<Self> {
        let seat = *intents.seats.get(&network)?;
        let links = intents.links.get(&network);
        Some(Self { network: intents.networks.get(&network)?, links, seat, attached })
    }

    fn segment(&self, cluster: &Cluster, host: &HostConfig) -> Segment {
        segment((self.network, self.links), self.seat, self.attached, cluster, host)
    }
}

fn segment(
    (network, links): (&Network, Option<&Links>),
    seat: Seat,
    attached: &[&Attachment],
    cluster: &Cluster,
    host: &HostConfig,
) -> Segment {
    let view = cluster.networks.get(&network.id).map(Arc::as_ref);
    let mtu = mtu(network, view, cluster, host);
    let tunnel = Tunnel { vni: seat.vni, port: host.vxlan_port, local: host.vtep, mtu };
    let tunnel = (network.settings.driver == Driver::Vxlan).then_some(tunnel);
    let elsewhere = view.filter(|_| tunnel.is_some());
    let (remotes, neighbours) = rows(elsewhere, attached, cluster, host.me);
    let mut addresses: Vec<Prefixed> = network
        .ranges
        .iter()
        .map(|range| Prefixed { address: range.gateway, len: range.subnet.prefix_len() })
        .chain([Prefixed { address: SERVICE_ADDRESS.into(), len: 32 }])
        .chain(network.versions().any(|version| version == IpVersion::V6).then_some(LINK_LOCAL))
        .collect();
    addresses.sort();
    let uplink = (!network.settings.internal).then(|| uplink(network, seat));
    let ways = uplink.iter().flat_map(|uplink| attached.iter().flat_map(|a| ways(a, uplink)));
    Segment {
        firewall: segment_table(network, ways),
        filter: (!network.settings.icc).then(|| isolation::table(network, view, links, attached)),
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
    /// Where the port is on this host, in the version of IP of the others.
    at: IpAddr,
    segment: IpAddr,
    endpoint: IpAddr,
}

/// The ways to an endpoint's published ports, over its segment's uplink.
fn ways<'a>(attachment: &'a Attachment, uplink: &Uplink) -> impl Iterator<Item = Way<'a>> + use<'a> {
    let transits = uplink.transits.clone();
    transits.into_iter().flat_map(move |Transit { segment, .. }| {
        let version = IpVersion::of(segment);
        let mut addresses = attachment.endpoint.addresses.iter().map(|assigned| assigned.address);
        let endpoint = addresses.find(|address| IpVersion::of(*address) == version);
        let published = attachment.published.iter();
        published.filter_map(move |(host, target)| {
            Some(Way { host: *host, target, at: host.at(version)?, segment, endpoint: endpoint? })
        })
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
        gateways: ranges.iter().map(|(_, range)| range.gateway).filter(|_| !network.settings.internal).collect(),
        metric: attachment.metric,
        mtu,
    }
}

/// Forwarding entries for the endpoints of the other hosts, and neighbours for all. A silent host keeps its entries until it is
/// given up: its agent may be restarting, and its packets still flow. An address or MAC of a local endpoint or of the
/// gateway is never sent to another host, whatever the others say.
fn rows(
    view: Option<&NetworkView>,
    attached: &[&Attachment],
    cluster: &Cluster,
    me: HostId,
) -> (BTreeMap<Mac, Remote>, BTreeMap<IpAddr, Mac>) {
    let here = || attached.iter().flat_map(|a| neighbours_of(&a.endpoint));
    let Some(view) = view else { return (BTreeMap::new(), here().collect()) };
    let gateway = gateway_mac(view.network.id);
    let macs: BTreeSet<Mac> = attached.iter().map(|a| a.endpoint.mac).chain([gateway]).collect();
    let tunnels: BTreeMap<HostId, Remote> = view
        .vnis
        .iter()
        .filter_map(|(id, vni)| {
            let host = cluster.hosts.get(id).filter(|host| *id != me && host.liveness != Liveness::Dead)?;
            Some((*id, Remote { vtep: host.info.vtep, port: host.info.vxlan_port, vni: *vni }))
        })
        .collect();
    let others = view.endpoints.values().filter_map(|located| Some((&*located.endpoint, tunnels.get(&located.host)?)));
    let others: Vec<(&Endpoint, &Remote)> = others.filter(|(endpoint, _)| !macs.contains(&endpoint.mac)).collect();
    // A map of sorted entries is made faster than entry by entry.
    let remotes = others.iter().map(|(endpoint, remote)| (endpoint.mac, **remote)).collect();
    // Of two for one address the last counts.
    (remotes, others.iter().flat_map(|(endpoint, _)| neighbours_of(endpoint)).chain(here()).collect())
}

fn neighbours_of(endpoint: &Endpoint) -> impl Iterator<Item = (IpAddr, Mac)> {
    endpoint.addresses.iter().map(|assigned| (assigned.address, endpoint.mac))
}

/// The smallest MTU on the path, or the one that was asked for if that is smaller. With tunnels: the smallest underlay MTU of the hosts
/// in the network, less the overhead.
fn mtu(network: &Network, view: Option<&NetworkView>, cluster: &Cluster, host: &HostConfig) -> u32 {
    let carried = match network.settings.driver {
        Driver::Bridge => host.underlay_mtu,
        Driver::Vxlan => {
            let others = view.into_iter().flat_map(|v| v.vnis.keys()).filter_map(|host| cluster.hosts.get(host));
            let smallest = others.map(|h| h.info.underlay_mtu).chain([host.underlay_mtu]).min();
            smallest.unwrap_or(host.underlay_mtu).saturating_sub(overhead(host.vtep))
        }
    };
    let least = network.versions().map(min_mtu).max().unwrap_or_default();
    network.settings.mtu.map_or(carried, |most| carried.min(most.into())).max(least)
}

/// What every link carries (RFC 791, and RFC 8200, section 5). Linux takes IPv6 away from one with less.
const fn min_mtu(version: IpVersion) -> u32 {
    match version {
        IpVersion::V4 => 68,
        IpVersion::V6 => 1280,
    }
}

fn gateway_mac(network: NetworkId) -> Mac {
    let id = network.as_bytes();
    // 0e: locally administered, unicast, and never the 02:42 of an endpoint.
    Mac::new([0x0e, id[0], id[1], id[2], id[3], id[4]]).expect("the first byte is even and not zero")
}

fn uplink(network: &Network, seat: Seat) -> Uplink {
    let transit = |version| match version {
        IpVersion::V4 => {
            let base = u32::from(TRANSIT) + 2 * u32::from(seat.transit);
            Transit { host: Ipv4Addr::from(base).into(), segment: Ipv4Addr::from(base + 1).into() }
        }
        IpVersion::V6 => {
            let base = u128::from(TRANSIT6) + 2 * u128::from(seat.transit);
            Transit { host: Ipv6Addr::from(base).into(), segment: Ipv6Addr::from(base + 1).into() }
        }
    };
    let routed = network.ranges.iter().filter(|_| !network.settings.masquerade);
    Uplink {
        host_ifname: uplink_ifname(network.id),
        transits: network.versions().map(transit).collect(),
        routed: routed.map(|range| range.subnet).collect(),
    }
}

/// The name of the host's end of a segment's uplink.
pub fn uplink_ifname(network: NetworkId) -> IfName {
    format!("{UPLINK_PREFIX}{}", network.tag()).parse().expect("three letters and twelve digits")
}

/// The name of the segment's end of an endpoint's veth pair.
pub fn port_ifname(endpoint: EndpointId) -> IfName {
    format!("{PORT_PREFIX}{}", endpoint.tag()).parse().expect("three letters and twelve digits")
}

fn transit_range(version: IpVersion) -> Subnet {
    let range = match version {
        IpVersion::V4 => Subnet::of(TRANSIT.into(), TRANSIT_LEN),
        IpVersion::V6 => Subnet::of(TRANSIT6.into(), TRANSIT6_LEN),
    };
    range.expect("the length is one of the version")
}

/// Is it an address of an uplink's end?
pub fn is_transit(address: IpAddr) -> bool {
    transit_range(IpVersion::of(address)).contains(address)
}

#[cfg(test)]
mod tests;
