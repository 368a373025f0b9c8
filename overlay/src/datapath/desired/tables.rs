//! The rules: what passes between containers, the host and the world.
//!
//! A published port takes two steps. The host translates it to its segment's end of the uplink, under a port that no other has
//! there, and the segment to the endpoint; addresses of networks may overlap, so the host itself can't tell whose is meant. The
//! client's address stays as it is, unless no answer would find back to it: loopback, and what has been masqueraded already.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Way, transit_range};
use crate::datapath::firewall::{
    Chain, Element, Family, Field, FieldType, Kind, Match, Parts, Rule, Set, SetDefinition, Table, Verdict,
};
use crate::datapath::names::{ANY_UPLINK, BRIDGE, UPLINK};
use crate::model::addr::{IpVersion, Subnet};
use crate::model::network::Network;
use crate::model::publish::widest;

/// What is looked up in one version of IP.
struct PortSets {
    /// In the host: from a published port to the segment's end of an uplink.
    ports: SetDefinition,
    /// In the host: the published ports that not everybody may reach.
    limited: SetDefinition,
    /// In the host: who may reach those.
    allowed: SetDefinition,
    /// In a segment: from its end of the uplink to an endpoint.
    published: SetDefinition,
}

const V4: FieldType = FieldType::Address(IpVersion::V4);
const V6: FieldType = FieldType::Address(IpVersion::V6);

const NAMES: PortSets = {
    use FieldType::{Port, Protocol};
    PortSets {
        ports: SetDefinition::map("ports", &[V4, Protocol, Port], &[V4, Port]).interval(),
        limited: SetDefinition::set("limited", &[V4, Protocol, Port]).interval(),
        allowed: SetDefinition::set("allowed", &[V4, Protocol, Port, V4]).interval(),
        published: SetDefinition::map("published", &[Protocol, Port], &[V4, Port]),
    }
};

const NAMES6: PortSets = {
    use FieldType::{Port, Protocol};
    PortSets {
        ports: SetDefinition::map("ports6", &[V6, Protocol, Port], &[V6, Port]).interval(),
        limited: SetDefinition::set("limited6", &[V6, Protocol, Port]).interval(),
        allowed: SetDefinition::set("allowed6", &[V6, Protocol, Port, V6]).interval(),
        published: SetDefinition::map("published6", &[Protocol, Port], &[V6, Port]),
    }
};

/// The maps by which the host's table leads packets to segments.
pub(in crate::datapath) const HOST_MAPS: [SetDefinition; 2] = [NAMES.ports, NAMES6.ports];
/// Those by which a segment's table leads them to endpoints.
pub(in crate::datapath) const SEGMENT_MAPS: [SetDefinition; 2] = [NAMES.published, NAMES6.published];

const fn names(version: IpVersion) -> &'static PortSets {
    match version {
        IpVersion::V4 => &NAMES,
        IpVersion::V6 => &NAMES6,
    }
}

const RAW: &str = "type filter hook prerouting priority raw";
const FORWARD: &str = "type filter hook forward priority filter";
const SRCNAT: &str = "type nat hook postrouting priority srcnat";

fn subnet(first: impl Into<IpAddr>, length: u8) -> Subnet {
    Subnet::of(first.into(), length).expect("a length of its version")
}

/// What no other host may be reached at.
fn loopback(version: IpVersion) -> Subnet {
    match version {
        IpVersion::V4 => subnet(Ipv4Addr::new(127, 0, 0, 0), 8),
        IpVersion::V6 => subnet(Ipv6Addr::LOCALHOST, 128),
    }
}

/// The key of a port of the host.
fn key(way: &Way<'_>) -> Vec<Field> {
    let address = if way.at.is_unspecified() { Field::Within(subnet(way.at, 0)) } else { Field::Address(way.at) };
    vec![address, Field::Protocol(way.host.protocol), Field::Port(way.host.port)]
}

