//! The veth pair of an endpoint: one end in its segment, the other in its container.

use std::collections::BTreeSet;
use std::sync::Arc;

use rtnetlink::{Handle, LinkUnspec};

use super::error::{OrDoing, Unless};
use super::link::{self, Interface, Kind, PortFlags};
use super::netns::{self, Netns};
use super::netns_sockets::{NetnsSockets, Segment};
use super::segment::{get, index_of, veth};
use super::settings::set_if_there;
use super::{addr, fdb, source_route};
use crate::datapath::desired::{Port, SERVICE_ADDRESS};
use crate::datapath::kernel_api::{Cause, StepError};
use crate::datapath::names::BRIDGE;
use crate::model::addr::IfName;
use crate::model::id::EndpointId;

/// What the alias of the segment's end says in front of the endpoint's id, once the container's end is whole.
const ALIAS: &str = "overlay endpoint ";

/// Added to the metric of the route to DNS of a network without a way out, so that any network with one comes first.
const WITHOUT_WAY_OUT: u32 = 1 << 20;

/// The endpoint that an alias names.
pub(super) fn endpoint_of_alias(alias: &str) -> Option<EndpointId> {
    alias.strip_prefix(ALIAS)?.parse().ok()
}

/// Makes an endpoint's pair and sets up the container's end. All or nothing: after a failure nothing of it is left, and
/// what was in the container before is not touched.
pub(super) async fn create(segment: &NetnsSockets, endpoint: EndpointId, port: &Port) -> Result<(), StepError> {
    let Port { host_ifname, ifname, netns, .. } = port;
    let doing = || format!("make {ifname} in {} for endpoint {}", netns.path.display(), endpoint.short());
    let (container, inner) = netns::enter(netns).await.or_doing(doing)?;
    match link::named(&segment.route, host_ifname.as_str()).await.or_doing(doing)? {
        Some(there) if there.alias.as_deref().and_then(endpoint_of_alias) == Some(endpoint) => return Ok(()),
        // Half-made by an attempt that was killed.
        Some(there) => link::delete(&segment.route, there.index).await.or_doing(doing)?,
        None => {}
    }
    if link::named(&inner, ifname.as_str()).await.or_doing(doing)?.is_some() {
        let detail = "an interface of this name is there already: remove it, or choose another one with --ifname";
        return Err(StepError::new(doing(), Cause::AlreadyExists).with_detail(detail));
    }
    let peer = LinkUnspec::new_with_name(ifname.as_str())
        .address(port.mac.as_bytes().to_vec())
        .mtu(port.mtu)
        .setns_by_fd(container.raw_fd());
    let message = veth(host_ifname, peer).mtu(port.mtu).build();
    segment.route.link().add(message).execute().await.or_doing(doing)?;
    let made = match set_up_container(&container, &inner, port).await {
        Ok(()) => set_alias(&segment.route, endpoint, host_ifname).await,
        failed => failed,
    };
    if made.is_err() {
        // The first failure is the one to tell.
        let _ = delete(&segment.route, host_ifname).await;
    }
    made
}

async fn set_up_container(container: &Arc<Netns>, inner: &Handle, port: &Port) -> Result<(), StepError> {
    let doing = || format!("set up {} in {}", port.ifname, port.netns.path.display());
    let index = index_of(inner, port.ifname.as_str()).await?;
    if port.addresses.iter().any(|a| a.address.is_ipv6()) {
        // Runtimes turn IPv6 off where they give none; and no neighbour is to become the router by saying so.
        let settings = ["disable_ipv6", "accept_ra"].map(|name| (format!("ipv6/conf/{}/{name}", port.ifname), "0"));
        let set = move || settings.iter().try_for_each(|(setting, value)| set_if_there(setting, value));
        container.run_off(set).await.or_doing(doing)?.or_doing(doing)?;
    }
    for address in &port.addresses {
        addr::add(inner, index, *address).await.or_doing(doing)?;
    }
    link::set_up(inner, index).await.or_doing(doing)?;
    // Names are asked for where everything else goes; if nothing does, here.
    let metric = if port.gateways.is_empty() { port.metric + WITHOUT_WAY_OUT } else { port.metric };
    if port.addresses.iter().any(|a| a.address.is_ipv4()) {
        addr::add_link_route(inner, index, SERVICE_ADDRESS, metric).await.or_doing(doing)?;
    }
    for gateway in &port.gateways {
        addr::add_default_route(inner, *gateway, port.metric).await.or_doing(doing)?;
    }
    source_route::add(inner, index, port).await.unless(Cause::Unsupported).or_doing(doing)
}

