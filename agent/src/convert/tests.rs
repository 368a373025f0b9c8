use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use overlay::host::Phase;
use overlay::id::{EndpointId, HostId};
use overlay::ledger::{Claim, Denial, Evidence, Fencing, Forget, Known, Standing, Testimony, Welcome};
use overlay::member::{Boot, Seal, Stamp};
use overlay::record::Record;
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::gossip::{MAX_KEY, MAX_VALUE};

type Texts = BTreeMap<String, String>;

fn decode(entries: &Texts) -> (Record, Vec<(String, WireError)>) {
    decode_record(entries.iter().map(|(key, value)| (key.as_str(), value.as_str())))
}

fn host_ids() -> impl Strategy<Value = HostId> {
    any::<[u8; 16]>().prop_map(HostId::from_bytes)
}

fn network_ids() -> impl Strategy<Value = NetworkId> {
    any::<[u8; 16]>().prop_map(NetworkId::from_bytes)
}

fn endpoint_ids() -> impl Strategy<Value = EndpointId> {
    any::<[u8; 16]>().prop_map(EndpointId::from_bytes)
}

fn names() -> impl Strategy<Value = Name> {
    "[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?".prop_map(|text| text.parse().expect("the pattern is that of a name"))
}

fn addresses() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(|bytes| IpAddr::V4(bytes.into())),
        any::<[u8; 16]>().prop_map(|bytes| IpAddr::V6(bytes.into())),
    ]
}

fn counts() -> impl Strategy<Value = u64> {
    0..=MAX_COUNT
}

fn versions() -> impl Strategy<Value = Version> {
    (counts(), counts()).prop_map(|(epoch, count)| Version { epoch, count })
}

fn blocks() -> impl Strategy<Value = BlockId> {
    any::<(u8, u16)>().prop_map(|(range, index)| BlockId { range, index })
}

fn macs() -> impl Strategy<Value = Mac> {
    any::<[u8; 6]>().prop_filter_map("not unicast", Mac::new)
}

fn vnis() -> impl Strategy<Value = Vni> {
    (1_u32..=0x00ff_ffff).prop_filter_map("not 24 bits", Vni::new)
}

fn ranges() -> impl Strategy<Value = Range> {
    (any::<u16>(), 16_u8..=30).prop_map(|(second, len)| {
        let [high, low] = second.to_be_bytes();
        let subnet = Subnet::of(Ipv4Addr::from([10, high, low, 0]).into(), len).expect("the length is one of IPv4");
        Range::new(subnet, None).expect("10.0.0.0/8 is not reserved")
    })
}

fn definitions() -> impl Strategy<Value = Network> {
    (network_ids(), names(), vec(ranges(), 1..=MAX_RANGES), counts(), host_ids())
        .prop_map(|(id, name, ranges, created, creator)| Network { id, name, ranges, created, creator })
}

fn memberships() -> impl Strategy<Value = Membership> {
    (definitions(), proptest::option::of(vnis())).prop_map(|(network, vni)| Membership { network, vni })
}

fn runs() -> impl Strategy<Value = Run> {
    (blocks(), any::<u16>(), counts()).prop_map(|(start, len, epoch)| Run { start, len, epoch })
}

fn statements() -> impl Strategy<Value = Statement> {
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

fn endpoints_in(networks: impl Strategy<Value = NetworkId>) -> impl Strategy<Value = Endpoint> {
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

fn hosts() -> impl Strategy<Value = HostInfo> {
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
            stamp,
            phase,
            founder,
        },
    )
}

fn boots() -> impl Strategy<Value = Boot> {
    (0..=MAX_COUNT, any::<u64>()).prop_map(|(generation, nonce)| Boot { generation, nonce })
}

fn stamps() -> impl Strategy<Value = Stamp> {
    (boots(), 0..=MAX_COUNT).prop_map(|(boot, page)| Stamp { boot, page })
}

fn seals() -> impl Strategy<Value = BTreeMap<HostId, Seal>> {
    let seal = (host_ids(), any::<bool>()).prop_map(|(heir, done)| Seal { heir, done });
    btree_map(host_ids(), seal, 0..3)
}

fn evidence() -> impl Strategy<Value = Evidence> {
    prop_oneof![
        (any::<u64>(), any::<u64>()).prop_map(|(page, seen)| Evidence::LaterPage { page, seen }),
        Just(Evidence::LaterLease),
        Just(Evidence::Elsewhere),
    ]
}

