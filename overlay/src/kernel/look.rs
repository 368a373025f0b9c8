//! Looking: what is ours in the kernel, as [`Observed`](crate::datapath::observed::Observed) tells it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use rtnetlink::Handle;

use super::error::OrDoing;
use super::fdb::{self, Row, RowKind};
use super::inside::Inside;
use super::legacy::Lists;
use super::link::{self, Interface, Kind, PortFlags};
use super::segment::{LINK_LOCALS, transit_prefix};
use super::watch::Changes;
use super::{addr, neigh, port};
use crate::datapath::desired::{Bridge, Prefixed, Remote, Transit, Uplink, uplink_ifname};
use crate::datapath::firewall::Family;
use crate::datapath::foreign_chains::Others;
use crate::datapath::kernel_api::StepError;
use crate::datapath::names::{BRIDGE, PORT_PREFIX, TUNNEL, UPLINK};
use crate::datapath::observed::{ObservedBridge, ObservedPort, ObservedSegment, ObservedTunnel};
use crate::model::addr::{IfName, Mac};
use crate::model::id::NetworkId;

/// What others have in the host's namespace, and the links that lead to other hosts.
pub(super) async fn others(host: &mut Inside, legacy: &mut Lists, vtep: IpAddr) -> Result<Others, StepError> {
    let doing = || "look at the rules of others on the host";
    let chains = host.rules.others().await.or_doing(doing)?;
    let mut egress = BTreeSet::new();
    // A host may have a million routes. They matter only if a foreign chain exists.
    if !chains.is_empty() {
        let routes = addr::routes(&host.route, None).await.or_doing(doing)?;
        let addresses = addr::all(&host.route).await.or_doing(doing)?;
        let has_vtep = addresses.iter().filter(|(_, list)| list.iter().any(|a| a.address == vtep));
        let mut links = addr::egress(&routes);
        links.extend(has_vtep.map(|(index, _)| *index));
        for index in links {
            // One that is gone meanwhile leads nowhere; nor does that of the host itself, where a VTEP's address may be.
            let link = link::numbered(&host.route, index).await.or_doing(doing)?.filter(|link| link.name != "lo");
            egress.extend(link.and_then(|link| link.name.parse::<IfName>().ok()));
        }
    }
    let has_legacy = legacy.has_filter(&host.netns).await.or_doing(doing)?;
    Ok(Others { chains, egress, has_legacy })
}

/// What the link carries that has this address.
pub(super) async fn underlay_mtu(host: &Inside, vtep: IpAddr) -> Result<Option<u32>, StepError> {
    let doing = || format!("look for the link that has {vtep}");
    let addresses = addr::all(&host.route).await.or_doing(doing)?;
    let Some(index) = addr::link_of(&addresses, vtep) else { return Ok(None) };
    Ok(link::numbered(&host.route, index).await.or_doing(doing)?.map(|link| link.mtu))
}

