use overlay::model::id::HostId;
use overlay::model::intent::Attachment;
use overlay::model::network::Range;

use super::*;
use crate::reconcile::tests::label;
use crate::state::store::tests as store;

fn port(address: Option<[u8; 4]>, number: u16) -> HostPort {
    HostPort { protocol: Protocol::Tcp, address: address.map(IpAddr::from), port: number }
}

fn wanted(host: HostPort, port: u16) -> Wanted {
    Wanted { host, port, allowed: BTreeSet::new() }
}

fn network(number: u8) -> Network {
    store::network(number, HostId::from_bytes([1; 16]))
}

/// A host with an endpoint `web1` in `net1` that has these ports.
fn host(published: &[Wanted]) -> Intents {
    let network = network(1);
    let mut attachment: Attachment = store::attachment(1, network.id);
    let mut intents = Intents::default();
    intents.networks.insert(network.id, network.clone());
    attachment.endpoint.name = label("web1");
    attachment.published = publish(&intents, &network, attachment.endpoint.id, published).expect("all are free");
    intents.attachments.insert(attachment.endpoint.id, attachment);
    intents
}

const ONE: EndpointId = EndpointId::from_bytes([1; 16]);
const TWO: EndpointId = EndpointId::from_bytes([2; 16]);

#[test]
fn a_port_leads_to_one_endpoint_only() {
    let intents = host(&[wanted(port(None, 80), 8080)]);
    for (host, network) in [(port(None, 80), network(1)), (port(Some([10, 1, 1, 1]), 80), network(2))] {
        let error = publish(&intents, &network, TWO, &[wanted(host, 1)]).expect_err("it is taken").to_string();
        for word in ["80/tcp leads to", "`web1`", "`net1`", "choose another port"] {
            assert!(error.contains(word), "no `{word}` in: {error}");
        }
    }
    let twice = [wanted(port(None, 81), 1), wanted(port(Some([10, 1, 1, 1]), 81), 2)];
    assert!(matches!(publish(&intents, &network(2), TWO, &twice), Err(PortError::Twice(_))));
    let both = [wanted(port(Some([10, 1, 1, 2]), 81), 1), wanted(port(Some([10, 1, 1, 1]), 81), 2)];
    let published = publish(&intents, &network(1), TWO, &both).expect("they are free");
    let vias: BTreeSet<u16> = published.values().map(|target| target.via).collect();
    assert_eq!(vias.len(), 2, "the segment tells them apart: {published:?}");
}

#[test]
fn what_is_published_anew_goes_the_way_that_it_went() {
    let intents = host(&[wanted(port(Some([10, 1, 1, 1]), 80), 1), wanted(port(Some([10, 1, 1, 2]), 80), 2)]);
    let before = intents.attachments[&ONE].published.clone();
    let again = Wanted {
        allowed: ["10.0.0.0/8".parse().expect("a subnet")].into(),
        ..wanted(port(Some([10, 1, 1, 2]), 80), 3)
    };
    let after = publish(&intents, &network(1), ONE, std::slice::from_ref(&again)).expect("it is its own");
    assert_eq!(after.len(), 2);
    assert_eq!(after[&again.host].via, before[&again.host].via);
    assert_eq!((after[&again.host].port, &after[&again.host].allowed), (3, &again.allowed));
    // But not what could not be told from another of its ports.
    let any = [wanted(port(None, 80), 4)];
    assert!(matches!(publish(&intents, &network(1), ONE, &any), Err(PortError::Published { .. })));
}

#[test]
fn nothing_is_published_where_nothing_leads_in() {
    let mut network = network(1);
    network.settings.internal = true;
    let error = publish(&Intents::default(), &network, ONE, &[wanted(port(None, 80), 80)]).expect_err("internal");
    assert!(error.to_string().contains("`net1` is internal"), "{error}");
}