fn standings() -> impl Strategy<Value = Standing> {
    prop_oneof![
        btree_set(host_ids(), 0..3).prop_map(|acknowledged| Standing::Joining { acknowledged }),
        Just(Standing::Established),
        (btree_set(host_ids(), 0..3), btree_set(host_ids(), 0..3))
            .prop_map(|(admitted, waiting)| Standing::Unchecked { admitted, waiting }),
        host_ids().prop_map(|by| Standing::Fenced(Fencing::Forgotten { by })),
        (host_ids(), evidence()).prop_map(|(by, evidence)| Standing::Fenced(Fencing::Restored { by, evidence })),
    ]
}

fn welcomes() -> impl Strategy<Value = Welcome> {
    let known = (option::of(host_ids()), btree_set(host_ids(), 0..4), btree_map(host_ids(), stamps(), 0..4));
    (known, seals(), any::<bool>()).prop_map(|((founder, members, dealt), seals, unchecked)| {
        let (members, dealt) = (members.into_iter().collect(), dealt.into_iter().collect());
        Welcome { founder, members, dealt, seals, unchecked }
    })
}

fn testimonies() -> impl Strategy<Value = Testimony> {
    let block = (1..=MAX_COUNT, 0_u8..3)
        .prop_map(|(epoch, holder)| BlockLease { epoch, holder: HostId::from_bytes([holder; 16]) });
    let lease = (versions(), proptest::option::of(host_ids()))
        .prop_map(|(version, holder)| AddressLease { version, holder: holder.map_or(Holder::Home, Holder::Host) });
    let known = (memberships(), vec(block, 0..8), btree_map(addresses(), lease, 0..4)).prop_map(
        |(Membership { network, .. }, leases, addresses)| {
            let blocks = network.blocks().zip(leases).collect();
            Known { network, blocks, addresses }
        },
    );
    let networks = vec(known, 0..3).prop_map(|all| all.into_iter().map(|k| (k.network.id, k)).collect());
    (stamps(), welcomes(), networks).prop_map(|(stamp, welcome, networks)| Testimony { stamp, welcome, networks })
}

fn records() -> impl Strategy<Value = Record> {
    let networks =
        vec(memberships(), 0..4).prop_map(|all| all.into_iter().map(|m| (m.network.id, m)).collect::<BTreeMap<_, _>>());
    let held = btree_map(network_ids(), btree_set(runs(), 1..20).prop_map(|runs| runs.into_iter().collect()), 0..3);
    let borrowed = btree_map(network_ids(), btree_map(addresses(), versions(), 1..20), 0..3);
    let outbox = btree_map(network_ids(), btree_set(statements(), 1..20), 0..3);
    let few = (0_u8..3).prop_map(|n| NetworkId::from_bytes([n; 16]));
    let endpoints =
        vec(endpoints_in(few), 0..30).prop_map(|all| all.into_iter().map(|e| (e.id, e)).collect::<BTreeMap<_, _>>());
    let tombstones = btree_set(network_ids(), 0..3);
    (proptest::option::of(hosts()), networks, tombstones, held, borrowed, outbox, endpoints, seals()).prop_map(
        |(host, networks, tombstones, blocks, borrowed, outbox, endpoints, seals)| Record {
            host,
            networks,
            tombstones,
            blocks,
            borrowed,
            outbox,
            endpoints,
            seals,
        },
    )
}

/// Over the wire as bytes and back.
fn there_and_back<T: Wire<W>, W: Message + Default>(value: &T) -> Result<T, WireError> {
    let bytes = value.to_wire().encode_to_vec();
    T::from_wire(&W::decode(bytes.as_slice()).expect("what prost wrote it reads"))
}

macro_rules! comes_back {
    ($($law:ident: $values:expr => $wire:ty),* $(,)?) => {
        proptest! {$(
            #[test]
            fn $law(value in $values) {
                prop_assert_eq!(there_and_back::<_, $wire>(&value), Ok(value));
            }
        )*}
    };
}

