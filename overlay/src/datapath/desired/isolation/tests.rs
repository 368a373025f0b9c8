use std::path::PathBuf;

use super::*;
use crate::cluster::Located;
use crate::model::addr::Mac;
use crate::model::endpoint::Assigned;
use crate::model::id::{EndpointId, HostId, NetworkId};
use crate::model::intent::NetnsRef;
use crate::model::lease::Version;
use crate::model::links::{Link, LinkDecision, Links, Service};
use crate::model::network::{Network, Range, Settings};
use crate::model::publish::Protocol;

fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

fn ip(last: u8) -> IpAddr {
    [10, 0, 0, last].into()
}

fn ip6(last: u8) -> IpAddr {
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last.into()).into()
}

fn endpoint(last: u8, alias: &str) -> Endpoint {
    let lease = Version { epoch: 1, count: 0 };
    Endpoint {
        id: EndpointId::from_bytes([last; 16]),
        network: NetworkId::from_bytes([9; 16]),
        name: name(&format!("c{last}")),
        aliases: [name(alias)].into(),
        addresses: [ip(last), ip6(last)].map(|address| Assigned { address, lease }).to_vec(),
        mac: Mac::of_address(ip(last)),
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
    let decided = LinkDecision { at: 1, removed: false };
    let service = |port| Service { protocol: Protocol::Tcp, port };
    let link = |(from, to, port): &(&str, &str, Option<u16>)| {
        (Link { from: name(from), to: name(to), service: port.map(service) }, decided)
    };
    let attached = [here(endpoint(1, "app")), here(endpoint(2, "store"))];
    let all = [endpoint(1, "app"), endpoint(2, "store"), endpoint(3, "far"), endpoint(4, "store")];
    let located =
        |e: Endpoint| Located { endpoint: e.into(), host: HostId::from_bytes([1; 16]), liveness: Liveness::Live };
    let network = Network {
        id: NetworkId::from_bytes([9; 16]),
        name: name("closed"),
        ranges: ["10.0.0.0/24", "fd00::/64"].map(range).to_vec(),
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
    table(&network, Some(&view), None, &attached.iter().collect::<Vec<_>>())
}

fn range(subnet: &str) -> Range {
    Range::new(subnet.parse().expect("a subnet"), None).expect("a range")
}

/// One of the sets, whatever the version.
type Which = fn(&IsolationSets) -> SetDefinition;

/// The last parts of the addresses in a set and, the same, in that for IPv6, in the order of its keys.
fn pairs(table: &Table, set: Which) -> BTreeSet<(u8, u8)> {
    let last = |field: Option<&Field>| match field {
        Some(Field::Address(IpAddr::V4(address))) => address.octets()[3],
        Some(Field::Address(IpAddr::V6(address))) => address.octets()[15],
        other => panic!("{other:?} is no address"),
    };
    let [v4, v6] = IpVersion::ALL.map(|version| -> BTreeSet<(u8, u8)> {
        let set = table.sets.iter().find(|s| s.definition == set(names(version))).expect("a set");
        set.elements.iter().map(|element| (last(element.key.first()), last(element.key.get(1)))).collect()
    });
    assert_eq!(v4, v6, "the same may be done under both versions");
    v4
}

#[test]
fn without_links_nobody_is_listed_but_for_who_is_here() {
    let table = table_with(&[]);
    let sets: [Which; 4] = [|n| n.linked, |n| n.pairs, |n| n.acquainted, |n| n.asked];
    for set in sets {
        assert!(pairs(&table, set).is_empty());
    }
    let count = |name: &str| table.sets.iter().find(|set| set.name() == name).map(|set| set.elements.len());
    // Under IPv6 each has the address that it gives itself, too.
    assert_eq!(
        [NAMES.own.name, NAMES6.own.name, TOLD.name, MACS.name].map(count),
        [Some(2), Some(4), Some(4), Some(2)]
    );
}

#[test]
fn a_link_is_for_whoever_has_the_names_if_one_of_both_is_here() {
    let table = table_with(&[("far", "store", Some(80)), ("c1", "store", None), ("c3", "c4", Some(81))]);
    assert_eq!(pairs(&table, |n| n.linked), [(3, 2)].into(), "from c3 to c4 is nothing of this host's");
    assert_eq!(pairs(&table, |n| n.pairs), [(1, 2), (1, 4)].into());
    assert_eq!(pairs(&table, |n| n.acquainted), [(1, 2), (2, 1), (1, 4), (4, 1), (2, 3), (3, 2)].into());
}

#[test]
fn nobody_is_linked_to_itself() {
    assert_eq!(pairs(&table_with(&[("store", "store", None)]), |n| n.pairs), [(2, 4), (4, 2)].into());
}

#[test]
fn what_is_said_of_nobody_opens_nothing() {
    assert!(pairs(&table_with(&[("nobody", "c1", None), ("c1", "nobody", Some(80))]), |n| n.acquainted).is_empty());
}

#[test]
fn the_last_word_is_no() {
    let table = table_with(&[]);
    let forward = table.chains.iter().find(|chain| chain.name == "forward").expect("a chain");
    assert_eq!(forward.rules.last(), Some(&Rule::new([], Verdict::Drop)));
    // Of what leads back over a link nothing passes that does not show that it is an answer.
    let back = |rule: &&Rule| {
        let is_answer = |m: &Match| matches!(m, Match::Listed(_, Parts::ServiceAnswered(_) | Parts::PairAnswered(_)));
        rule.when.iter().any(is_answer)
    };
    for rule in forward.rules.iter().filter(back) {
        assert!(matches!(rule.when[0], Match::Is(Kind::TcpGoingOn | Kind::Sctp | Kind::EchoReply(_))), "{rule}");
    }
    let at = |kind| forward.rules.iter().position(|rule| rule.when.contains(&Match::Is(kind))).expect("a rule");
    assert!(at(Kind::SctpOpening) < at(Kind::Sctp) && at(Kind::SctpFragment(IpVersion::V4)) < at(Kind::Sctp));
}

#[test]
fn an_interface_gives_itself_the_address_of_its_mac() {
    let mac = "02:42:ac:26:00:0b".parse().expect("a MAC");
    assert_eq!(link_local(mac).to_string(), "fe80::42:acff:fe26:b");
}

#[test]
fn an_address_is_compared_with_what_is_told_byte_for_byte() {
    let table = table_with(&[]);
    let told = table.sets.iter().find(|set| set.definition == TOLD).expect("a set");
    let shown: Vec<String> = told.elements.iter().map(Element::to_string).collect();
    let expected = "\"ovp010101010101\" . 02:42:0a:00:00:01 . 0xfd000000000000000000000000000001";
    assert!(shown.iter().any(|element| element == expected), "{shown:?}");
}

#[test]
fn what_the_rules_can_not_read_is_not_sent() {
    let table = table_with(&[]);
    let prerouting = table.chains.iter().find(|chain| chain.name == "prerouting").expect("a chain");
    let foreign = [Match::In("ovp*".to_owned()), Match::Is(Kind::Foreign)];
    assert_eq!(prerouting.rules.first(), Some(&Rule::new(foreign, Verdict::Drop)));
}