fn host_sets(version: IpVersion, ways: &[Way<'_>]) -> Vec<Set> {
    let (mut ports, mut limited, mut allowed) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for way in ways.iter().filter(|way| IpVersion::of(way.at) == version) {
        let value = vec![Field::Address(way.segment), Field::Port(way.target.via)];
        ports.insert(Element { key: key(way), value });
        if !way.target.allowed.is_empty() {
            limited.insert(Element::of(key(way)));
        }
        for client in widest(&way.target.allowed).filter(|client| client.version() == version) {
            let mut key = key(way);
            key.push(Field::Within(client));
            allowed.insert(Element::of(key));
        }
    }
    let names = names(version);
    vec![names.ports.with(ports), names.limited.with(limited), names.allowed.with(allowed)]
}

/// The rules of the host, which forwards these versions of IP, leads these ways and routes these subnets.
pub(super) fn host_table<'a>(
    vxlan_port: u16,
    versions: &BTreeSet<IpVersion>,
    ways: impl Iterator<Item = Way<'a>>,
    routed: &BTreeSet<Subnet>,
) -> Table {
    // VXLAN trusts whoever sends to its socket (RFC 7348, section 7): a container must reach no host's, here or elsewhere,
    // or it could put frames into any network. Before all else, since what is let through here is let through for good.
    let forged = Rule::new([Match::In(ours()), Match::UdpTo(vxlan_port)], Verdict::Drop);
    // The host's end of an uplink takes packets to and from 127.0.0.0/8, for those who publish there; from a container they
    // are none.
    let to_loopback = Rule::new([Match::In(ours()), Match::Within(loopback(IpVersion::V4))], Verdict::Drop);
    // Tracking tunnel packets costs time and drops some under load.
    let untracked = Rule::new([Match::UdpTo(vxlan_port)], Verdict::NoTrack);
    let ways: Vec<Way<'a>> = ways.collect();
    let of_each = |rules: fn(IpVersion) -> Rule| versions.iter().map(|version| rules(*version)).collect();
    let chain = |name, hook, rules| Chain { name, hook, rules };
    Table {
        family: Family::Inet,
        sets: versions.iter().flat_map(|version| host_sets(*version, &ways)).collect(),
        chains: vec![
            chain("prerouting", RAW, vec![forged, to_loopback, untracked.clone()]),
            chain("output", "type filter hook output priority raw", vec![untracked]),
            chain("limited", "type filter hook prerouting priority dstnat - 1", of_each(refused)),
            chain("published", "type nat hook prerouting priority dstnat", of_each(published)),
            chain("published-here", "type nat hook output priority -100", of_each(published_here)),
            chain(
                "forward",
                FORWARD,
                vec![
                    Rule::new([Match::Out(ours()), Match::Known], Verdict::Accept),
                    Rule::new([Match::Out(ours()), Match::Translated], Verdict::Accept),
                    Rule::new([Match::Out(ours())], Verdict::Drop),
                ],
            ),
            chain("postrouting", SRCNAT, versions.iter().flat_map(|version| masquerades(*version, routed)).collect()),
        ],
    }
}

fn ours() -> String {
    ANY_UPLINK.to_owned()
}

/// The set first: it is empty on most hosts, and each packet comes by here.
fn refused(version: IpVersion) -> Rule {
    let names = names(version);
    let when = [
        Match::Original,
        Match::Listed(names.limited.name, Parts::HostPort(version)),
        Match::Local,
        Match::Unlisted(names.allowed.name, Parts::Client(version)),
    ];
    Rule::new(when, Verdict::Drop)
}

fn to_port(version: IpVersion) -> Verdict {
    Verdict::Translate(version, names(version).ports.name, Parts::HostPort(version))
}

/// Translated before its route is looked up, a packet for a loopback address from outside would pass; and what is for a link-local
/// address is not for another link.
fn published(version: IpVersion) -> Rule {
    let link_local =
        (version == IpVersion::V6).then(|| Match::NotWithin(subnet(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10)));
    let when = [Match::HasPorts, Match::Local, Match::NotWithin(loopback(version))].into_iter().chain(link_local);
    Rule::new(when, to_port(version))
}

