use std::collections::BTreeSet;

use overlay::cluster::NetworkView;
use overlay::model::host::Liveness;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::fixture::{Given, addresses, asker, endpoint, network, parsed, question, zone};

/// Two networks with the same subnets, as told to an asker in the first.
fn blue_and_red() -> Zone {
    let blue = [
        endpoint("web", "172.38.0.11").also("fd00:38::11").alias("front"),
        endpoint("db_1", "172.38.0.12").alias("db"),
        endpoint("db_2", "172.38.0.13").alias("db"),
    ];
    let red = [endpoint("secret", "172.38.0.66").alias("db"), endpoint("web", "172.38.0.67")];
    zone([network(1, "blue", &blue), network(2, "red", &red)])
}

fn ask(name: &str, kind: RecordType) -> Answer {
    answer(&blue_and_red(), &asker(1), &question(name, kind), 1)
}

fn told(name: &str, kind: RecordType) -> Vec<String> {
    let Answer::Records(records) = ask(name, kind) else { return Vec::new() };
    let sorted: BTreeSet<String> = records.iter().map(|record| record.data.to_string()).collect();
    sorted.into_iter().collect()
}

/// As text, without the escapes that a zone file needs.
fn plain(data: &RData) -> String {
    data.to_string().replace('\\', "")
}

#[test]
fn a_name_is_known_bare_and_with_its_network_in_any_case() {
    for name in ["web", "web.blue", "WeB.bLUe", "front", "front.blue"] {
        assert_eq!(told(name, RecordType::A), ["172.38.0.11"], "{name}");
        assert_eq!(told(name, RecordType::AAAA), ["fd00:38::11"], "{name}");
    }
    assert_eq!(told("db", RecordType::A), ["172.38.0.12", "172.38.0.13"]);
    assert_eq!(told("DB_1.blue", RecordType::A), ["172.38.0.12"]);
}

#[test]
fn records_are_short_lived_and_named_as_asked() {
    let Answer::Records(records) = ask("WeB.blue", RecordType::A) else { unreachable!("it is there") };
    assert_eq!(records[0].name.to_string(), "WeB.blue.");
    assert_eq!((records[0].ttl, records[0].dns_class), (TTL, DNSClass::IN));
}

#[test]
fn a_name_without_the_type_asked_for_exists_nonetheless() {
    for kind in [RecordType::AAAA, RecordType::MX, RecordType::TXT, RecordType::SRV, RecordType::PTR, RecordType::DS] {
        assert_eq!(ask("db_1", kind), Answer::NoData, "{kind}");
    }
    assert_eq!(ask("11.0.38.172.in-addr.arpa", RecordType::A), Answer::NoData);
}

#[test]
fn any_is_answered_with_one_type() {
    assert_eq!(told("web", RecordType::ANY), ["172.38.0.11"]);
    assert_eq!(told("11.0.38.172.in-addr.arpa", RecordType::ANY), ["web.blue."]);
}

#[test]
fn an_address_has_the_name_of_its_endpoint() {
    assert_eq!(told("11.0.38.172.in-addr.arpa", RecordType::PTR), ["web.blue."]);
    let v6 = DnsName::from(parsed::<IpAddr>("fd00:38::11")).to_string();
    assert_eq!(told(&v6, RecordType::PTR), ["web.blue."]);
}

#[test]
fn addresses_of_the_network_that_nobody_has_are_unknown_at_once() {
    for (what, name) in [
        ("free", "99.0.38.172.in-addr.arpa"),
        ("gateway", "1.0.38.172.in-addr.arpa"),
        ("another network's", "66.0.38.172.in-addr.arpa"),
        ("service discovery", "lb._dns-sd._udp.0.0.38.172.in-addr.arpa"),
        ("the DNS server's own", "53.53.254.169.in-addr.arpa"),
    ] {
        assert_eq!(ask(name, RecordType::PTR), Answer::NameError, "{what}");
    }
    assert_eq!(ask("0.38.172.in-addr.arpa", RecordType::PTR), Answer::NoData);
    assert_eq!(ask("8.8.8.8.in-addr.arpa", RecordType::PTR), Answer::Forward(Denial::Theirs));
    assert_eq!(ask("172.in-addr.arpa", RecordType::PTR), Answer::Forward(Denial::Theirs));
}

#[test]
fn a_name_that_no_endpoint_has_is_the_worlds() {
    for name in
        ["example.com", "web.blue.example.com", "_redis._tcp.example.com", "x.y", "a.web.blue", "_redis._tcp.blue"]
    {
        assert_eq!(ask(name, RecordType::A), Answer::Forward(Denial::Theirs), "{name}");
    }
    for name in ["nobody", "com", "not\\a name", "-", "nobody.blue"] {
        assert_eq!(ask(name, RecordType::A), Answer::Forward(Denial::Fleeting), "{name}");
    }
    for name in ["blue", ""] {
        assert_eq!(ask(name, RecordType::A), Answer::Forward(Denial::NoData), "there are names below {name:?}");
    }
}

