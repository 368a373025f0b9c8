//! All values that there are to be translated.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use overlay::ledger::{Activation, Evidence, Fencing, Known, LedgerSnapshot, MemberList};
use overlay::model::host::Phase;
use overlay::model::id::{EndpointId, HostId};
use overlay::model::links::{Link, LinkDecision, Links, Service};
use overlay::model::member::{Boot, Seal, Stamp};
use overlay::model::record::Record;
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;

use super::*;

pub(super) fn host_ids() -> impl Strategy<Value = HostId> {
    any::<[u8; 16]>().prop_map(HostId::from_bytes)
}

pub(super) fn network_ids() -> impl Strategy<Value = NetworkId> {
    any::<[u8; 16]>().prop_map(NetworkId::from_bytes)
}

pub(super) fn endpoint_ids() -> impl Strategy<Value = EndpointId> {
    any::<[u8; 16]>().prop_map(EndpointId::from_bytes)
}

pub(super) fn names() -> impl Strategy<Value = Name> {
    "[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?".prop_map(|text| text.parse().expect("the pattern is that of a name"))
}

pub(super) fn addresses() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(|bytes| IpAddr::V4(bytes.into())),
        any::<[u8; 16]>().prop_map(|bytes| IpAddr::V6(bytes.into())),
    ]
}

pub(super) fn counts() -> impl Strategy<Value = u64> {
    0..=MAX_COUNT
}

pub(super) fn versions() -> impl Strategy<Value = Version> {
    (counts(), counts()).prop_map(|(epoch, count)| Version { epoch, count })
}

pub(super) fn blocks() -> impl Strategy<Value = BlockId> {
    any::<(u8, u16)>().prop_map(|(range, index)| BlockId { range, index })
}

pub(super) fn macs() -> impl Strategy<Value = Mac> {
    any::<[u8; 6]>().prop_filter_map("not unicast", Mac::new)
}

pub(super) fn vnis() -> impl Strategy<Value = Vni> {
    (1_u32..=0x00ff_ffff).prop_filter_map("not 24 bits", Vni::new)
}

pub(super) fn ranges() -> impl Strategy<Value = Range> {
    (any::<u16>(), 16_u8..=30, any::<bool>(), any::<bool>()).prop_map(|(second, len, pooled, v6)| {
        let [high, low] = second.to_be_bytes();
        let (address, len) = if v6 {
            (Ipv6Addr::new(0xfd00, 0, second, 0, 0, 0, 0, 0).into(), len + 32)
        } else {
            (Ipv4Addr::from([10, high, low, 0]).into(), len)
        };
        let subnet = Subnet::of(address, len).expect("the length is one of its version");
        let range = Range::new(subnet, None).expect("neither 10.0.0.0/8 nor fd00::/32 is reserved");
        let half = Subnet::of(subnet.network(), len + 1).filter(|_| pooled && subnet.host_bits() > 2);
        half.map_or(range, |pool| range.with_pool(pool).expect("a part of it"))
    })
}

fn drivers() -> impl Strategy<Value = Driver> {
    prop_oneof![Just(Driver::Vxlan), Just(Driver::Bridge)]
}

pub(super) fn settings() -> impl Strategy<Value = Settings> {
    let auxiliary = btree_map(any::<IpAddr>(), names(), 0..4);
    let labels = btree_map("[a-z.]{1,20}", "[ -~]{0,20}", 0..4);
    let mtu = proptest::option::of(Settings::MIN_MTU..);
    (drivers(), any::<(bool, bool, bool)>(), mtu, auxiliary, labels).prop_map(
        |(driver, (internal, masquerade, icc), mtu, auxiliary, labels)| Settings {
            driver,
            internal,
            masquerade,
            icc,
            mtu,
            auxiliary,
            labels,
        },
    )
}

pub(super) fn definitions() -> impl Strategy<Value = Network> {
    let ids = (network_ids(), names(), host_ids());
    (ids, vec(ranges(), 1..=MAX_RANGES), counts(), 0..=LAST_SECOND, settings()).prop_map(
        |((id, name, creator), ranges, created, since, settings)| Network {
            id,
            name,
            ranges,
            created,
            creator,
            since,
            settings,
        },
    )
}

pub(super) fn memberships() -> impl Strategy<Value = NetworkMembership> {
    (definitions(), proptest::option::of(vnis())).prop_map(|(network, vni)| NetworkMembership { network, vni })
}

