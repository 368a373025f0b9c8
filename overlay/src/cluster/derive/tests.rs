use proptest::prelude::*;

use super::*;
use crate::model::addr::Mac;
use crate::model::endpoint::Assigned;
use crate::model::host::{HostInfo, Phase};
use crate::model::id::{EndpointId, Vni};
use crate::model::lease::Version;
use crate::model::member::Stamp;
use crate::model::network::{Range, Settings};
use crate::model::record::NetworkMembership;

/// As a host sees it that belongs to no cluster yet.
fn derive(records: &Records) -> Cluster {
    super::derive(records, None)
}

pub(in crate::cluster) fn host_id(number: u8) -> HostId {
    HostId::from_bytes([number; 16])
}

pub(in crate::cluster) fn network_id(number: u8) -> NetworkId {
    NetworkId::from_bytes([0xa0 + number; 16])
}

pub(in crate::cluster) fn name(text: &str) -> Name {
    text.parse().expect("a label")
}

fn ip(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

fn info(number: u8) -> HostInfo {
    HostInfo {
        name: name(&format!("host{number}")),
        vtep: IpAddr::from([192, 168, 0, number]),
        vxlan_port: 4789,
        peer: ([192, 168, 0, number], 7946).into(),
        underlay_mtu: 1500,
        routed: std::collections::BTreeSet::new(),
        stamp: Stamp::default(),
        phase: Phase::Established,
        founder: None,
    }
}

pub(in crate::cluster) fn network(number: u8, text: &str, created: Lamport) -> Network {
    Network {
        id: network_id(number),
        name: name(text),
        ranges: vec![Range::new("10.0.0.0/28".parse().expect("a subnet"), None).expect("a range")],
        created,
        creator: host_id(0),
        since: 0,
        settings: Settings::default(),
    }
}

pub(in crate::cluster) fn endpoint(number: u8, network: u8, address: u8, lease: (u64, u64)) -> Endpoint {
    Endpoint {
        id: EndpointId::from_bytes([number; 16]),
        network: network_id(network),
        name: name(&format!("web{number}")),
        aliases: BTreeSet::new(),
        addresses: vec![Assigned { address: ip(address), lease: Version { epoch: lease.0, count: lease.1 } }],
        mac: Mac::of_address(ip(address)),
        created: u64::from(number),
    }
}

pub(in crate::cluster) fn record(number: u8, networks: &[Network], endpoints: &[Endpoint]) -> Record {
    let member = |n: &Network| (n.id, NetworkMembership { network: n.clone(), vni: Some(Vni::proposal(n.id)) }.into());
    Record {
        host: Some(info(number)),
        networks: networks.iter().map(member).collect(),
        endpoints: endpoints.iter().map(|e| (e.id, Arc::new(e.clone()))).collect(),
        ..Record::default()
    }
}

pub(in crate::cluster) fn life(generation: u64, complete: bool, record: Record) -> Incarnation {
    Incarnation { generation, complete, liveness: Liveness::Live, record: record.into() }
}

/// What each host says in one complete life.
fn records(said: impl IntoIterator<Item = (u8, Record)>) -> Records {
    said.into_iter().map(|(number, record)| (host_id(number), vec![life(1, true, record)])).collect()
}

/// The definitions that all hosts repeat: three networks, two names.
fn definitions() -> impl Strategy<Value = Vec<Network>> {
    let one = |number: u8| {
        (0_u8..2, 1_u64..4).prop_map(move |(n, created)| network(number, ["a", "b"][usize::from(n)], created))
    };
    (one(0), one(1), one(2)).prop_map(|(a, b, c)| vec![a, b, c])
}

fn any_record(number: u8, networks: Vec<Network>) -> impl Strategy<Value = Record> {
    let endpoint =
        (0_u8..8, 0_u8..3, 0_u8..8, (1_u64..4, 0_u64..2)).prop_map(|(e, n, a, lease)| endpoint(e, n, a, lease));
    let endpoints = prop::collection::vec(endpoint, 0..5);
    let known = prop::sample::subsequence(networks, 0..=3);
    let tombstone = prop::option::weighted(0.1, (0_u8..3).prop_map(network_id));
    let seal = (0_u8..4, 0_u8..4, any::<bool>())
        .prop_map(|(host, heir, done)| (host_id(host), Seal { heir: host_id(heir), done }));
    let sealed = prop::option::weighted(0.1, seal);
    let arrived = prop::bool::weighted(0.9);
    (endpoints, known, tombstone, sealed, arrived).prop_map(move |(endpoints, known, tombstone, sealed, arrived)| {
        let record = record(number, &known, &endpoints);
        let seals = sealed.into_iter().filter(|(host, _)| *host != host_id(number)).collect();
        let tombstones = tombstone.into_iter().collect();
        Record { host: record.host.clone().filter(|_| arrived), tombstones, seals, ..record }
    })
}

fn any_liveness() -> impl Strategy<Value = Liveness> {
    prop_oneof![3 => Just(Liveness::Live), 1 => Just(Liveness::Suspect), 1 => Just(Liveness::Dead)]
}

/// Lives of hosts, in no order; of each host and generation only one.
fn history() -> impl Strategy<Value = Vec<(HostId, Incarnation)>> {
    let lives = prop::collection::btree_set((0_u8..4, 1_u64..4), 0..9);
    (definitions(), lives).prop_flat_map(|(networks, lives)| {
        let life = |(number, generation): (u8, u64)| {
            (any_record(number, networks.clone()), any::<bool>(), any_liveness()).prop_map(
                move |(record, complete, liveness)| {
                    (host_id(number), Incarnation { generation, complete, liveness, record: record.into() })
                },
            )
        };
        lives.into_iter().map(life).collect::<Vec<_>>().prop_shuffle()
    })
}

fn heard(history: &[(HostId, Incarnation)]) -> Records {
    let mut records = Records::new();
    for (host, life) in history {
        records.entry(*host).or_default().push(life.clone());
    }
    records
}

/// What two hosts have heard together.
fn join(mut one: Records, other: Records) -> Records {
    for (host, lives) in other {
        let known = one.entry(host).or_default();
        for life in lives {
            if known.iter().all(|l| l.generation != life.generation) {
                known.push(life);
            }
        }
    }
    one
}

/// The endpoints that claim an address under a lease higher than this one.
fn better_claims(cluster: &Cluster, network: NetworkId, than: &Assigned) -> Vec<EndpointId> {
    let endpoints = cluster.hosts.values().flat_map(|h| h.record.endpoints.values()).filter(|e| e.network == network);
    let better = |e: &&Arc<Endpoint>| e.addresses.iter().any(|a| a.address == than.address && a.lease > than.lease);
    endpoints.filter(better).map(|e| e.id).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn the_order_in_which_things_are_heard_does_not_matter(
        (one, other) in history().prop_flat_map(|h| (Just(h.clone()), Just(h).prop_shuffle())),
    ) {
        prop_assert_eq!(derive(&heard(&one)), derive(&heard(&other)));
    }

    #[test]
    fn nor_who_heard_it_first_nor_how_often(history in history(), cut: prop::sample::Index) {
        let (one, other) = history.split_at(cut.index(history.len() + 1));
        let (one, other, all) = (heard(one), heard(other), heard(&history));
        let together = derive(&all);
        prop_assert_eq!(&derive(&join(one.clone(), other.clone())), &together);
        prop_assert_eq!(&derive(&join(other, one)), &together);
        prop_assert_eq!(&derive(&join(all.clone(), all)), &together);
    }

    #[test]
    fn no_address_is_shown_twice_and_the_higher_lease_has_it(history in history()) {
        let cluster = derive(&heard(&history));
        for (id, view) in &cluster.networks {
            let shown: Vec<_> = view.endpoints.values().flat_map(|l| &l.endpoint.addresses).collect();
            let distinct: BTreeSet<IpAddr> = shown.iter().map(|a| a.address).collect();
            prop_assert_eq!(distinct.len(), shown.len());
            for assigned in shown {
                prop_assert!(view.network.assignable(assigned.address));
                for better in better_claims(&cluster, *id, assigned) {
                    // It can only have lost because the same endpoint is on another host, under a higher lease still.
                    let lease = view.endpoints.get(&better).and_then(|l| l.endpoint.addresses.iter().map(|a| a.lease).max());
                    prop_assert!(lease > Some(assigned.lease), "{assigned:?} beat {better:?}");
                }
            }
        }
    }

    #[test]
    fn a_deletion_wins_whoever_says_it_and_whenever(history in history()) {
        let cluster = derive(&heard(&history));
        let said: BTreeSet<NetworkId> = history.iter().flat_map(|(_, l)| &l.record.tombstones).copied().collect();
        prop_assert_eq!(&cluster.tombstones, &said);
        prop_assert!(cluster.networks.keys().all(|id| !said.contains(id)));
    }

    #[test]
    fn a_name_means_the_network_that_was_created_first(history in history()) {
        let cluster = derive(&heard(&history));
        for view in cluster.networks.values() {
            let rank = |v: &NetworkView| (v.network.created, v.network.id);
            let namesakes = cluster.networks.values().filter(|v| v.network.name == view.network.name);
            prop_assert_eq!(view.shadowed, namesakes.map(|v| rank(v)).min() != Some(rank(view)));
            let id = view.network.id.to_string();
            for text in [view.shown_name(), id.clone(), format!("{}~{}", view.network.name, view.network.id.short())] {
                prop_assert_eq!(cluster.find(&text).map(|v| v.network.id), Some(view.network.id), "{}", text);
            }
        }
    }

    #[test]
    fn a_silent_host_is_suspended_and_not_deleted(history in history()) {
        let alive = |life: &Incarnation| Incarnation { liveness: Liveness::Live, ..life.clone() };
        let all_live: Vec<_> = history.iter().map(|(h, l)| (*h, alive(l))).collect();
        let mut cluster = derive(&heard(&history));
        for host in cluster.hosts.values_mut().chain(cluster.forgotten.values_mut()) {
            Arc::make_mut(host).liveness = Liveness::Live;
        }
        for view in cluster.networks.values_mut() {
            let live = view.endpoints.values().map(|l| Located { liveness: Liveness::Live, ..l.clone() }).collect();
            Arc::make_mut(view).endpoints = live;
        }
        prop_assert_eq!(cluster, derive(&heard(&all_live)));
    }

    #[test]
    fn what_is_created_next_is_later_than_all_there_is(history in history()) {
        let cluster = derive(&heard(&history));
        prop_assert!(cluster.networks.values().all(|v| v.network.created <= cluster.now));
        prop_assert!(cluster.networks.values().flat_map(|v| v.endpoints.values()).all(|l| l.endpoint.created <= cluster.now));
    }
}

#[test]
fn an_agent_that_starts_removes_nothing_until_all_that_it_says_is_there() {
    let net = network(0, "a", 1);
    let before = record(1, std::slice::from_ref(&net), &[endpoint(1, 0, 2, (1, 0)), endpoint(2, 0, 3, (1, 0))]);
    let after = record(1, std::slice::from_ref(&net), &[endpoint(1, 0, 2, (1, 0))]);
    let shown = |lives: Vec<Incarnation>| {
        let cluster = derive(&Records::from([(host_id(1), lives)]));
        cluster.networks.get(&net.id).map_or(0, |v| v.endpoints.len())
    };
    let old = Incarnation { liveness: Liveness::Dead, ..life(1, true, before) };
    assert_eq!(shown(vec![life(2, false, Record::default()), old.clone()]), 2, "nothing said yet");
    assert_eq!(shown(vec![life(2, false, after.clone()), old.clone()]), 2, "the new life has said a part");
    assert_eq!(shown(vec![life(2, true, after.clone()), old.clone()]), 1, "it has said all");
    assert_eq!(shown(vec![old, life(2, true, after)]), 1, "whatever comes first");
}

#[test]
fn the_new_life_of_a_host_says_whether_it_is_there() {
    let old = Incarnation { liveness: Liveness::Dead, ..life(1, true, record(1, &[], &[])) };
    let cluster = derive(&Records::from([(host_id(1), vec![life(2, false, Record::default()), old])]));
    let host = &cluster.hosts[&host_id(1)];
    assert_eq!((host.liveness, host.generation), (Liveness::Live, 1));
}

#[test]
fn a_host_that_has_not_said_where_it_is_is_not_there() {
    let silent = Record { host: None, ..record(1, &[network(0, "a", 1)], &[]) };
    assert_eq!(derive(&records([(1, silent)])), Cluster::default());
}

#[test]
fn of_two_claims_on_an_address_the_higher_lease_is_right_and_a_tie_goes_to_the_lower_id() {
    let net = network(0, "a", 1);
    let shown = |one: Endpoint, other: Endpoint| {
        let nets = std::slice::from_ref(&net);
        let cluster = derive(&records([(1, record(1, nets, &[one])), (2, record(2, nets, &[other]))]));
        cluster.networks[&net.id].at(ip(5)).map(|l| l.host)
    };
    assert_eq!(shown(endpoint(1, 0, 5, (1, 1)), endpoint(2, 0, 5, (1, 2))), Some(host_id(2)));
    assert_eq!(shown(endpoint(1, 0, 5, (2, 0)), endpoint(2, 0, 5, (1, 9))), Some(host_id(1)));
    assert_eq!(shown(endpoint(2, 0, 5, (1, 1)), endpoint(1, 0, 5, (1, 1))), Some(host_id(2)));
    assert_eq!(
        shown(endpoint(1, 0, 5, (1, 1)), endpoint(1, 0, 5, (1, 1))),
        Some(host_id(1)),
        "one identity, two hosts"
    );
}

#[test]
fn an_address_that_no_endpoint_can_have_is_not_shown() {
    let net = network(0, "a", 1);
    for address in [0, 1, 15, 16] {
        let said = record(1, std::slice::from_ref(&net), &[endpoint(1, 0, address, (1, 0))]);
        assert!(derive(&records([(1, said)])).networks[&net.id].endpoints.is_empty(), "{address}");
    }
}

#[test]
fn a_name_that_two_hosts_gave_means_the_endpoint_that_was_there_first_unless_its_host_is_gone() {
    let net = network(0, "a", 1);
    let web = |number: u8, address| Endpoint { name: name("web"), ..endpoint(number, 0, address, (1, 0)) };
    let mut all = records([
        (1, record(1, std::slice::from_ref(&net), &[web(1, 2)])),
        (2, record(2, std::slice::from_ref(&net), &[web(2, 3)])),
    ]);
    let meant = |records: &Records| derive(records).networks[&net.id].named(&name("web")).map(|l| l.host);
    assert_eq!(meant(&all), Some(host_id(1)));
    for life in all.values_mut().take(1).flatten() {
        life.liveness = Liveness::Dead;
    }
    assert_eq!(meant(&all), Some(host_id(2)));
}

/// What a host says that belongs to the cluster that it has founded.
fn founder(number: u8, networks: &[Network]) -> (u8, Record) {
    let mut record = record(number, networks, &[]);
    record.host.as_mut().expect("a host").founder = Some(host_id(number));
    (number, record)
}

/// Each is of use to those only who have founded it.
#[test]
fn of_two_clusters_that_were_founded_apart_each_means_its_own_networks() {
    let (early, late) = (network(0, "a", 1), network(1, "a", 2));
    let all = records([founder(1, std::slice::from_ref(&early)), founder(2, std::slice::from_ref(&late))]);
    let meant = |founder: Option<u8>| {
        let seen = super::derive(&all, founder.map(host_id));
        let shown = seen.networks.values();
        let (apart, shadowed) = shown
            .fold((0, 0), |(apart, shadowed), view| (apart + u8::from(view.apart), shadowed + u8::from(view.shadowed)));
        (seen.find("a").map(|view| view.network.id), apart, shadowed)
    };
    assert_eq!(meant(Some(1)), (Some(early.id), 1, 1));
    assert_eq!(meant(Some(2)), (Some(late.id), 1, 1));
    assert_eq!(meant(Some(3)), (Some(early.id), 2, 1), "none of them is its own");
    assert_eq!(meant(None), (Some(early.id), 0, 1), "it belongs to no cluster yet");
    let cluster = derive(&all);
    let tellers: Vec<_> = cluster.tellers_of(late.id).map(ToString::to_string).collect();
    assert_eq!(tellers, [cluster.hosts[&host_id(2)].info.name.to_string()]);
}

/// There a host may have been taken for a member that lives here, and a network removed that seemed to be left behind.
#[test]
fn whom_another_cluster_forgets_and_what_it_deletes_counts_there_only() {
    let net = network(0, "a", 1);
    let (first, mut other) = (founder(1, std::slice::from_ref(&net)), founder(2, &[]));
    other.1.seals.insert(host_id(1), Seal { heir: host_id(2), done: true });
    other.1.tombstones.insert(net.id);
    let all = records([first, other]);
    let ours = super::derive(&all, Some(host_id(1)));
    assert!(ours.networks.contains_key(&net.id) && ours.hosts.contains_key(&host_id(1)));
    assert!(ours.seals.is_empty() && ours.tombstones.is_empty() && ours.forgotten.is_empty());
    let theirs = super::derive(&all, Some(host_id(2)));
    assert!(!theirs.networks.contains_key(&net.id) && theirs.forgotten.contains_key(&host_id(1)));
}

#[test]
fn a_network_is_found_by_name_by_name_and_id_and_by_the_start_of_its_id() {
    let mut namesake = network(1, "a", 3);
    // Its id starts like that of the other one.
    namesake.id = NetworkId::from_bytes([0xa0, 0xa0, 0xbb, 0xbb, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let (first, other) = (network(0, "a", 2), network(2, "b", 1));
    let cluster = derive(&records([(1, record(1, &[first.clone(), namesake.clone(), other.clone()], &[]))]));
    let find = |text: &str| cluster.find(text).map(|v| v.network.id);
    assert_eq!(find("a"), Some(first.id));
    assert_eq!(find("A"), Some(first.id));
    assert_eq!(find("b"), Some(other.id));
    assert_eq!(find("a~a0a0bbbb"), Some(namesake.id));
    assert_eq!(find("a~a0a0a0a0"), Some(first.id));
    assert_eq!(find("b~a0a0bbbb"), None, "another name");
    assert_eq!(find("a2a2"), Some(other.id));
    assert_eq!(find("A2A2"), Some(other.id));
    assert_eq!(find("a0a0"), None, "two start like that");
    assert_eq!(find("a0a0b"), Some(namesake.id));
    assert_eq!(find("a2a"), None, "too short to be meant as an id");
    assert_eq!(find(""), None);
    assert_eq!(cluster.networks[&namesake.id].shown_name(), "a~a0a0bbbb");
}

#[test]
fn a_forgotten_host_says_nothing_but_what_is_deleted() {
    let (gone, stays) = (network(0, "a", 1), network(1, "b", 1));
    let mut dead = record(1, &[gone.clone(), stays.clone()], &[endpoint(1, 1, 5, (1, 0))]);
    dead.tombstones.insert(gone.id);
    let mut heir = record(2, &[gone, stays.clone()], &[]);
    let before = derive(&records([(1, dead.clone()), (2, heir.clone())]));
    assert!(before.networks[&stays.id].at(ip(5)).is_some());
    heir.seals.insert(host_id(1), Seal { heir: host_id(2), done: false });
    let sealed = derive(&records([(1, dead.clone()), (2, heir.clone())]));
    assert_eq!(
        (&sealed.hosts.keys().collect::<Vec<_>>(), &sealed.networks[&stays.id].endpoints),
        (&before.hosts.keys().collect(), &before.networks[&stays.id].endpoints)
    );
    heir.seals.insert(host_id(1), Seal { heir: host_id(2), done: true });
    let after = derive(&records([(1, dead), (2, heir)]));
    assert_eq!(after.forgotten.keys().collect::<Vec<_>>(), [&host_id(1)]);
    assert!(!after.hosts.contains_key(&host_id(1)));
    let view = &after.networks[&stays.id];
    assert_eq!((view.at(ip(5)), view.vnis.keys().collect::<Vec<_>>()), (None, vec![&host_id(2)]));
    assert_eq!(after.networks.keys().collect::<Vec<_>>(), [&stays.id], "a deletion counts whoever said it");
}
