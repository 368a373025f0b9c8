use std::path::PathBuf;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::cluster::derive;
use crate::datapath::firewall::{Element, Field, Match, Rule, Verdict};
use crate::model::endpoint::{Assigned, Endpoint};
use crate::model::host::{HostInfo, Phase};
use crate::model::lease::Version;
use crate::model::member::Stamp;
use crate::model::network::{Name, Range, Settings};
use crate::model::publish::{Protocol, Published};
use crate::model::record::{Incarnation, NetworkMembership, Record, Records};

const ME: u8 = 1;

pub(super) fn host_id(number: u8) -> HostId {
    HostId::from_bytes([number; 16])
}

fn vtep(number: u8) -> IpAddr {
    IpAddr::from([192, 168, 0, number])
}

pub(super) fn ip(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

fn name(text: &str) -> Name {
    text.parse().expect("a label")
}

pub(super) fn host() -> HostConfig {
    HostConfig { me: host_id(ME), vtep: vtep(ME), vxlan_port: 4789, underlay_mtu: 1500 }
}

/// All networks have the same subnet.
pub(super) fn network(number: u8) -> Network {
    Network {
        id: NetworkId::from_bytes([0xa0 + number; 16]),
        name: name(&format!("net{number}")),
        ranges: vec![Range::new("10.0.0.0/24".parse().expect("a subnet"), None).expect("a range")],
        created: 1,
        creator: host_id(ME),
        since: 0,
        settings: Settings::default(),
    }
}

pub(super) fn endpoint(number: u8, network: &Network, address: u8) -> Endpoint {
    Endpoint {
        id: EndpointId::from_bytes([number; 16]),
        network: network.id,
        name: name(&format!("web{number}")),
        aliases: [].into(),
        addresses: vec![Assigned { address: ip(address), lease: Version { epoch: 1, count: 0 } }],
        mac: Mac::of_address(ip(address)),
        created: 1,
    }
}

fn attach(intents: &mut Intents, network: &Network, endpoint: Endpoint) {
    let seat = intents.seat(network.id).expect("a few networks");
    intents.seats.insert(network.id, seat);
    intents.networks.insert(network.id, network.clone());
    let netns = NetnsRef { path: PathBuf::from("/run/netns/web"), cookie: 1 };
    let ifname = "eth0".parse().expect("an interface name");
    intents
        .attachments
        .insert(endpoint.id, Arc::new(Attachment { endpoint, netns, ifname, metric: 0, published: BTreeMap::new() }));
}

/// What a host says that is in these networks, under a VNI of its own in each.
fn record(number: u8, networks: &[Network], endpoints: &[Endpoint], underlay_mtu: u32) -> Record {
    let member = |n: &Network| {
        let vni = Vni::new(u32::from(n.id.as_bytes()[0]) * 100 + u32::from(number));
        (n.id, NetworkMembership { network: n.clone(), vni }.into())
    };
    Record {
        host: Some(HostInfo {
            name: name(&format!("host{number}")),
            vtep: vtep(number),
            vxlan_port: 4700 + u16::from(number),
            peer: (vtep(number), 7946).into(),
            underlay_mtu,
            routed: std::collections::BTreeSet::new(),
            stamp: Stamp::default(),
            phase: Phase::Established,
            founder: None,
        }),
        networks: networks.iter().map(member).collect(),
        endpoints: endpoints.iter().map(|e| (e.id, Arc::new(e.clone()))).collect(),
        ..Record::default()
    }
}

fn said(number: u8, liveness: Liveness, record: Record) -> (HostId, Vec<Incarnation>) {
    (host_id(number), vec![Incarnation { generation: 1, complete: true, liveness, record: record.into() }])
}

fn cluster(said: impl IntoIterator<Item = (HostId, Vec<Incarnation>)>) -> Cluster {
    derive(&Records::from_iter(said), None)
}

/// This host has an endpoint 10.0.0.2 in the network; the other hosts say this.
fn segment_with(others: impl IntoIterator<Item = (HostId, Vec<Incarnation>)>) -> Segment {
    let net = network(0);
    let mut intents = Intents::default();
    attach(&mut intents, &net, endpoint(1, &net, 2));
    let segment = desire(&cluster(others), &intents, &host()).segments.remove(&net.id);
    Arc::unwrap_or_clone(segment.expect("an endpoint is here"))
}

fn other(number: u8, liveness: Liveness, endpoints: &[Endpoint]) -> (HostId, Vec<Incarnation>) {
    said(number, liveness, record(number, &[network(0)], endpoints, 1500))
}

/// What the hosts say, and what this host is asked for.
pub(super) type Scene = (Vec<(HostId, Vec<Incarnation>)>, Intents);

/// Endpoints of two networks on up to three hosts, at any addresses, some twice. What this host says of itself may be not yet
/// or no longer what it is asked for.
pub(super) fn scene() -> impl Strategy<Value = Scene> {
    let liveness = prop_oneof![Just(Liveness::Live), Just(Liveness::Suspect), Just(Liveness::Dead)];
    let endpoints = || prop::collection::vec((0_u8..2, 2_u8..12), 0..5);
    let host = (liveness, endpoints(), prop::sample::subsequence(vec![0_u8, 1], 0..=2), 1200_u32..9000);
    let stale = prop::option::weighted(0.7, endpoints());
    (prop::collection::vec(host, 0..3), endpoints(), stale).prop_map(|(hosts, mine, stale)| {
        let number = |host: u8, n: usize| 16 * host + u8::try_from(n).expect("a few endpoints");
        let of = |host: u8, list: &[(u8, u8)]| -> Vec<Endpoint> {
            list.iter().enumerate().map(|(n, (net, a))| endpoint(number(host, n), &network(*net), *a)).collect()
        };
        let mut intents = Intents::default();
        let mine = of(ME, &mine);
        for e in &mine {
            let net = if e.network == network(0).id { network(0) } else { network(1) };
            attach(&mut intents, &net, e.clone());
        }
        let others = (ME + 1..).zip(hosts).map(|(host, (liveness, endpoints, nets, mtu))| {
            let nets: Vec<Network> = nets.into_iter().map(network).collect();
            said(host, liveness, record(host, &nets, &of(host, &endpoints), mtu))
        });
        let mine = stale.map_or(mine, |stale| of(ME, &stale));
        let me = said(ME, Liveness::Live, record(ME, &[network(0), network(1)], &mine, 1500));
        (others.chain([me]).collect(), intents)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn there_is_a_segment_where_there_is_an_endpoint((said, intents) in scene()) {
        let desired = desire(&cluster(said), &intents, &host());
        let with: BTreeSet<NetworkId> = intents.attachments.values().map(|a| a.endpoint.network).collect();
        prop_assert_eq!(desired.segments.keys().copied().collect::<BTreeSet<_>>(), with);
        for (id, segment) in &desired.segments {
            let ports: BTreeSet<EndpointId> = intents.attached(*id).map(|a| a.endpoint.id).collect();
            prop_assert_eq!(segment.ports.keys().copied().collect::<BTreeSet<_>>(), ports);
        }
    }

    #[test]
    fn rows_lead_to_other_hosts_that_take_them_and_to_all_of_those((said, intents) in scene()) {
        let cluster = cluster(said);
        for (id, segment) in desire(&cluster, &intents, &host()).segments {
            let Some(view) = cluster.networks.get(&id) else { continue };
            let local = |e: &Endpoint| intents.attached(id).any(|a| a.endpoint.mac == e.mac);
            let mut expected = BTreeMap::new();
            for l in view.endpoints.values().filter(|l| l.host != host_id(ME) && !local(&l.endpoint)) {
                let host = &cluster.hosts[&l.host];
                if let (Some(vni), true) = (view.vnis.get(&l.host), host.liveness != Liveness::Dead) {
                    let remote = Remote { vtep: host.info.vtep, port: host.info.vxlan_port, vni: *vni };
                    expected.extend(l.addresses().map(|a| (a, (l.endpoint.mac, remote))));
                }
            }
            let mut neighbours: BTreeMap<IpAddr, Mac> = expected.iter().map(|(a, (mac, _))| (*a, *mac)).collect();
            let here = intents.attached(id).flat_map(|a| a.endpoint.addresses.iter().map(|of| (of.address, a.endpoint.mac)));
            neighbours.extend(here);
            prop_assert_eq!(&segment.neighbours, &neighbours);
            prop_assert_eq!(&segment.remotes, &expected.into_values().collect::<BTreeMap<Mac, Remote>>());
        }
    }

    #[test]
    fn nothing_that_is_here_is_led_away((said, intents) in scene()) {
        for (id, segment) in desire(&cluster(said), &intents, &host()).segments {
            for attachment in intents.attached(id) {
                prop_assert!(!segment.remotes.contains_key(&attachment.endpoint.mac));
                let mac = attachment.endpoint.mac;
                prop_assert!(attachment.endpoint.addresses.iter().all(|a| segment.neighbours.get(&a.address) == Some(&mac)));
            }
            let here: BTreeSet<Mac> = segment.ports.values().map(|port| port.mac).collect();
            prop_assert!(segment.neighbours.values().all(|mac| here.contains(mac) || segment.remotes.contains_key(mac)));
        }
    }

    #[test]
    fn networks_on_one_subnet_share_nothing((said, intents) in scene()) {
        let cluster = cluster(said);
        let desired = desire(&cluster, &intents, &host());
        for (id, segment) in &desired.segments {
            for (other_id, other) in desired.segments.iter().filter(|(other, _)| *other != id) {
                prop_assert_ne!(segment.tunnel.map(|t| t.vni), other.tunnel.map(|t| t.vni));
                let [one, two] = [segment, other].map(|s| s.uplink.as_ref().expect("a way out"));
                prop_assert_ne!(&one.host_ifname, &two.host_ifname);
                let links = one.transits.iter().chain(&two.transits).flat_map(|t| [t.host, t.segment]);
                prop_assert_eq!(links.collect::<BTreeSet<_>>().len(), 4);
                prop_assert_ne!(segment.bridge.mac, other.bridge.mac);
                let vnis: BTreeSet<Vni> = cluster.networks.get(other_id).map(|v| v.vnis.values().copied().collect()).unwrap_or_default();
                prop_assert!(segment.remotes.values().all(|r| !vnis.contains(&r.vni)), "a row of {:?} leads into {:?}", id, other_id);
            }
        }
        // What the other network has changes nothing in this one.
        let mut alone = intents.clone();
        alone.attachments.retain(|_, a| a.endpoint.network == network(0).id);
        let one = desire(&cluster, &alone, &host()).segments.remove(&network(0).id);
        prop_assert_eq!(one.as_ref(), desired.segments.get(&network(0).id));
    }

    #[test]
    fn the_mtu_is_what_the_narrowest_host_of_the_network_carries((said, intents) in scene()) {
        let cluster = cluster(said);
        for (id, segment) in desire(&cluster, &intents, &host()).segments {
            let members = cluster.networks.get(&id).into_iter().flat_map(|v| v.vnis.keys());
            let narrowest = members.map(|h| cluster.hosts[h].info.underlay_mtu).chain([1500]).min().expect("at least this host");
            let mtus: BTreeSet<u32> =
                segment.ports.values().map(|p| p.mtu).chain([segment.bridge.mtu, segment.tunnel.expect("a tunnel").mtu]).collect();
            prop_assert_eq!(mtus, BTreeSet::from([narrowest - 50]));
        }
    }

    #[test]
    fn the_same_is_wanted_whenever_the_same_is_known((said, intents) in scene()) {
        let again: Vec<_> = said.iter().rev().cloned().collect();
        prop_assert_eq!(desire(&cluster(said), &intents, &host()), desire(&cluster(again), &intents, &host()));
    }
}

#[test]
fn a_host_without_endpoints_wants_no_segment() {
    let net = network(0);
    let mut intents = Intents::default();
    attach(&mut intents, &net, endpoint(1, &net, 2));
    intents.attachments.clear();
    let known = cluster([other(2, Liveness::Live, &[endpoint(9, &net, 9)])]);
    assert_eq!(desire(&known, &intents, &host()).segments, BTreeMap::new());
}

#[test]
fn a_segment_of_one_host_has_the_neighbours_of_its_own_endpoints_only() {
    let segment = segment_with([]);
    assert!(segment.remotes.is_empty());
    assert_eq!(segment.neighbours, [(ip(2), Mac::of_address(ip(2)))].into());
    assert_eq!(segment.ports.len(), 1);
}

#[test]
fn a_row_carries_the_receivers_own_vni_and_port() {
    let segment = segment_with([other(2, Liveness::Live, &[endpoint(9, &network(0), 9)])]);
    let remote = Remote { vtep: vtep(2), port: 4702, vni: Vni::new(16002).expect("24 bits") };
    assert_eq!(segment.remotes, [(Mac::of_address(ip(9)), remote)].into());
    assert_eq!(segment.neighbours, [2, 9].map(|last| (ip(last), Mac::of_address(ip(last)))).into());
    assert_ne!(segment.tunnel.expect("a tunnel").vni, remote.vni);
}

#[test]
fn rows_of_a_silent_host_stay_until_it_is_given_up() {
    let rows = |liveness| segment_with([other(2, liveness, &[endpoint(9, &network(0), 9)])]).remotes.len();
    assert_eq!([Liveness::Live, Liveness::Suspect, Liveness::Dead].map(rows), [1, 1, 0]);
}

#[test]
fn a_host_that_takes_no_packets_of_the_network_gets_none() {
    let (id, mut lives) = other(2, Liveness::Live, &[endpoint(9, &network(0), 9)]);
    for membership in std::sync::Arc::make_mut(&mut lives[0].record).networks.values_mut() {
        Arc::make_mut(membership).vni = None;
    }
    assert!(segment_with([(id, lives)]).remotes.is_empty());
}

#[test]
fn nobody_takes_the_gateway_or_the_mac_of_a_local_endpoint() {
    let net = network(0);
    let gateway = Endpoint { mac: gateway_mac(net.id), ..endpoint(8, &net, 8) };
    let local = Endpoint { mac: Mac::of_address(ip(2)), ..endpoint(9, &net, 9) };
    let honest = endpoint(10, &net, 10);
    let segment = segment_with([other(2, Liveness::Live, &[gateway, local, endpoint(11, &net, 1), honest])]);
    assert_eq!(segment.neighbours.into_keys().collect::<Vec<_>>(), [ip(2), ip(10)]);
    assert_eq!(segment.remotes.into_keys().collect::<Vec<_>>(), [Mac::of_address(ip(10))]);
}

#[test]
fn nobody_takes_the_address_of_a_local_endpoint_under_a_mac_of_his_own() {
    let rival = Endpoint { mac: Mac::of_address(ip(77)), ..endpoint(9, &network(0), 2) };
    let neighbours = segment_with([other(2, Liveness::Live, &[rival])]).neighbours;
    assert_eq!(neighbours, [(ip(2), Mac::of_address(ip(2)))].into());
}

#[test]
fn a_port_has_its_addresses_with_the_length_of_the_subnet_and_the_gateway_as_its_way_out() {
    let segment = segment_with([]);
    let port = segment.ports.values().next().expect("one endpoint");
    assert_eq!(port.addresses, [Prefixed { address: ip(2), len: 24 }]);
    assert_eq!(port.gateways, [ip(1)]);
    assert_eq!(port.mac, Mac::of_address(ip(2)));
    let service = Prefixed { address: SERVICE_ADDRESS.into(), len: 32 };
    assert_eq!(segment.bridge.addresses, [Prefixed { address: ip(1), len: 24 }, service]);
}

#[test]
fn a_container_reaches_the_tunnel_of_no_host() {
    let table = desire(&Cluster::default(), &Intents::default(), &host()).firewall;
    let raw = table.chains.iter().find(|chain| chain.hook.contains("prerouting")).expect("where packets come in");
    let from_a_container = [Match::In("ovu*".to_owned()), Match::UdpTo(host().vxlan_port)];
    assert_eq!(raw.rules.first(), Some(&Rule::new(from_a_container, Verdict::Drop)));
}

#[test]
fn transit_links_stay_in_their_range() {
    let network = dual();
    for transit in [0, 1, Seat::TRANSIT_LINKS - 1] {
        let link = uplink(&network, Seat { vni: Vni::proposal(network.id), transit });
        assert_eq!(link.transits.len(), 2);
        for ends in &link.transits {
            assert!(is_transit(ends.host) && is_transit(ends.segment), "{link:?}");
            assert_eq!(IpVersion::of(ends.host), IpVersion::of(ends.segment));
        }
    }
    assert!(!is_transit(SERVICE_ADDRESS.into()));
}

/// With an IPv4 and an IPv6 subnet.
fn dual() -> Network {
    let ipv6 = Range::new("fd00::/64".parse().expect("a subnet"), None).expect("a range");
    Network { ranges: network(0).ranges.into_iter().chain([ipv6]).collect(), ..network(0) }
}

fn ip6(last: u16) -> IpAddr {
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last).into()
}

/// This host has an endpoint 10.0.0.2 and fd00::2 in a network with both versions, at these ports.
fn dual_with(published: &Published) -> Desired {
    let net = dual();
    let mut both = endpoint(1, &net, 2);
    both.addresses.push(Assigned { address: ip6(2), lease: Version { epoch: 1, count: 0 } });
    let mut intents = Intents::default();
    attach(&mut intents, &net, both);
    intents.attachments.values_mut().for_each(|a| Arc::make_mut(a).published = published.clone());
    desire(&Cluster::default(), &intents, &host())
}

#[test]
fn a_network_with_both_versions_has_both_everywhere() {
    let desired = dual_with(&Published::new());
    assert_eq!(desired.forwarding, BTreeSet::from(IpVersion::ALL));
    let segment = &desired.segments[&dual().id];
    assert_eq!(segment.versions(), BTreeSet::from(IpVersion::ALL));
    let port = segment.ports.values().next().expect("one endpoint");
    assert_eq!(port.addresses, [Prefixed { address: ip(2), len: 24 }, Prefixed { address: ip6(2), len: 64 }]);
    assert_eq!(port.gateways, [ip(1), ip6(1)]);
    let only_ipv4 = segment_with([]);
    assert_eq!(only_ipv4.versions(), BTreeSet::from([IpVersion::V4]));
    assert!(segment.bridge.addresses.contains(&Prefixed { address: ip6(1), len: 64 }));
}

#[test]
fn a_port_is_published_under_the_versions_that_it_says() {
    let at = |address: Option<IpAddr>, port| HostPort { protocol: Protocol::Tcp, address, port };
    let target = |via| Target { port: 80, via, allowed: BTreeSet::new() };
    let published = [(at(None, 1), target(1)), (at(Some(ip(9)), 2), target(2)), (at(Some(ip6(9)), 3), target(3))];
    let desired = dual_with(&published.into());
    let ports = |table: &Table, set: &str| -> BTreeSet<u16> {
        let set = table.sets.iter().find(|s| s.name() == set).expect("a set");
        let port = |element: &Element| match element.key.last() {
            Some(Field::Port(port)) => *port,
            other => panic!("{other:?} is no port"),
        };
        set.elements.iter().map(port).collect()
    };
    let segment = &desired.segments[&dual().id].firewall;
    for (set, set_inside, expected) in [("ports", "published", [1, 2]), ("ports6", "published6", [1, 3])] {
        assert_eq!(ports(&desired.firewall, set), BTreeSet::from(expected));
        assert_eq!(ports(segment, set_inside), BTreeSet::from(expected));
    }
}

#[test]
fn what_carries_ipv6_has_the_mtu_that_it_needs() {
    let net = Network { settings: Settings { mtu: Some(576), ..Settings::default() }, ..dual() };
    assert_eq!(mtu(&net, None, &Cluster::default(), &host()), 1280);
    let narrow = HostConfig { underlay_mtu: 1000, ..host() };
    assert_eq!(mtu(&dual(), None, &Cluster::default(), &narrow), 1280);
    assert_eq!(mtu(&network(0), None, &Cluster::default(), &narrow), 950);
}