#[test]
fn the_name_of_an_endpoint_on_a_host_that_does_not_answer_is_nobody_elses() {
    for liveness in [Liveness::Suspect, Liveness::Dead] {
        let gone = endpoint("web", "172.38.0.11").alias("front").on_a_host_that_is(liveness);
        let zone = zone([network(1, "blue", &[gone])]);
        for name in ["web", "web.blue", "front", "front.blue"] {
            let told = answer(&zone, &asker(1), &question(name, RecordType::A), 1);
            assert_eq!(told, Answer::NameError, "{name}, {liveness:?}");
        }
    }
}

#[test]
fn another_networks_names_are_unknown() {
    // As if there were no such network: somebody else's `red` may exist outside.
    assert_eq!(ask("secret", RecordType::A), Answer::Forward(Denial::Fleeting));
    assert_eq!(ask("secret.red", RecordType::A), Answer::Forward(Denial::Theirs));
    assert_eq!(ask("red", RecordType::A), Answer::Forward(Denial::Fleeting));
}

#[test]
fn nothing_is_asked_of_the_world_for_a_network_without_a_way_out() {
    let mut view = network(1, "blue", &[endpoint("web", "172.38.0.11")]);
    view.network.settings.internal = true;
    let zone = zone([view]);
    let ask = |name, kind| answer(&zone, &asker(1), &question(name, kind), 0);
    for name in ["example.com", "secret.red", "nobody", "nobody.blue", "web.corp.example"] {
        assert_eq!(ask(name, RecordType::A), Answer::NameError, "{name}");
    }
    assert_eq!(ask("8.8.8.8.in-addr.arpa", RecordType::PTR), Answer::NameError);
    assert!(matches!(ask("web", RecordType::A), Answer::Records(_)));
    for name in ["blue", ""] {
        assert_eq!(ask(name, RecordType::A), Answer::NoData, "{name:?}");
    }
}

#[test]
fn other_classes_and_transfers_are_refused_and_nothing_is_known_of_a_network_that_is_not_there() {
    let zone = blue_and_red();
    let mut chaos = question("version.bind", RecordType::TXT);
    chaos.query_class = DNSClass::CH;
    assert_eq!(answer(&zone, &asker(1), &chaos, 1), Answer::Refuse);
    for kind in [RecordType::AXFR, RecordType::IXFR] {
        assert_eq!(ask("blue", kind), Answer::Refuse);
        assert_eq!(ask("example.com", kind), Answer::Refuse);
    }
    assert_eq!(answer(&zone, &asker(9), &question("example.com", RecordType::A), 1), Answer::Unavailable);
}

#[test]
fn a_doubled_network_name_works_inside_both_and_is_shown_with_the_id() {
    let mut view = network(2, "blue", &[endpoint("web", "172.38.0.67")]);
    view.shadowed = true;
    let zone = zone([network(1, "blue", &[endpoint("web", "172.38.0.11")]), view]);
    let told = |name: &str, kind| match answer(&zone, &asker(2), &question(name, kind), 1) {
        Answer::Records(records) => plain(&records[0].data),
        other => format!("{other:?}"),
    };
    assert_eq!(told("web.blue", RecordType::A), "172.38.0.67");
    assert_eq!(told("web.BLUE~02020202", RecordType::A), "172.38.0.67");
    assert_eq!(told("67.0.38.172.in-addr.arpa", RecordType::PTR), "web.blue~02020202.");
}

#[test]
fn a_doubled_name_that_is_too_long_with_its_mark_is_told_without() {
    let long = "b".repeat(63);
    let mut view = network(2, &long, &[endpoint(&"w".repeat(63), "172.38.0.67")]);
    view.shadowed = true;
    let zone = zone([view]);
    let told = |name: &str, kind| match answer(&zone, &asker(2), &question(name, kind), 1) {
        Answer::Records(records) => plain(&records[0].data),
        other => format!("{other:?}"),
    };
    let name = told("67.0.38.172.in-addr.arpa", RecordType::PTR);
    assert_eq!(name, format!("{}.{long}.", "w".repeat(63)));
    assert_eq!(told(&name, RecordType::A), "172.38.0.67", "and that leads back");
}

#[test]
fn every_order_of_addresses_comes_up() {
    let endpoints =
        ["172.38.0.11", "172.38.0.12", "172.38.0.13"].map(|a| endpoint(&a.replace('.', "-"), a).alias("db"));
    let zone = zone([network(1, "blue", &endpoints)]);
    let order = |seed| match answer(&zone, &asker(1), &question("db", RecordType::A), seed) {
        Answer::Records(records) => records.iter().map(|r| r.data.to_string()).collect::<Vec<_>>(),
        other => vec![format!("{other:?}")],
    };
    let orders: BTreeSet<Vec<String>> = (0..200).map(order).collect();
    assert_eq!(orders.len(), 6, "{orders:?}");
    assert!(orders.iter().all(|order| order.iter().collect::<BTreeSet<_>>().len() == 3));
}

const LABELS: [&str; 6] = ["web", "db", "cache", "Web", "blue", "red"];