async fn set_alias(route: &Handle, endpoint: EndpointId, ifname: &IfName) -> Result<(), StepError> {
    let index = index_of(route, ifname.as_str()).await?;
    let message = LinkUnspec::new_with_index(index).alias(format!("{ALIAS}{endpoint}")).build();
    route.link().change(message).execute().await.or_doing(|| format!("set the alias of {ifname}"))
}

/// Gives both ends the port's MTU: the container's first, so that a failure between the two is seen at the other.
pub(super) async fn update(route: &Handle, port: &Port) -> Result<(), StepError> {
    let Port { host_ifname, ifname, netns, mtu, .. } = port;
    let doing = || format!("set the MTU of {ifname} in {} to {mtu}", netns.path.display());
    let (_container, inner) = netns::enter(netns).await.or_doing(doing)?;
    let outer = get(route, host_ifname.as_str()).await?;
    // By its peer: the container may have given it another name, and its name to something else.
    let is_other_end =
        |link: &Interface| link.kind == Kind::Veth && outer.peer == Some(link.index) && link.peer == Some(outer.index);
    let other_end = link::all(&inner).await.or_doing(doing)?.into_iter().find(is_other_end);
    let gone = || StepError::new(doing(), Cause::Gone).with_detail("the interface is gone");
    link::set_mtu(&inner, other_end.ok_or_else(gone)?.index, *mtu).await.or_doing(doing)?;
    link::set_mtu(route, outer.index, *mtu).await.or_doing(doing)
}

/// Makes the pair's end a port of the bridge that only the container's MAC is behind, and sets it up.
pub(super) async fn connect(route: &Handle, port: &Port) -> Result<(), StepError> {
    let doing = || format!("connect {} to the bridge {BRIDGE}", port.host_ifname);
    let bridge = index_of(route, BRIDGE).await?;
    let index = index_of(route, port.host_ifname.as_str()).await?;
    let with_ipv6 = port.addresses.iter().any(|a| a.address.is_ipv6());
    link::enslave(route, index, bridge, PortFlags::container(with_ipv6)).await.or_doing(doing)?;
    fdb::set_container(route, index, port.mac).await.or_doing(doing)?;
    link::set_up(route, index).await.or_doing(doing)
}

/// Removes a pair; one that is gone is removed.
pub(super) async fn delete(route: &Handle, ifname: &IfName) -> Result<(), StepError> {
    link::delete_named(route, ifname.as_str()).await.or_doing(|| format!("remove {ifname}"))
}

/// Removes pairs in one request; those that are gone are removed.
pub(super) async fn delete_all(Segment { sockets, objects, .. }: &Segment, ports: &[&IfName]) -> Result<(), StepError> {
    let doing = || format!("remove {} ports", ports.len());
    objects.catch_up().or_doing(doing)?;
    objects.refresh(&sockets.route).await.or_doing(doing)?;
    let names: BTreeSet<&str> = ports.iter().map(|ifname| ifname.as_str()).collect();
    let links: Vec<Interface> = objects.get().links().cloned().collect();
    let is_leaving = |link: &&Interface| names.contains(link.name.as_str());
    let leaving: BTreeSet<u32> = links.iter().filter(is_leaving).map(|link| link.index).collect();
    link::delete_together(&sockets.route, &links, &leaving).await.or_doing(doing)
}
