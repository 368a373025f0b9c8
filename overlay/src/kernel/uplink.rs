//! The uplink of a segment: a veth pair between its namespace and the host's.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use netlink_packet_route::route::RouteMessage;
use rtnetlink::{Error, Handle, LinkUnspec};

use super::addr;
use super::error::{OrDoing, Unless};
use super::link::{self, Interface, Kind};
use super::netns_sockets::NetnsSockets;
use super::segment::{index_of, veth};
use super::settings::set_if_other;
use crate::datapath::desired::{Prefixed, Transit, Uplink, is_transit};
use crate::datapath::kernel_api::{Cause, StepError};
use crate::datapath::names::UPLINK;
use crate::datapath::observed::ObservedUplink;
use crate::model::addr::{IfName, IpVersion, Subnet};

/// Bytes: what a new pair carries. What is longer is for the container's own MTU to prevent.
const MTU: u32 = 1500;

/// The metrics of a route for which none is asked: that of IPv4, and that of IPv6 (`IP6_RT_PRIO_USER` in Linux).
const OUR_METRICS: [u32; 2] = [0, 1024];

/// Prefix length of a transit link (RFC 3021, RFC 6164).
const fn transit_prefix(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 31,
        IpAddr::V6(_) => 127,
    }
}

/// The addresses that the ends of an uplink ask each other under on behalf of others (RFC 4861, section 7.2.2): the host's, and the
/// segment's.
const LINK_LOCALS: [Prefixed; 2] = [link_local(2), link_local(3)];

const fn link_local(last: u16) -> Prefixed {
    Prefixed { address: IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, last)), len: 64 }
}

/// Makes it; what is left of an older one goes first.
pub(super) async fn create(host: &NetnsSockets, segment: &NetnsSockets, uplink: &Uplink) -> Result<(), StepError> {
    let Uplink { host_ifname, .. } = uplink;
    let doing = || format!("make the uplink {host_ifname}");
    link::delete_named(&host.route, host_ifname.as_str()).await.or_doing(doing)?;
    link::delete_named(&segment.route, UPLINK).await.or_doing(doing)?;
    let peer = LinkUnspec::new_with_name(UPLINK).setns_by_fd(segment.netns.raw_fd());
    let message = veth(host_ifname, peer);
    host.route.link().add(message.build()).execute().await.or_doing(doing)?;
    update(host, segment, uplink).await
}

/// Gives both ends what they should have, and takes off what somebody else has put there. What is right is not touched.
pub(super) async fn update(host: &NetnsSockets, segment: &NetnsSockets, uplink: &Uplink) -> Result<(), StepError> {
    let Uplink { host_ifname, .. } = uplink;
    let doing = || format!("set up the uplink {host_ifname}");
    // The host needs no IPv6 on a link that carries none, and nothing on it that it was not given; and its own clients of
    // published ports may be at 127.0.0.1. It is asked for the addresses of its end only, and answers for them.
    let with_ipv6 = uplink.transits.iter().any(|transit| transit.host.is_ipv6());
    let settings = [
        ("ipv6/conf/IFNAME/disable_ipv6", if with_ipv6 { "0" } else { "1" }),
        ("ipv6/conf/IFNAME/addr_gen_mode", "1"),
        ("ipv6/conf/IFNAME/accept_ra", "0"),
        ("ipv4/conf/IFNAME/route_localnet", "1"),
        ("ipv4/conf/IFNAME/arp_ignore", "0"),
        ("ipv4/conf/IFNAME/arp_filter", "0"),
    ];
    let settings = settings.map(|(setting, value)| (setting.replace("IFNAME", host_ifname.as_str()), value));
    let set = move || settings.iter().try_for_each(|(setting, value)| set_if_other(setting, value));
    host.netns.run_off(set).await.or_doing(doing)?.or_doing(doing)?;
    let [host_local, segment_local] = LINK_LOCALS.map(|link_local| with_ipv6.then_some(link_local));
    let (host_ends, segment_ends): (Vec<IpAddr>, Vec<IpAddr>) =
        uplink.transits.iter().map(|transit| (transit.host, transit.segment)).unzip();
    set_up_end(&host.route, host_ifname.as_str(), &host_ends, host_local).await?;
    set_up_end(&segment.route, UPLINK, &segment_ends, segment_local).await?;
    set_routes_of_host(&host.route, uplink).await?;
    set_default_routes(&segment.route, &uplink.transits).await.or_doing(doing)
}

/// Sets an end up, with these addresses and no others. In this order: setting a link up makes the routes of its addresses.
async fn set_up_end(
    route: &Handle,
    name: &str,
    ends: &[IpAddr],
    link_local: Option<Prefixed>,
) -> Result<(), StepError> {
    let doing = || format!("set up the end {name} of the uplink");
    let there = super::segment::get(route, name).await?;
    if there.mtu != MTU {
        link::set_mtu(route, there.index, MTU).await.or_doing(doing)?;
    }
    if there.master.is_some() {
        link::release(route, there.index).await.or_doing(doing)?;
    }
    link::set_up(route, there.index).await.or_doing(doing)?;
    let ends = ends.iter().map(|address| Prefixed { address: *address, len: transit_prefix(*address) });
    let wanted: Vec<Prefixed> = ends.chain(link_local).collect();
    addr::set(route, there.index, &wanted).await.or_doing(doing)
}

