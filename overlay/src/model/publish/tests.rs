use proptest::prelude::*;

use super::*;

fn port(protocol: Protocol, address: Option<[u8; 4]>, port: u16) -> HostPort {
    HostPort { protocol, address: address.map(IpAddr::from), port }
}

fn port6(protocol: Protocol, address: &str, port: u16) -> HostPort {
    HostPort { protocol, address: Some(address.parse().expect("an address")), port }
}

#[test]
fn a_spec_means_what_it_means_in_docker() {
    use Protocol::{Sctp, Tcp, Udp};
    for (spec, pairs) in [
        ("8088:80", vec![(port(Tcp, None, 8088), 80)]),
        ("53:53/udp", vec![(port(Udp, None, 53), 53)]),
        ("9000:9000/SCTP", vec![(port(Sctp, None, 9000), 9000)]),
        ("127.0.0.1:1:65535/tcp", vec![(port(Tcp, Some([127, 0, 0, 1]), 1), 65535)]),
        ("0.0.0.0:80:80", vec![(port(Tcp, Some([0, 0, 0, 0]), 80), 80)]),
        ("[::]:80:80", vec![(port6(Tcp, "::", 80), 80)]),
        ("[2001:db8::1]:53:5353/udp", vec![(port6(Udp, "2001:db8::1", 53), 5353)]),
        (
            "8000-8002:80-82",
            vec![(port(Tcp, None, 8000), 80), (port(Tcp, None, 8001), 81), (port(Tcp, None, 8002), 82)],
        ),
    ] {
        assert_eq!(parse(spec), Ok(pairs), "{spec}");
    }
}

#[test]
fn a_spec_that_means_nothing_is_told_with_what_is_wrong_in_it() {
    for (spec, words) in [
        ("", &["``", "HOSTPORT"][..]),
        ("80", &["`80`", "like 8088:80"]),
        (":80", &["`:80`", "HOSTPORT"]),
        ("80:", &["`80:`", "HOSTPORT"]),
        ("127.0.0.1::80", &["`127.0.0.1::80`", "HOSTPORT"]),
        ("0:80", &["`0`", "`0:80`", "1 to 65535"]),
        ("80:0", &["`0`", "`80:0`", "1 to 65535"]),
        ("65536:80", &["`65536`", "1 to 65535"]),
        ("+80:80", &["`+80`", "1 to 65535"]),
        ("80:http", &["`http`", "1 to 65535"]),
        ("9-8:9-8", &["`9-8`", "range"]),
        ("8000-8002:80-81", &["3 and 2 ports", "same length"]),
        ("8000-8002:80", &["3 and 1 ports", "same length"]),
        ("80:80/icmp", &["`icmp`", "tcp, udp or sctp"]),
        ("host:80:80", &["`host`", "no address", "[2001:db8::1]:8088:80"]),
        ("[::1]:80:80", &["`[::1]:80:80`", "127.0.0.1"]),
        ("[::ffff:1.2.3.4]:80:80", &["`[::ffff:1.2.3.4]`", "no address"]),
        ("[fe80::1]:80:80", &["`[fe80::1]`", "no address"]),
        ("[ff02::1]:80:80", &["`[ff02::1]`", "no address"]),
        ("[1.2.3.4]:80:80", &["`[1.2.3.4]`", "no address"]),
        ("2001:db8::1:80:80", &["`2001:db8::1`", "no address"]),
        ("[2001:db8::1]:80", &["`[2001:db8::1]:80`", "HOSTPORT"]),
        ("::ffff:1.2.3.4:80:80", &["`::ffff:1.2.3.4`", "no address"]),
        ("224.0.0.1:80:80", &["`224.0.0.1`", "of a host"]),
    ] {
        let error = parse(spec).expect_err(spec).to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    }
}

#[test]
fn the_ports_of_the_host_alone_are_enough_to_publish_no_more() {
    use Protocol::{Tcp, Udp};
    for (spec, ports) in [
        ("80", vec![port(Tcp, None, 80)]),
        ("80/udp", vec![port(Udp, None, 80)]),
        ("80:8080/udp", vec![port(Udp, None, 80)]),
        ("10.0.0.1:80", vec![port(Tcp, Some([10, 0, 0, 1]), 80)]),
        ("10.0.0.1:80:8080", vec![port(Tcp, Some([10, 0, 0, 1]), 80)]),
        ("80-81", vec![port(Tcp, None, 80), port(Tcp, None, 81)]),
    ] {
        assert_eq!(parse_host(spec), Ok(ports), "{spec}");
    }
    for spec in ["", "web", "10.0.0.1", "80/icmp"] {
        parse_host(spec).expect_err(spec);
    }
}

#[test]
fn a_port_of_one_address_is_also_one_of_all() {
    let any = port(Protocol::Tcp, None, 80);
    let (one, other) = (port(Protocol::Tcp, Some([10, 0, 0, 1]), 80), port(Protocol::Tcp, Some([10, 0, 0, 2]), 80));
    assert!(any.overlaps(&one) && one.overlaps(&any) && any.overlaps(&any));
    assert!(!one.overlaps(&other));
    assert!(!any.overlaps(&port(Protocol::Udp, None, 80)) && !any.overlaps(&port(Protocol::Tcp, None, 81)));
}

#[test]
fn of_subnets_inside_of_one_another_the_widest_is_enough() {
    let set = |texts: &[&str]| -> BTreeSet<Subnet> { texts.iter().map(|t| t.parse().expect("a subnet")).collect() };
    let all = set(&["10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "192.0.2.0/24", "192.0.2.7/32", "198.51.100.0/24"]);
    let wide = set(&["10.0.0.0/8", "192.0.2.0/24", "198.51.100.0/24"]);
    assert_eq!(widest(&all).collect::<BTreeSet<_>>(), wide);
    assert_eq!(widest(&set(&["0.0.0.0/0", "10.0.0.0/8"])).collect::<BTreeSet<_>>(), set(&["0.0.0.0/0"]));
}

proptest! {
    #[test]
    fn no_two_have_one_port_on_the_way(taken in prop::collection::btree_set(1..20_u16, 0..10), ports in prop::collection::vec(1..20_u16, 0..10)) {
        let taken: BTreeSet<_> = taken.into_iter().map(|via| (Protocol::Udp, via)).collect();
        let wanted: Vec<_> = ports.iter().map(|number| port(Protocol::Udp, None, *number)).collect();
        let vias = vias(&taken, &wanted).expect("there are enough");
        let mut all = taken.clone();
        for (host, via) in wanted.iter().zip(&vias) {
            prop_assert!(*via > 0 && all.insert((Protocol::Udp, *via)));
            prop_assert!(*via == host.port || taken.contains(&(Protocol::Udp, host.port)) || vias.contains(&host.port));
        }
    }
}