/// What is in a segment, and the host's end of its uplink.
pub(super) async fn segment(
    host: &Inside,
    inside: &mut Inside,
    network: NetworkId,
    changes: &Changes,
) -> Result<ObservedSegment, StepError> {
    let uplink = uplink_ifname(network);
    let path = inside.netns.path().to_owned();
    let doing = || format!("look into {}", path.display());
    let firewall = inside.rules.table(Family::Inet).await.or_doing(doing)?;
    let filter = inside.rules.table(Family::Bridge).await.or_doing(doing)?;
    let route = &inside.route;
    let links = link::all(route).await.or_doing(doing)?;
    let named = |name: &str| links.iter().find(|link| link.name == name);
    let mut addresses = addr::all(route).await.or_doing(doing)?;
    for name in [BRIDGE, UPLINK] {
        // Those from which nobody is reached are not as they should be.
        if let Some((link, own)) = named(name).and_then(|link| Some((link.index, addresses.get_mut(&link.index)?))) {
            *own = addr::rooted(route, link, own).await.or_doing(doing)?;
        }
    }
    let rows = fdb::all(route).await.or_doing(doing)?;
    let mut rows_of = BTreeMap::<u32, Vec<&Row>>::new();
    rows.iter().for_each(|row| rows_of.entry(row.link).or_default().push(row));
    let rows_of = |link: &Interface| rows_of.get(&link.index).map_or([].as_slice(), Vec::as_slice);
    let bridge = named(BRIDGE).filter(|link| matches!(link.kind, Kind::Bridge { .. }));
    let neighbours = match bridge {
        Some(bridge) => neigh::permanent(route, bridge.index).await.or_doing(doing)?,
        None => BTreeMap::new(),
    };
    inside.answered.set(neighbours.keys().copied());
    let tunnel = named(TUNNEL).zip(bridge).and_then(|(link, bridge)| Some((link, own_remote(link)?, bridge.index)));
    let (remotes, half_remotes) = tunnel.map(|(link, own, _)| fdb::remotes(rows_of(link), own)).unwrap_or_default();
    let master = bridge.map(|bridge| bridge.index);
    Ok(ObservedSegment {
        firewall,
        filter,
        bridge: bridge.and_then(|link| observed_bridge(link, &addresses)),
        tunnel: named(TUNNEL).and_then(|link| observed_tunnel(link, master, rows_of(link))),
        uplink: match named(UPLINK) {
            Some(link) => {
                observed_uplink((host, changes, network), route, &uplink, link, &addresses).await.or_doing(doing)?
            }
            None => None,
        },
        ports: links.iter().filter_map(|link| observed_port(link, master, rows_of(link))).collect(),
        remotes,
        half_remotes,
        neighbours,
        unforgotten: BTreeSet::new(),
    })
}

fn observed_bridge(link: &Interface, addresses: &BTreeMap<u32, Vec<Prefixed>>) -> Option<ObservedBridge> {
    let bridge =
        Bridge { mac: link.mac?, mtu: link.mtu, addresses: addresses.get(&link.index).cloned().unwrap_or_default() };
    Some(ObservedBridge { bridge, running: link.up && link.kind == (Kind::Bridge { plain: true }) })
}

fn observed_tunnel(link: &Interface, bridge: Option<u32>, rows: &[&Row]) -> Option<ObservedTunnel> {
    let Kind::Vxlan { vni: Some(vni), port, local: Some(local) } = link.kind else { return None };
    let floods = rows.iter().any(|row| row.floods());
    let connected = link.up && bridge.is_some() && link.master == bridge && link.port == PortFlags::TUNNEL && !floods;
    Some(ObservedTunnel { vni, port, local, mtu: link.mtu, connected })
}

/// Where a row of the tunnel leads that says neither port nor VNI: to those of the device itself.
fn own_remote(link: &Interface) -> Option<Remote> {
    match link.kind {
        Kind::Vxlan { vni: Some(vni), port, local: Some(vtep) } => Some(Remote { vtep, port, vni }),
        _ => None,
    }
}

fn observed_port(link: &Interface, bridge: Option<u32>, rows: &[&Row]) -> Option<(IfName, ObservedPort)> {
    if link.kind != Kind::Veth || !link.name.starts_with(PORT_PREFIX) {
        return None;
    }
    let behind: Vec<&Row> = rows.iter().copied().filter(|row| row.is_behind_port()).collect();
    let only = match behind.as_slice() {
        [row] if matches!(row.kind, RowKind::Bridge { fixed: true, .. }) => Mac::new(row.mac),
        _ => None,
    };
    let in_place = link.up && bridge.is_some() && link.master == bridge && link.port == PortFlags::CONTAINER;
    let endpoint = link.alias.as_deref().and_then(port::endpoint_of_alias);
    let port = ObservedPort { endpoint, mtu: link.mtu, connected: only.filter(|_| in_place) };
    Some((link.name.parse().ok()?, port))
}

/// The uplink if it is whole: a pair, both ends up and with their addresses, and the default routes over it.
async fn observed_uplink(
    (host, changes, network): (&Inside, &Changes, NetworkId),
    route: &Handle,
    host_ifname: &IfName,
    inner: &Interface,
    addresses: &BTreeMap<u32, Vec<Prefixed>>,
) -> Result<Option<Uplink>, rtnetlink::Error> {
    // By its name: a dump of all the host's links may miss one while others come and go.
    let Some(outer) = link::named(&host.route, host_ifname.as_str()).await? else { return Ok(None) };
    changes.set_uplink(network, outer.index);
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
