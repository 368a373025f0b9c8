//! Looking: what is ours in the kernel, as [`Observed`](crate::datapath::observed::Observed) tells it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::error::OrDoing;
use super::fdb::{Row, RowKind};
use super::fixtures::Fixtures;
use super::legacy::Lists;
use super::link::{self, Interface, Kind, PortFlags};
use super::mirror::Mirror;
use super::netns_sockets::{NetnsSockets, Segment};
use super::settings_watch::Watched;
use super::watch::Changes;
use super::{addr, drift, port};
use crate::datapath::desired::{Bridge, Prefixed, Remote};
use crate::datapath::foreign_chains::Others;
use crate::datapath::kernel_api::StepError;
use crate::datapath::names::{BRIDGE, PORT_PREFIX, TUNNEL};
use crate::datapath::observed::{ObservedBridge, ObservedPort, ObservedSegment, ObservedTunnel};
use crate::model::addr::{IfName, Mac};
use crate::model::id::NetworkId;

/// What others have in the host's namespace, and the links that lead to other hosts, by name and by number.
pub(super) async fn others(
    host: &mut NetnsSockets,
    legacy: &mut Lists,
    vtep: IpAddr,
) -> Result<(Others, BTreeSet<u32>), StepError> {
    let doing = || "look at the rules of others on the host";
    let chains = host.rules.others().await.or_doing(doing)?;
    let (mut egress, mut links) = (BTreeSet::new(), BTreeSet::new());
    // A host may have a million routes. They matter only if a foreign chain exists.
    if !chains.is_empty() {
        let routes = addr::routes(&host.route, None).await.or_doing(doing)?;
        let addresses = addr::all(&host.route).await.or_doing(doing)?;
        let has_vtep = addresses.iter().filter(|(_, list)| list.iter().any(|a| a.address == vtep));
        links = addr::egress(&routes);
        links.extend(has_vtep.map(|(index, _)| *index));
        for index in &links {
            // One that is gone meanwhile leads nowhere; nor does that of the host itself, where a VTEP's address may be.
            let link = link::numbered(&host.route, *index).await.or_doing(doing)?.filter(|link| link.name != "lo");
            egress.extend(link.and_then(|link| link.name.parse::<IfName>().ok()));
        }
    }
    let has_legacy = legacy.has_filter(&host.netns).await.or_doing(doing)?;
    Ok((Others { chains, egress, has_legacy }, links))
}

/// What is in a segment, and the host's end of its uplink. What the kernel has told of no change of is not read again.
pub(super) async fn segment(
    host: &NetnsSockets,
    segment: &mut Segment,
    network: NetworkId,
    (changes, watch): (&Changes, &Watched),
) -> Result<ObservedSegment, StepError> {
    let path = segment.sockets.netns.path().to_owned();
    let doing = || format!("look into {}", path.display());
    // In this order: what is told of while links and fixtures are read is reason to read them once more.
    segment.objects.catch_up().or_doing(doing)?;
    if changes.take_touched(network) {
        segment.fixtures = None;
    }
    segment.objects.refresh(&segment.sockets.route).await.or_doing(doing)?;
    let fixtures = match segment.fixtures.take() {
        Some(fixtures) => fixtures,
        None => Fixtures::read(host, segment, network, changes).await?,
    };
    let altered = drift::look(host, segment, (&fixtures, watch), network, changes).await;
    let observed = ObservedSegment { altered, ..observed_segment(&mut segment.objects.get(), &fixtures) };
    segment.fixtures = Some(fixtures);
    Ok(observed)
}

fn observed_segment(mirror: &mut Mirror, fixtures: &Fixtures) -> ObservedSegment {
    let [bridge, tunnel] = [BRIDGE, TUNNEL].map(|name| mirror.named(name).cloned());
    let bridge = bridge.filter(|link| matches!(link.kind, Kind::Bridge { .. }));
    let master = bridge.as_ref().map(|bridge| bridge.index);
    let own = tunnel.as_ref().filter(|_| master.is_some()).and_then(|link| Some((link.index, own_remote(link)?)));
    let (remotes, half_remotes) = own.map(|(tunnel, own)| mirror.remotes(tunnel, own)).unwrap_or_default();
    let behind = mirror.behind_ports(tunnel.as_ref().map(|link| link.index));
    let has_ipv6 = |bridge| fixtures.addresses_of(bridge).iter().any(|a| a.address.is_ipv6());
    let flags = PortFlags::container(master.is_some_and(has_ipv6));
    let behind = |link: &Interface| behind.get(&link.index).map_or([].as_slice(), Vec::as_slice);
    ObservedSegment {
        firewall: fixtures.firewall.clone(),
        filter: fixtures.filter.clone(),
        bridge: bridge.as_ref().and_then(|link| observed_bridge(link, fixtures.addresses_of(link.index))),
        tunnel: tunnel.as_ref().and_then(|link| observed_tunnel(link, master, mirror.floods(link.index))),
        uplink: fixtures.uplink.clone(),
        ports: mirror.links().filter_map(|link| observed_port(link, (master, flags), behind(link))).collect(),
        remotes,
        half_remotes,
        neighbours: master.map(|bridge| mirror.neighbours(bridge)).unwrap_or_default(),
        unforgotten: BTreeSet::new(),
        altered: BTreeSet::new(),
    }
}

fn observed_bridge(link: &Interface, addresses: &[Prefixed]) -> Option<ObservedBridge> {
    let bridge = Bridge { mac: link.mac?, mtu: link.mtu, addresses: addresses.to_vec() };
    Some(ObservedBridge { bridge, running: link.up && link.kind == (Kind::Bridge { plain: true }) })
}

fn observed_tunnel(link: &Interface, bridge: Option<u32>, floods: bool) -> Option<ObservedTunnel> {
    let Kind::Vxlan { vni: Some(vni), port, local: Some(local) } = link.kind else { return None };
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

fn observed_port(
    link: &Interface,
    (bridge, flags): (Option<u32>, PortFlags),
    behind: &[&Row],
) -> Option<(IfName, ObservedPort)> {
    if link.kind != Kind::Veth || !link.name.starts_with(PORT_PREFIX) {
        return None;
    }
    let only = match behind {
        [row] if matches!(row.kind, RowKind::Bridge { fixed: true, .. }) => Mac::new(row.mac),
        _ => None,
    };
    let in_place = link.up && bridge.is_some() && link.master == bridge && link.port == flags;
    let endpoint = link.alias.as_deref().and_then(port::endpoint_of_alias);
    let port = ObservedPort { endpoint, mtu: link.mtu, connected: only.filter(|_| in_place) };
    Some((link.name.parse().ok()?, port))
}
