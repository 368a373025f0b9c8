use super::*;
use crate::fixture::{parsed, question};
use hickory_proto::rr::RecordType;
use proptest::prelude::*;

fn parse(name: &str) -> Option<Reverse> {
    Reverse::parse(&question(name, RecordType::PTR).name)
}

proptest! {
    #[test]
    fn every_address_is_read_back_from_its_name(v4: u32, v6: u128) {
        for address in [IpAddr::V4(v4.into()), IpAddr::V6(v6.into())] {
            let reverse = Reverse::parse(&DnsName::from(address)).expect("it is a reverse name");
            prop_assert_eq!(reverse.node(), Node::Address(address));
        }
    }
}

#[test]
fn a_name_is_within_a_subnet_if_all_that_it_covers_is() {
    let subnet: Subnet = parsed("172.38.0.0/16");
    let within = |name: &str| parse(name).expect("it is a reverse name").is_within(&subnet);
    assert!(within("11.0.38.172.in-addr.arpa"));
    assert!(within("38.172.IN-ADDR.arpa"));
    assert!(within("lb._dns-sd._udp.0.38.172.in-addr.arpa"));
    assert!(!within("172.in-addr.arpa"));
    assert!(!within("in-addr.arpa"));
    assert!(!within("11.0.39.172.in-addr.arpa"));
    assert!(!within("1.0.0.0.8.3.0.0.0.0.d.f.ip6.arpa"));
}

#[test]
fn a_name_that_is_no_number_is_beside_the_addresses() {
    assert_eq!(parse("0.38.172.in-addr.arpa").map(|r| r.node()), Some(Node::Above));
    for astray in ["x.0.38.172.in-addr.arpa", "1.11.0.38.172.in-addr.arpa", "256.0.38.172.in-addr.arpa"] {
        assert_eq!(parse(astray).map(|r| r.node()), Some(Node::Astray), "{astray}");
    }
}

#[test]
fn other_names_are_no_reverse_names() {
    for name in ["", "arpa", "home.arpa", "web", "11.0.38.172.in-addr.arpa.example"] {
        assert_eq!(parse(name), None, "{name}");
    }
}

#[test]
fn link_local_addresses_are_known() {
    for (name, local) in [
        ("53.53.254.169.in-addr.arpa", true),
        ("254.169.in-addr.arpa", true),
        ("169.in-addr.arpa", false),
        ("8.e.f.ip6.arpa", true),
        ("e.f.ip6.arpa", false),
        ("8.8.8.8.in-addr.arpa", false),
    ] {
        assert_eq!(parse(name).expect("it is a reverse name").is_link_local(), local, "{name}");
    }
}
