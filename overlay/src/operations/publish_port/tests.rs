use super::*;
use crate::model::network::Range;
use crate::operations::fixture::{self, founder, label, network};

fn port(address: Option<[u8; 4]>, number: u16) -> HostPort {
    HostPort { protocol: Protocol::Tcp, address: address.map(IpAddr::from), port: number }
}

fn wanted(host: HostPort, port: u16) -> WantedPort {
    WantedPort { host, port, allowed: BTreeSet::new() }
}

/// A host with an endpoint `web1` in `net1` that has these ports.
fn host(published: &[WantedPort]) -> Intents {
    let network = network(1);
    let mut attachment = fixture::attachment(1, network.id);
    let mut intents = Intents::default();
    intents.networks.insert(network.id, network.clone());
    attachment.endpoint.name = label("web1");
    attachment.published = published_with(&intents, &network, attachment.endpoint.id, published).expect("all are free");
    intents.attachments.insert(attachment.endpoint.id, Arc::new(attachment));
    intents
}

const ONE: EndpointId = EndpointId::from_bytes([1; 16]);
const TWO: EndpointId = EndpointId::from_bytes([2; 16]);

#[test]
fn a_port_leads_to_one_endpoint_only() {
    let intents = host(&[wanted(port(None, 80), 8080)]);
    for (host, network) in [(port(None, 80), network(1)), (port(Some([10, 1, 1, 1]), 80), network(2))] {
        let error = published_with(&intents, &network, TWO, &[wanted(host, 1)]).expect_err("it is taken").to_string();
        for word in ["80/tcp leads to", "`web1`", "`net1`", "choose another port"] {
            assert!(error.contains(word), "no `{word}` in: {error}");
        }
    }
    let twice = [wanted(port(None, 81), 1), wanted(port(Some([10, 1, 1, 1]), 81), 2)];
    assert!(matches!(published_with(&intents, &network(2), TWO, &twice), Err(PortError::Twice(_))));
    let both = [wanted(port(Some([10, 1, 1, 2]), 81), 1), wanted(port(Some([10, 1, 1, 1]), 81), 2)];
    let published = published_with(&intents, &network(1), TWO, &both).expect("they are free");
    let vias: BTreeSet<u16> = published.values().map(|target| target.via).collect();
    assert_eq!(vias.len(), 2, "the segment tells them apart: {published:?}");
}

#[test]
fn what_is_published_anew_goes_the_way_that_it_went() {
    let intents = host(&[wanted(port(Some([10, 1, 1, 1]), 80), 1), wanted(port(Some([10, 1, 1, 2]), 80), 2)]);
    let before = intents.attachments[&ONE].published.clone();
    let again = WantedPort {
        allowed: ["10.0.0.0/8".parse().expect("a subnet")].into(),
        ..wanted(port(Some([10, 1, 1, 2]), 80), 3)
    };
    let after = published_with(&intents, &network(1), ONE, std::slice::from_ref(&again)).expect("it is its own");
    assert_eq!(after.len(), 2);
    assert_eq!(after[&again.host].via, before[&again.host].via);
    assert_eq!((after[&again.host].port, &after[&again.host].allowed), (3, &again.allowed));
    // But not what could not be told from another of its ports.
    let any = [wanted(port(None, 80), 4)];
    assert!(matches!(published_with(&intents, &network(1), ONE, &any), Err(PortError::Published { .. })));
}

#[test]
fn nothing_is_published_where_nothing_leads_in() {
    let mut network = network(1);
    network.settings.internal = true;
    let error =
        published_with(&Intents::default(), &network, ONE, &[wanted(port(None, 80), 80)]).expect_err("internal");
    assert!(error.to_string().contains("`net1` is internal"), "{error}");
}

#[test]
fn a_port_leads_only_where_its_version_of_ip_is() {
    let at = |text: &str| HostPort { address: Some(text.parse().expect("an address")), ..port(None, 80) };
    let lines = [
        published_with(&Intents::default(), &network(1), ONE, &[wanted(at("::"), 80)]),
        published_with(&Intents::default(), &network(1), ONE, &[wanted(at("2001:db8::1"), 80)]),
    ];
    for refused in lines {
        let error = refused.expect_err("the network has no IPv6").to_string();
        assert!(error.contains("`net1` has no IPv6") && error.contains(":80/tcp"), "{error}");
    }
    let allowed: BTreeSet<Subnet> = ["2001:db8::/32".parse().expect("a subnet")].into();
    let only = WantedPort { allowed: allowed.clone(), ..wanted(port(None, 80), 80) };
    let error =
        published_with(&Intents::default(), &network(1), ONE, &[only]).expect_err("nobody can come").to_string();
    assert!(error.contains("2001:db8::/32") && error.contains("`net1`"), "{error}");
    let both = allowed.into_iter().chain(["10.0.0.0/8".parse().expect("a subnet")]).collect();
    let some = WantedPort { allowed: both, ..wanted(port(None, 80), 80) };
    published_with(&Intents::default(), &network(1), ONE, &[some]).expect("some can come");
}