comes_back! {
    a_host_comes_back: hosts() => wire::HostInfo,
    a_range_comes_back: ranges() => wire::Range,
    a_network_comes_back: definitions() => wire::Network,
    a_membership_comes_back: memberships() => wire::Membership,
    a_version_comes_back: versions() => wire::Version,
    a_block_comes_back: blocks() => wire::Block,
    a_run_comes_back: runs() => wire::holding::Run,
    a_statement_comes_back: statements() => wire::Statement,
    an_endpoint_comes_back: endpoints_in(network_ids()) => wire::Endpoint,
    an_attachment_comes_back: attachments() => wire::Attachment,
    a_seat_comes_back: (vnis(), any::<u16>()).prop_map(|(vni, transit)| Seat { vni, transit }) => wire::Seat,
    a_block_lease_comes_back:
        (counts(), host_ids()).prop_map(|(epoch, holder)| BlockLease { epoch, holder }) => wire::Lease,
    an_address_lease_comes_back: address_leases() => wire::Lease,
    a_rest_comes_back:
        (proptest::option::of(names()), any::<u64>()).prop_map(|(name, since)| Rest { name, since }) => wire::Rest,
}

fn attachments() -> impl Strategy<Value = Attachment> {
    let netns = (".{0,40}", any::<u64>()).prop_map(|(path, cookie)| NetnsRef { path: path.into(), cookie });
    let ifnames = "[a-z0-9.]{0,14}[a-z0-9]".prop_map(|text| text.parse().expect("the pattern is that of a name"));
    (endpoints_in(network_ids()), netns, ifnames).prop_map(|(endpoint, netns, ifname)| Attachment {
        endpoint,
        netns,
        ifname,
    })
}

fn address_leases() -> impl Strategy<Value = AddressLease> {
    let holders = prop_oneof![Just(Holder::Home), host_ids().prop_map(Holder::Host)];
    (versions(), holders).prop_map(|(version, holder)| AddressLease { version, holder })
}

/// On the wire a denial does not say which address it is about, nor who holds how much: the asker knows.
#[test]
fn a_denial_says_the_same_to_the_one_who_asked() {
    let address = IpAddr::from([10, 0, 0, 7]);
    let (host, endpoint) = (HostId::from_bytes([7; 16]), EndpointId::from_bytes([8; 16]));
    let holders = BTreeMap::from([(host, 3)]);
    let told = [
        (Denial::UnknownNetwork, Denial::UnknownNetwork),
        (Denial::NotAssignable(address), Denial::NotAssignable(address)),
        (Denial::Bound { address, endpoint }, Denial::Bound { address, endpoint }),
        (Denial::Delegated { address, to: host }, Denial::Delegated { address, to: host }),
        (Denial::NotHolder { holder: None }, Denial::NotHolder { holder: None }),
        (Denial::NotHolder { holder: Some(host) }, Denial::NotHolder { holder: Some(host) }),
        (Denial::Unreachable { address, holder: host }, Denial::NotHolder { holder: Some(host) }),
        (Denial::Full { holders }, Denial::Full { holders: BTreeMap::new() }),
    ];
    let seal = Seal { heir: HostId::from_bytes([9; 16]), done: true };
    let boot = Boot { generation: 3, nonce: 4 };
    let of_members = [
        Denial::Deleted,
        Denial::Joining,
        Denial::Unchecked,
        Denial::Fenced,
        Denial::Stranger { host },
        Denial::Sealed { host },
        Denial::Stale { known: boot },
        Denial::Restored(Evidence::LaterPage { page: 1, seen: 2 }),
        Denial::Readmitted { host, boot },
        Denial::Rival { host, seal },
        Denial::Unnamed { hosts: [host].into() },
        Denial::TooMany,
        Denial::Apart { founder: HostId::from_bytes([8; 16]) },
    ];
    let told = told.into_iter().chain(of_members.map(|denial| (denial.clone(), denial)));
    for (said, heard) in told {
        let came = there_and_back::<_, wire::Denial>(&said).map(|denial| denial.about(Some(address)));
        assert_eq!(came, Ok(heard), "{said:?}");
    }
}

