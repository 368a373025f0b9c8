//! Noticing that something of ours may have changed, so that the next look comes at once and not in half a minute.
//!
//! Nothing is decided here: a change is a reason to look, and looking twice is harmless. What must not happen is that
//! a change goes unnoticed, so also an overrun (ENOBUFS: messages were dropped) is a change.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use netlink_packet_core::NetlinkMessage;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::RouteMessage;
use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::addr;
use super::netns::{Netns, NetnsError};
use crate::datapath::desired::is_transit;

/// Multicast groups as bits (`linux/rtnetlink.h`, `linux/netfilter/nfnetlink.h`): group n is bit n-1.
const LINKS: u32 = 1 << 0;
const NEIGHBOURS: u32 = 1 << 2;
const IPV4_ADDRESSES: u32 = 1 << 4;
const IPV4_ROUTES: u32 = 1 << 6;
const IPV6_ADDRESSES: u32 = 1 << 8;
const IPV6_ROUTES: u32 = 1 << 10;
const ADDRESSES: u32 = IPV4_ADDRESSES | IPV6_ADDRESSES;
const ROUTES: u32 = IPV4_ROUTES | IPV6_ROUTES;
/// Among others the switches for forwarding.
const IPV4_SETTINGS: u32 = 1 << 23;
const IPV6_SETTINGS: u32 = 1 << 24;
const RULES: u32 = 1 << 6;

/// Bytes: a flush of many thousand rows is one message each.
const RECEIVE_BUFFER: u32 = 4 << 20;
const PART: usize = 64 * 1024;

/// Counts the changes seen in all the namespaces that are watched.
#[derive(Debug, Clone)]
pub(super) struct Changes(Arc<watch::Sender<u64>>);

impl Changes {
    pub(super) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.0.subscribe()
    }

    fn note(&self) {
        self.0.send_modify(|count| *count = count.wrapping_add(1));
    }
}

/// The addresses that the bridge answers ARP for, as last seen. The traffic of the containers through their gateway
/// makes and ages neighbours all the time: those are no change of ours.
#[derive(Debug, Clone, Default)]
pub(super) struct Answered(Arc<Mutex<BTreeSet<IpAddr>>>);

impl Answered {
    pub(super) fn set(&self, addresses: impl Iterator<Item = IpAddr>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = addresses.collect();
    }

    fn contains(&self, address: IpAddr) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&address)
    }
}

/// Watches one namespace for as long as it is kept.
#[derive(Debug)]
pub(super) struct Watcher {
    tasks: [JoinHandle<()>; 2],
}

impl Watcher {
    /// The host's namespace: its links with their addresses, its routes into segments and to everywhere, its forwarding, and all
    /// rules, whosever they are.
    pub(super) fn of_host(netns: &Netns, changes: &Changes) -> Result<Self, NetnsError> {
        Self::start(
            netns,
            LINKS | ADDRESSES | ROUTES | IPV4_SETTINGS | IPV6_SETTINGS,
            changes,
            (&Answered::default(), leads_to_us),
        )
    }

    /// A segment: all that is in it.
    pub(super) fn of_segment(netns: &Netns, changes: &Changes, answered: &Answered) -> Result<Self, NetnsError> {
        Self::start(netns, LINKS | NEIGHBOURS | ADDRESSES | ROUTES, changes, (answered, |_| true))
    }

    fn start(
        netns: &Netns,
        groups: u32,
        changes: &Changes,
        (answered, is_ours): (&Answered, RoutesOfOurs),
    ) -> Result<Self, NetnsError> {
        let route = subscribe(netns, NETLINK_ROUTE, groups)?;
        let filter = subscribe(netns, NETLINK_NETFILTER, RULES)?;
        let answered = answered.clone();
        Ok(Self {
            tasks: [
                tokio::spawn(follow(route, changes.clone(), move |part| matters(part, &answered, is_ours))),
                tokio::spawn(follow(filter, changes.clone(), |_| true)),
            ],
        })
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

fn subscribe(netns: &Netns, protocol: isize, groups: u32) -> Result<TokioSocket, NetnsError> {
    let runtime = tokio::runtime::Handle::current();
    let made = netns.run(|| -> io::Result<TokioSocket> {
        let _guard = runtime.enter();
        let mut socket = TokioSocket::new(protocol)?;
        // Capped by net.core.rmem_max; less only means more overruns.
        socket.socket_mut().set_rx_buf_sz(RECEIVE_BUFFER)?;
        socket.socket_mut().bind(&SocketAddr::new(0, groups))?;
        Ok(socket)
    })?;
    made.map_err(|source| NetnsError::Refused { path: netns.path().to_owned(), source })
}

async fn follow(socket: TokioSocket, changes: Changes, matters: impl Fn(&[u8]) -> bool) {
    let mut part = Vec::with_capacity(PART);
    loop {
        part.clear();
        match socket.recv(&mut part).await {
            Ok(()) if !matters(&part) => {}
            Ok(()) => changes.note(),
            Err(error) if error.raw_os_error() == Some(nix::libc::ENOBUFS) => changes.note(),
            // The socket is of no more use; the rounds that come by the clock go on.
            Err(_) => return changes.note(),
        }
    }
}

/// All that is not known to be of no matter.
fn matters(part: &[u8], answered: &Answered, is_ours: RoutesOfOurs) -> bool {
    let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(part) else { return true };
    match message.payload {
        netlink_packet_core::NetlinkPayload::InnerMessage(
            RouteNetlinkMessage::NewNeighbour(neighbour) | RouteNetlinkMessage::DelNeighbour(neighbour),
        ) => !is_passing(&neighbour, answered),
        netlink_packet_core::NetlinkPayload::InnerMessage(
            RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route),
        ) => is_ours(&route),
        _ => true,
    }
}

/// Which routes matter.
type RoutesOfOurs = fn(&RouteMessage) -> bool;

/// Of the host's: those that lead everywhere, over an uplink, or to the other end of one.
fn leads_to_us(route: &RouteMessage) -> bool {
    let to = addr::destination(route).map(|subnet| subnet.network());
    addr::is_default(route) || [addr::gateway(route), to].into_iter().flatten().any(is_transit)
}

/// A neighbour that comes and goes by itself, at an address that we do not answer for.
fn is_passing(neighbour: &NeighbourMessage, answered: &Answered) -> bool {
    let address = neighbour.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => Some(IpAddr::V4(*v4)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => Some(IpAddr::V6(*v6)),
        _ => None,
    });
    neighbour.header.state != NeighbourState::Permanent && address.is_some_and(|ip| !answered.contains(ip))
}