#[test]
fn versions_of_ip_are_two_hosts_as_far_as_ports_are_concerned() {
    let listener = std::net::TcpListener::bind(("::1", 0)).expect("a free port");
    let number = listener.local_addr().expect("it is bound").port();
    let at = |text: &str| HostPort { address: Some(text.parse().expect("an address")), ..port(None, number) };
    assert!(matches!(check_unused(at("::")), Err(PortError::InUse { .. })));
    assert!(matches!(check_unused(port(None, number)), Err(PortError::InUse { .. })));
    assert_eq!(check_unused(at("0.0.0.0")), Ok(()));
    let error = check_unused(at("::")).expect_err("it is in use").to_string();
    assert!(error.contains(&format!("[::]:{number}/tcp")) && error.contains("process"), "{error}");
    let intents = host(&[wanted(at("0.0.0.0"), 1)]);
    let mut dual = network(2);
    dual.ranges.push(Range::new("fd00::/64".parse().expect("a subnet"), None).expect("a range"));
    publish(&intents, &dual, TWO, &[wanted(at("::"), 1)]).expect("nobody has it under IPv6");
    for taken in [at("0.0.0.0"), at("127.0.0.1"), port(None, number)] {
        publish(&intents, &network(2), TWO, &[wanted(taken, 1)]).expect_err("somebody has it");
    }
}

#[test]
fn addresses_are_read_as_the_kernel_writes_them() {
    if cfg!(target_endian = "little") {
        assert_eq!(in_memory("0100007F"), Some([127, 0, 0, 1].into()));
        assert_eq!(in_memory("00000000000000000000000001000000"), Some("::1".parse().expect("an address")));
        assert_eq!(in_memory("0000000000000000FFFF00000100007F"), Some([127, 0, 0, 1].into()));
    }
    assert_eq!(in_memory("01"), None);
}

#[test]
fn a_port_that_a_program_has_is_refused_with_its_name() {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let number = listener.local_addr().expect("it is bound").port();
    let taken = port(Some([127, 0, 0, 1]), number);
    let error = check_unused(taken).expect_err("it is in use").to_string();
    let me = format!("process {}", std::process::id());
    assert!(error.contains(&format!("127.0.0.1:{number}/tcp")) && error.contains(&me), "{error}");
    assert!(matches!(check_unused(port(None, number)), Err(PortError::InUse { .. })));
    drop(listener);
    assert_eq!(check_unused(taken), Ok(()));
    let elsewhere = port(Some([192, 0, 2, 77]), number);
    assert_eq!(check_unused(elsewhere), Err(PortError::NotHere(elsewhere)));
}

#[test]
fn a_port_leads_only_where_its_version_of_ip_is() {
    let at = |text: &str| HostPort { address: Some(text.parse().expect("an address")), ..port(None, 80) };
    let lines = [
        publish(&Intents::default(), &network(1), ONE, &[wanted(at("::"), 80)]),
        publish(&Intents::default(), &network(1), ONE, &[wanted(at("2001:db8::1"), 80)]),
    ];
    for refused in lines {
        let error = refused.expect_err("the network has no IPv6").to_string();
        assert!(error.contains("`net1` has no IPv6") && error.contains(":80/tcp"), "{error}");
    }
    let allowed: BTreeSet<Subnet> = ["2001:db8::/32".parse().expect("a subnet")].into();
    let only = Wanted { allowed: allowed.clone(), ..wanted(port(None, 80), 80) };
    let error = publish(&Intents::default(), &network(1), ONE, &[only]).expect_err("nobody can come").to_string();
    assert!(error.contains("2001:db8::/32") && error.contains("`net1`"), "{error}");
    let both = allowed.into_iter().chain(["10.0.0.0/8".parse().expect("a subnet")]).collect();
    let some = Wanted { allowed: both, ..wanted(port(None, 80), 80) };
    publish(&Intents::default(), &network(1), ONE, &[some]).expect("some can come");
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
fn what_a_program_leaves_for_a_minute_keeps_no_port() {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let at = listener.local_addr().expect("it is bound");
    let mut client = std::net::TcpStream::connect(at).expect("it listens");
    let (mut server, _) = listener.accept().expect("somebody came");
    // Who closes first has the connection for another minute (TIME-WAIT, RFC 9293, section 3.6).
    server.write_all(b"bye").expect("it is open");
    drop((server, listener));
    client.read_to_end(&mut Vec::new()).expect("it ends");
    drop(client);
    assert_eq!(check_unused(port(Some([127, 0, 0, 1]), at.port())), Ok(()));
}
