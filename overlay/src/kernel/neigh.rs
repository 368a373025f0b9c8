//! Permanent neighbours on the bridge: what it answers ARP from, and where the gateway finds the endpoints.

use std::collections::BTreeMap;
use std::net::IpAddr;

use futures::TryStreamExt;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};
use rtnetlink::{Error, Handle};

use super::error::Unless;
use crate::datapath::kernel_api::Cause;
use crate::model::addr::Mac;

/// The permanent neighbours in a namespace, by link and address.
pub(super) async fn all_permanent(route: &Handle) -> Result<BTreeMap<(u32, IpAddr), Mac>, Error> {
    let all = route.neighbours().get().set_address_family(AddressFamily::Unspec).execute();
    let permanent = |message: NeighbourMessage| {
        let (address, mac) = permanence(&message)?;
        Some(((message.header.ifindex, address), mac?))
    };
    all.try_filter_map(|message| std::future::ready(Ok(permanent(message)))).try_collect().await
}

/// The permanent neighbours on a link.
pub(super) async fn permanent(route: &Handle, link: u32) -> Result<BTreeMap<IpAddr, Mac>, Error> {
    let all = all_permanent(route).await?;
    Ok(all.into_iter().filter(|((on, _), _)| *on == link).map(|((_, address), mac)| (address, mac)).collect())
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

/// The address that a message is about, and the MAC that the kernel keeps for it for good; `None` if it keeps none.
pub(super) fn permanence(message: &NeighbourMessage) -> Option<(IpAddr, Option<Mac>)> {
    let mac = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => <[u8; 6]>::try_from(bytes.as_slice()).ok().and_then(Mac::new),
        _ => None,
    });
    Some((address(message)?, mac.filter(|_| message.header.state == NeighbourState::Permanent)))
}

/// The IP address that a message is about; a forwarding row has none.
pub(super) fn address(message: &NeighbourMessage) -> Option<IpAddr> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => Some(IpAddr::V4(*v4)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => Some(IpAddr::V6(*v6)),
        _ => None,
    })
}
