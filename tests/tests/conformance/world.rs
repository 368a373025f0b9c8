//! Wishes: networks as this host should have them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use overlay::cluster::Cluster;
use overlay::datapath::desired::{
    Bridge, Desired, HostConfig, Port, Prefixed, Remote, SERVICE_ADDRESS, Segment, Transit, Tunnel, Uplink, desire,
    port_ifname, uplink_ifname,
};
use overlay::datapath::firewall::{
    Chain, Element, Family, Field, FieldType, Kind, Match, Parts, Rule, SetDefinition, Table, Verdict,
};
use overlay::datapath::names::UPLINK;
use overlay::model::addr::{IpVersion, Mac, Subnet};
use overlay::model::id::{EndpointId, HostId, NetworkId, Vni};
use overlay::model::intent::{Intents, NetnsRef};
use overlay::model::publish::Protocol;

/// The VTEP of the host that is tested.
pub const VTEP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// Not VXLAN's own port, so that both rows that say their port and those that don't are met.
pub const PORT: u16 = 4790;
const MTU: u32 = 1450;

pub fn network(n: u8) -> NetworkId {
    NetworkId::from_bytes([n; 16])
}

pub fn endpoint(n: u8) -> EndpointId {
    EndpointId::from_bytes([n; 16])
}

pub fn vni(number: u32) -> Vni {
    Vni::new(number).expect("a number in range")
}

/// A host without any network, but with what it forwards for all those here: that stays.
pub fn host() -> Desired {
    let place = HostConfig { me: HostId::from_bytes([1; 16]), vtep: VTEP.into(), vxlan_port: PORT, underlay_mtu: 1500 };
    let bare = desire(&Cluster::default(), &Intents::default(), &place);
    Desired { forwarding: IpVersion::ALL.into(), ..bare }
}

/// A host with one network, number 1, and these endpoints.
pub fn host_with(ports: &[(u8, &NetnsRef)]) -> Desired {
    let mut desired = host();
    desired.segments.insert(network(1), segment(1, ports).into());
    desired
}

/// Network `n` is 10.9.0.0/24 and fd00:9::/64 as well as any other: they may overlap. Endpoint `m` is 10.9.0.`m` and fd00:9::`m`.
pub fn segment(n: u8, ports: &[(u8, &NetnsRef)]) -> Segment {
    let mac = Mac::new([0x0e, n, n, n, n, n]).expect("unicast");
    let transit = Transit { host: [169, 254, 128, 2 * n].into(), segment: [169, 254, 128, 2 * n + 1].into() };
    let end6 = |end| Ipv6Addr::new(0xfd6f, 0x7665, 0x726c, 0, 0, 0, 0, u16::from(2 * n + end)).into();
    let transit6 = Transit { host: end6(0), segment: end6(1) };
    Segment {
        firewall: table(),
        filter: Some(filter()),
        bridge: Bridge {
            mac,
            mtu: MTU,
            addresses: vec![
                Prefixed { address: [10, 9, 0, 254].into(), len: 24 },
                Prefixed { address: SERVICE_ADDRESS.into(), len: 32 },
                Prefixed { address: address6(254), len: 64 },
            ],
        },
        tunnel: Some(Tunnel { vni: vni(100 + u32::from(n)), port: PORT, local: VTEP.into(), mtu: MTU }),
        uplink: Some(Uplink {
            host_ifname: uplink_ifname(network(n)),
            transits: vec![transit, transit6],
            routed: BTreeSet::new(),
        }),
        ports: ports.iter().map(|(m, netns)| (endpoint(*m), port(*m, netns))).collect(),
        remotes: BTreeMap::new(),
        neighbours: BTreeMap::new(),
    }
}

/// The same without IPv6.
pub fn only_ipv4(segment: &mut Segment) {
    segment.bridge.addresses.retain(|a| a.address.is_ipv4());
    segment.uplink.iter_mut().for_each(|uplink| uplink.transits.retain(|transit| transit.host.is_ipv4()));
    for port in segment.ports.values_mut() {
        port.addresses.retain(|a| a.address.is_ipv4());
        port.gateways.retain(IpAddr::is_ipv4);
    }
}