pub(super) fn runs() -> impl Strategy<Value = Run> {
    (blocks(), any::<u16>(), counts()).prop_map(|(start, len, epoch)| Run { start, len, epoch })
}

pub(super) fn statements() -> impl Strategy<Value = Statement> {
    prop_oneof![
        (blocks(), counts(), host_ids()).prop_map(|(block, epoch, to)| Statement::Transfer { block, epoch, to }),
        (addresses(), versions(), host_ids()).prop_map(|(address, version, to)| Statement::Delegate {
            address,
            version,
            to
        }),
        (addresses(), versions()).prop_map(|(address, version)| Statement::Return { address, version }),
    ]
}

pub(super) fn endpoints_in(networks: impl Strategy<Value = NetworkId>) -> impl Strategy<Value = Endpoint> {
    let assigned = (addresses(), versions()).prop_map(|(address, lease)| Assigned { address, lease });
    let names = (names(), btree_set(names(), 0..3));
    (endpoint_ids(), networks, names, vec(assigned, 1..3), macs(), counts()).prop_map(
        |(id, network, (name, aliases), addresses, mac, created)| Endpoint {
            id,
            network,
            name,
            aliases,
            addresses,
            mac,
            created,
        },
    )
}

pub(super) fn hosts() -> impl Strategy<Value = HostInfo> {
    let peer = (addresses(), 1..=u16::MAX).prop_map(|(ip, port)| SocketAddr::new(ip, port));
    let vteps = addresses().prop_filter("nobody can send there", |a| vtep(&a.to_string()).is_ok());
    let phases = prop_oneof![Just(Phase::Joining), Just(Phase::Unchecked), Just(Phase::Established)];
    (names(), vteps, 1..=u16::MAX, peer, UNDERLAY_MTUS, (stamps(), phases, option::of(host_ids()))).prop_map(
        |(name, vtep, vxlan_port, peer, underlay_mtu, (stamp, phase, founder))| HostInfo {
            name,
            vtep,
            vxlan_port,
            peer,
            underlay_mtu,
            routed: std::collections::BTreeSet::new(),
            stamp,
            phase,
            founder,
        },
    )
}

pub(super) fn boots() -> impl Strategy<Value = Boot> {
    (0..=MAX_COUNT, any::<u64>()).prop_map(|(generation, nonce)| Boot { generation, nonce })
}

pub(super) fn stamps() -> impl Strategy<Value = Stamp> {
    (boots(), 0..=MAX_COUNT).prop_map(|(boot, revision)| Stamp { boot, revision })
}

pub(super) fn seals() -> impl Strategy<Value = BTreeMap<HostId, Seal>> {
    let seal = (host_ids(), any::<bool>()).prop_map(|(heir, done)| Seal { heir, done });
    btree_map(host_ids(), seal, 0..3)
}

pub(super) fn evidence() -> impl Strategy<Value = Evidence> {
    prop_oneof![
        (any::<u64>(), any::<u64>()).prop_map(|(revision, seen)| Evidence::LaterRevision { revision, seen }),
        Just(Evidence::LaterLease),
        Just(Evidence::LaterBoot),
        Just(Evidence::LaterMember),
        Just(Evidence::Elsewhere),
    ]
}

pub(super) fn standings() -> impl Strategy<Value = Activation> {
    prop_oneof![
        btree_set(host_ids(), 0..3).prop_map(|acknowledged| Activation::Joining { acknowledged }),
        Just(Activation::Established),
        (btree_set(host_ids(), 0..3), btree_set(host_ids(), 0..3))
            .prop_map(|(admitted, waiting)| Activation::Unchecked { admitted, waiting }),
        Just(Activation::Fenced(Fencing::Moves)),
        Just(Activation::Fenced(Fencing::Unjoined)),
        host_ids().prop_map(|by| Activation::Fenced(Fencing::Forgotten { by })),
        (host_ids(), evidence()).prop_map(|(by, evidence)| Activation::Fenced(Fencing::Restored { by, evidence })),
    ]
}

pub(super) fn welcomes() -> impl Strategy<Value = MemberList> {
    let known = (option::of(host_ids()), btree_set(host_ids(), 0..4), btree_map(host_ids(), stamps(), 0..4));
    (known, seals(), any::<bool>()).prop_map(|((founder, members, dealt), seals, unchecked)| {
        let (members, dealt) = (members.into_iter().collect(), dealt.into_iter().collect());
        MemberList { founder, members, dealt, seals, unchecked }
    })
}