/// Linux routes a packet from 127.0.0.0/8 to another interface if that one has `route_localnet`, but never one from ::1 or a
/// link-local address: a connection from there is refused at once.
fn published_here(version: IpVersion) -> Rule {
    match version {
        IpVersion::V4 => Rule::new([Match::HasPorts, Match::Local], to_port(version)),
        IpVersion::V6 => published(version),
    }
}

fn masquerades(version: IpVersion, routed: &BTreeSet<Subnet>) -> Vec<Rule> {
    let transit = transit_range(version);
    // A container of this host that connects to a published port would get its replies past the translation.
    let inside = [transit].into_iter().chain(routed.iter().copied().filter(|subnet| subnet.version() == version));
    let inside =
        inside.map(|from| Rule::new([Match::From(from), Match::Out(ours()), Match::Translated], Verdict::Masquerade));
    let here = Rule::new([Match::From(loopback(version)), Match::Out(ours())], Verdict::Masquerade);
    [Rule::new([Match::From(transit), Match::NotOut(ours())], Verdict::Masquerade)]
        .into_iter()
        .chain(inside)
        .chain((version == IpVersion::V4).then_some(here))
        .collect()
}

/// The rules of a segment.
pub(super) fn segment_table<'a>(network: &Network, ways: impl Iterator<Item = Way<'a>>) -> Table {
    let uplink = || UPLINK.to_owned();
    if network.settings.internal {
        let forward = Chain { name: "forward", hook: FORWARD, rules: vec![Rule::new([], Verdict::Drop)] };
        return Table { family: Family::Inet, sets: Vec::new(), chains: vec![forward] };
    }
    let ways: Vec<Way<'_>> = ways.collect();
    let element = |way: &Way<'_>| Element {
        key: vec![Field::Protocol(way.host.protocol), Field::Port(way.target.via)],
        value: vec![Field::Address(way.endpoint), Field::Port(way.target.port)],
    };
    let set = |version| {
        let ways = ways.iter().filter(|way| IpVersion::of(way.endpoint) == version);
        names(version).published.with(ways.map(element))
    };
    let published = |version| {
        let to = Verdict::Translate(version, names(version).published.name, Parts::Port);
        Rule::new([Match::In(uplink()), Match::HasPorts, Match::Local], to)
    };
    let published = Chain {
        name: "published",
        hook: "type nat hook prerouting priority dstnat",
        rules: network.versions().map(published).collect(),
    };
    // What is not to pass the bridge is not to pass the gateway either.
    let bridge = || BRIDGE.to_owned();
    let turned_back = Rule::new([Match::In(bridge()), Match::Out(bridge())], Verdict::Drop);
    let turned_back = (!network.settings.icc).then_some(turned_back);
    // A container whose interface says more than its network carries, or does so since a moment ago, hears it from who answers.
    let clamp = Rule::new([Match::Is(Kind::TcpSyn)], Verdict::ClampMss);
    let inward = [
        Rule::new([Match::In(uplink()), Match::Known], Verdict::Accept),
        Rule::new([Match::In(uplink()), Match::Translated], Verdict::Accept),
        Rule::new([Match::In(uplink())], Verdict::Drop),
    ];
    let forward =
        Chain { name: "forward", hook: FORWARD, rules: turned_back.into_iter().chain([clamp]).chain(inward).collect() };
    let masquerade = Chain {
        name: "postrouting",
        hook: SRCNAT,
        rules: vec![Rule::new([Match::Out(uplink())], Verdict::Masquerade)],
    };
    Table {
        family: Family::Inet,
        sets: network.versions().map(set).collect(),
        chains: [published, forward].into_iter().chain(network.settings.masquerade.then_some(masquerade)).collect(),
    }
}
