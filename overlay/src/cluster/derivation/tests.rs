use proptest::prelude::*;

use super::*;
use crate::cluster::derive;
use crate::cluster::derive::tests::{endpoint, host_id, life, name, network, network_id, record};
use crate::model::endpoint::Endpoint;
use crate::model::host::Liveness;
use crate::model::links::{Link, LinkDecision, Links};
use crate::model::member::Seal;
use crate::model::record::Record;

/// What a host says after a change.
#[derive(Debug, Clone)]
enum Change {
    /// Nothing more: it is gone.
    Gone,
    /// An incarnation starts, and says the same as the one before.
    Start { complete: bool },
    /// All of the start has arrived.
    Complete,
    /// It is judged otherwise.
    Judge(Liveness),
    /// It attaches an endpoint, or changes it.
    Attach(Endpoint),
    /// It detaches one.
    Detach(u8),
    /// It takes part in a network, with a VNI or without.
    Join(u8, &'static str, Lamport, bool),
    /// It has no part any more.
    Leave(u8),
    /// It decides about a link.
    Link(u8, Lamport, bool),
    /// It deletes a network.
    Delete(u8),
    /// It takes a deletion back, which only a made-up host does.
    Restore(u8),
    /// It seals a host.
    Seal(u8, Seal),
    /// It takes a seal back.
    Unseal(u8),
    /// It belongs to a cluster.
    Belong(Option<u8>),
    /// What it is has not arrived.
    Unsay,
    /// It says the same in another record.
    Repeat,
}

fn any_endpoint() -> impl Strategy<Value = Endpoint> {
    let aliased = prop::bool::weighted(0.2);
    (0_u8..8, 0_u8..3, 0_u8..8, (1_u64..4, 0_u64..2), aliased).prop_map(|(e, n, a, lease, aliased)| {
        let aliases = aliased.then(|| name("db")).into_iter().collect();
        Endpoint { aliases, ..endpoint(e, n, a, lease) }
    })
}

fn change() -> impl Strategy<Value = Change> {
    let liveness = prop_oneof![2 => Just(Liveness::Live), 1 => Just(Liveness::Suspect), 1 => Just(Liveness::Dead)];
    let seal = (0_u8..4, any::<bool>()).prop_map(|(heir, done)| Seal { heir: host_id(heir), done });
    prop_oneof![
        1 => Just(Change::Gone),
        1 => any::<bool>().prop_map(|complete| Change::Start { complete }),
        1 => Just(Change::Complete),
        3 => liveness.prop_map(Change::Judge),
        9 => any_endpoint().prop_map(Change::Attach),
        4 => (0_u8..8).prop_map(Change::Detach),
        4 => (0_u8..3, prop_oneof![Just("a"), Just("b")], 1_u64..4, any::<bool>())
            .prop_map(|(n, name, created, vni)| Change::Join(n, name, created, vni)),
        2 => (0_u8..3).prop_map(Change::Leave),
        2 => (0_u8..3, 1_u64..9, any::<bool>()).prop_map(|(n, at, removed)| Change::Link(n, at, removed)),
        1 => (0_u8..3).prop_map(Change::Delete),
        1 => (0_u8..3).prop_map(Change::Restore),
        1 => (0_u8..4, seal).prop_map(|(host, seal)| Change::Seal(host, seal)),
        2 => (0_u8..4).prop_map(Change::Unseal),
        1 => prop::option::of(0_u8..2).prop_map(Change::Belong),
        1 => Just(Change::Unsay),
        1 => Just(Change::Repeat),
    ]
}

fn apply(records: &mut Records, number: u8, change: Change) {
    let id = host_id(number);
    if let Change::Gone = change {
        records.remove(&id);
        return;
    }
    let lives = records.entry(id).or_insert_with(|| vec![life(1, true, record(number, &[], &[]))]);
    let newest = lives.iter_mut().max_by_key(|life| life.generation).expect("it has one incarnation at least");
    let generation = newest.generation + 1;
    let said = Arc::make_mut(&mut newest.record);
    match change {
        Change::Start { complete } => {
            let said = said.clone();
            lives.push(life(generation, complete, said));
            if lives.len() > 2 {
                lives.remove(0);
            }
        }
        Change::Complete => newest.complete = true,
        Change::Judge(liveness) => newest.liveness = liveness,
        Change::Attach(endpoint) => drop(said.endpoints.insert(endpoint.id, Arc::new(endpoint))),
        Change::Detach(number) => drop(said.endpoints.remove(&EndpointId::from_bytes([number; 16]))),
        Change::Join(number, text, created, vni) => {
            let mut others = record(0, &[network(number, text, created)], &[]).networks;
            others.values_mut().filter(|_| !vni).for_each(|membership| Arc::make_mut(membership).vni = None);
            said.networks.append(&mut others);
        }
        Change::Leave(number) => drop(said.networks.remove(&network_id(number))),
        Change::Link(number, at, removed) => {
            let link = Link { from: name("web0"), to: name("db"), service: None };
            let links: Links = [(link, LinkDecision { at, removed })].into_iter().collect();
            said.links.entry(network_id(number)).or_default().join(&links);
        }
        Change::Delete(number) => drop(said.tombstones.insert(network_id(number))),
        Change::Restore(number) => drop(said.tombstones.remove(&network_id(number))),
        Change::Seal(host, seal) => drop(said.seals.insert(host_id(host), seal)),
        Change::Unseal(host) => drop(said.seals.remove(&host_id(host))),
        Change::Belong(founder) => {
            said.host.iter_mut().for_each(|host| host.founder = founder.map(host_id));
        }
        Change::Unsay => said.host = None,
        Change::Repeat => newest.record = Arc::new(Record::clone(&newest.record)),
        Change::Gone => {}
    }
}

/// At each step some hosts change, and seldom the cluster that this host belongs to.
type Step = (Vec<(u8, Change)>, Option<Option<u8>>);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let founder = prop::option::weighted(0.05, prop::option::of(0_u8..2));
    prop::collection::vec((prop::collection::vec((0_u8..4, change()), 0..4), founder), 1..24)
}