proptest! {
    #[test]
    fn what_is_said_of_members_comes_back_whole(
        standing in standings(),
        welcome in welcomes(),
        testimony in testimonies(),
        (boot, force) in (boots(), any::<bool>()),
        (sealed_by, before) in (btree_set(host_ids(), 0..4), btree_set(host_ids(), 0..4)),
        (network, runs, borrowed) in (network_ids(), vec(runs(), 0..4), btree_map(addresses(), versions(), 0..4)),
    ) {
        prop_assert_eq!(there_and_back::<_, wire::Standing>(&standing), Ok(standing));
        prop_assert_eq!(there_and_back::<_, wire::Welcome>(&welcome), Ok(welcome));
        prop_assert_eq!(there_and_back::<_, wire::Testimony>(&testimony), Ok(testimony));
        let forget = Forget { boot, sealed_by, before, force };
        prop_assert_eq!(there_and_back::<_, wire::Forget>(&forget), Ok(forget));
        let claim = (network, Claim { runs, borrowed });
        prop_assert_eq!(there_and_back::<_, wire::admit_request::Claim>(&claim), Ok(claim));
    }

    #[test]
    fn a_record_comes_back_whole(record in records()) {
        prop_assert_eq!(decode(&encode_record(&record)), (record, Vec::new()));
    }

    #[test]
    fn every_key_and_value_can_be_said_in_gossip(record in records()) {
        for (key, value) in encode_record(&record) {
            prop_assert!(key.len() <= MAX_KEY && value.len() <= MAX_VALUE, "{}: {} bytes", key, value.len());
        }
    }

    #[test]
    fn keys_and_schemas_of_a_later_version_are_left_alone(
        record in records(),
        kind in "[a-z]{1,3}",
        schema in "[^1]",
        body in "[A-Za-z0-9_-]{0,40}",
    ) {
        prop_assume!(!["h", "f", "n", "x", "b", "l", "o", "e"].contains(&kind.as_str()));
        let id = NetworkId::from_bytes([9; 16]);
        let mut entries = encode_record(&record);
        entries.insert(format!("{kind}/{id}/0"), format!("1{body}"));
        for known in ["f", "n", "x", "b", "l", "o", "e"] {
            entries.entry(format!("{known}/{id}/later")).or_insert_with(|| format!("{schema}{body}"));
        }
        entries.insert("~".to_owned(), "17".to_owned());
        prop_assert_eq!(decode(&entries), (record, Vec::new()));
    }

    #[test]
    fn a_broken_value_loses_only_itself(record in records(), which in any::<prop::sample::Index>(), junk in "[^A-Za-z0-9_-]{1,9}") {
        let whole = encode_record(&record);
        prop_assume!(!whole.is_empty());
        let key = which.get(&whole.keys().cloned().collect::<Vec<_>>()).clone();
        let mut broken = whole.clone();
        broken.insert(key.clone(), format!("1{junk}"));
        let mut without = whole;
        without.remove(&key);
        let (decoded, errors) = decode(&broken);
        prop_assert_eq!(decoded, decode(&without).0);
        prop_assert_eq!(errors.into_iter().map(|(key, _)| key).collect::<Vec<_>>(), vec![key]);
    }

    #[test]
    fn whatever_comes_is_read_or_refused(
        key in "[hfnxbloe](/[0-9a-f]{32}|/.{0,8}){0,3}",
        bytes in vec(any::<u8>(), 0..200),
        text in ".{0,60}",
    ) {
        use base64::Engine;
        let sealed = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
        let id = NetworkId::from_bytes([9; 16]);
        for kind in ["f", "n", "x", "b", "l", "o", "e"] {
            decode_record([(format!("{kind}/{id}/0").as_str(), format!("1{sealed}").as_str())]);
        }
        decode_record([("h", format!("1{sealed}").as_str()), (&key, &text), (&key, &format!("1{sealed}"))]);
    }

    #[test]
    fn bytes_of_a_known_shape_with_junk_in_them_never_panic(
        record in records(),
        flips in vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 1..20),
    ) {
        use base64::Engine;
        use base64::engine::general_purpose::URL_SAFE_NO_PAD;
        let mut entries = encode_record(&record);
        let keys: Vec<String> = entries.keys().cloned().collect();
        prop_assume!(!keys.is_empty());
        for (key, at, byte) in flips {
            let value = entries.get_mut(key.get(&keys)).expect("a key of it");
            let mut bytes = URL_SAFE_NO_PAD.decode(value.split_at(1).1).expect("base64");
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            *value = format!("1{}", URL_SAFE_NO_PAD.encode(bytes));
        }
        let (record, _) = decode(&entries);
        // What was read goes on to be worked with.
        for membership in record.networks.values() {
            let network = &membership.network;
            prop_assert!(network.blocks().count() <= network.ranges.len() * 1024);
            prop_assert!(network.range_of(IpAddr::from([1, 1, 1, 1])).is_none_or(|(n, _)| usize::from(n) < MAX_RANGES));
        }
    }
}

