//! Interfaces, which netlink calls links: what is seen of them, and the few requests that all devices share.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::link::{
    BridgeStpState, InfoBridge, InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoVxlan, LinkAttribute,
    LinkExtentMask, LinkFlags, LinkInfo, LinkMessage,
};
use rtnetlink::{Error, Handle, LinkGetRequest, LinkUnspec};

use super::error::{Meaning, Unless};
use super::traits::{self, Traits};
use crate::datapath::kernel_api::Cause;
use crate::model::addr::Mac;
use crate::model::id::Vni;

/// What the kernel tells of an interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Interface {
    pub index: u32,
    pub name: String,
    pub mac: Option<Mac>,
    pub mtu: u32,
    pub up: bool,
    pub is_loopback: bool,
    pub master: Option<u32>,
    /// 0 if it was never put into one.
    pub group: u32,
    pub alias: Option<String>,
    /// The other end of a veth pair: its index in the namespace where it is.
    pub peer: Option<u32>,
    pub kind: Kind,
    /// What it does as a port of a bridge.
    pub port: PortFlags,
    /// What is left as the kernel makes it.
    pub traits: Arc<Traits>,
}

/// The kinds of links that matter here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Kind {
    #[default]
    Other,
    Veth,
    Bridge {
        /// Forwards all alike: no spanning tree, no VLANs, no snooping.
        plain: bool,
    },
    Vxlan {
        vni: Option<Vni>,
        port: u16,
        local: Option<IpAddr>,
    },
}

/// What a port of a bridge does with frames.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct PortFlags {
    pub learning: bool,
    pub unicast_flood: bool,
    pub multicast_flood: bool,
    pub broadcast_flood: bool,
    pub neigh_suppress: bool,
    /// The bridge answers ARP for what is behind the port, and asks it nothing that it has answered.
    pub proxy_arp: bool,
    pub isolated: bool,
}

impl PortFlags {
    /// The tunnel: never learns, never floods, and the bridge answers ARP for what is behind it.
    pub(super) const TUNNEL: Self = Self {
        learning: false,
        unicast_flood: false,
        multicast_flood: false,
        broadcast_flood: false,
        neigh_suppress: true,
        proxy_arp: false,
        isolated: false,
    };

    /// A container: its only MAC is known, so it learns nothing and gets no unknown unicast. In a network of IPv4 alone the bridge
    /// answers ARP for it from the permanent neighbours, so that no container is asked for the address of another one.
    ///
    /// Not with IPv6: the bridge then keeps neighbour discovery from the port as well, and answers none of it (`br_do_suppress_nd` in
    /// Linux answers only for ports with `neigh_suppress`, and nothing that such a port asks). There both are sent to all containers of
    /// the host.
    pub(super) const fn container(with_ipv6: bool) -> Self {
        Self {
            learning: false,
            unicast_flood: false,
            multicast_flood: true,
            broadcast_flood: true,
            neigh_suppress: false,
            proxy_arp: !with_ipv6,
            isolated: false,
        }
    }
}

/// All links in a namespace.
pub(super) async fn all(route: &Handle) -> Result<Vec<Interface>, Error> {
    without_counters(route.link().get()).execute().map_ok(Interface::from).try_collect().await
}

/// The link of that name, if it is there.
pub(super) async fn named(route: &Handle, name: &str) -> Result<Option<Interface>, Error> {
    one(route.link().get().match_name(name.to_owned())).await
}

/// The link of that number, if it is there.
pub(super) async fn numbered(route: &Handle, index: u32) -> Result<Option<Interface>, Error> {
    one(route.link().get().match_index(index)).await
}

/// The counters of an interface cost the kernel more than all the rest of the answer (`rtnl_fill_stats`), and no look reads them.
fn without_counters(request: LinkGetRequest) -> LinkGetRequest {
    request.set_filter_mask(AddressFamily::Unspec, vec![LinkExtentMask::SkipStats])
}

