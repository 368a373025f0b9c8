//! The devices of a segment: its bridge and its tunnel; its uplink is in a file of its own.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use netlink_packet_route::link::{BridgeStpState, InfoData, InfoKind, InfoVeth};
use rtnetlink::{Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, LinkVxlan};

use super::error::{Meaning, OrDoing, Unless};
use super::link::{self, Interface, Kind, PortFlags};
use super::netns::{self, Netns, NetnsError, blocking};
use super::netns_sockets::NetnsSockets;
use super::settings::set_if_there;
use super::{addr, fdb};
use crate::datapath::desired::{Bridge, Tunnel};
use crate::datapath::kernel_api::{Cause, StepError};
use crate::datapath::names::{BRIDGE, TUNNEL};
use crate::model::addr::{IfName, IpVersion};

/// What a segment's namespace is set to. The last three exist where the module br_netfilter is loaded and would send bridged
/// frames through the filters.
const SETTINGS: [(&str, &str); 4] = [
    ("ipv4/ip_forward", "1"),
    ("bridge/bridge-nf-call-iptables", "0"),
    ("bridge/bridge-nf-call-ip6tables", "0"),
    ("bridge/bridge-nf-call-arptables", "0"),
];

/// Without IPv6 no neighbour discovery and no MLD leaves the bridge itself.
const WITHOUT_IPV6: [(&str, &str); 2] = [("ipv6/conf/all/disable_ipv6", "1"), ("ipv6/conf/default/disable_ipv6", "1")];

/// With it, the devices of the segment have just the addresses that they are given (1: none generated from the MAC, which the
/// gateway has on every host). The default first: it is what a new device begins with.
const WITH_IPV6: [(&str, &str); 5] = [
    ("ipv6/conf/default/disable_ipv6", "0"),
    ("ipv6/conf/default/addr_gen_mode", "1"),
    ("ipv6/conf/default/accept_dad", "0"),
    ("ipv6/conf/default/accept_ra", "0"),
    ("ipv6/conf/all/forwarding", "1"),
];

/// Makes a segment's namespace. It stands at its path only when it is whole.
pub(super) async fn create(path: &Path, versions: &BTreeSet<IpVersion>) -> Result<Netns, StepError> {
    let doing = || format!("make the namespace {}", path.display());
    let (owned, with_ipv6) = (path.to_owned(), versions.contains(&IpVersion::V6));
    let settle = move || {
        let of_ipv6 = if with_ipv6 { WITH_IPV6.as_slice() } else { &WITHOUT_IPV6 };
        SETTINGS.iter().chain(of_ipv6).try_for_each(|(name, value)| set_if_there(name, value))
    };
    // Not on a thread of the runtime: the kernel may let it wait until others that end have ended.
    let made = blocking(move || {
        let netns = netns::create(&owned, settle)?;
        let route = netns::connect(&netns)?;
        Ok::<_, NetnsError>((netns, route))
    });
    let (netns, route) = made.await.or_doing(doing)?;
    if let Some(loopback) = link::named(&route, "lo").await.or_doing(doing)? {
        link::set_up(&route, loopback.index).await.or_doing(doing)?;
    }
    blocking(move || netns::keep(&netns).map(|()| netns)).await.or_doing(doing)
}

/// Removes all links in a segment, and with them their ends in the containers and in the host's namespace: a namespace that ends
/// does it some time later, and its VNI is taken until then.
pub(super) async fn clear(sockets: &NetnsSockets) -> Result<(), StepError> {
    let doing = || format!("clear the namespace {}", sockets.netns.path().display());
    let links = link::all(&sockets.route).await.or_doing(doing)?;
    let leaving = links.iter().filter(|link| link.kind != Kind::Other).map(|link| link.index).collect();
    link::delete_together(&sockets.route, &links, &leaving).await.or_doing(doing)
}

/// A device that has to be there.
pub(super) async fn get(route: &Handle, name: &str) -> Result<Interface, StepError> {
    let found = link::named(route, name).await.or_doing(|| format!("look for {name}"))?;
    found.ok_or_else(|| StepError::new(format!("look for {name}"), Cause::Gone))
}

/// The index of a device that has to be there.
pub(super) async fn index_of(route: &Handle, name: &str) -> Result<u32, StepError> {
    get(route, name).await.map(|link| link.index)
}

/// Makes the bridge.
pub(super) async fn create_bridge(route: &Handle, bridge: &Bridge) -> Result<(), StepError> {
    let message = LinkBridge::new(BRIDGE)
        .address(bridge.mac.as_bytes().to_vec())
        .stp_state(BridgeStpState::Disabled)
        .forward_delay(0)
        .mcast_snooping(false);
    let made = route.link().add(message.build()).execute().await;
    made.unless(Cause::AlreadyExists).or_doing(|| format!("make the bridge {BRIDGE}"))?;
    update_bridge(route, bridge).await
}

