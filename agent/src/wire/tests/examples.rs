//! Single values: the largest, the wrong, and those of which not all is said.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use overlay::ledger::{Denial, Evidence};
use overlay::model::id::{EndpointId, HostId};
use overlay::model::member::{Boot, Seal};
use overlay::model::record::Record;

use super::*;
use overlay_gossip::MAX_VALUE;

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
        Denial::Restored(Evidence::LaterRevision { revision: 1, seen: 2 }),
        Denial::Readmitted { host, boot },
        Denial::Rival { host, seal },
        Denial::Unnamed { hosts: [host].into() },
        Denial::TooMany,
        Denial::Apart { founder: HostId::from_bytes([8; 16]) },
    ];
    let told = told.into_iter().chain(of_members.map(|denial| (denial.clone(), denial)));
    for (said, heard) in told {
        let came = there_and_back::<_, pb::Denial>(&said).map(|denial| denial.about(Some(address)));
        assert_eq!(came, Ok(heard), "{said:?}");
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
    Record { endpoints: (0..count).map(endpoint).map(|e| (e.id, Arc::new(e))).collect(), ..Record::default() }
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
    let good = pb::HostInfo {
        name: "alpha".to_owned(),
        vtep: "192.0.2.1".to_owned(),
        vxlan_port: 4789,
        peer: "192.0.2.1:7946".to_owned(),
        underlay_mtu: 1500,
        routed: vec!["10.128.0.0/9".to_owned()],
        stamp: Some(pb::Stamp::default()),
        phase: pb::Phase::Established.into(),
        founder: Vec::new(),
    };
    let vteps =
        ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "::", "::1", "ff02::1", "::ffff:127.0.0.1", "x"];
    let mut bad: Vec<(pb::HostInfo, &str)> =
        vteps.map(|vtep| (pb::HostInfo { vtep: vtep.to_owned(), ..good.clone() }, "vtep")).into();
    bad.extend([0, 65_536].map(|vxlan_port| (pb::HostInfo { vxlan_port, ..good.clone() }, "vxlan_port")));
    bad.extend([0, 575, 65_536].map(|underlay_mtu| (pb::HostInfo { underlay_mtu, ..good.clone() }, "underlay_mtu")));
    bad.push((pb::HostInfo { routed: vec!["x".to_owned()], ..good.clone() }, "routed"));
    bad.push((pb::HostInfo { peer: "192.0.2.1:0".to_owned(), ..good.clone() }, "peer"));
    bad.push((pb::HostInfo { founder: vec![1; 15], ..good.clone() }, "founder"));
    for (info, field) in bad {
        let error = HostInfo::from_wire(&info).expect_err(field).to_string();
        assert!(error.starts_with(&format!("`{field}` is wrong")), "{error}: {info:?}");
    }
    for underlay_mtu in [576, 65_535] {
        assert!(HostInfo::from_wire(&pb::HostInfo { underlay_mtu, ..good.clone() }).is_ok(), "{underlay_mtu}");
    }
}

#[test]
fn the_largest_definition_fits_into_a_value_and_none_that_is_larger_is_taken() {
    let range = Range::new("172.16.0.0/12".parse().expect("a subnet"), None).expect("a good one");
    let name: Name = "n".repeat(63).parse().expect("a label");
    let auxiliary = (0..Settings::MAX_AUXILIARY).map(|n| {
        let aux = format!("{n:063}").parse().expect("a label");
        (IpAddr::from([172, 20, 200, u8::try_from(n).expect("few")]), aux)
    });
    let settings = Settings {
        mtu: Some(u16::MAX),
        auxiliary: auxiliary.collect(),
        labels: (0..Settings::MAX_LABELS / 8).map(|n| (format!("{n:08}"), String::new())).collect(),
        ..Settings::default()
    };
    let (id, creator) = (NetworkId::from_bytes([3; 16]), HostId::from_bytes([1; 16]));
    let ranges = vec![range; MAX_RANGES];
    let network = Network { id, name, ranges, created: MAX_COUNT, creator, since: LAST_SECOND, settings };
    let mut record = Record::default();
    record.networks.insert(id, NetworkMembership { network: network.clone(), vni: Vni::new(1) }.into());
    let longest = encode_record(&record).into_values().map(|value| value.len()).max();
    assert!(longest.is_some_and(|longest| longest <= MAX_VALUE), "{longest:?}");
    let with = |change: fn(&mut Settings)| {
        let mut settings = network.settings.clone();
        change(&mut settings);
        Settings::from_wire(&settings.to_wire())
    };
    assert_eq!(with(|_| {}).as_ref(), Ok(&network.settings));
    assert!(with(|s| drop(s.labels.insert("more".to_owned(), String::new()))).is_err());
    assert!(with(|s| drop(s.auxiliary.insert([1, 1, 1, 1].into(), "more".parse().expect("a label")))).is_err());
    assert!(with(|s| s.mtu = Some(575)).is_err());
}

/// Whoever hears a number goes on counting from it.
#[test]
fn numbers_that_nobody_gets_to_by_counting_are_refused() {
    const TOO_HIGH: u64 = MAX_COUNT + 1;
    for (epoch, count) in [(TOO_HIGH, 0), (1, u64::MAX)] {
        assert!(Version::from_wire(&pb::Version { epoch, count }).is_err(), "{epoch}.{count}");
    }
    let range = Range::new("10.1.0.0/16".parse().expect("a subnet"), None).expect("a good one");
    let (id, creator) = (NetworkId::from_bytes([3; 16]), HostId::from_bytes([1; 16]));
    let network = |created| Network {
        id,
        name: endpoint(1).name,
        ranges: vec![range],
        created,
        creator,
        since: 0,
        settings: Settings::default(),
    };
    assert!(Network::from_wire(&network(MAX_COUNT).to_wire()).is_ok());
    assert!(Network::from_wire(&network(TOO_HIGH).to_wire()).is_err());
    let late = Endpoint { created: TOO_HIGH, ..endpoint(1) };
    assert!(Endpoint::from_wire(&late.to_wire()).is_err());
    let block = BlockId { range: 0, index: 0 };
    let run = Run { start: block, len: 1, epoch: TOO_HIGH };
    assert!(<Run as Wire<pb::holding::Run>>::from_wire(&run.to_wire()).is_err());
    let transfer = Statement::Transfer { block, epoch: TOO_HIGH, to: creator };
    assert!(Statement::from_wire(&transfer.to_wire()).is_err());
}
