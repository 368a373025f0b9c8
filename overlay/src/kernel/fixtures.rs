//! What a segment has once, however many endpoints are in it: its rules, the addresses of its bridge, and its uplink.

use std::collections::BTreeMap;
use std::net::IpAddr;

use rtnetlink::Handle;

use super::addr;
use super::error::OrDoing;
use super::link::{self, Interface, Kind};
use super::netns_sockets::{NetnsSockets, Segment};
use super::segment::{LINK_LOCALS, transit_prefix};
use super::watch::Changes;
use crate::datapath::desired::{Prefixed, Transit, Uplink, uplink_ifname};
use crate::datapath::firewall::{Family, ObservedTable};
use crate::datapath::kernel_api::StepError;
use crate::datapath::names::{BRIDGE, UPLINK};
use crate::model::addr::IfName;
use crate::model::id::NetworkId;

/// As they were read. They are read again when the kernel has told of anything in the segment but rows and neighbours.
#[derive(Debug)]
pub(super) struct Fixtures {
    /// Our table.
    pub firewall: Option<ObservedTable>,
    /// Our table of what passes the bridge.
    pub filter: Option<ObservedTable>,
    pub uplink: Option<Uplink>,
    /// The addresses of each link. An address of the bridge or of the uplink that lacks its connected route is left out, so that the plan
    /// sets it again.
    addresses: BTreeMap<u32, Vec<Prefixed>>,
}

impl Fixtures {
    /// Reads them. The links of the segment are those of its copy.
    pub(super) async fn read(
        host: &NetnsSockets,
        Segment { sockets, objects, .. }: &mut Segment,
        network: NetworkId,
        changes: &Changes,
    ) -> Result<Self, StepError> {
        let path = sockets.netns.path().to_owned();
        let doing = || format!("look into {}", path.display());
        let firewall = sockets.rules.table(Family::Inet).await.or_doing(doing)?;
        let filter = sockets.rules.table(Family::Bridge).await.or_doing(doing)?;
        let route = &sockets.route;
        let [bridge, inner] = {
            let mirror = objects.get();
            [BRIDGE, UPLINK].map(|name| mirror.named(name).cloned())
        };
        let mut addresses = addr::all(route).await.or_doing(doing)?;
        for link in bridge.iter().chain(&inner) {
            if let Some(own) = addresses.get_mut(&link.index) {
                *own = addr::rooted(route, link.index, own).await.or_doing(doing)?;
            }
        }
        let uplink = match &inner {
            Some(inner) => {
                let host_ifname = uplink_ifname(network);
                observed_uplink((host, changes, network), route, &host_ifname, inner, &addresses)
                    .await
                    .or_doing(doing)?
            }
            None => None,
        };
        Ok(Self { firewall, filter, uplink, addresses })
    }

    /// The addresses of a link, sorted.
    pub(super) fn addresses_of(&self, link: u32) -> &[Prefixed] {
        self.addresses.get(&link).map(Vec::as_slice).unwrap_or_default()
    }
}

/// The uplink if it is whole: a pair, both ends up and with their addresses, and the default routes over it.
async fn observed_uplink(
    (host, changes, network): (&NetnsSockets, &Changes, NetworkId),
    route: &Handle,
    host_ifname: &IfName,
    inner: &Interface,
    addresses: &BTreeMap<u32, Vec<Prefixed>>,
) -> Result<Option<Uplink>, rtnetlink::Error> {
    // By its name: a dump of all the host's links may miss one while others come and go.
    let Some(outer) = link::named(&host.route, host_ifname.as_str()).await? else { return Ok(None) };
    // Of one that is new nobody was told until now.
    let is_new = changes.set_uplink(network, outer.index);
    let outer = if is_new { link::numbered(&host.route, outer.index).await? } else { Some(outer) };
    let Some(outer) = outer else { return Ok(None) };
    let outer_addresses = addr::of(&host.route, outer.index).await?;
    let outer_addresses = addr::rooted(&host.route, outer.index, &outer_addresses).await?;
    let gateways = addr::default_gateways(route).await?;
    let a_pair = outer.kind == Kind::Veth && inner.peer == Some(outer.index) && outer.up && inner.up;
    let inner_addresses = addresses.get(&inner.index).map(Vec::as_slice).unwrap_or_default();
    let whole = |list: &[Prefixed], link_local: &Prefixed| {
        let is_end = |end: &Prefixed| end == link_local || end.len == transit_prefix(end.address);
        list.iter().all(is_end) && list.contains(link_local) == list.iter().any(|end| end.address.is_ipv6())
    };
    let [outer_local, inner_local] = &LINK_LOCALS;
    let both_whole = whole(&outer_addresses, outer_local) && whole(inner_addresses, inner_local);
    if !a_pair || !both_whole || outer_addresses.len() != inner_addresses.len() {
        return Ok(None);
    }
    // Both are sorted, and each version of IP has one pair.
    let [outer_ends, inner_ends] =
        [outer_addresses.as_slice(), inner_addresses].map(|all| all.iter().filter(|a| !addr::is_link_local(a.address)));
    let ends = outer_ends.zip(inner_ends);
    let transits: Vec<Transit> =
        ends.map(|(host, segment)| Transit { host: host.address, segment: segment.address }).collect();
    if transits.is_empty() || !transits.iter().map(|transit| transit.host).eq(gateways) {
        return Ok(None);
    }
    let ours = |gateway: &IpAddr| transits.iter().any(|transit| transit.segment == *gateway);
    let routed = addr::routed_over(&host.route, outer.index).await?;
    let routed = routed.into_iter().filter(|(gateway, _)| ours(gateway)).map(|(_, subnet)| subnet).collect();
    Ok(Some(Uplink { host_ifname: host_ifname.clone(), transits, routed }))
}