fn given() -> impl Strategy<Value = Given> {
    let liveness = select(vec![Liveness::Live, Liveness::Live, Liveness::Suspect, Liveness::Dead]);
    let aliases = prop::collection::vec(select(LABELS.to_vec()), 0..3);
    (select(LABELS.to_vec()), aliases, liveness, 0..3_u64, prop::bool::ANY).prop_map(
        |(name, aliases, liveness, created, v6)| Given {
            name: name.to_owned(),
            aliases: aliases.into_iter().map(str::to_owned).collect(),
            // Numbered by `view`.
            addresses: if v6 { vec![parsed("172.38.0.0"), parsed("fd00:38::")] } else { vec![parsed("172.38.0.0")] },
            liveness,
            created,
        },
    )
}

/// A network whose endpoints have different addresses.
fn view(number: u8, name: &'static str) -> impl Strategy<Value = NetworkView> {
    (prop::collection::vec(given(), 0..6), prop::bool::ANY).prop_map(move |(mut endpoints, shadowed)| {
        for (last, given) in (11_u8..).zip(&mut endpoints) {
            for address in &mut given.addresses {
                *address = match *address {
                    IpAddr::V4(v4) => IpAddr::V4((u32::from(v4) | u32::from(last)).into()),
                    IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) | u128::from(last)).into()),
                };
            }
        }
        let mut view = network(number, name, &endpoints);
        view.shadowed = shadowed;
        view
    })
}

fn any_question() -> impl Strategy<Value = Query> {
    let label = || select(LABELS.to_vec());
    let name = prop_oneof![
        label().prop_map(str::to_owned),
        (label(), label()).prop_map(|(a, b)| format!("{a}.{b}")),
        (label(), select(vec!["blue~01010101", "red~02020202", "example"])).prop_map(|(a, b)| format!("{a}.{b}")),
        (10..20_u8).prop_map(|last| format!("{last}.0.38.172.in-addr.arpa")),
        (10..20_u8).prop_map(|last| DnsName::from(parsed::<IpAddr>(&format!("fd00:38::{last:x}"))).to_string()),
    ];
    let kinds = vec![RecordType::A, RecordType::AAAA, RecordType::PTR, RecordType::ANY, RecordType::MX];
    (name, select(kinds)).prop_map(|(name, kind)| question(&name, kind))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    /// Not only is nothing of another network revealed: nothing depends on it.
    #[test]
    fn an_answer_is_the_same_whatever_is_in_other_networks(
        blue in view(1, "blue"), red in view(2, "red"), question in any_question(), seed: u64,
    ) {
        let alone = zone([blue.clone()]);
        let beside = zone([blue, red]);
        prop_assert_eq!(
            answer(&alone, &asker(1), &question, seed),
            answer(&beside, &asker(1), &question, seed)
        );
    }

    #[test]
    fn only_live_endpoints_that_are_called_so_are_told(
        blue in view(1, "blue"), question in any_question(), seed: u64,
    ) {
        let zone = zone([blue.clone()]);
        if let Answer::Records(records) = answer(&zone, &asker(1), &question, seed) {
            prop_assert!(!records.is_empty());
            let label = String::from_utf8_lossy(question.name.iter().next().expect("it has one")).to_ascii_lowercase();
            for address in addresses(&records) {
                let located = blue.at(address).expect("an endpoint has it");
                prop_assert_eq!(located.liveness, Liveness::Live);
                prop_assert!(located.endpoint.names().any(|name| name.as_str() == label));
            }
            for record in &records {
                if record.record_type() == RecordType::PTR {
                    let live = blue.endpoints.values().filter(|l| l.liveness == Liveness::Live);
                    let mut names = live.map(|l| format!("{}.{}.", l.endpoint.name, blue.shown_name()));
                    prop_assert!(names.any(|name| name == plain(&record.data)));
                }
            }
        }
    }

    #[test]
    fn every_live_endpoint_is_found_by_its_name_or_has_lost_it_to_another(blue in view(1, "blue"), seed: u64) {
        let zone = zone([blue.clone()]);
        for located in blue.endpoints.values().filter(|l| l.liveness == Liveness::Live) {
            let name = &located.endpoint.name;
            let wins = blue.named(name).is_some_and(|winner| winner.endpoint.id == located.endpoint.id);
            let question = question(&format!("{name}.{}", blue.shown_name()), RecordType::A);
            let told = match answer(&zone, &asker(1), &question, seed) {
                Answer::Records(records) => addresses(&records),
                _ => BTreeSet::new(),
            };
            let own: BTreeSet<IpAddr> = located.addresses().filter(IpAddr::is_ipv4).collect();
            prop_assert!(!wins || told == own, "{name}: {told:?} is not {own:?}");
        }
    }

    #[test]
    fn the_seed_changes_the_order_and_nothing_else(
        blue in view(1, "blue"), question in any_question(), seeds: (u64, u64),
    ) {
        let zone = zone([blue]);
        let sorted = |seed| match answer(&zone, &asker(1), &question, seed) {
            Answer::Records(mut records) => {
                records.sort_by_key(ToString::to_string);
                Answer::Records(records)
            }
            other => other,
        };
        prop_assert_eq!(sorted(seeds.0), sorted(seeds.1));
    }
}