pub fn port(m: u8, netns: &NetnsRef) -> Port {
    Port {
        host_ifname: port_ifname(endpoint(m)),
        netns: netns.clone(),
        ifname: "eth0".parse().expect("a name"),
        mac: mac(m),
        addresses: vec![Prefixed { address: address(m), len: 24 }, Prefixed { address: address6(m), len: 64 }],
        gateways: vec![address(254), address6(254)],
        metric: 100,
        mtu: MTU,
    }
}

pub fn address(m: u8) -> IpAddr {
    [10, 9, 0, m].into()
}

pub fn address6(m: u8) -> IpAddr {
    Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, m.into()).into()
}

pub fn mac(m: u8) -> Mac {
    Mac::of_address(address(m))
}

/// Endpoint `m` is on another host.
pub fn add_remote(segment: &mut Segment, m: u8, remote: Remote) {
    segment.remotes.insert(mac(m), remote);
    segment.neighbours.extend([(address(m), mac(m)), (address6(m), mac(m))]);
}

/// A host that receives the network under the same VNI and port as this one.
pub fn alike(segment: &Segment, vtep: u8) -> Remote {
    let tunnel = segment.tunnel.expect("a segment here has one unless it is taken away");
    Remote { vtep: [192, 0, 2, vtep].into(), port: tunnel.port, vni: tunnel.vni }
}

/// The tunnel of a segment that has one.
pub fn tunnel_of(segment: &mut Segment) -> &mut Tunnel {
    segment.tunnel.as_mut().expect("a segment here has one unless it is taken away")
}

/// A host that has chosen another VNI and port.
pub fn unlike(vtep: u8) -> Remote {
    Remote { vtep: [192, 0, 2, vtep].into(), port: 8472, vni: vni(77_777) }
}

const V4: FieldType = FieldType::Address(IpVersion::V4);
const V6: FieldType = FieldType::Address(IpVersion::V6);

const PUBLISHED: SetDefinition =
    SetDefinition::map("published", &[FieldType::Protocol, FieldType::Port], &[V4, FieldType::Port]);

/// A port on the way, and the port that it leads to.
pub fn element(via: u16, port: u16) -> Element {
    Element {
        key: vec![Field::Protocol(Protocol::Udp), Field::Port(via)],
        value: vec![Field::Address(address(1)), Field::Port(port)],
    }
}

/// The sets that are looked up under a version of IP: sender, pairs, services, and what was asked.
const SETS: [[SetDefinition; 4]; 2] = {
    use FieldType::{Interface, Mac, Port, Protocol};
    let while_asked = Duration::from_secs(180);
    [
        [
            SetDefinition::set("own", &[Interface, Mac, V4]),
            SetDefinition::set("pairs", &[V4, V4]),
            SetDefinition::set("services", &[V4, V4, Protocol, Port]),
            SetDefinition::set("asked", &[V4, V4, Port, Port]).dynamic(65_535, while_asked),
        ],
        [
            SetDefinition::set("own6", &[Interface, Mac, V6]),
            SetDefinition::set("pairs6", &[V6, V6]),
            SetDefinition::set("services6", &[V6, V6, Protocol, Port]),
            SetDefinition::set("asked6", &[V6, V6, Port, Port]).dynamic(65_535, while_asked),
        ],
    ]
};
const TOLD: SetDefinition = SetDefinition::set("told6", &[FieldType::Interface, FieldType::Mac, FieldType::Bytes]);

