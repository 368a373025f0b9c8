//! Permanent neighbours on the bridge: what it answers ARP from for the endpoints of the other hosts.

use std::collections::BTreeMap;
use std::net::IpAddr;

use futures::TryStreamExt;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};
use rtnetlink::{Error, Handle};

use super::error::Unless;
use crate::datapath::kernel_api::Cause;
use crate::model::addr::Mac;

/// The permanent neighbours on a link.
pub(super) async fn permanent(route: &Handle, link: u32) -> Result<BTreeMap<IpAddr, Mac>, Error> {
    let all = route.neighbours().get().set_address_family(AddressFamily::Unspec).execute();
    let ours = |message: &NeighbourMessage| {
        message.header.ifindex == link && message.header.state == NeighbourState::Permanent
    };
    all.try_filter_map(|message| std::future::ready(Ok(ours(&message).then(|| neighbour(&message)).flatten())))
        .try_collect()
        .await
}

/// Answers ARP for an address with this MAC.
pub(super) async fn put(route: &Handle, link: u32, address: IpAddr, mac: Mac) -> Result<(), Error> {
    route.neighbours().add(link, address).link_layer_address(mac.as_bytes()).replace().execute().await
}

/// Answers no more.
pub(super) async fn delete(route: &Handle, link: u32, address: IpAddr) -> Result<(), Error> {
    let mut message = NeighbourMessage::default();
    message.header.family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.header.ifindex = link;
    message.attributes.push(NeighbourAttribute::Destination(address.into()));
    route.neighbours().del(message).execute().await.unless(Cause::Gone)
}

fn neighbour(message: &NeighbourMessage) -> Option<(IpAddr, Mac)> {
    let (mut address, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => address = Some(IpAddr::V4(*v4)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => address = Some(IpAddr::V6(*v6)),
            NeighbourAttribute::LinkLayerAddress(bytes) => {
                mac = <[u8; 6]>::try_from(bytes.as_slice()).ok().and_then(Mac::new);
            }
            _ => {}
        }
    }
    address.zip(mac)
}
