//! Addresses and routes of the devices of ours.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroI32;

use futures::TryStreamExt;
use netlink_packet_core::ErrorMessage;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteScope, RouteType};
use rtnetlink::{Error, Handle, RouteMessageBuilder};

use super::error::Unless;
use crate::datapath::desired::{Prefixed, is_transit};
use crate::datapath::kernel_api::Cause;
use crate::model::addr::Subnet;

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

/// The link that has an address.
pub(super) fn link_of(all: &BTreeMap<u32, Vec<Prefixed>>, address: IpAddr) -> Option<u32> {
    all.iter().find(|(_, list)| list.iter().any(|a| a.address == address)).map(|(index, _)| *index)
}

/// The addresses of one link, sorted.
pub(super) async fn of(route: &Handle, link: u32) -> Result<Vec<Prefixed>, Error> {
    let messages = route.address().get().set_link_index_filter(link).execute();
    let mut addresses: Vec<Prefixed> =
        messages.try_filter_map(|message| std::future::ready(Ok(prefixed(&message)))).try_collect().await?;
    addresses.sort();
    Ok(addresses)
}

/// Those addresses of a link whose neighbours are reached from it: the kernel makes that route when the address comes, and not
/// again when somebody has deleted it.
pub(super) async fn rooted(route: &Handle, link: u32, addresses: &[Prefixed]) -> Result<Vec<Prefixed>, Error> {
    let routes = routes(route, Some(link)).await?;
    let connected: BTreeSet<Subnet> = routes.iter().filter(|r| gateway(r).is_none()).filter_map(destination).collect();
    let is_rooted = |a: &&Prefixed| {
        Subnet::of(a.address, a.len).is_some_and(|subnet| subnet.host_bits() == 0 || connected.contains(&subnet))
    };
    Ok(addresses.iter().filter(is_rooted).copied().collect())
}

/// Gives a link exactly these addresses, each with the route to its neighbours. What stays is not touched for a moment.
pub(super) async fn set(route: &Handle, link: u32, wanted: &[Prefixed]) -> Result<(), Error> {
    let messages: Vec<AddressMessage> =
        route.address().get().set_link_index_filter(link).execute().try_collect().await?;
    let whole = rooted(route, link, wanted).await?;
    let mut there = Vec::new();
    for message in messages {
        match prefixed(&message) {
            Some(address) if whole.contains(&address) => there.push(address),
            Some(_) => route.address().del(message).execute().await.unless(Cause::Gone)?,
            None => {}
        }
    }
    for address in wanted.iter().filter(|address| !there.contains(address)) {
        add(route, link, *address).await?;
    }
    Ok(())
}

/// Adds an address; one that is there is added. That it is nobody else's is for the ledger to see to: it can be used at once,
/// without asking the neighbours first (RFC 4862, section 5.4).
pub(super) async fn add(route: &Handle, link: u32, address: Prefixed) -> Result<(), Error> {
    let mut request = route.address().add(link, address.address, address.len).replace();
    if address.address.is_ipv6() {
        request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        request.message_mut().header.scope =
            if is_link_local(address.address) { AddressScope::Link } else { AddressScope::Universe };
    }
    request.execute().await
}

pub(super) fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
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

/// Routes everything to `gateway`; a default route of the same metric that is there already is left as it is.
pub(super) async fn add_default_route(route: &Handle, gateway: IpAddr, metric: u32) -> Result<(), Error> {
    let message = match gateway {
        IpAddr::V4(via) => RouteMessageBuilder::<Ipv4Addr>::new().gateway(via).priority(metric).build(),
        IpAddr::V6(via) => RouteMessageBuilder::<Ipv6Addr>::new().gateway(via).priority(metric).build(),
    };
    route.route().add(message).execute().await.unless(Cause::AlreadyExists)
}

/// `linux/rtnetlink.h`
const RT_TABLE_MAIN: u8 = 254;

fn already_exists() -> ErrorMessage {
    let mut error = ErrorMessage::default();
    error.code = NonZeroI32::new(-nix::libc::EEXIST);
    error
}

/// Routes a subnet to `gateway`, over a link.
pub(super) async fn add_route(route: &Handle, link: u32, subnet: Subnet, gateway: IpAddr) -> Result<(), Error> {
    // Under IPv6 a second route would stand beside another's, with another metric, and one of both would be in vain.
    let others = routes(route, None).await?;
    let leads_elsewhere = |route: &&RouteMessage| {
        let over = |attribute: &RouteAttribute| *attribute == RouteAttribute::Oif(link);
        destination(route) == Some(subnet) && route.header.table == RT_TABLE_MAIN && !route.attributes.iter().any(over)
    };
    if subnet.network().is_ipv6() && others.iter().any(|route| leads_elsewhere(&route)) {
        return Err(Error::NetlinkError(already_exists()));
    }
    match (subnet.network(), gateway) {
        (IpAddr::V4(first), IpAddr::V4(via)) => {
            let message = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(first, subnet.prefix_len());
            route.route().add(message.gateway(via).build()).execute().await
        }
        (IpAddr::V6(first), IpAddr::V6(via)) => {
            let message = RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(first, subnet.prefix_len());
            route.route().add(message.gateway(via).build()).execute().await
        }
        // No version of IP is routed over the other.
        _ => Ok(()),
    }
}