pub(super) fn testimonies() -> impl Strategy<Value = LedgerSnapshot> {
    let block = (1..=MAX_COUNT, 0_u8..3)
        .prop_map(|(epoch, holder)| BlockLease { epoch, holder: HostId::from_bytes([holder; 16]) });
    let lease = (versions(), proptest::option::of(host_ids()))
        .prop_map(|(version, holder)| AddressLease { version, holder: holder.map_or(Holder::Home, Holder::Host) });
    let known = (memberships(), vec(block, 0..8), btree_map(addresses(), lease, 0..4)).prop_map(
        |(NetworkMembership { network, .. }, leases, addresses)| {
            let blocks = network.blocks().zip(leases).collect();
            Known { network, blocks, addresses }
        },
    );
    let networks = vec(known, 0..3).prop_map(|all| all.into_iter().map(|k| (k.network.id, k)).collect());
    (stamps(), welcomes(), networks).prop_map(|(stamp, member_list, networks)| LedgerSnapshot {
        stamp,
        member_list,
        networks,
    })
}

pub(super) fn records() -> impl Strategy<Value = Record> {
    let networks = vec(memberships(), 0..4)
        .prop_map(|all| all.into_iter().map(|m| (m.network.id, Arc::new(m))).collect::<BTreeMap<_, _>>());
    let held = btree_map(network_ids(), btree_set(runs(), 1..20).prop_map(|runs| runs.into_iter().collect()), 0..3);
    let borrowed = btree_map(network_ids(), btree_map(addresses(), versions(), 1..20), 0..3);
    let outbox = btree_map(network_ids(), btree_set(statements(), 1..20), 0..3);
    let links = btree_map(network_ids(), links(), 0..3);
    let few = (0_u8..3).prop_map(|n| NetworkId::from_bytes([n; 16]));
    let endpoints = vec(endpoints_in(few), 0..30)
        .prop_map(|all| all.into_iter().map(|e| (e.id, Arc::new(e))).collect::<BTreeMap<_, _>>());
    let tombstones = btree_set(network_ids(), 0..3);
    (proptest::option::of(hosts()), networks, tombstones, held, borrowed, outbox, links, endpoints, seals()).prop_map(
        |(host, networks, tombstones, blocks, borrowed, outbox, links, endpoints, seals)| Record {
            host,
            networks,
            tombstones,
            blocks,
            borrowed,
            outbox,
            links,
            endpoints,
            seals,
        },
    )
}

pub(super) fn links() -> impl Strategy<Value = Links> {
    let service = (0..3_usize, 1..=u16::MAX).prop_map(|(n, port)| Service { protocol: Protocol::ALL[n], port });
    let link = (names(), names(), option::of(service)).prop_map(|(from, to, service)| Link { from, to, service });
    let decision = (counts(), any::<bool>()).prop_map(|(at, removed)| LinkDecision { at, removed });
    btree_map(link, decision, 1..20).prop_map(|all| all.into_iter().collect())
}

pub(super) fn attachments() -> impl Strategy<Value = Attachment> {
    let netns = (".{0,40}", any::<u64>()).prop_map(|(path, cookie)| NetnsRef { path: path.into(), cookie });
    let ifnames = "[a-z0-9.]{0,14}[a-z0-9]".prop_map(|text| text.parse().expect("the pattern is that of a name"));
    let published = btree_map(host_ports(), targets(), 0..4);
    (endpoints_in(network_ids()), netns, ifnames, any::<u32>(), published).prop_map(
        |(endpoint, netns, ifname, metric, published)| Attachment { endpoint, netns, ifname, metric, published },
    )
}

fn host_ports() -> impl Strategy<Value = HostPort> {
    (0..3_usize, option::of(addresses()), 1..=u16::MAX).prop_map(|(protocol, address, port)| HostPort {
        protocol: Protocol::ALL[protocol],
        address,
        port,
    })
}

fn targets() -> impl Strategy<Value = Target> {
    let subnets = (addresses(), 0..=128_u8).prop_filter_map("too long", |(ip, len)| Subnet::of(ip, len));
    (1..=u16::MAX, 1..=u16::MAX, btree_set(subnets, 0..3)).prop_map(|(port, via, allowed)| Target {
        port,
        via,
        allowed,
    })
}

pub(super) fn address_leases() -> impl Strategy<Value = AddressLease> {
    let holders = prop_oneof![Just(Holder::Home), host_ids().prop_map(Holder::Host)];
    (versions(), holders).prop_map(|(version, holder)| AddressLease { version, holder })
}
