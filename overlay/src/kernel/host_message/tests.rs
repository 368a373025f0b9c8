use netlink_packet_core::{NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::RouteAttribute;

use super::*;

const UPLINK: u32 = 7;
const ETH0: u32 = 2;
const OTHER: u32 = 99;

fn network() -> NetworkId {
    NetworkId::from_bytes([1; 16])
}

fn known() -> Known {
    let vteps = ["192.0.2.1", "192.0.2.2"].map(|text| text.parse().expect("an address"));
    Known { uplinks: [(UPLINK, network())].into(), ways: [ETH0].into(), vteps: vteps.into() }
}

fn bytes(message: RouteNetlinkMessage) -> Vec<u8> {
    let mut message = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::from(message));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

fn link(index: u32, name: &str) -> Vec<u8> {
    let mut link = LinkMessage::default();
    link.header.index = index;
    link.attributes.push(LinkAttribute::IfName(name.to_owned()));
    bytes(RouteNetlinkMessage::NewLink(link))
}

fn address(index: u32, ip: &str) -> Vec<u8> {
    let mut address = AddressMessage::default();
    address.header.family = AddressFamily::Inet;
    address.header.index = index;
    address.attributes.push(AddressAttribute::Local(ip.parse().expect("an address")));
    bytes(RouteNetlinkMessage::DelAddress(address))
}

fn route(to: &str, len: u8, over: u32) -> Vec<u8> {
    let mut route = RouteMessage::default();
    route.header.address_family = AddressFamily::Inet;
    route.header.destination_prefix_length = len;
    let to: IpAddr = to.parse().expect("an address");
    route.attributes.extend([RouteAttribute::Destination(to.into()), RouteAttribute::Oif(over)]);
    bytes(RouteNetlinkMessage::NewRoute(route))
}

/// A setting of IPv4 (family 2) of a link, as `inet_netconf_fill_devconf` in Linux writes it: an attribute more follows.
fn setting(kind: u16, link: i32) -> Vec<u8> {
    let mut message = vec![0, 0, 0, 0];
    message.extend(kind.to_ne_bytes());
    message.extend([0; 10]);
    message.extend([2, 0, 0, 0]);
    message.extend([8_u16.to_ne_bytes(), 2_u16.to_ne_bytes()].concat());
    message.extend(1_i32.to_ne_bytes());
    message.extend([8_u16.to_ne_bytes(), NETCONFA_IFINDEX.to_ne_bytes()].concat());
    message.extend(link.to_ne_bytes());
    message
}

#[test]
fn what_leads_to_other_hosts_or_to_segments_matters_and_nothing_else() {
    let cases = [
        ("the link to the other hosts", link(ETH0, "eth0"), Notice::Change(Some(ETH0))),
        ("an uplink", link(UPLINK, "ovu0123456789ab"), Notice::Change(Some(UPLINK))),
        ("an uplink that was made anew", link(OTHER, "ovu0123456789ab"), Notice::Change(Some(OTHER))),
        ("a link of another runtime", link(OTHER, "veth1a2b3c"), Notice::Nothing),
        ("an address of the link to the other hosts", address(ETH0, "198.51.100.7"), Notice::Change(Some(ETH0))),
        ("an address of an uplink", address(UPLINK, "169.254.9.9"), Notice::Change(Some(UPLINK))),
        ("the VTEP's address, on whatever link", address(OTHER, "192.0.2.1"), Notice::Change(Some(OTHER))),
        ("an address of another runtime's link", address(OTHER, "172.17.0.1"), Notice::Nothing),
        ("a default route", route("0.0.0.0", 0, OTHER), Notice::Change(Some(OTHER))),
        ("a route to another host", route("192.0.2.0", 24, OTHER), Notice::Change(Some(OTHER))),
        ("a route over an uplink", route("10.1.0.0", 16, UPLINK), Notice::Change(Some(UPLINK))),
        ("a route to the other end of an uplink", route("169.254.128.2", 31, OTHER), Notice::Change(Some(OTHER))),
        ("a route to what a new network could have", route("172.17.0.0", 16, OTHER), Notice::Change(Some(OTHER))),
        ("a route of another runtime", route("198.51.100.0", 24, OTHER), Notice::Nothing),
        ("a setting of all links", setting(RTM_NEWNETCONF, -1), Notice::Change(None)),
        ("a setting of an uplink", setting(RTM_NEWNETCONF, 7), Notice::Change(Some(UPLINK))),
        ("the settings of another runtime's link, with which they go", setting(RTM_DELNETCONF, 99), Notice::Nothing),
        ("what can't be read", vec![1, 2, 3], Notice::Change(None)),
    ];
    for (what, bytes, expected) in cases {
        assert_eq!(read(&bytes, &known()), expected, "{what}");
    }
}
