use overlay::model::network::Name;

use super::*;
use crate::fixture::{asker, cluster, endpoint, in_networks, network, network_id, parsed, zone};

fn names(zone: &Zone) -> Names<'_> {
    zone.networks_of(&asker(1)).next().expect("the network is there")
}

fn resolve(zone: &Zone, name: &str) -> Vec<String> {
    let name: Name = parsed(name);
    names(zone).addresses(&name).iter().map(IpAddr::to_string).collect()
}

#[test]
fn names_on_hosts_that_are_silent_are_withdrawn() {
    let hosts = [Liveness::Live, Liveness::Suspect, Liveness::Dead];
    let endpoints = hosts.map(|l| endpoint(&format!("on-{l:?}"), &format!("172.38.0.{}", 11 + l as u8)).alias("db"));
    let endpoints: Vec<_> = endpoints.into_iter().zip(hosts).map(|(e, l)| e.on_a_host_that_is(l)).collect();
    let zone = zone([network(1, "redis", &endpoints)]);
    assert_eq!(resolve(&zone, "on-live"), ["172.38.0.11"]);
    assert_eq!(resolve(&zone, "db"), ["172.38.0.11"]);
    assert_eq!(names(&zone).owner(parsed("172.38.0.11")), Some(&parsed("on-live")));
    for (name, address) in [("on-suspect", "172.38.0.12"), ("on-dead", "172.38.0.13")] {
        assert!(resolve(&zone, name).is_empty(), "{name}");
        assert_eq!(names(&zone).owner(parsed(address)), None, "{name}");
    }
}

#[test]
fn a_doubled_name_means_whom_the_cluster_says() {
    let endpoints = [endpoint("web", "172.38.0.11").created(2), endpoint("web", "172.38.0.12").created(1)];
    let view = network(1, "redis", &endpoints);
    let winner: Vec<String> =
        view.named(&parsed("web")).expect("it is there").addresses().map(|a| a.to_string()).collect();
    let zone = zone([view]);
    assert_eq!(resolve(&zone, "web"), winner);
    assert_eq!(winner, ["172.38.0.12"]);
}

#[test]
fn a_doubled_name_does_not_move_while_its_host_is_only_suspected() {
    let suspect = endpoint("web", "172.38.0.11").created(1).on_a_host_that_is(Liveness::Suspect);
    let dead = endpoint("db", "172.38.0.13").created(1).on_a_host_that_is(Liveness::Dead);
    let others = [endpoint("web", "172.38.0.12").created(2), endpoint("db", "172.38.0.14").created(2)];
    let zone = zone([network(1, "redis", &[suspect, dead, others[0].clone(), others[1].clone()])]);
    assert!(resolve(&zone, "web").is_empty());
    assert_eq!(resolve(&zone, "db"), ["172.38.0.14"]);
}

#[test]
fn nobody_takes_a_name_by_an_alias() {
    let endpoints = [endpoint("web", "172.38.0.11"), endpoint("thief", "172.38.0.12").alias("web")];
    let zone = zone([network(1, "redis", &endpoints)]);
    assert_eq!(resolve(&zone, "web"), ["172.38.0.11"]);
}

#[test]
fn an_alias_means_all_who_have_it_with_all_their_addresses() {
    let endpoints = [
        endpoint("a", "172.38.0.11").alias("db").also("fd00:38::11"),
        endpoint("b", "172.38.0.12").alias("db").alias("other"),
    ];
    let zone = zone([network(1, "redis", &endpoints)]);
    assert_eq!(resolve(&zone, "db"), ["172.38.0.11", "172.38.0.12", "fd00:38::11"]);
    assert_eq!(resolve(&zone, "other"), ["172.38.0.12"]);
}

#[test]
fn an_asker_is_in_the_network_that_it_asked_in_whatever_its_address() {
    let zone = zone([network(1, "blue", &[]), network(2, "red", &[])]);
    for address in ["172.38.0.1", "172.38.0.99", "10.0.0.1"] {
        let asker = Asker { network: network_id(2), address: parsed(address) };
        assert_eq!(zone.networks_of(&asker).map(|names| names.label()).collect::<Vec<_>>(), ["red"]);
    }
    assert_eq!(zone.networks_of(&asker(3)).count(), 0);
}

#[test]
fn a_network_without_an_endpoint_of_this_host_has_no_names() {
    let cluster = cluster([network(1, "blue", &[]), network(2, "red", &[])]);
    let zone = Zone::build(&cluster, &in_networks(&[network_id(2)]));
    let known = |number| zone.networks_of(&asker(number)).count();
    assert_eq!([1, 2].map(known), [0, 1]);
}

#[test]
fn a_zone_is_another_one_only_if_a_network_with_an_endpoint_of_this_host_has_changed() {
    let before = cluster([network(1, "blue", &[]), network(2, "red", &[])]);
    let intents = in_networks(&[network_id(1)]);
    let zone = Zone::build(&before, &intents);
    assert_eq!(zone.follow(&before, &intents), None);
    let change = |number: u8| {
        let mut after = before.clone();
        let changed = network(number, "other", &[endpoint("web", "172.38.0.11")]);
        after.networks.insert(network_id(number), changed.into());
        after
    };
    assert_eq!(zone.follow(&change(2), &intents), None);
    let after = zone.follow(&change(1), &intents).expect("a network of this host has changed");
    assert_eq!(after, Zone::build(&change(1), &intents));
    assert_eq!(resolve(&after, "web"), ["172.38.0.11"]);
}