/// Routes exactly these subnets into the segment.
async fn set_routes_of_host(route: &Handle, uplink: &Uplink) -> Result<(), StepError> {
    let over = index_of(route, uplink.host_ifname.as_str()).await?;
    let doing = || format!("look at the routes over {}", uplink.host_ifname);
    let ours = |gateway: IpAddr| uplink.transits.iter().any(|transit| transit.segment == gateway);
    let there = addr::routes(route, Some(over)).await.or_doing(doing)?;
    let mut routed = Vec::new();
    for message in there {
        let Some(subnet) = addr::gateway(&message).filter(|gateway| ours(*gateway)).and(addr::destination(&message))
        else {
            continue;
        };
        if uplink.routed.contains(&subnet) {
            routed.push(subnet);
        } else {
            let doing = || format!("remove the route to {subnet} over {}", uplink.host_ifname);
            route.route().del(message).execute().await.unless(Cause::Gone).or_doing(doing)?;
        }
    }
    for subnet in uplink.routed.iter().filter(|subnet| !routed.contains(subnet)) {
        let transit = uplink.transits.iter().find(|transit| IpVersion::of(transit.segment) == subnet.version());
        let Some(Transit { segment, .. }) = transit else { continue };
        let add = addr::add_route(route, over, *subnet, *segment).await;
        add.or_doing(|| format!("route {subnet} to {segment}: if there is a route already, remove it"))?;
    }
    Ok(())
}

/// Everything leaves the segment over the uplink, and nothing over anything else.
async fn set_default_routes(route: &Handle, transits: &[Transit]) -> Result<(), Error> {
    let leads_there = |message: &RouteMessage| {
        addr::gateway(message).is_some_and(|gateway| transits.iter().any(|transit| transit.host == gateway))
    };
    let is_ours = |message: &RouteMessage| leads_there(message) && OUR_METRICS.contains(&addr::metric(message));
    for message in addr::default_routes(route).await?.into_iter().filter(|message| !is_ours(message)) {
        route.route().del(message).execute().await.unless(Cause::Gone)?;
    }
    for transit in transits {
        addr::add_default_route(route, transit.host, 0).await?;
    }
    Ok(())
}

/// What is there of it; `None` if its ends are not a pair. `routes` are those of the segment.
pub(super) async fn observe(
    (host, outer): (&NetnsSockets, &Interface),
    (inner, routes): (&Interface, &[RouteMessage]),
    host_ifname: &IfName,
    addresses: &BTreeMap<u32, Vec<Prefixed>>,
) -> Result<Option<ObservedUplink>, Error> {
    if outer.kind != Kind::Veth || inner.peer != Some(outer.index) {
        return Ok(None);
    }
    let outer_addresses = addr::of(&host.route, outer.index).await?;
    let outer_addresses = addr::rooted(&host.route, outer.index, &outer_addresses).await?;
    let inner_addresses = addresses.get(&inner.index).map(Vec::as_slice).unwrap_or_default();
    // Both are sorted, and each version of IP has one pair.
    let [outer_ends, inner_ends] = [outer_addresses.as_slice(), inner_addresses]
        .map(|all| all.iter().filter(|a| a.len == transit_prefix(a.address) && is_transit(a.address)));
    let transits: Vec<Transit> = outer_ends
        .zip(inner_ends)
        .map(|(host, segment)| Transit { host: host.address, segment: segment.address })
        .collect();

    let whole = |list: &[Prefixed], link_local: &Prefixed| {
        let has_ipv6 = transits.iter().any(|transit| transit.host.is_ipv6());
        list.len() == transits.len() + usize::from(has_ipv6) && list.contains(link_local) == has_ipv6
    };
    let [outer_local, inner_local] = &LINK_LOCALS;
    let both_whole = whole(&outer_addresses, outer_local) && whole(inner_addresses, inner_local);
    let is_right = |end: &Interface| end.up && end.mtu == MTU && end.master.is_none();
    let gateways = routes.iter().filter(|route| addr::is_default(route)).filter_map(addr::gateway);
    let leads_out = transits.iter().map(|transit| transit.host).eq(gateways);

    let ours = |gateway: &IpAddr| transits.iter().any(|transit| transit.segment == *gateway);
    let routed = addr::routed_over(&host.route, outer.index).await?;
    let routed =
        routed.into_iter().filter(|(gateway, _)| ours(gateway)).map(|(_, subnet): (_, Subnet)| subnet).collect();
    Ok(Some(ObservedUplink {
        uplink: Uplink { host_ifname: host_ifname.clone(), transits, routed },
        in_place: is_right(outer) && is_right(inner) && both_whole && leads_out,
    }))
}
