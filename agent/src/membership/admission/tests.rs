use std::net::Ipv4Addr;

use overlay::cluster::bootstrap::{QUIET_ROUNDS, founds, partners, seeks};
use overlay::cluster::derive;
use overlay::ledger::{Activation, Ledger, MemberList};
use overlay::model::host::{HostInfo, Liveness, Phase};
use overlay::model::id::NetworkId;
use overlay::model::member::Boot;
use overlay::model::network::{Network, Range, Settings};
use overlay::model::record::{Incarnation, NetworkMembership, Record, Records};
use proptest::prelude::*;

use super::*;

mod seal;

fn id(number: u8) -> HostId {
    HostId::from_bytes([number; 16])
}

fn address(number: u8) -> SocketAddr {
    (Ipv4Addr::new(192, 0, 2, number), 7946).into()
}

fn network(creator: HostId) -> Network {
    let range = Range::new("10.1.0.0/16".parse().expect("a subnet"), None).expect("a good one");
    let (id, name) = (NetworkId::from_bytes([7; 16]), "net".parse().expect("a label"));
    Network { id, name, ranges: vec![range], created: 1, creator, since: 0, settings: Settings::default() }
}

/// What a host hears of another.
#[derive(Debug, Clone, Copy)]
struct Heard {
    number: u8,
    phase: Phase,
    liveness: Liveness,
    has_network: bool,
    founder: Option<u8>,
}

fn live(number: u8, phase: Phase) -> Heard {
    Heard { number, phase, liveness: Liveness::Live, has_network: false, founder: None }
}

/// A member of the cluster that this host has founded.
fn member_of(founder: u8, number: u8) -> Heard {
    Heard { founder: Some(founder), ..live(number, Phase::Established) }
}

fn cluster(all: &[Heard]) -> Cluster {
    let record = |heard: &Heard| {
        let info = HostInfo {
            name: format!("h{}", heard.number).parse().expect("a label"),
            vtep: address(heard.number).ip(),
            vxlan_port: 4789,
            peer: address(heard.number),
            underlay_mtu: 1500,
            routed: std::collections::BTreeSet::new(),
            stamp: Stamp::default(),
            phase: heard.phase,
            founder: heard.founder.map(id),
        };
        let networks = heard.has_network.then(|| network(id(heard.number)));
        let networks = networks.map(|network| (network.id, NetworkMembership { network, vni: None }.into()));
        Record { host: Some(info), networks: networks.into_iter().collect(), ..Record::default() }
    };
    let records: Records = all
        .iter()
        .map(|heard| {
            let (liveness, record) = (heard.liveness, Arc::new(record(heard)));
            (id(heard.number), vec![Incarnation { generation: 1, complete: true, liveness, record }])
        })
        .collect();
    derive(&records, None)
}

#[test]
fn a_host_that_was_told_of_nobody_founds_at_once() {
    assert!(founds(id(1), &[], &cluster(&[])));
    assert!(founds(id(1), &[], &cluster(&[live(1, Phase::Joining)])), "itself is nobody else");
}

#[test]
fn a_host_does_not_found_before_it_hears_all_that_it_was_told_to_join() {
    let join = [address(2), address(3)];
    let here = |heard: &[Heard]| founds(id(1), &join, &cluster(heard));
    assert!(!here(&[]));
    assert!(!here(&[live(2, Phase::Joining)]));
    assert!(here(&[live(2, Phase::Joining), live(3, Phase::Joining)]));
    let silent = Heard { liveness: Liveness::Suspect, ..live(3, Phase::Joining) };
    assert!(!here(&[live(2, Phase::Joining), silent]), "who is silent may belong to a cluster by now");
}

#[test]
fn a_host_does_not_found_where_there_is_a_cluster() {
    for phase in [Phase::Established, Phase::Unchecked] {
        assert!(!founds(id(1), &[], &cluster(&[live(2, phase)])), "{phase:?}");
    }
}

#[test]
fn who_is_alone_in_a_new_cluster_leaves_it_for_another() {
    let other = cluster(&[member_of(2, 2)]);
    assert!(!seeks(id(1), &other), "of two that are alone the one with the lower id stays");
    assert!(seeks(id(3), &other));
    assert!(seeks(id(1), &cluster(&[member_of(2, 2), member_of(2, 4)])), "where somebody is, is where to be");
    assert!(!seeks(id(3), &cluster(&[live(2, Phase::Joining)])), "there is nothing to join");
    let silent = Heard { liveness: Liveness::Dead, ..member_of(2, 2) };
    assert!(!seeks(id(3), &cluster(&[silent])), "nobody there would answer");
    let busy = Heard { has_network: true, ..member_of(2, 2) };
    assert!(seeks(id(1), &cluster(&[busy])), "where something is, is where to be");
}

