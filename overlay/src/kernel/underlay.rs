//! What the underlay carries: asked of the routes to the other hosts, as the link that has the VTEP's address may not be the one that
//! its packets take (an address on the loopback interface, several links, a route with an MTU of its own).

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use futures::TryStreamExt;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteType};
use rtnetlink::{Error, Handle};

use super::addr;
use super::error::is_no_route;
use super::link;
use crate::datapath::desired::is_transit;
use crate::model::addr::Subnet;
use crate::model::pool::taken_by;

/// The ways to the other hosts.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Underlay {
    /// The least that one of them carries, in bytes; `None` if there is no link to take it from.
    pub mtu: Option<u32>,
    /// The links that they lead over, or would.
    pub links: BTreeSet<u32>,
}

/// Bytes of the longest packet (RFC 791).
const MOST: u32 = 65_535;

/// One way: over this link, with this MTU if the route says one.
type Way = (u32, Option<u32>);

/// The ways to `peers`; while there are none, the link that has the address `vtep`, or those that lead everywhere if that is the loopback
/// interface.
pub(super) async fn look(route: &Handle, vtep: IpAddr, peers: &BTreeSet<IpAddr>) -> Result<Underlay, Error> {
    let mut underlay = Underlay::default();
    let mut ways = BTreeSet::new();
    for peer in peers {
        ways.extend(ways_to(route, *peer).await?);
    }
    underlay.take(route, &ways).await?;
    if underlay.mtu.is_none() {
        let addresses = addr::all(route).await?;
        let own = addr::link_of(&addresses, vtep).map(|index| (index, None));
        underlay.take(route, &own.into_iter().collect()).await?;
    }
    if underlay.mtu.is_none() {
        let everywhere = addr::default_routes(route).await?;
        underlay.take(route, &everywhere.iter().flat_map(ways_of).collect()).await?;
    }
    Ok(underlay)
}

impl Underlay {
    /// Takes ways into account; a link that has gone meanwhile leads nowhere, and the loopback interface to no other host.
    async fn take(&mut self, route: &Handle, ways: &BTreeSet<Way>) -> Result<(), Error> {
        for (index, mtu) in ways {
            self.links.insert(*index);
            if let Some(link) = link::numbered(route, *index).await?.filter(|link| !link.is_loopback) {
                let carried = mtu.unwrap_or(MOST).min(link.mtu).min(MOST);
                self.mtu = Some(self.mtu.map_or(carried, |least| least.min(carried)));
            }
        }
        Ok(())
    }
}

/// What the host routes elsewhere, as it was last read.
#[derive(Debug, Default)]
pub(super) struct Routed {
    subnets: BTreeSet<Subnet>,
    /// When it was read, and how long that took.
    read: Option<(Instant, Duration)>,
}

/// A host may have a million routes: if it takes longer to read them, they are read seldom.
const QUICK: Duration = Duration::from_millis(20);
const SELDOM: Duration = Duration::from_secs(600);

impl Routed {
    /// As it is now, or was when it was last read.
    pub(super) async fn look(&mut self, route: &Handle, uplinks: &BTreeSet<u32>) -> Result<BTreeSet<Subnet>, Error> {
        let is_fresh = |(at, took): (Instant, Duration)| took > QUICK && at.elapsed() < SELDOM;
        if !self.read.is_some_and(is_fresh) {
            let began = Instant::now();
            self.subnets = routed(&addr::routes(route, None).await?, uplinks);
            self.read = Some((began, began.elapsed()));
        }
        Ok(self.subnets.clone())
    }
}

/// What the host routes elsewhere of the pools that subnets of networks come from: without the way to everywhere, and without what
/// leads into segments.
fn routed(routes: &[RouteMessage], uplinks: &BTreeSet<u32>) -> BTreeSet<Subnet> {
    let is_ours = |route: &RouteMessage| {
        addr::gateway(route).is_some_and(is_transit) || addr::links_of(route).iter().any(|link| uplinks.contains(link))
    };
    let others = routes.iter().filter(|route| !addr::is_default(route) && !is_ours(route));
    others.filter_map(addr::destination).flat_map(taken_by).collect()
}

/// The ways to an address as the routing table has them, without what the kernel has learnt of single connections; none if it is not
/// routed, or is one of this host.
async fn ways_to(route: &Handle, address: IpAddr) -> Result<BTreeSet<Way>, Error> {
    let mut question = RouteMessage::default();
    (question.header.address_family, question.header.destination_prefix_length) = match address {
        IpAddr::V4(_) => (AddressFamily::Inet, 32),
        IpAddr::V6(_) => (AddressFamily::Inet6, 128),
    };
    question.header.flags |= RouteFlags::FibMatch;
    question.attributes.push(RouteAttribute::Destination(address.into()));
    let answers: Result<Vec<RouteMessage>, Error> = route.route().get(question).execute().try_collect().await;
    match answers {
        Ok(answers) => Ok(answers.iter().flat_map(ways_of).collect()),
        Err(error) if is_no_route(&error) => Ok(BTreeSet::new()),
        Err(error) => Err(error),
    }
}

fn ways_of(route: &RouteMessage) -> Vec<Way> {
    if route.header.kind != RouteType::Unicast {
        return Vec::new();
    }
    let mtu = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Metrics(metrics) => metrics.iter().find_map(|metric| match metric {
            RouteMetric::Mtu(mtu) if *mtu > 0 => Some(*mtu),
            _ => None,
        }),
        _ => None,
    });
    addr::links_of(route).into_iter().map(|link| (link, mtu)).collect()
}
