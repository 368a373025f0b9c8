//! Noticing that something of ours may have changed, so that the next look comes at once and not in half a minute.
//!
//! Nothing is decided here: a change is a reason to look, and looking twice is harmless. What must not happen is that
//! a change goes unnoticed, so also an overrun (ENOBUFS: messages were dropped) is a change.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::RouteMessage;
use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::addr;
use super::netns::{Netns, NetnsError};
use crate::datapath::attention::{News, Part};
use crate::datapath::desired::is_transit;
use crate::model::id::NetworkId;

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

/// The changes seen in all the namespaces that are watched, by part.
#[derive(Debug, Clone)]
pub(super) struct Changes {
    news: Arc<watch::Sender<News>>,
    /// The indices of the uplinks' ends in the host's namespace, as last seen. A look at a segment reads these ends as well, so a
    /// change of one is a change of its segment.
    uplinks: Arc<Mutex<BTreeMap<u32, NetworkId>>>,
}

impl Changes {
    pub(super) fn new() -> Self {
        Self { news: Arc::new(watch::Sender::new(News::default())), uplinks: Arc::default() }
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<News> {
        self.news.subscribe()
    }

    /// The part has changed, or may have.
    pub(super) fn note(&self, part: Part) {
        self.news.send_modify(|news| news.note(part));
    }

    /// The segment is no more, which is no reason to look.
    pub(super) fn forget(&self, network: NetworkId) {
        self.uplinks().retain(|_, of| *of != network);
        self.news.send_if_modified(|news| {
            news.forget(Part::Segment(network));
            false
        });
    }

    /// The host's end of the network's uplink has this index. To be told before the end is looked at.
    pub(super) fn set_uplink(&self, network: NetworkId, index: u32) {
        let mut uplinks = self.uplinks();
        uplinks.retain(|_, of| *of != network);
        uplinks.insert(index, network);
    }

    fn uplinks(&self) -> MutexGuard<'_, BTreeMap<u32, NetworkId>> {
        self.uplinks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something in the host's namespace has changed: this interface, if it is known.
    fn note_host(&self, index: Option<u32>) {
        self.note(Part::Host);
        let network = index.and_then(|index| self.uplinks().get(&index).copied());
        network.into_iter().for_each(|network| self.note(Part::Segment(network)));
    }

    /// Anything in the host's namespace may have changed.
    fn note_overrun(&self) {
        self.note(Part::Host);
        let networks: Vec<NetworkId> = self.uplinks().values().copied().collect();
        networks.into_iter().for_each(|network| self.note(Part::Segment(network)));
    }
}

/// What is told of the changes of one part.
#[derive(Debug, Clone)]
struct ChangesOf {
    changes: Changes,
    part: Part,
}

impl ChangesOf {
    fn note(&self, index: Option<u32>) {
        match self.part {
            Part::Host => self.changes.note_host(index),
            Part::Segment(_) => self.changes.note(self.part),
        }
    }

    fn note_overrun(&self) {
        match self.part {
            Part::Host => self.changes.note_overrun(),
            Part::Segment(_) => self.changes.note(self.part),
        }
    }

    fn is_uplink(&self, index: Option<u32>) -> bool {
        index.is_some_and(|index| self.changes.uplinks().contains_key(&index))
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
            ChangesOf { changes: changes.clone(), part: Part::Host },
            (&Answered::default(), leads_to_us),
        )
    }

    /// A segment: all that is in it.
    pub(super) fn of_segment(
        netns: &Netns,
        network: NetworkId,
        changes: &Changes,
        answered: &Answered,
    ) -> Result<Self, NetnsError> {
        let changes = ChangesOf { changes: changes.clone(), part: Part::Segment(network) };
        Self::start(netns, LINKS | NEIGHBOURS | ADDRESSES | ROUTES, changes, (answered, |_| true))
    }

    fn start(
        netns: &Netns,
        groups: u32,
        changes: ChangesOf,
        (answered, is_ours): (&Answered, RoutesOfOurs),
    ) -> Result<Self, NetnsError> {
        let route = subscribe(netns, NETLINK_ROUTE, groups)?;
        let filter = subscribe(netns, NETLINK_NETFILTER, RULES)?;
        let answered = answered.clone();
        Ok(Self {
            tasks: [
                tokio::spawn(follow(route, changes.clone(), move |part, changes| {
                    if let Told::Change(index) =
                        read(part, &answered, |route, index| is_ours(route) || changes.is_uplink(index))
                    {
                        changes.note(index);
                    }
                })),
                tokio::spawn(follow(filter, changes, |_, changes| changes.note(None))),
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

async fn follow(socket: TokioSocket, changes: ChangesOf, tell: impl Fn(&[u8], &ChangesOf)) {
    let mut part = Vec::with_capacity(PART);
    loop {
        part.clear();
        match socket.recv(&mut part).await {
            Ok(()) => tell(&part, &changes),
            Err(error) if error.raw_os_error() == Some(nix::libc::ENOBUFS) => changes.note_overrun(),
            // The socket is of no more use; the audits go on.
            Err(_) => return changes.note_overrun(),
        }
    }
}

/// What a message tells of.
enum Told {
    /// Of nothing that is ours.
    Nothing,
    /// Of a change: of this interface, if it says so.
    Change(Option<u32>),
}

/// All that is not known to be of no matter is a change.
fn read(part: &[u8], answered: &Answered, is_ours: impl Fn(&RouteMessage, Option<u32>) -> bool) -> Told {
    use RouteNetlinkMessage::{
        DelAddress, DelLink, DelNeighbour, DelRoute, NewAddress, NewLink, NewNeighbour, NewRoute,
    };
    let Ok(NetlinkMessage { payload: NetlinkPayload::InnerMessage(message), .. }) =
        NetlinkMessage::<RouteNetlinkMessage>::deserialize(part)
    else {
        return Told::Change(None);
    };
    match message {
        NewNeighbour(neighbour) | DelNeighbour(neighbour) if is_passing(&neighbour, answered) => Told::Nothing,
        NewRoute(route) | DelRoute(route) => {
            let index = addr::interface(&route);
            if is_ours(&route, index) { Told::Change(index) } else { Told::Nothing }
        }
        NewLink(link) | DelLink(link) => Told::Change(Some(link.header.index)),
        NewAddress(address) | DelAddress(address) => Told::Change(Some(address.header.index)),
        _ => Told::Change(None),
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