#[test]
fn a_host_founds_when_it_was_quiet_for_a_while() {
    let interval = Duration::from_millis(250);
    let policy = |bootstrap| Policy { join: Vec::new(), bootstrap, known: Vec::new(), strict: false, interval };
    let founds = |bootstrap, quiet| {
        let heard = cluster(&[live(2, Phase::Joining)]);
        policy(bootstrap).founding().is_due(id(1), (Duration::from_secs(9), quiet), &heard)
    };
    assert!(founds(false, interval * QUIET_ROUNDS));
    assert!(!founds(false, interval * QUIET_ROUNDS - Duration::from_millis(1)), "others may not have heard it yet");
    assert!(founds(true, Duration::ZERO), "it was told to");
}

/// Half of a network is for who can use it.
#[test]
fn partners_are_those_of_the_same_cluster_who_act() {
    let silent = Heard { liveness: Liveness::Suspect, ..member_of(1, 5) };
    let unchecked = Heard { phase: Phase::Unchecked, ..member_of(1, 4) };
    let all = [member_of(1, 2), member_of(3, 3), unchecked, silent, live(6, Phase::Joining)];
    assert_eq!(partners(&cluster(&all), Some(id(1))), ids(&[2]));
}

fn ids(numbers: &[u8]) -> BTreeSet<HostId> {
    numbers.iter().copied().map(id).collect()
}

#[test]
fn a_host_asks_those_of_one_cluster_to_let_it_in() {
    let heard = cluster(&[member_of(2, 2), member_of(2, 3), member_of(4, 4), member_of(4, 5), live(6, Phase::Joining)]);
    assert_eq!(asked(&heard, &[], None), ids(&[2, 3, 6]), "of two the one with the lower founder");
    assert_eq!(asked(&heard, &[address(5)], None), ids(&[4, 5, 6]), "or the one that it was told to join");
    assert_eq!(asked(&heard, &[address(5)], Some(id(2))), ids(&[2, 3, 6]), "or the one that it belongs to");
    assert_eq!(asked(&cluster(&[live(2, Phase::Joining)]), &[], None), ids(&[2]));
}

#[test]
fn hosts_of_other_clusters_are_told_from_those_of_this_one() {
    let gone = Heard { liveness: Liveness::Dead, ..member_of(6, 6) };
    let all = [member_of(2, 2), member_of(2, 3), member_of(4, 4), member_of(4, 5), gone, live(7, Phase::Joining)];
    let heard = cluster(&all);
    assert_eq!(apart(&heard, Some(id(2))), [(id(4), ids(&[4, 5]))].into());
    assert_eq!(apart(&heard, Some(id(4))), [(id(2), ids(&[2, 3]))].into());
    assert_eq!(apart(&heard, None), [].into(), "who belongs to none is apart from none");
}

fn phases() -> impl Strategy<Value = Phase> {
    prop_oneof![Just(Phase::Joining), Just(Phase::Unchecked), Just(Phase::Established)]
}

fn all_heard() -> impl Strategy<Value = Vec<Heard>> {
    let one = |number| {
        let liveness = prop_oneof![Just(Liveness::Live), Just(Liveness::Suspect), Just(Liveness::Dead)];
        (phases(), liveness, any::<bool>()).prop_map(move |(phase, liveness, has_network)| Heard {
            number,
            phase,
            liveness,
            has_network,
            founder: None,
        })
    };
    (1..6_u8).prop_flat_map(move |count| (1..=count).map(one).collect::<Vec<_>>())
}

