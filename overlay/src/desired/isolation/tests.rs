use std::path::PathBuf;

use super::*;
use crate::addr::Mac;
use crate::cluster::Located;
use crate::endpoint::Assigned;
use crate::id::{EndpointId, HostId, NetworkId};
use crate::intent::NetnsRef;
use crate::lease::Version;
use crate::links::{Decision, Link, Links, Service};
use crate::network::{Network, Range, Settings};
use crate::publish::Protocol;

fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

fn ip(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, last)
}

fn endpoint(last: u8, alias: &str) -> Endpoint {
    Endpoint {
        id: EndpointId::from_bytes([last; 16]),
        network: NetworkId::from_bytes([9; 16]),
        name: name(&format!("c{last}")),
        aliases: [name(alias)].into(),
        addresses: vec![Assigned { address: ip(last).into(), lease: Version { epoch: 1, count: 0 } }],
        mac: Mac::of_address(ip(last).into()),
        created: 1,
    }
}

fn here(endpoint: Endpoint) -> Attachment {
    let netns = NetnsRef { path: PathBuf::from("/run/netns/c"), cookie: 1 };
    let ifname = "eth0".parse().expect("a name");
    Attachment { endpoint, netns, ifname, metric: 0, published: Default::default() }
}

/// c1 and c2 are here, c3 and c4 elsewhere; c2 and c4 are both called `store`.
fn table_with(links: &[(&str, &str, Option<u16>)]) -> Table {
    let decided = Decision { at: 1, removed: false };
    let service = |port| Service { protocol: Protocol::Tcp, port };
    let link = |(from, to, port): &(&str, &str, Option<u16>)| {
        (Link { from: name(from), to: name(to), service: port.map(service) }, decided)
    };
    let attached = [here(endpoint(1, "app")), here(endpoint(2, "store"))];
    let all = [endpoint(1, "app"), endpoint(2, "store"), endpoint(3, "far"), endpoint(4, "store")];
    let located = |e: Endpoint| {
        (e.id, Located { endpoint: e.into(), host: HostId::from_bytes([1; 16]), liveness: Liveness::Live })
    };
    let network = Network {
        id: NetworkId::from_bytes([9; 16]),
        name: name("closed"),
        ranges: vec![Range::new("10.0.0.0/24".parse().expect("a subnet"), None).expect("a range")],
        created: 1,
        creator: HostId::from_bytes([1; 16]),
        since: 0,
        settings: Settings { icc: false, ..Settings::default() },
    };
    let view = NetworkView {
        links: links.iter().map(link).collect::<Links>(),
        endpoints: all.into_iter().map(located).collect(),
        ..NetworkView::new(&network)
    };
    table(Some(&view), None, &attached.iter().collect::<Vec<_>>())
}

/// The last parts of the addresses in a set, in the order of its keys.
fn pairs(table: &Table, set: &str) -> BTreeSet<(u8, u8)> {
    let set = table.sets.iter().find(|s| s.name == set).expect("a set");
    let last = |field: Option<&Field>| match field {
        Some(Field::Address(address)) => address.octets()[3],
        other => panic!("{other:?} is no address"),
    };
    set.elements.iter().map(|element| (last(element.key.first()), last(element.key.get(1)))).collect()
}

#[test]
fn without_links_nobody_is_listed_but_for_who_is_here() {
    let table = table_with(&[]);
    for set in [LINKED, PAIRS, ACQUAINTED, ASKED] {
        assert!(table.sets.iter().any(|s| s.name == set && s.elements.is_empty()), "{set} is not empty");
    }
    let own = table.sets.iter().find(|set| set.name == OWN).expect("a set");
    assert_eq!(own.elements.len(), 2);
}

#[test]
fn a_link_is_for_whoever_has_the_names_if_one_of_both_is_here() {
    let table = table_with(&[("far", "store", Some(80)), ("c1", "store", None), ("c3", "c4", Some(81))]);
    assert_eq!(pairs(&table, LINKED), [(3, 2)].into(), "from c3 to c4 is nothing of this host's");
    assert_eq!(pairs(&table, PAIRS), [(1, 2), (1, 4)].into());
    assert_eq!(pairs(&table, ACQUAINTED), [(1, 2), (2, 1), (1, 4), (4, 1), (2, 3), (3, 2)].into());
}

#[test]
fn nobody_is_linked_to_itself() {
    assert_eq!(pairs(&table_with(&[("store", "store", None)]), PAIRS), [(2, 4), (4, 2)].into());
}

#[test]
fn what_is_said_of_nobody_opens_nothing() {
    assert!(pairs(&table_with(&[("nobody", "c1", None), ("c1", "nobody", Some(80))]), ACQUAINTED).is_empty());
}

#[test]
fn the_last_word_is_no() {
    let table = table_with(&[]);
    let forward = table.chains.iter().find(|chain| chain.name == "forward").expect("a chain");
    assert_eq!(forward.rules.last(), Some(&Rule::new([], Verdict::Drop)));
    // Of what leads back over a link nothing passes that does not show that it is an answer.
    let back = |rule: &&Rule| {
        let is_answer = |m: &Match| matches!(m, Match::Listed(_, Parts::ServiceAnswered | Parts::PairAnswered));
        rule.when.iter().any(is_answer)
    };
    for rule in forward.rules.iter().filter(back) {
        assert!(matches!(rule.when[0], Match::Is(Kind::TcpGoingOn | Kind::Sctp | Kind::EchoReply)), "{rule}");
    }
    let at = |kind| forward.rules.iter().position(|rule| rule.when.contains(&Match::Is(kind))).expect("a rule");
    assert!(at(Kind::SctpOpening) < at(Kind::Sctp) && at(Kind::SctpFragment) < at(Kind::Sctp));
}

#[test]
fn what_the_rules_can_not_read_is_not_sent() {
    let table = table_with(&[]);
    let prerouting = table.chains.iter().find(|chain| chain.name == "prerouting").expect("a chain");
    let foreign = [Match::In("ovp*".to_owned()), Match::Is(Kind::Foreign)];
    assert_eq!(prerouting.rules.first(), Some(&Rule::new(foreign, Verdict::Drop)));
}