/// Hosts that have some networks in common.
fn start() -> Records {
    let networks = [network(0, "a", 1), network(1, "b", 2)];
    (0..4).map(|number| (host_id(number), vec![life(1, true, record(number, &networks, &[]))])).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn a_cluster_derived_step_by_step_is_the_one_derived_from_nothing_and_shares_what_has_not_changed(steps in steps()) {
        let (mut records, mut founder, mut derivation) = (start(), None, Derivation::default());
        let mut before = Arc::clone(derivation.derive(&records, founder));
        for (changes, moves) in steps {
            changes.into_iter().for_each(|(number, change)| apply(&mut records, number, change));
            founder = moves.map_or(founder, |founder| founder.map(host_id));
            let now = Arc::clone(derivation.derive(&records, founder));
            prop_assert_eq!(&*now, &derive(&records, founder));
            for (id, view) in &now.networks {
                let known = before.networks.get(id);
                prop_assert!(known.is_none_or(|known| Arc::ptr_eq(known, view) == (known == view)), "{}", view.shown_name());
                for located in view.endpoints.values() {
                    prop_assert!(located.addresses().all(|address| view.at(address) == Some(located)));
                    for name in located.endpoint.names() {
                        prop_assert!(view.endpoints.called(name).any(|called| called == located));
                    }
                }
                let called = view.endpoints.called(&name("db")).count();
                let aliased = view.endpoints.values().filter(|l| l.endpoint.names().any(|n| *n == name("db")));
                prop_assert_eq!(called, aliased.count());
            }
            for (id, host) in &now.hosts {
                let known = before.hosts.get(id);
                prop_assert!(known.is_none_or(|known| Arc::ptr_eq(known, host) == (known == host)));
            }
            before = now;
        }
    }
}

/// Hosts with one network each that all know, and an endpoint of each host in each.
fn crowd(hosts: u8, networks: u8) -> Records {
    let all: Vec<Network> = (0..networks).map(|number| network(number, &format!("net{number}"), 1)).collect();
    let said = |host: u8| {
        let endpoints = (0..networks).map(|n| endpoint(host * networks + n, n, 2 + host, (1, 0)));
        record(host, &all, &endpoints.collect::<Vec<_>>())
    };
    (0..hosts).map(|number| (host_id(number), vec![life(1, true, said(number))])).collect()
}

fn made_anew(before: &Cluster, now: &Cluster) -> Vec<NetworkId> {
    let is_kept = |id: &NetworkId| before.networks.get(id).is_some_and(|view| Arc::ptr_eq(view, &now.networks[id]));
    now.networks.keys().copied().filter(|id| !is_kept(id)).collect()
}

#[test]
fn a_change_makes_only_those_networks_anew_that_it_is_about() {
    let (mut records, mut derivation) = (crowd(8, 9), Derivation::default());
    let mut made = |records: &Records| {
        let before = Arc::clone(&derivation.cluster);
        made_anew(&before, derivation.derive(records, None))
    };
    assert_eq!(made(&records).len(), 9);
    assert_eq!(made(&records), [], "nothing has changed");
    apply(&mut records, 3, Change::Repeat);
    assert_eq!(made(&records), [], "it says the same");
    apply(&mut records, 3, Change::Attach(endpoint(200, 4, 12, (1, 0))));
    assert_eq!(made(&records), [network_id(4)]);
    apply(&mut records, 3, Change::Detach(200));
    assert_eq!(made(&records), [network_id(4)]);
    apply(&mut records, 3, Change::Belong(None));
    apply(&mut records, 3, Change::Link(2, 7, false));
    assert_eq!(made(&records), [network_id(2)]);
    apply(&mut records, 3, Change::Delete(7));
    assert_eq!(made(&records), [], "it is removed");
    apply(&mut records, 3, Change::Judge(Liveness::Suspect));
    assert_eq!(made(&records).len(), 8, "its endpoints are in all of them");
}

#[test]
fn a_derivation_without_any_change_keeps_the_cluster() {
    let (mut records, mut derivation) = (crowd(3, 2), Derivation::default());
    let before = Arc::clone(derivation.derive(&records, None));
    assert!(Arc::ptr_eq(&before, derivation.derive(&records, None)));
    apply(&mut records, 0, Change::Repeat);
    assert!(Arc::ptr_eq(&before, derivation.derive(&records, None)));
}