proptest! {
    /// Those that hear each other agree on who founds, so there is one.
    #[test]
    fn of_all_that_wait_together_exactly_one_founds(count in 1..6_u8, told in any::<[bool; 36]>()) {
        let all: Vec<Heard> = (1..=count).map(|number| live(number, Phase::Joining)).collect();
        let cluster = cluster(&all);
        let founders = (1..=count).filter(|me| {
            let join = (1..=count).filter(|other| other != me && told[usize::from(me * 6 + other) % 36]);
            founds(id(*me), &join.map(address).collect::<Vec<_>>(), &cluster)
        });
        prop_assert_eq!(founders.collect::<Vec<_>>(), vec![1]);
    }

    /// Of two that founded clusters, not both go to the other: there would be none left.
    #[test]
    fn of_two_founders_one_seeks(one_has: bool, two_has: bool) {
        let of = |number, has_network| Heard { has_network, ..member_of(number, number) };
        let cluster = cluster(&[of(1, one_has), of(2, two_has)]);
        // Who has a network is not alone, which the ledger sees.
        let (one, two) = (!one_has && seeks(id(1), &cluster), !two_has && seeks(id(2), &cluster));
        prop_assert!(!(one && two));
        prop_assert!(one || two || one_has && two_has);
    }

    #[test]
    fn nobody_founds_and_seeks_at_once(heard in all_heard(), me in 1..6_u8) {
        let (me, cluster) = (id(me), cluster(&heard));
        prop_assert!(!(founds(me, &[], &cluster) && seeks(me, &cluster)));
    }
}

/// A ledger to which these things have happened.
fn after(inputs: &[Input]) -> Ledger {
    let mut ledger = Ledger::new(id(1));
    for input in inputs {
        let step = ledger.step(input, 0);
        ledger.apply(&step.changes);
    }
    ledger
}

fn asks(ledger: &Ledger, heard: &[u8], introduced: &[u8]) -> Vec<(HostId, Vec<Question>)> {
    let set = |numbers: &[u8]| numbers.iter().map(|number| id(*number)).collect::<BTreeSet<_>>();
    ledger.questions(&set(heard), &set(introduced)).into_iter().collect()
}

/// Of a host that was let in by host 2, the founder, or by none yet.
fn acknowledge(founder: Option<u8>) -> Vec<Question> {
    vec![Question::Acknowledge { founder: founder.map(id) }]
}

fn joined(by: u8, members: &[u8]) -> Input {
    let members = members.iter().map(|number| id(*number)).collect();
    Input::Acknowledged { by: id(by), member_list: MemberList { members, ..MemberList::default() } }
}

#[test]
fn who_joins_asks_all_that_it_hears() {
    let ledger = after(&[]);
    assert_eq!(asks(&ledger, &[1, 2, 3], &[]), [(id(2), acknowledge(None)), (id(3), acknowledge(None))]);
    let ledger = after(&[joined(2, &[2, 3, 4])]);
    assert!(matches!(ledger.membership().activation, Activation::Joining { .. }), "one of three is no majority");
    assert_eq!(asks(&ledger, &[1, 2, 3], &[]), [(id(3), acknowledge(None))]);
}

#[test]
fn a_member_makes_itself_known_to_those_that_were_not_asked_when_it_joined() {
    let ledger = after(&[joined(2, &[2, 3]), joined(3, &[2, 3])]);
    assert!(ledger.is_established());
    assert_eq!(asks(&ledger, &[1, 2, 3, 4], &[2]), [(id(3), acknowledge(None))], "but to no stranger");
    assert_eq!(asks(&ledger, &[1, 2], &[2]), [], "a host that can't be asked is not");
}

#[test]
fn after_a_boot_members_are_asked_for_nothing_else_than_to_let_it_in() {
    let booted = [joined(2, &[2, 3]), joined(3, &[2, 3]), Input::Booted { nonce: 5 }];
    let ledger = after(&booted);
    let admit = || vec![Question::Admit { founder: None, claims: BTreeMap::new() }];
    assert_eq!(asks(&ledger, &[1, 2, 3], &[]), [(id(2), admit()), (id(3), admit())]);
    assert_eq!(ledger.stamp().boot, Boot { generation: 1, nonce: 5 });
}

#[test]
fn an_heir_asks_all_but_the_one_that_it_forgets() {
    let forget = Input::Forget { hosts: [(id(3), Boot::default())].into(), force: false };
    let ledger = after(&[joined(2, &[2, 3, 4]), joined(3, &[2, 3, 4]), forget]);
    let request = ledger.seal_request(id(3)).expect("it is to forget it");
    let seal = || vec![Question::Seal { host: id(3), request: request.clone() }];
    assert_eq!(asks(&ledger, &[1, 2], &[2, 3, 4]), [(id(2), seal()), (id(4), seal())], "those that are away too");
}