/// For what passes the bridge.
pub fn filter() -> Table {
    let kinds = [
        Kind::Arp,
        Kind::ArpProbe,
        Kind::Ip(IpVersion::V4),
        Kind::Ip(IpVersion::V6),
        Kind::Foreign,
        Kind::Udp,
        Kind::Sctp,
        Kind::TcpGoingOn,
        Kind::SctpFragment(IpVersion::V4),
        Kind::SctpFragment(IpVersion::V6),
        Kind::SctpOpening,
        Kind::EchoReply(IpVersion::V4),
        Kind::EchoReply(IpVersion::V6),
        Kind::IcmpError(IpVersion::V4),
        Kind::IcmpError(IpVersion::V6),
        Kind::LaterFragment(IpVersion::V4),
        Kind::LaterFragment(IpVersion::V6),
        Kind::Discovery,
        Kind::Advertisement,
        Kind::RouterWord,
        Kind::Unaddressed,
    ];
    let of_kind = kinds.map(|kind| Rule::new([Match::Is(kind), Match::In("ovx*".to_owned())], Verdict::Drop));
    let drop = |when: Match| Rule::new([Match::In("ovx*".to_owned()), when], Verdict::Drop);
    let me = || vec![Field::Interface(port_ifname(endpoint(1))), Field::Mac(mac(1))];
    let set = |definition: SetDefinition, key: Vec<Field>| definition.with((!key.is_empty()).then(|| Element::of(key)));
    let told = Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 1);
    let mut sets = Vec::new();
    let mut senders =
        vec![drop(Match::Unlisted("own", Parts::Teller)), drop(Match::Unlisted("told6", Parts::Advertiser))];
    let mut passage = Vec::new();
    for (version, [own, pairs, services, asked]) in IpVersion::ALL.into_iter().zip(SETS) {
        let at = |m| Field::Address(if version == IpVersion::V4 { address(m) } else { address6(m) });
        sets.push(set(own, [me(), vec![at(1)]].concat()));
        sets.push(set(pairs, vec![at(1), at(2)]));
        sets.push(set(services, vec![at(1), at(2), Field::Protocol(Protocol::Tcp), Field::Port(6379)]));
        sets.push(set(asked, Vec::new()));
        senders.push(drop(Match::Unlisted(own.name, Parts::Sender(version))));
        let remember = Verdict::Remember(asked.name, Parts::Datagram(version));
        passage.push(Rule::new([Match::Is(Kind::Udp), Match::Is(Kind::Ip(version))], remember));
        let listed = [
            Match::Listed(pairs.name, Parts::Pair(version)),
            Match::Listed(pairs.name, Parts::PairAnswered(version)),
            Match::Listed(services.name, Parts::Service(version)),
            Match::Listed(services.name, Parts::ServiceAnswered(version)),
            Match::Listed(asked.name, Parts::DatagramAnswered(version)),
        ];
        passage.extend(listed.map(|listed| Rule::new([listed], Verdict::Accept)));
    }
    passage.extend(of_kind);
    sets.push(set(TOLD, [me(), vec![Field::Bytes(told)]].concat()));
    let chain = |name, hook, rules| Chain { name, hook, rules };
    Table {
        family: Family::Bridge,
        sets,
        chains: vec![
            chain("prerouting", "type filter hook prerouting priority filter", senders),
            chain("forward", "type filter hook forward priority filter", passage),
        ],
    }
}

fn table() -> Table {
    let up = || UPLINK.to_owned();
    let subnet = Subnet::of([10, 9, 0, 0].into(), 24).expect("a subnet");
    Table {
        family: Family::Inet,
        sets: vec![PUBLISHED.with([element(8080, 80)])],
        chains: vec![
            Chain {
                name: "prerouting",
                hook: "type filter hook prerouting priority raw",
                rules: vec![Rule::new([Match::UdpTo(4789)], Verdict::NoTrack)],
            },
            Chain {
                name: "forward",
                hook: "type filter hook forward priority filter",
                rules: vec![
                    Rule::new([Match::Is(Kind::TcpSyn)], Verdict::ClampMss),
                    Rule::new([Match::In(up()), Match::Known], Verdict::Accept),
                    Rule::new([Match::In("ovx*".to_owned()), Match::To(address(9))], Verdict::Drop),
                    Rule::new([Match::In(up())], Verdict::Drop),
                ],
            },
            Chain {
                name: "postrouting",
                hook: "type nat hook postrouting priority srcnat",
                rules: vec![
                    Rule::new([Match::Out(up()), Match::From(subnet)], Verdict::Masquerade),
                    Rule::new([Match::NotOut(up())], Verdict::Accept),
                ],
            },
            Chain { name: "empty", hook: "type filter hook input priority filter", rules: vec![] },
        ],
    }
}