async fn one(request: LinkGetRequest) -> Result<Option<Interface>, Error> {
    // The stream is read to its end: answers left over would reach the next request on this socket.
    let mut answers = without_counters(request).execute();
    let mut found = None;
    while let Some(answer) = answers.next().await {
        match answer {
            Ok(message) => found = Some(Interface::from(message)),
            Err(error) if error.meaning() == Cause::Gone => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// Removes a link; one that is gone is removed.
pub(super) async fn delete(route: &Handle, index: u32) -> Result<(), Error> {
    route.link().del(index).execute().await.unless(Cause::Gone)
}

/// Removes the link of that name, if it is there.
pub(super) async fn delete_named(route: &Handle, name: &str) -> Result<(), Error> {
    match named(route, name).await? {
        Some(link) => delete(route, link.index).await,
        None => Ok(()),
    }
}

/// The group of links that go together. All links in a segment's namespace are ours, so the number only has to be no usual one.
pub(super) const LEAVING: u32 = 0x6f76_6c79;

/// Removes links of one namespace in one request: the kernel waits for one grace period then, and not for one per link. `links`
/// are all that there are, and `leaving` the indices of those that go.
pub(super) async fn delete_together(route: &Handle, links: &[Interface], leaving: &BTreeSet<u32>) -> Result<(), Error> {
    if leaving.is_empty() {
        return Ok(());
    }
    // A removal that failed half-way may have left a link in the group which is to stay now.
    for link in links.iter().filter(|link| link.group == LEAVING && !leaving.contains(&link.index)) {
        set_group(route, link.index, 0).await?;
    }
    for index in leaving {
        set_group(route, *index, LEAVING).await?;
    }
    let mut request = route.link().del(0);
    request.message_mut().attributes.push(LinkAttribute::Group(LEAVING));
    request.execute().await.unless(Cause::Gone)
}

async fn set_group(route: &Handle, index: u32, group: u32) -> Result<(), Error> {
    let mut message = LinkUnspec::new_with_index(index).build();
    message.attributes.push(LinkAttribute::Group(group));
    route.link().change(message).execute().await.unless(Cause::Gone)
}

/// Sets a link up.
pub(super) async fn set_up(route: &Handle, index: u32) -> Result<(), Error> {
    route.link().change(LinkUnspec::new_with_index(index).up().build()).execute().await
}

/// Takes a link out of whatever it is a port of.
pub(super) async fn release(route: &Handle, index: u32) -> Result<(), Error> {
    route.link().change(LinkUnspec::new_with_index(index).nocontroller().build()).execute().await
}

/// Sets a link's MTU, in bytes.
pub(super) async fn set_mtu(route: &Handle, index: u32, mtu: u32) -> Result<(), Error> {
    route.link().change(LinkUnspec::new_with_index(index).mtu(mtu).build()).execute().await
}

/// Makes a link a port of a bridge that treats frames like this.
pub(super) async fn enslave(route: &Handle, link: u32, bridge: u32, flags: PortFlags) -> Result<(), Error> {
    route.link().change(LinkUnspec::new_with_index(link).controller(bridge).build()).execute().await?;
    let port = rtnetlink::LinkBridgePort::new(link)
        .learning(flags.learning)
        .flood(flags.unicast_flood)
        .mcast_flood(flags.multicast_flood)
        .bcast_flood(flags.broadcast_flood)
        .neigh_suppress(flags.neigh_suppress)
        .proxy_arp_wifi(flags.proxy_arp)
        .isolated(flags.isolated);
    route.link().set_port(port.build()).execute().await
}

impl From<LinkMessage> for Interface {
    fn from(message: LinkMessage) -> Self {
        let has = |flag| message.header.flags.contains(flag);
        let (up, is_loopback) = (has(LinkFlags::Up), has(LinkFlags::Loopback));
        let traits = Arc::new(traits::read(&message));
        let mut link = Self { index: message.header.index, up, is_loopback, traits, ..Self::default() };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::Address(bytes) => {
                    link.mac = <[u8; 6]>::try_from(bytes.as_slice()).ok().and_then(Mac::new);
                }
                LinkAttribute::Group(group) => link.group = group,
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                LinkAttribute::Controller(index) => link.master = Some(index),
                LinkAttribute::IfAlias(alias) => link.alias = Some(alias),
                LinkAttribute::Link(index) => link.peer = Some(index),
                LinkAttribute::LinkInfo(infos) => link.read(infos),
                _ => {}
            }
        }
        link
    }
}

impl Interface {
    fn read(&mut self, infos: Vec<LinkInfo>) {
        for info in infos {
            match info {
                LinkInfo::Kind(InfoKind::Veth) => self.kind = Kind::Veth,
                LinkInfo::Data(InfoData::Bridge(infos)) => self.kind = bridge(&infos),
                LinkInfo::Data(InfoData::Vxlan(infos)) => self.kind = vxlan(&infos),
                LinkInfo::PortData(InfoPortData::BridgePort(infos)) => self.port = port(&infos),
                _ => {}
            }
        }
    }
}

fn bridge(infos: &[InfoBridge]) -> Kind {
    let fancy = |info: &InfoBridge| match info {
        InfoBridge::StpState(state) => *state != BridgeStpState::Disabled,
        InfoBridge::VlanFiltering(on) | InfoBridge::MulticastSnooping(on) => *on,
        _ => false,
    };
    Kind::Bridge { plain: !infos.iter().any(fancy) }
}

fn vxlan(infos: &[InfoVxlan]) -> Kind {
    let (mut vni, mut udp, mut own) = (None, 0, None);
    for info in infos {
        match info {
            InfoVxlan::Id(number) => vni = Vni::new(*number),
            InfoVxlan::Port(number) => udp = *number,
            InfoVxlan::Local(address) => own = Some(IpAddr::V4(*address)),
            InfoVxlan::Local6(address) => own = Some(IpAddr::V6(*address)),
            _ => {}
        }
    }
    Kind::Vxlan { vni, port: udp, local: own }
}

fn port(infos: &[InfoBridgePort]) -> PortFlags {
    let mut flags = PortFlags::default();
    for info in infos {
        match info {
            InfoBridgePort::Learning(on) => flags.learning = *on,
            InfoBridgePort::UnicastFlood(on) => flags.unicast_flood = *on,
            InfoBridgePort::MulticastFlood(on) => flags.multicast_flood = *on,
            InfoBridgePort::BroadcastFlood(on) => flags.broadcast_flood = *on,
            InfoBridgePort::NeighSupress(on) => flags.neigh_suppress = *on,
            InfoBridgePort::ProxyARPWifi(on) => flags.proxy_arp = *on,
            InfoBridgePort::Isolated(on) => flags.isolated = *on,
            _ => {}
        }
    }
    flags
}
