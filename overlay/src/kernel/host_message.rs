//! Which messages about the host's namespace matter here. Other programs make and remove links there all the time, and each of them
//! is several messages: a look at the host for each would cost more than all the rest.
//!
//! Pure: bytes and what is known in, a notice out. What can't be read matters.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_packet_route::route::RouteMessage;

use super::addr;
use super::watch::{Notice, parse};
use crate::datapath::desired::is_transit;
use crate::datapath::names::UPLINK_PREFIX;
use crate::model::id::NetworkId;
use crate::model::pool::taken_by;

/// What has to be known to tell whether a message matters.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// The indices of the uplinks' ends in the host's namespace, as last seen. A look at a segment reads these ends as well, so a
    /// change of one is a change of its segment.
    pub uplinks: BTreeMap<u32, NetworkId>,
    /// The links that lead to the other hosts and to the world, as last seen.
    pub ways: BTreeSet<u32>,
    /// The VTEPs: the other hosts' and this host's own.
    pub vteps: BTreeSet<IpAddr>,
}

impl Known {
    fn has(&self, link: u32) -> bool {
        self.uplinks.contains_key(&link) || self.ways.contains(&link)
    }
}

/// What a message tells of.
pub(super) fn read(bytes: &[u8], known: &Known) -> Notice {
    if let Some(link) = setting_of(bytes) {
        return match u32::try_from(link) {
            Ok(link) if known.uplinks.contains_key(&link) => Notice::Change(Some(link)),
            Ok(_) => Notice::Nothing,
            Err(_) => Notice::Change(None),
        };
    }
    use RouteNetlinkMessage::{
        DelAddress, DelLink, DelQueueDiscipline, DelRoute, NewAddress, NewLink, NewQueueDiscipline, NewRoute,
    };
    let Some(message) = parse(bytes) else { return Notice::Change(None) };
    let (matters, link) = match &message {
        NewLink(link) | DelLink(link) => (is_link_of_ours(link, known), Some(link.header.index)),
        NewAddress(address) | DelAddress(address) => (is_address_of_ours(address, known), Some(address.header.index)),
        NewRoute(route) | DelRoute(route) => {
            let link = addr::interface(route);
            (leads_to_us(route, known) || link.is_some_and(|link| known.uplinks.contains_key(&link)), link)
        }
        NewQueueDiscipline(queueing) | DelQueueDiscipline(queueing) => {
            let link = u32::try_from(queueing.header.index).unwrap_or_default();
            (known.uplinks.contains_key(&link), Some(link))
        }
        _ => (true, None),
    };
    if matters { Notice::Change(link) } else { Notice::Nothing }
}

/// An uplink may have a new number when somebody has made it anew.
fn is_link_of_ours(link: &LinkMessage, known: &Known) -> bool {
    let is_named =
        |attribute: &LinkAttribute| matches!(attribute, LinkAttribute::IfName(name) if name.starts_with(UPLINK_PREFIX));
    known.has(link.header.index) || link.attributes.iter().any(is_named)
}

fn is_address_of_ours(message: &AddressMessage, known: &Known) -> bool {
    let is_vtep = |attribute: &AddressAttribute| matches!(attribute, AddressAttribute::Local(ip) | AddressAttribute::Address(ip) if known.vteps.contains(ip));
    known.has(message.header.index) || message.attributes.iter().any(is_vtep)
}

/// The routes that matter: that lead everywhere, to another host, to where subnets of new networks are taken from, over an uplink, or
/// to the other end of one.
fn leads_to_us(route: &RouteMessage, known: &Known) -> bool {
    let subnet = addr::destination(route);
    let to = subnet.map(|subnet| subnet.network());
    addr::is_default(route)
        || subnet.is_some_and(|subnet| {
            taken_by(subnet).next().is_some() || known.vteps.iter().any(|vtep| subnet.contains(*vtep))
        })
        || [addr::gateway(route), to].into_iter().flatten().any(is_transit)
}

/// `linux/rtnetlink.h`: a setting of a version of IP has another value, or has gone with its link.
const RTM_NEWNETCONF: u16 = 80;
const RTM_DELNETCONF: u16 = 81;
/// `linux/netconf.h`: the link that it is of. All links, and those to come, have negative numbers.
const NETCONFA_IFINDEX: u16 = 1;

/// The link that a message about a setting is of, or a negative number for a setting of all links; none if it is another message. The
/// crate does not read these messages.
pub(super) fn setting_of(bytes: &[u8]) -> Option<i32> {
    let kind = bytes.get(4..6).and_then(|kind| Some(u16::from_ne_bytes(kind.try_into().ok()?)))?;
    if ![RTM_NEWNETCONF, RTM_DELNETCONF].contains(&kind) {
        return None;
    }
    // 16 bytes of the netlink header, 4 with the version of IP; then attributes: length, kind, value, padded to 4 bytes.
    let mut rest = bytes.get(20..)?;
    loop {
        let (header, value) = rest.split_first_chunk::<4>()?;
        let [length, kind] = [[header[0], header[1]], [header[2], header[3]]].map(u16::from_ne_bytes);
        if kind == NETCONFA_IFINDEX {
            return Some(i32::from_ne_bytes(*value.first_chunk()?));
        }
        rest = rest.get(usize::from(length).max(4).next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests;