fn endpoint(number: u16) -> Endpoint {
    let [high, low] = number.to_be_bytes();
    let address = IpAddr::from([172, 38, high, low]);
    let mut id = [0x5a; 16];
    id[..2].copy_from_slice(&number.wrapping_mul(40_503).to_be_bytes());
    Endpoint {
        id: EndpointId::from_bytes(id),
        network: NetworkId::from_bytes([3; 16]),
        name: format!("container-with-a-rather-long-name-{number}").parse().expect("a label"),
        aliases: BTreeSet::from(["web".parse().expect("a label")]),
        addresses: vec![Assigned { address, lease: Version { epoch: 3, count: 1 } }],
        mac: Mac::of_address(address),
        created: 1 << 40,
    }
}

fn with_endpoints(count: u16) -> Record {
    Record { endpoints: (0..count).map(endpoint).map(|e| (e.id, e)).collect(), ..Record::default() }
}

#[test]
fn thousands_of_endpoints_are_few_and_fat_values_that_gossip_takes() {
    let record = with_endpoints(5000);
    assert_eq!(record.endpoints.len(), 5000, "the ids differ");
    let entries = encode_record(&record);
    let largest = entries.values().map(String::len).max();
    assert!(largest.is_some_and(|bytes| bytes < MAX_VALUE), "{largest:?}");
    let bytes: usize = entries.values().map(String::len).sum();
    assert!(entries.len() <= 2 * bytes / (8 * 1024), "{} values of {bytes} bytes together", entries.len());
    assert_eq!(decode(&entries), (record, Vec::new()));
}

