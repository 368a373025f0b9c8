use std::time::Duration;

use overlay::datapath::firewall::Element;
use overlay::model::id::NetworkId;
use overlay::model::publish::Protocol;

use super::*;
use crate::state::store::tests::attachment;

#[test]
fn the_elements_of_an_endpoint_are_found_among_those_of_others() {
    let endpoint = attachment(1, NetworkId::from_bytes([1; 16])).endpoint;
    let own = endpoint.addresses[0].address;
    let other: IpAddr = [10, 255, 255, 1].into();
    let shown = |set: &str, key: Vec<Field>, value: Vec<Field>, expires| ShownElement {
        set: set.to_owned(),
        element: Element { key, value },
        expires,
    };
    let published = |protocol, port, to| {
        let key = vec![Field::Protocol(protocol), Field::Port(port)];
        shown("map published", key, vec![Field::Address(to), Field::Port(80)], None)
    };
    let all = [
        published(Protocol::Tcp, 8088, own),
        published(Protocol::Tcp, 9, other),
        shown("set macs", vec![Field::Interface(port_ifname(endpoint.id)), Field::Mac(endpoint.mac)], vec![], None),
        shown("set asked", vec![Field::Address(other), Field::Address(own)], vec![], Some(Duration::from_secs(90))),
    ];
    let expected = [
        format!("map published: tcp . 8088 : {own} . 80"),
        format!("set macs: \"{}\" . {}", port_ifname(endpoint.id), endpoint.mac),
        format!("set asked: {other} . {own} expires 90s"),
    ];
    assert_eq!(elements_of(&all, &endpoint), expected);
}