/// Makes an address reachable on a link; a route of the same metric that is there already is left as it is.
pub(super) async fn add_link_route(route: &Handle, link: u32, address: Ipv4Addr, metric: u32) -> Result<(), Error> {
    let message = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(address, 32).output_interface(link);
    route
        .route()
        .add(message.scope(RouteScope::Link).priority(metric).build())
        .execute()
        .await
        .unless(Cause::AlreadyExists)
}

/// The routes in both versions of IP, over one link only or over any. A host may have a million of them.
pub(super) async fn routes(route: &Handle, link: Option<u32>) -> Result<Vec<RouteMessage>, Error> {
    let mut routes = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut question = RouteMessage::default();
        question.header.address_family = family;
        question.attributes.extend(link.map(RouteAttribute::Oif));
        let answers: Vec<RouteMessage> = route.route().get(question).execute().try_collect().await?;
        // Asked for a version of IP that it has not, the kernel answers with all others (`rtnl_dump_all`).
        routes.extend(answers.into_iter().filter(|answer| answer.header.address_family == family));
    }
    Ok(routes)
}

/// The links, by number, over which routes lead beyond those on them: to a gateway, or everywhere. Those of ours are left out.
pub(super) fn egress(routes: &[RouteMessage]) -> BTreeSet<u32> {
    routes.iter().filter(|route| route.header.kind == RouteType::Unicast).flat_map(egress_of).collect()
}

fn egress_of(route: &RouteMessage) -> Vec<u32> {
    let leads_beyond = is_default(route) || route.attributes.iter().any(is_gateway);
    if !leads_beyond || gateway(route).is_some_and(is_transit) { Vec::new() } else { links_of(route) }
}

/// The links that a route leads over: several if it has several next hops.
pub(super) fn links_of(route: &RouteMessage) -> Vec<u32> {
    let mut links = Vec::new();
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => links.push(*index),
            RouteAttribute::MultiPath(hops) => links.extend(hops.iter().map(|hop| hop.interface_index)),
            _ => {}
        }
    }
    links
}

/// A gateway may also be of the other family (RFC 5549).
fn is_gateway(attribute: &RouteAttribute) -> bool {
    matches!(attribute, RouteAttribute::Gateway(_) | RouteAttribute::Via(_))
}

/// Does a route lead everywhere?
pub(super) fn is_default(route: &RouteMessage) -> bool {
    route.header.destination_prefix_length == 0
}

/// The subnets that are routed over a link, each with its gateway.
pub(super) async fn routed_over(route: &Handle, link: u32) -> Result<Vec<(IpAddr, Subnet)>, Error> {
    let subnet = |route: &RouteMessage| gateway(route).zip(destination(route));
    Ok(routes(route, Some(link)).await?.iter().filter_map(subnet).collect())
}

/// Which subnet a route leads to; `None` for one that leads everywhere.
pub(super) fn destination(route: &RouteMessage) -> Option<Subnet> {
    let to = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(ip)) => Some(IpAddr::V4(*ip)),
        RouteAttribute::Destination(RouteAddress::Inet6(ip)) => Some(IpAddr::V6(*ip)),
        _ => None,
    });
    Subnet::of(to?, route.header.destination_prefix_length)
}

/// The routes that lead everywhere, IPv4 first.
pub(super) async fn default_routes(route: &Handle) -> Result<Vec<RouteMessage>, Error> {
    Ok(routes(route, None).await?.into_iter().filter(is_default).collect())
}

/// The interface that a route leads over, if it is one.
pub(super) fn interface(route: &RouteMessage) -> Option<u32> {
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    })
}

/// The metric of a route: of several that lead to the same, the lowest counts.
pub(super) fn metric(route: &RouteMessage) -> u32 {
    let metric = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Priority(metric) => Some(*metric),
        _ => None,
    });
    metric.unwrap_or_default()
}

/// Where a route leads.
pub(super) fn gateway(route: &RouteMessage) -> Option<IpAddr> {
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(RouteAddress::Inet(ip)) => Some(IpAddr::V4(*ip)),
        RouteAttribute::Gateway(RouteAddress::Inet6(ip)) => Some(IpAddr::V6(*ip)),
        _ => None,
    })
}
