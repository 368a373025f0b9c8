//! The rules: what passes between containers, the host and the world.
//!
//! A published port takes two steps. The host translates it to its segment's end of the uplink, under a port that no other has
//! there, and the segment to the endpoint; addresses of networks may overlap, so the host itself can't tell whose is meant. The
//! client's address stays as it is, unless no answer would find back to it: loopback, and what has been masqueraded already.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use super::{Way, transit_range};
use crate::addr::Subnet;
use crate::firewall::{Chain, Element, Family, Field, Kind, Match, Parts, Rule, Set, Table, Verdict};
use crate::network::Network;
use crate::publish::{HostPort, widest};

/// In the host: from a published port to the segment's end of an uplink.
const PORTS: &str = "ports";
const PORTS_KIND: &str =
    "map ports { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; flags interval;";
/// In the host: the published ports that not everybody may reach.
const LIMITED: &str = "limited";
const LIMITED_KIND: &str = "set limited { type ipv4_addr . inet_proto . inet_service; flags interval;";
/// In the host: who may reach those.
const ALLOWED: &str = "allowed";
const ALLOWED_KIND: &str = "set allowed { type ipv4_addr . inet_proto . inet_service . ipv4_addr; flags interval;";
/// In a segment: from its end of the uplink to an endpoint.
const PUBLISHED: &str = "published";
const PUBLISHED_KIND: &str = "map published { type inet_proto . inet_service : ipv4_addr . inet_service;";

const RAW: &str = "type filter hook prerouting priority raw";
const FORWARD: &str = "type filter hook forward priority filter";
const SRCNAT: &str = "type nat hook postrouting priority srcnat";

fn all(length: u8, first: [u8; 4]) -> Subnet {
    Subnet::of(Ipv4Addr::from(first).into(), length).expect("a length of IPv4")
}

/// The key of a port of the host.
fn key(host: HostPort) -> Vec<Field> {
    let address = host.address.map_or(Field::Within(all(0, [0; 4])), Field::Address);
    vec![address, Field::Protocol(host.protocol), Field::Port(host.port)]
}

fn host_sets<'a>(ways: impl Iterator<Item = Way<'a>>) -> Vec<Set> {
    let (mut ports, mut limited, mut allowed) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for way in ways {
        let value = vec![Field::Address(way.segment), Field::Port(way.target.via)];
        ports.insert(Element { key: key(way.host), value });
        if !way.target.allowed.is_empty() {
            limited.insert(Element { key: key(way.host), value: Vec::new() });
        }
        for client in widest(&way.target.allowed) {
            let mut key = key(way.host);
            key.push(Field::Within(client));
            allowed.insert(Element { key, value: Vec::new() });
        }
    }
    vec![
        Set { name: PORTS, kind: PORTS_KIND, elements: ports },
        Set { name: LIMITED, kind: LIMITED_KIND, elements: limited },
        Set { name: ALLOWED, kind: ALLOWED_KIND, elements: allowed },
    ]
}

/// The rules of the host, which leads these ways and routes these subnets.
pub(super) fn host_table<'a>(vxlan_port: u16, ways: impl Iterator<Item = Way<'a>>, routed: &BTreeSet<Subnet>) -> Table {
    let ours = || "ovu*".to_owned();
    let (transit, loopback) = (transit_range(), all(8, [127, 0, 0, 0]));
    // VXLAN trusts whoever sends to its socket (RFC 7348, section 7): a container must reach no host's, here or elsewhere,
    // or it could put frames into any network. Before all else, since what is let through here is let through for good.
    let forged = Rule::new([Match::In(ours()), Match::UdpTo(vxlan_port)], Verdict::Drop);
    // The host's end of an uplink takes packets to and from 127.0.0.0/8, for those who publish there; from a container they
    // are none.
    let to_loopback = Rule::new([Match::In(ours()), Match::Within(loopback)], Verdict::Drop);
    // Tracking tunnel packets costs time and drops some under load.
    let untracked = Rule::new([Match::UdpTo(vxlan_port)], Verdict::NoTrack);
    // The set first: it is empty on most hosts, and each packet comes by here.
    let refused = [
        Match::Original,
        Match::Listed(LIMITED, Parts::HostPort),
        Match::Local,
        Match::Unlisted(ALLOWED, Parts::Client),
    ];
    let to_port = Verdict::Translate(PORTS, Parts::HostPort);
    // Translated before its route is looked up, a packet for 127.0.0.0/8 from outside would pass.
    let published = Rule::new([Match::HasPorts, Match::Local, Match::NotWithin(loopback)], to_port);
    let published_here = Rule::new([Match::HasPorts, Match::Local], to_port);
    // Who comes by a published port from a container of this host would be answered past it.
    let inside = [transit].into_iter().chain(routed.iter().copied());
    let inside =
        inside.map(|from| Rule::new([Match::From(from), Match::Out(ours()), Match::Translated], Verdict::Masquerade));
    let masquerades = [Rule::new([Match::From(transit), Match::NotOut(ours())], Verdict::Masquerade)]
        .into_iter()
        .chain(inside)
        .chain([Rule::new([Match::From(loopback), Match::Out(ours())], Verdict::Masquerade)])
        .collect();
    let chain = |name, hook, rules| Chain { name, hook, rules };
    Table {
        family: Family::Inet,
        sets: host_sets(ways),
        chains: vec![
            chain("prerouting", RAW, vec![forged, to_loopback, untracked.clone()]),
            chain("output", "type filter hook output priority raw", vec![untracked]),
            chain(
                "limited",
                "type filter hook prerouting priority dstnat - 1",
                vec![Rule::new(refused, Verdict::Drop)],
            ),
            chain("published", "type nat hook prerouting priority dstnat", vec![published]),
            chain("published-here", "type nat hook output priority -100", vec![published_here]),
            chain(
                "forward",
                FORWARD,
                vec![
                    Rule::new([Match::Out(ours()), Match::Known], Verdict::Accept),
                    Rule::new([Match::Out(ours()), Match::Translated], Verdict::Accept),
                    Rule::new([Match::Out(ours())], Verdict::Drop),
                ],
            ),
            chain("postrouting", SRCNAT, masquerades),
        ],
    }
}

/// The rules of a segment.
pub(super) fn segment_table<'a>(network: &Network, ways: impl Iterator<Item = Way<'a>>) -> Table {
    let uplink = || "up0".to_owned();
    if network.settings.internal {
        let forward = Chain { name: "forward", hook: FORWARD, rules: vec![Rule::new([], Verdict::Drop)] };
        return Table { family: Family::Inet, sets: Vec::new(), chains: vec![forward] };
    }
    let element = |way: Way<'_>| Element {
        key: vec![Field::Protocol(way.host.protocol), Field::Port(way.target.via)],
        value: vec![Field::Address(way.endpoint), Field::Port(way.target.port)],
    };
    let published =
        Rule::new([Match::In(uplink()), Match::HasPorts, Match::Local], Verdict::Translate(PUBLISHED, Parts::Port));
    let published =
        Chain { name: "published", hook: "type nat hook prerouting priority dstnat", rules: vec![published] };
    // What is not to pass the bridge is not to pass the gateway either.
    let bridge = || "br0".to_owned();
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
        sets: vec![Set { name: PUBLISHED, kind: PUBLISHED_KIND, elements: ways.map(element).collect() }],
        chains: [published, forward].into_iter().chain(network.settings.masquerade.then_some(masquerade)).collect(),
    }
}
