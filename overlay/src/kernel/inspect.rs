//! What is in a segment, for people to look at: more than a plan needs to know, and nothing is decided by it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use futures::TryStreamExt;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage, Stats64};
use rtnetlink::Handle;

use super::error::OrDoing;
use super::fdb::{self, Row, RowKind};
use super::netns::{self, Netns, NetnsError, blocking};
use super::nft::Reader;
use super::time_limit::within;
use super::{addr, neigh, nft};
use crate::datapath::firewall::Family;
use crate::datapath::inspected::{Entry, Inspected, InterfaceInfo, Traffic};
use crate::datapath::kernel_api::StepError;
use crate::datapath::names::BRIDGE;
use crate::model::addr::Mac;
use crate::model::intent::NetnsRef;

/// Looks into the segment at a path.
///
/// # Errors
/// When it is not there, or can't be looked at.
pub async fn segment(path: &Path) -> Result<Inspected, StepError> {
    let doing = || format!("look into {}", path.display());
    let at = path.to_owned();
    let open = blocking(move || {
        let netns = Arc::new(Netns::open(&at)?);
        let (route, reader) = (netns::connect(&netns)?, Reader::open(&netns)?);
        Ok::<_, NetnsError>((netns, route, reader))
    });
    let (netns, route, mut reader) = open.await.or_doing(doing)?;
    let look = async {
        let interfaces = all(&route).await.or_doing(doing)?;
        let name = |index| interfaces.iter().find(|i| i.index == index).map_or_else(String::new, |i| i.name.clone());
        let entry = |row: Row| {
            let (tunnel, local) = match row.kind {
                RowKind::Bridge { local, .. } => (None, local),
                RowKind::Tunnel { vtep, port, vni } => (Some((vtep, port, vni)), false),
            };
            Some(Entry { mac: Mac::new(row.mac)?, interface: name(row.link), tunnel, local })
        };
        let entries = fdb::all(&route).await.or_doing(doing)?.into_iter().filter_map(entry).collect();
        let neighbours = match interfaces.iter().find(|interface| interface.name == BRIDGE) {
            Some(bridge) => neigh::permanent(&route, bridge.index).await.or_doing(doing)?,
            None => BTreeMap::new(),
        };
        let rules = nft::list(Arc::clone(&netns)).await.or_doing(doing)?;
        let mut elements = Vec::new();
        for family in [Family::Inet, Family::Bridge] {
            elements.extend(reader.shown_elements(family).await.or_doing(doing)?);
        }
        Ok(Inspected { interfaces, entries, neighbours, rules, elements })
    };
    within(doing, look).await
}

/// The interfaces in a container.
///
/// # Errors
/// When its namespace is gone, or can't be looked at.
pub async fn container(netns: &NetnsRef) -> Result<Vec<InterfaceInfo>, StepError> {
    let doing = || format!("look into {}", netns.path.display());
    let of = netns.clone();
    let route = blocking(move || netns::connect(&Netns::of(&of)?)).await.or_doing(doing)?;
    within(doing, async { all(&route).await.or_doing(doing) }).await
}

async fn all(route: &Handle) -> Result<Vec<InterfaceInfo>, rtnetlink::Error> {
    let mut addresses = addr::all(route).await?;
    let messages: Vec<LinkMessage> = route.link().get().execute().try_collect().await?;
    let interface = |message: LinkMessage| {
        let (kind, stats) = (kind_of(&message), stats_of(&message));
        let link = super::link::Interface::from(message);
        InterfaceInfo {
            index: link.index,
            kind,
            peer: link.peer,
            controller: link.master,
            mac: link.mac,
            mtu: link.mtu,
            up: link.up,
            addresses: addresses.remove(&link.index).unwrap_or_default(),
            received: Traffic { packets: stats.rx_packets, bytes: stats.rx_bytes, dropped: stats.rx_dropped },
            sent: Traffic { packets: stats.tx_packets, bytes: stats.tx_bytes, dropped: stats.tx_dropped },
            name: link.name,
        }
    };
    let mut interfaces: Vec<InterfaceInfo> = messages.into_iter().map(interface).collect();
    interfaces.sort_by_key(|interface| interface.index);
    Ok(interfaces)
}

fn kind_of(message: &LinkMessage) -> String {
    let infos = message.attributes.iter().filter_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => Some(infos),
        _ => None,
    });
    let kind = |info: &LinkInfo| match info {
        LinkInfo::Kind(InfoKind::Other(kind)) => Some(kind.clone()),
        LinkInfo::Kind(kind) => Some(kind.to_string()),
        _ => None,
    };
    infos.flatten().find_map(kind).unwrap_or_default()
}

fn stats_of(message: &LinkMessage) -> Stats64 {
    let stats = message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Stats64(stats) => Some(*stats),
        _ => None,
    });
    stats.unwrap_or_default()
}