/// Gives the bridge its attributes and addresses, and sets it up. Only what differs is written: even the same MAC
/// written again makes the kernel forget all neighbours (`neigh_changeaddr` in Linux).
pub(super) async fn update_bridge(route: &Handle, bridge: &Bridge) -> Result<(), StepError> {
    let doing = || format!("set up the bridge {BRIDGE}");
    let there = get(route, BRIDGE).await?;
    let mut message = LinkMessageBuilder::<LinkBridge>::new(BRIDGE).index(there.index).mtu(bridge.mtu).up();
    if there.mac != Some(bridge.mac) {
        message = message.address(bridge.mac.as_bytes().to_vec());
    }
    if there.kind != (Kind::Bridge { plain: true }) {
        message = message.stp_state(BridgeStpState::Disabled).mcast_snooping(false);
        let unfiltered = LinkMessageBuilder::<LinkBridge>::new(BRIDGE).index(there.index).vlan_filtering(false);
        // A kernel without VLAN filtering refuses even to turn it off.
        route.link().change(unfiltered.build()).execute().await.unless(Cause::Unsupported).or_doing(doing)?;
    }
    route.link().change(message.build()).execute().await.or_doing(doing)?;
    addr::set(route, there.index, &bridge.addresses).await.or_doing(doing)
}

/// Makes the tunnel: asked for in the host's namespace, so that its socket is there, and placed in the segment at once.
pub(super) async fn create_tunnel<'a>(
    host: &'a NetnsSockets,
    segment: &'a NetnsSockets,
    others: impl Iterator<Item = &'a NetnsSockets>,
    tunnel: &Tunnel,
) -> Result<(), StepError> {
    let Tunnel { vni, port, local, .. } = *tunnel;
    let doing = || format!("make the tunnel {TUNNEL} with VNI {vni} on UDP port {port}");
    let message = LinkVxlan::new(TUNNEL, vni.get()).port(port).learning(false).setns_by_fd(segment.netns.raw_fd());
    let message = match local {
        IpAddr::V4(ip) => message.local(ip),
        IpAddr::V6(ip) => message.local6(ip),
    };
    let there = link::named(&segment.route, TUNNEL).await.or_doing(doing)?;
    if there.is_some_and(|link| link.kind == (Kind::Vxlan { vni: Some(vni), port, local: Some(local) })) {
        return Ok(());
    }
    match host.route.link().add(message.build()).execute().await {
        Err(error) if error.meaning() == Cause::AlreadyExists => {
            let segments = [segment].into_iter().chain(others);
            let spaces = segments.map(|sockets| (sockets.netns.path().display().to_string(), sockets));
            let spaces: Vec<_> = [("the host's namespace".to_owned(), host)].into_iter().chain(spaces).collect();
            let who = holder(&spaces, tunnel).await.unwrap_or_else(|| "another program's device".to_owned());
            let detail = format!("{who} has this VNI and port: remove it, or give all hosts another --vxlan-port");
            Err(error.of(doing()).with_detail(detail))
        }
        other => other.or_doing(doing),
    }
}

/// Who has the tunnel's VNI and port; as far as the namespaces that we may look at tell.
async fn holder(spaces: &[(String, &NetnsSockets)], tunnel: &Tunnel) -> Option<String> {
    for (place, sockets) in spaces {
        for link in link::all(&sockets.route).await.ok()? {
            if matches!(link.kind, Kind::Vxlan { vni, port, .. } if (vni, port) == (Some(tunnel.vni), tunnel.port)) {
                return Some(format!("the device {} in {place}", link.name));
            }
        }
    }
    None
}

/// Makes the tunnel a port of the bridge that neither learns nor floods, and sets it up: in this order, so that not even
/// the first frame is flooded.
pub(super) async fn connect_tunnel(route: &Handle, mtu: u32) -> Result<(), StepError> {
    let doing = || format!("connect the tunnel {TUNNEL} to the bridge {BRIDGE}");
    let bridge = index_of(route, BRIDGE).await?;
    let tunnel = get(route, TUNNEL).await?;
    link::set_mtu(route, tunnel.index, mtu).await.or_doing(doing)?;
    link::enslave(route, tunnel.index, bridge, PortFlags::TUNNEL).await.or_doing(doing)?;
    fdb::delete_flooding(route, tunnel.index).await.or_doing(doing)?;
    // Only now the kernel binds the UDP socket.
    link::set_up(route, tunnel.index).await.map_err(|error| match tunnel.kind {
        Kind::Vxlan { port, .. } if error.meaning() == Cause::AlreadyExists => {
            let end = "end it (`ss -lunp` shows which it is), or give all hosts another --vxlan-port";
            error.of(doing()).with_detail(format!("another program uses UDP port {port}: {end}"))
        }
        _ => error.of(doing()),
    })
}

/// A veth pair: this end, and the other one where `peer` says.
pub(super) fn veth(name: &IfName, peer: LinkMessageBuilder<LinkUnspec>) -> LinkMessageBuilder<LinkVeth> {
    LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
        .name(name.as_str())
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer.build())))
}