#[test]
fn what_is_taken_back_under_one_version_stays_under_the_other() {
    let at = |text: &str| HostPort { address: Some(text.parse().expect("an address")), ..port(None, 80) };
    let all = || host(&[wanted(port(None, 80), 8080)]).attachments[&ONE].published.clone();
    let mut left = all();
    withdraw(&mut left, at("::")).expect("it is published");
    assert_eq!(left.keys().collect::<Vec<_>>(), [&at("0.0.0.0")]);
    assert_eq!(left[&at("0.0.0.0")], all()[&port(None, 80)]);
    assert_eq!(withdraw(&mut left, at("::")), Err(at("::")));
    assert_eq!(withdraw(&mut left, port(None, 80)), Err(port(None, 80)));
    withdraw(&mut left, at("0.0.0.0")).expect("it is what is left");
    assert!(left.is_empty());
    let mut none = all();
    assert_eq!(withdraw(&mut none, at("10.1.1.1")), Err(at("10.1.1.1")), "it is published at all, not at that one");
}

#[test]
fn versions_of_ip_are_two_hosts_as_far_as_ports_are_concerned() {
    let at = |text: &str| HostPort { address: Some(text.parse().expect("an address")), ..port(None, 80) };
    let intents = host(&[wanted(at("0.0.0.0"), 1)]);
    let mut dual = network(2);
    dual.ranges.push(Range::new("fd00::/64".parse().expect("a subnet"), None).expect("a range"));
    published_with(&intents, &dual, TWO, &[wanted(at("::"), 1)]).expect("nobody has it under IPv6");
    for taken in [at("0.0.0.0"), at("127.0.0.1"), port(None, 80)] {
        published_with(&intents, &network(2), TWO, &[wanted(taken, 1)]).expect_err("somebody has it");
    }
}

#[test]
fn ports_are_changed_all_at_once_or_not_at_all() {
    let mut state = founder();
    fixture::make(&mut state, &crate::ledger::Input::Create(network(1)));
    fixture::put(&mut state, fixture::attachment(1, network(1).id));
    let change = |publish: &[WantedPort], withdraw: &[HostPort]| PublishPorts {
        endpoint: ONE,
        publish: publish.to_vec(),
        withdraw: withdraw.to_vec(),
        obstacles: Obstacles::new(),
    };
    fixture::make(&mut state, &change(&[wanted(port(None, 80), 8080)], &[]));
    let swap = change(&[wanted(port(None, 81), 8081)], &[port(None, 80)]);
    let after = fixture::make(&mut state, &swap);
    assert_eq!(after.published.keys().collect::<Vec<_>>(), [&port(None, 81)]);
    assert_eq!(state.intents.attachments[&ONE], after);
    let gone = change(&[wanted(port(None, 82), 1)], &[port(None, 80)]).decide(&state, 0);
    assert!(matches!(gone, Err(PublishRefusal::Port(PortError::NotPublished { .. }))), "{gone:?}");
    let tunnel =
        WantedPort { host: HostPort { protocol: Protocol::Udp, ..port(None, 4789) }, ..wanted(port(None, 1), 1) };
    let tunnel = change(&[tunnel], &[]).decide(&state, 0);
    assert!(matches!(tunnel, Err(PublishRefusal::Port(PortError::Tunnel(_)))), "{tunnel:?}");
    // A program has the port, unless it leads to this endpoint already.
    let obstacle = |host: HostPort| (host, PortError::InUse { port: host, program: "`web`".to_owned() });
    let obstacles: Obstacles = [obstacle(port(None, 81)), obstacle(port(None, 83))].into();
    let own = PublishPorts { obstacles: obstacles.clone(), ..change(&[wanted(port(None, 81), 9)], &[]) };
    own.decide(&state, 0).expect("its own port");
    let taken = PublishPorts { obstacles, ..change(&[wanted(port(None, 83), 9)], &[]) }.decide(&state, 0);
    assert!(matches!(taken, Err(PublishRefusal::Port(PortError::InUse { .. }))), "{taken:?}");
    let other = PublishPorts { endpoint: TWO, ..change(&[], &[]) };
    assert_eq!(other.decide(&state, 0), Err(PublishRefusal::Gone));
}
