use std::collections::BTreeMap;

use super::*;
use crate::ledger::Denial;
use crate::model::id::{HostId, Vni};
use crate::model::intent::{NetnsRef, Seat};
use crate::model::network::{Network, Range};
use crate::operations::detach::Detach;
use crate::operations::fixture::{ME, founder, info, label, make, network};
use crate::operations::hear::Bury;

/// A cluster of this host and, perhaps, others, all in network 1.
fn cluster(network: &Network, others: &[HostId]) -> Cluster {
    use crate::cluster::derive;
    use crate::model::record::{Incarnation, NetworkMembership, Record, Records};
    let mut records = Records::new();
    for host in others.iter().chain([&ME]) {
        let info = crate::model::host::HostInfo { founder: Some(ME), ..info() };
        let membership = NetworkMembership { network: network.clone(), vni: None };
        let networks = [(network.id, Arc::new(membership))].into();
        let record = Record { host: Some(info), networks, ..Record::default() };
        let incarnation =
            Incarnation { generation: 1, complete: true, liveness: Liveness::Live, record: Arc::new(record) };
        records.insert(*host, vec![incarnation]);
    }
    derive(&records, Some(ME))
}

fn attach(cluster: &Cluster, number: u8, name: &str) -> Attach {
    let netns = NetnsRef { path: format!("/run/netns/c{number}").into(), cookie: number.into() };
    let spec = EndpointSpec {
        network: "net1".to_owned(),
        netns: netns.path.clone(),
        name: label(name),
        aliases: BTreeSet::new(),
        addresses: BTreeSet::new(),
        mac: None,
        ifname: None,
        priority: Priority::default(),
        id: Some(EndpointId::from_bytes([number; 16])),
        ports: Vec::new(),
    };
    Attach {
        spec,
        id: EndpointId::from_bytes([number; 16]),
        cluster: Arc::new(cluster.clone()),
        container: Container { netns, interfaces: BTreeMap::new() },
        obstacles: Obstacles::new(),
        asked: BTreeSet::new(),
    }
}

fn new(answer: Attached) -> Arc<Attachment> {
    match answer {
        Attached::New(attachment) => attachment,
        other => unreachable!("{other:?}"),
    }
}

#[test]
fn address_and_endpoint_are_one_decision() {
    let mut state = founder();
    make(&mut state, &Input::Create(network(1)));
    let cluster = cluster(&network(1), &[]);
    let decision = attach(&cluster, 1, "web").decide(&state, 0).expect("nothing speaks against it");
    let before = state.clone();
    let attachment = new(decision.answer.clone());
    state.apply(&decision.changes);
    let (id, address) = (attachment.endpoint.id, attachment.endpoint.addresses[0].address);
    assert_eq!(state.ledger.accounts()[&network(1).id].bound.get(&address), Some(&id));
    assert_eq!(state.intents.attachments.get(&id), Some(&attachment));
    assert!(state.intents.seats.contains_key(&network(1).id));
    assert_eq!(attachment.endpoint.mac, Mac::of_address(address));
    // A decision alone changes nothing, and the same again is the same.
    assert_eq!(attach(&cluster, 1, "web").decide(&before, 0), Ok(decision));
    // Asked for again it is there.
    let again = attach(&cluster, 1, "web").decide(&state, 0).expect("it is there");
    assert_eq!(again, Decision::unchanged(Attached::Before(attachment)));
}

#[test]
fn a_host_that_has_as_many_networks_as_it_can_is_refused_another_one_and_goes_on_in_those() {
    let mut state = founder();
    for number in [1, 2] {
        make(&mut state, &Input::Create(network(number)));
    }
    let one = attach(&cluster(&network(1), &[]), 1, "web").decide(&state, 0).expect("nothing speaks against it");
    state.apply(&one.changes);
    let vni = Vni::proposal(network(1).id);
    let others = (1..Seat::TRANSIT_LINKS).map(|transit| {
        let id = NetworkId::from_bytes(u128::from(transit).to_be_bytes());
        Change::Seat(id, Some(Seat { vni, transit }))
    });
    state.apply(&others.collect::<Vec<_>>());
    let mut other = attach(&cluster(&network(2), &[]), 2, "db");
    "net2".clone_into(&mut other.spec.network);
    assert_eq!(other.decide(&state, 0), Err(AttachRefusal::TooManyNetworks));
    attach(&cluster(&network(1), &[]), 3, "app").decide(&state, 0).expect("it has a seat there");
}

#[test]
fn of_two_with_one_name_or_one_mac_the_second_is_refused_also_if_no_view_shows_the_first() {
    let mut state = founder();
    let cluster = cluster(&network(1), &[]);
    make(&mut state, &Input::Create(network(1)));
    let first = new(make(&mut state, &attach(&cluster, 1, "web")));
    let same_name = attach(&cluster, 2, "web").decide(&state, 0);
    assert_eq!(same_name, Err(AttachRefusal::NameInUse { host: ME }));
    let mut same_mac = attach(&cluster, 3, "other");
    same_mac.spec.mac = Some(first.endpoint.mac);
    let refused = same_mac.decide(&state, 0);
    assert_eq!(refused, Err(AttachRefusal::MacInUse { mac: first.endpoint.mac, name: label("web"), host: ME }));
    let mut same_address = attach(&cluster, 4, "third");
    same_address.spec.addresses = [first.endpoint.addresses[0].address].into();
    let refused = same_address.decide(&state, 0).expect_err("it is taken");
    assert!(matches!(&refused, AttachRefusal::Denied(_, Denial::Bound { .. })), "{refused:?}");
    assert_eq!(refused.taken_address(), Some(first.endpoint.addresses[0].address));
    // The name is free once the first has gone, and brings its address along.
    make(&mut state, &Detach(vec![first.endpoint.id]));
    let second = new(make(&mut state, &attach(&cluster, 2, "web")));
    assert_eq!(second.endpoint.addresses, first.endpoint.addresses);
}