#[test]
fn thousands_of_deleted_networks_are_few_and_fat_values_and_one_more_changes_one() {
    // Ids are random; these are spread as such are.
    let id = |n: u64| {
        let [low, high] = [1, 2].map(|k| n.wrapping_mul(2 * k + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
        NetworkId::from_bytes(std::array::from_fn(|at| if at < 8 { low[at] } else { high[at - 8] }))
    };
    let deleted = |count| Record { tombstones: (0..count).map(id).collect(), ..Record::default() };
    let record = deleted(5000);
    assert_eq!(record.tombstones.len(), 5000, "the ids differ");
    let entries = encode_record(&record);
    assert!(entries.len() <= 16, "{} values", entries.len());
    assert!(entries.values().all(|value| value.len() < MAX_VALUE));
    assert_eq!(decode(&entries), (record, Vec::new()));

    let more = encode_record(&deleted(5001));
    assert_eq!(entries.keys().collect::<Vec<_>>(), more.keys().collect::<Vec<_>>(), "no doubling just there");
    assert_eq!(entries.iter().filter(|(key, value)| more.get(*key) != Some(value)).count(), 1);
}

#[test]
fn the_most_fragmented_leases_fit_into_values_that_gossip_takes() {
    let id = NetworkId::from_bytes([3; 16]);
    let run = |index| Run { start: BlockId { range: 15, index }, len: 1, epoch: MAX_COUNT - u64::from(index) };
    let borrowed = |n: u16| {
        (IpAddr::from([10, 0, n.to_be_bytes()[0], n.to_be_bytes()[1]]), Version { epoch: MAX_COUNT, count: 9 })
    };
    let record = Record {
        blocks: [(id, (0..1024).map(run).collect())].into(),
        borrowed: [(id, (0..4096).map(borrowed).collect())].into(),
        ..Record::default()
    };
    let entries = encode_record(&record);
    let largest = entries.values().map(String::len).max();
    assert!(largest.is_some_and(|bytes| bytes < MAX_VALUE), "{largest:?}");
    assert_eq!(decode(&entries), (record, Vec::new()));
}

#[test]
fn an_endpoint_that_comes_or_goes_changes_one_value() {
    let (before, after) = (encode_record(&with_endpoints(1000)), encode_record(&with_endpoints(1001)));
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>(), "no doubling just there");
    let changed = before.iter().filter(|(key, value)| after.get(*key) != Some(value)).count();
    assert_eq!(changed, 1);
}

#[test]
fn a_doubling_of_shards_writes_new_keys_so_that_who_heard_half_of_it_misses_nothing() {
    let count_of = |n| encode_record(&with_endpoints(n)).len();
    let last = (1..2000).find(|n| count_of(n + 1) > count_of(*n)).expect("they grow");
    let (before, after) = (encode_record(&with_endpoints(last)), encode_record(&with_endpoints(last + 1)));
    assert!(before.keys().all(|key| !after.contains_key(key)), "sets come before deletes");
}

#[test]
fn a_value_under_the_key_of_another_network_is_refused() {
    let mut entries = encode_record(&with_endpoints(1));
    let (_, value) = entries.pop_first().expect("one value");
    let elsewhere = format!("e/{}/1.0", NetworkId::from_bytes([4; 16]));
    let (record, errors) = decode(&[(elsewhere.clone(), value)].into());
    assert_eq!(record, Record::default());
    assert_eq!(errors.first().map(|(key, _)| key), Some(&elsewhere));
}

#[test]
fn what_a_host_can_not_be_is_refused_and_told_with_the_field() {
    let good = wire::HostInfo {
        name: "alpha".to_owned(),
        vtep: "192.0.2.1".to_owned(),
        vxlan_port: 4789,
        peer: "192.0.2.1:7946".to_owned(),
        underlay_mtu: 1500,
        stamp: Some(wire::Stamp::default()),
        phase: wire::Phase::Established.into(),
        founder: Vec::new(),
    };
    let vteps =
        ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "::", "::1", "ff02::1", "::ffff:127.0.0.1", "x"];
    let mut bad: Vec<(wire::HostInfo, &str)> =
        vteps.map(|vtep| (wire::HostInfo { vtep: vtep.to_owned(), ..good.clone() }, "vtep")).into();
    bad.extend([0, 65_536].map(|vxlan_port| (wire::HostInfo { vxlan_port, ..good.clone() }, "vxlan_port")));
    bad.extend([0, 575, 65_536].map(|underlay_mtu| (wire::HostInfo { underlay_mtu, ..good.clone() }, "underlay_mtu")));
    bad.push((wire::HostInfo { peer: "192.0.2.1:0".to_owned(), ..good.clone() }, "peer"));
    bad.push((wire::HostInfo { founder: vec![1; 15], ..good.clone() }, "founder"));
    for (info, field) in bad {
        let error = HostInfo::from_wire(&info).expect_err(field).to_string();
        assert!(error.starts_with(&format!("`{field}` is wrong")), "{error}: {info:?}");
    }
    for underlay_mtu in [576, 65_535] {
        assert!(HostInfo::from_wire(&wire::HostInfo { underlay_mtu, ..good.clone() }).is_ok(), "{underlay_mtu}");
    }
}

/// Whoever hears a number goes on counting from it.
#[test]
fn numbers_that_nobody_gets_to_by_counting_are_refused() {
    const TOO_HIGH: u64 = MAX_COUNT + 1;
    for (epoch, count) in [(TOO_HIGH, 0), (1, u64::MAX)] {
        assert!(Version::from_wire(&wire::Version { epoch, count }).is_err(), "{epoch}.{count}");
    }
    let range = Range::new("10.1.0.0/16".parse().expect("a subnet"), None).expect("a good one");
    let (id, creator) = (NetworkId::from_bytes([3; 16]), HostId::from_bytes([1; 16]));
    let network = |created| Network { id, name: endpoint(1).name, ranges: vec![range], created, creator };
    assert!(Network::from_wire(&network(MAX_COUNT).to_wire()).is_ok());
    assert!(Network::from_wire(&network(TOO_HIGH).to_wire()).is_err());
    let late = Endpoint { created: TOO_HIGH, ..endpoint(1) };
    assert!(Endpoint::from_wire(&late.to_wire()).is_err());
    let block = BlockId { range: 0, index: 0 };
    let run = Run { start: block, len: 1, epoch: TOO_HIGH };
    assert!(<Run as Wire<wire::holding::Run>>::from_wire(&run.to_wire()).is_err());
    let transfer = Statement::Transfer { block, epoch: TOO_HIGH, to: creator };
    assert!(Statement::from_wire(&transfer.to_wire()).is_err());
}
