//! Addresses and routes of the devices of ours.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures::TryStreamExt;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use rtnetlink::{Error, Handle, RouteMessageBuilder};

use super::error::Unless;
use crate::desired::Prefixed;
use crate::report::Cause;

/// All addresses in a namespace by the index of their link, sorted.
pub(super) async fn all(route: &Handle) -> Result<BTreeMap<u32, Vec<Prefixed>>, Error> {
    let mut addresses = BTreeMap::<u32, Vec<Prefixed>>::new();
    let messages: Vec<AddressMessage> = route.address().get().execute().try_collect().await?;
    for message in messages {
        if let Some(address) = prefixed(&message) {
            addresses.entry(message.header.index).or_default().push(address);
        }
    }
    addresses.values_mut().for_each(|list| list.sort());
    Ok(addresses)
}

/// The addresses of one link, sorted.
pub(super) async fn of(route: &Handle, link: u32) -> Result<Vec<Prefixed>, Error> {
    let messages = route.address().get().set_link_index_filter(link).execute();
    let mut addresses: Vec<Prefixed> =
        messages.try_filter_map(|message| std::future::ready(Ok(prefixed(&message)))).try_collect().await?;
    addresses.sort();
    Ok(addresses)
}

/// Gives a link exactly these addresses. What stays is not touched for a moment.
pub(super) async fn set(route: &Handle, link: u32, wanted: &[Prefixed]) -> Result<(), Error> {
    let messages: Vec<AddressMessage> =
        route.address().get().set_link_index_filter(link).execute().try_collect().await?;
    let mut there = Vec::new();
    for message in messages {
        match prefixed(&message) {
            Some(address) if wanted.contains(&address) => there.push(address),
            Some(_) => route.address().del(message).execute().await.unless(Cause::Gone)?,
            None => {}
        }
    }
    for address in wanted.iter().filter(|address| !there.contains(address)) {
        add(route, link, *address).await?;
    }
    Ok(())
}

/// Adds an address; one that is there is added.
pub(super) async fn add(route: &Handle, link: u32, address: Prefixed) -> Result<(), Error> {
    route.address().add(link, address.address, address.len).replace().execute().await
}

fn prefixed(message: &AddressMessage) -> Option<Prefixed> {
    let len = message.header.prefix_len;
    let (mut local, mut address) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            // On a link with a peer the two differ: `local` is ours.
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => address = Some(*ip),
            _ => {}
        }
    }
    Some(Prefixed { address: local.or(address)?, len })
}

/// Routes everything to `gateway`; a default route that is there already is left as it is.
pub(super) async fn add_default_route(route: &Handle, gateway: IpAddr) -> Result<(), Error> {
    let message = match gateway {
        IpAddr::V4(via) => RouteMessageBuilder::<Ipv4Addr>::new().gateway(via).build(),
        IpAddr::V6(via) => RouteMessageBuilder::<Ipv6Addr>::new().gateway(via).build(),
    };
    route.route().add(message).execute().await.unless(Cause::AlreadyExists)
}

/// Where everything goes by default that has no better route, in IPv4.
pub(super) async fn default_gateways(route: &Handle) -> Result<Vec<IpAddr>, Error> {
    let all = RouteMessageBuilder::<Ipv4Addr>::new().build();
    let routes: Vec<RouteMessage> = route.route().get(all).execute().try_collect().await?;
    Ok(routes.iter().filter(|r| r.header.destination_prefix_length == 0).filter_map(gateway).collect())
}

fn gateway(route: &RouteMessage) -> Option<IpAddr> {
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(RouteAddress::Inet(ip)) => Some(IpAddr::V4(*ip)),
        RouteAttribute::Gateway(RouteAddress::Inet6(ip)) => Some(IpAddr::V6(*ip)),
        _ => None,
    })
}