#[test]
fn ids_that_begin_alike_are_told_apart_before_their_interfaces_are_not() {
    let mut state = founder();
    let cluster = cluster(&network(1), &[]);
    make(&mut state, &Input::Create(network(1)));
    make(&mut state, &attach(&cluster, 1, "web"));
    let mut alike = [1; 16];
    alike[15] = 2;
    let close = Attach { id: EndpointId::from_bytes(alike), ..attach(&cluster, 2, "two") };
    assert_eq!(close.decide(&state, 0), Err(AttachRefusal::IdTooClose(label("web"))));
}

#[test]
fn no_endpoint_comes_into_a_network_that_is_deleted() {
    let mut state = founder();
    let cluster = cluster(&network(1), &[]);
    make(&mut state, &Input::Create(network(1)));
    make(&mut state, &Bury([network(1).id].into()));
    let refused = attach(&cluster, 1, "web").decide(&state, 0).expect_err("it is deleted");
    assert!(matches!(refused, AttachRefusal::Denied(_, Denial::Deleted | Denial::UnknownNetwork)), "{refused:?}");
}

#[test]
fn an_address_of_another_host_is_asked_for_once_and_nothing_is_kept_meanwhile() {
    let other = HostId::from_bytes([9; 16]);
    let mut network = network(1);
    network.ranges.push(Range::new("fd00:1::/64".parse().expect("a subnet"), None).expect("a range"));
    let mut state = founder();
    make(&mut state, &Input::Create(network.clone()));
    // All of the second range is the other host's.
    state.apply(&[Change::Ledger(ledger::Change::Member(other))]);
    let give = |range| Input::GiveSpace { network: network.id, range, to: other, share: crate::ledger::Share::Half };
    make(&mut state, &give(1));
    let theirs = state.ledger.accounts()[&network.id].held_by(other).next().expect("it was given some").0;
    let address = network.assignable_in(theirs).next().expect("a block has addresses");
    let cluster = cluster(&network, &[other]);
    let mut request = attach(&cluster, 1, "web");
    request.spec.addresses = [address].into();
    let asked = request.decide(&state, 0).expect("it can be asked for");
    let ask = Ask::Address { of: other, address };
    assert_eq!(asked, Decision { changes: Vec::new(), answer: Attached::Ask(network.id, ask) });
    // It has been asked for, and was not given.
    request.asked.insert(ask);
    let refused = request.decide(&state, 0).expect_err("it was not given");
    assert!(matches!(&refused, AttachRefusal::Denied(asked, _) if asked.range == 1), "{refused:?}");
}

#[test]
fn a_refused_or_unanswered_ask_ends_an_attach_only_if_it_was_for_an_address() {
    let (other, network) = (HostId::from_bytes([9; 16]), network(1));
    let request = attach(&cluster(&network, &[other]), 1, "web");
    let address = network.ranges[0].subnet.nth(300).expect("the subnet has so many");
    let (space, one) = (Ask::Space { of: other, range: 0 }, Ask::Address { of: other, address });
    let refused =
        |denial| Err(AttachRefusal::Denied(Box::new(request.request(network.id, 0, &network.ranges[0])), denial));
    for reply in [Reply::Denied(Denial::Joining), Reply::NoAnswer] {
        assert_eq!(request.answered(network.id, space, reply), Ok(Vec::new()));
    }
    let unreachable = Denial::Unreachable { address, holder: other };
    assert_eq!(request.answered(network.id, one, Reply::NoAnswer), refused(unreachable));
    assert_eq!(request.answered(network.id, one, Reply::Denied(Denial::Joining)), refused(Denial::Joining));
    // A denial that came over the wire names no address.
    let bound = |address| Denial::Bound { address, endpoint: request.id };
    let wired = Reply::Denied(bound([0, 0, 0, 0].into()));
    assert_eq!(request.answered(network.id, one, wired), refused(bound(address)));
}

#[test]
fn leases_that_were_given_are_told_to_the_ledger_as_heard_from_their_writer() {
    use crate::model::member::Stamp;
    use crate::model::record::Statement;
    let (other, network) = (HostId::from_bytes([9; 16]), network(1));
    let request = attach(&cluster(&network, &[other]), 1, "web");
    let address = network.ranges[0].subnet.nth(300).expect("the subnet has so many");
    let version = crate::model::lease::Version { epoch: 1, count: 1 };
    let statement = Statement::Delegate { address, version, to: ME };
    let reply = Reply::Given(vec![statement], Stamp::default());
    let told = Input::Stated { network: network.id, from: other, stamp: Stamp::default(), statement };
    assert_eq!(request.answered(network.id, Ask::Address { of: other, address }, reply), Ok(vec![told]));
}
