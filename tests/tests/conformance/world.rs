//! Wishes: networks as this host should have them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use overlay::addr::{Mac, Subnet};
use overlay::cluster::Cluster;
use overlay::desired::{
    Bridge, Desired, Place, Port, Prefixed, Remote, SERVICE_ADDRESS, Segment, Tunnel, Uplink, desire, port_ifname,
    uplink_ifname,
};
use overlay::firewall::{Chain, Element, Family, Field, Kind, Match, Parts, Rule, Set, Table, Verdict};
use overlay::id::{EndpointId, HostId, NetworkId, Vni};
use overlay::intent::{Intents, NetnsRef};
use overlay::publish::Protocol;

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

/// A host without any network.
pub fn host() -> Desired {
    let place = Place { me: HostId::from_bytes([1; 16]), vtep: VTEP.into(), vxlan_port: PORT, underlay_mtu: 1500 };
    desire(&Cluster::default(), &Intents::default(), &place)
}

/// A host with one network, number 1, and these endpoints.
pub fn host_with(ports: &[(u8, &NetnsRef)]) -> Desired {
    let mut desired = host();
    desired.segments.insert(network(1), segment(1, ports));
    desired
}

/// Network `n` is 10.9.0.0/24 as well as any other: they may overlap. Endpoint `m` is 10.9.0.`m`.
pub fn segment(n: u8, ports: &[(u8, &NetnsRef)]) -> Segment {
    let mac = Mac::new([0x0e, n, n, n, n, n]).expect("unicast");
    let transit = |end| IpAddr::from([169, 254, 128, 2 * n + end]);
    Segment {
        firewall: table(),
        filter: Some(filter()),
        bridge: Bridge {
            mac,
            mtu: MTU,
            addresses: vec![
                Prefixed { address: [10, 9, 0, 254].into(), len: 24 },
                Prefixed { address: SERVICE_ADDRESS.into(), len: 32 },
            ],
        },
        tunnel: Some(Tunnel { vni: vni(100 + u32::from(n)), port: PORT, local: VTEP.into(), mtu: MTU }),
        uplink: Some(Uplink {
            host_ifname: uplink_ifname(network(n)),
            host: transit(0),
            segment: transit(1),
            routed: BTreeSet::new(),
        }),
        ports: ports.iter().map(|(m, netns)| (endpoint(*m), port(*m, netns))).collect(),
        remotes: BTreeMap::new(),
        neighbours: BTreeMap::new(),
    }
}

pub fn port(m: u8, netns: &NetnsRef) -> Port {
    Port {
        host_ifname: port_ifname(endpoint(m)),
        netns: netns.clone(),
        ifname: "eth0".parse().expect("a name"),
        mac: mac(m),
        addresses: vec![Prefixed { address: address(m), len: 24 }],
        gateway: Some([10, 9, 0, 254].into()),
        metric: 100,
        mtu: MTU,
    }
}

pub fn address(m: u8) -> IpAddr {
    [10, 9, 0, m].into()
}

pub fn mac(m: u8) -> Mac {
    Mac::of_address(address(m))
}

/// Endpoint `m` is on another host.
pub fn add_remote(segment: &mut Segment, m: u8, remote: Remote) {
    segment.remotes.insert(mac(m), remote);
    segment.neighbours.insert(address(m), mac(m));
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

/// Every kind of rule there is.
const PUBLISHED: &str = "map published { type inet_proto . inet_service : ipv4_addr . inet_service;";

/// A port on the way, and the port that it leads to.
pub fn element(via: u16, port: u16) -> Element {
    let to = Ipv4Addr::new(10, 9, 0, 1);
    Element {
        key: vec![Field::Protocol(Protocol::Udp), Field::Port(via)],
        value: vec![Field::Address(to), Field::Port(port)],
    }
}

const OWN: &str = "set own { type ifname . ether_addr . ipv4_addr;";
const PAIRS: &str = "set pairs { type ipv4_addr . ipv4_addr;";
const SERVICES: &str = "set services { type ipv4_addr . ipv4_addr . inet_proto . inet_service;";
const ASKED: &str = "set asked { type ipv4_addr . ipv4_addr . inet_service . inet_service; size 65535; flags dynamic,timeout; \
                     timeout 3m;";

/// For what passes the bridge.
pub fn filter() -> Table {
    let kinds = [
        Kind::Arp,
        Kind::ArpProbe,
        Kind::Ipv4,
        Kind::Foreign,
        Kind::Udp,
        Kind::Sctp,
        Kind::TcpGoingOn,
        Kind::SctpFragment,
        Kind::SctpOpening,
        Kind::EchoReply,
        Kind::IcmpError,
        Kind::LaterFragment,
    ];
    let of_kind = kinds.map(|kind| Rule::new([Match::Is(kind), Match::In("ovx*".to_owned())], Verdict::Drop));
    let listed = [
        Match::Listed("pairs", Parts::Pair),
        Match::Listed("pairs", Parts::PairAnswered),
        Match::Listed("services", Parts::Service),
        Match::Listed("services", Parts::ServiceAnswered),
        Match::Listed("asked", Parts::DatagramAnswered),
    ];
    let listed = listed.map(|listed| Rule::new([listed], Verdict::Accept));
    let asked = Verdict::Remember("asked", Parts::Datagram);
    let own = |parts| Match::Unlisted("own", parts);
    let own = [
        Rule::new([Match::In("ovx*".to_owned()), own(Parts::Sender)], Verdict::Drop),
        Rule::new([Match::In("ovx*".to_owned()), own(Parts::Teller)], Verdict::Drop),
    ];
    let set = |name, kind, key: Vec<Field>| {
        let elements = if key.is_empty() { Vec::new() } else { vec![Element { key, value: Vec::new() }] };
        Set { name, kind, elements: elements.into_iter().collect() }
    };
    let v4 = |m| Field::Address(Ipv4Addr::new(10, 9, 0, m));
    let me = vec![Field::Interface(port_ifname(endpoint(1))), Field::Mac(mac(1)), v4(1)];
    let service = vec![v4(1), v4(2), Field::Protocol(Protocol::Tcp), Field::Port(6379)];
    Table {
        family: Family::Bridge,
        sets: vec![
            set("own", OWN, me),
            set("pairs", PAIRS, vec![v4(1), v4(2)]),
            set("services", SERVICES, service),
            set("asked", ASKED, Vec::new()),
        ],
        chains: vec![
            Chain { name: "prerouting", hook: "type filter hook prerouting priority filter", rules: own.into() },
            Chain {
                name: "forward",
                hook: "type filter hook forward priority filter",
                rules: [Rule::new([Match::Is(Kind::Udp)], asked)].into_iter().chain(listed).chain(of_kind).collect(),
            },
        ],
    }
}

fn table() -> Table {
    let up = || "up0".to_owned();
    let subnet = Subnet::of([10, 9, 0, 0].into(), 24).expect("a subnet");
    Table {
        family: Family::Inet,
        sets: vec![Set { name: "published", kind: PUBLISHED, elements: [element(8080, 80)].into() }],
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
