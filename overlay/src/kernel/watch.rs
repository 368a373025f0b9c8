//! Noticing that something of ours may have changed, so that the next look comes at once and not in half a minute.
//!
//! Nothing is decided here: a change is a reason to look, and looking twice is harmless. What must not happen is that
//! a change goes unnoticed, so also an overrun (ENOBUFS: messages were dropped) is a change.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::NeighbourState;
use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::host_message::{self, Known};
use super::listener::Listener;
use super::mirror::{Mirror, ObjectChange};
use super::netns::{Netns, NetnsError};
use super::objects::Objects;
use super::{addr, neigh};
use crate::datapath::attention::{News, Part};
use crate::model::id::NetworkId;

/// Multicast groups as bits (`linux/rtnetlink.h`, `linux/netfilter/nfnetlink.h`): group n is bit n-1.
const LINKS: u32 = 1 << 0;
const NEIGHBOURS: u32 = 1 << 2;
const QUEUEING: u32 = 1 << 3;
const IPV4_ADDRESSES: u32 = 1 << 4;
const IPV4_ROUTES: u32 = 1 << 6;
const IPV6_ADDRESSES: u32 = 1 << 8;
const IPV6_ROUTES: u32 = 1 << 10;
const ADDRESSES: u32 = IPV4_ADDRESSES | IPV6_ADDRESSES;
const ROUTING_RULES: u32 = 1 << 7 | 1 << 18;
const ROUTES: u32 = IPV4_ROUTES | IPV6_ROUTES;
/// Among others the switches for forwarding.
const IPV4_SETTINGS: u32 = 1 << 23;
const IPV6_SETTINGS: u32 = 1 << 24;
const RULES: u32 = 1 << 6;

/// The changes seen in all the namespaces that are watched, by part.
#[derive(Debug, Clone)]
pub(super) struct Changes {
    news: Arc<watch::Sender<News>>,
    segments: Arc<Mutex<Segments>>,
}

/// What has to be known of segments to tell what a change is of.
#[derive(Debug, Default)]
struct Segments {
    /// Those whose fixtures may have changed since they were read.
    touched: BTreeSet<NetworkId>,
    /// Those of whose links a setting may have changed since all were read.
    unsettled: BTreeSet<NetworkId>,
    known: Known,
}

impl Changes {
    pub(super) fn new() -> Self {
        Self { news: Arc::new(watch::Sender::new(News::default())), segments: Arc::default() }
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
        let mut segments = self.segments();
        segments.known.uplinks.retain(|_, of| *of != network);
        segments.touched.remove(&network);
        self.news.send_if_modified(|news| {
            news.forget(Part::Segment(network));
            false
        });
    }

    /// The host's end of the network's uplink has this index; gives whether it is another than before. Only from now on it is known of a
    /// change of it that it is one of the network.
    pub(super) fn set_uplink(&self, network: NetworkId, index: u32) -> bool {
        let uplinks = &mut self.segments().known.uplinks;
        uplinks.retain(|at, of| *of != network || *at == index);
        uplinks.insert(index, network) != Some(network)
    }

    /// These links lead to the other hosts and to the world. Changes of a link that is new among them were not noted until now.
    pub(super) fn set_ways(&self, links: BTreeSet<u32>) {
        let mut segments = self.segments();
        let is_new = !links.is_subset(&segments.known.ways);
        segments.known.ways = links;
        drop(segments);
        if is_new {
            self.note(Part::Host);
        }
    }

    /// These are the VTEPs: the other hosts' and this host's own.
    pub(super) fn set_peers(&self, vteps: BTreeSet<IpAddr>) {
        self.segments().known.vteps = vteps;
    }

    /// The host's ends of the uplinks, by number.
    pub(super) fn uplinks(&self) -> BTreeSet<u32> {
        self.segments().known.uplinks.keys().copied().collect()
    }

    /// The fixtures of the segment may have changed.
    pub(super) fn touch(&self, network: NetworkId) {
        self.segments().touched.insert(network);
    }

    /// May the fixtures of the segment have changed since this was last asked? To be asked before they are read.
    pub(super) fn take_touched(&self, network: NetworkId) -> bool {
        self.segments().touched.remove(&network)
    }

    /// Somebody has written a setting of a link of the segment, or of its uplink.
    pub(super) fn note_settings(&self, network: NetworkId) {
        self.segments().unsettled.insert(network);
        self.note(Part::Segment(network));
    }

    /// May a setting have changed since this was last asked? To be asked before they are read.
    pub(super) fn take_unsettled(&self, network: NetworkId) -> bool {
        self.segments().unsettled.remove(&network)
    }

    fn segments(&self) -> MutexGuard<'_, Segments> {
        self.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something in the segment has changed besides rows and neighbours.
    fn note_segment(&self, network: NetworkId) {
        self.touch(network);
        self.note(Part::Segment(network));
    }

    /// Something in the host's namespace has changed: this interface, if it is known.
    fn note_host(&self, index: Option<u32>) {
        self.note(Part::Host);
        let network = index.and_then(|index| self.segments().known.uplinks.get(&index).copied());
        network.into_iter().for_each(|network| self.note_segment(network));
    }

    /// Anything in the host's namespace may have changed.
    fn note_overrun(&self) {
        self.note(Part::Host);
        let networks: Vec<NetworkId> = self.segments().known.uplinks.values().copied().collect();
        networks.into_iter().for_each(|network| self.note_segment(network));
    }
}

/// What is told of the changes of one part.
#[derive(Debug, Clone)]
struct ChangesOf {
    changes: Changes,
    part: Part,
}

impl ChangesOf {
    fn note(&self, told: Notice) {
        match (told, self.part) {
            (Notice::Nothing, _) => {}
            (Notice::Change(index), Part::Host) => self.changes.note_host(index),
            (Notice::Anything, Part::Host) => self.changes.note_overrun(),
            (Notice::Copied | Notice::Settings, Part::Host) => self.changes.note(Part::Host),
            (Notice::Copied, part) => self.changes.note(part),
            (Notice::Settings, Part::Segment(network)) => self.changes.note_settings(network),
            (Notice::Change(_) | Notice::Anything, Part::Segment(network)) => self.changes.note_segment(network),
        }
    }
}

/// Watches one namespace for as long as it is kept.
pub(super) struct Watcher {
    listeners: [Arc<Listener>; 2],
    tasks: [JoinHandle<()>; 2],
}

impl Watcher {
    /// The host's namespace: what [`host_message`] picks of its links, addresses, routes and settings, and all rules, whosever they
    /// are.
    pub(super) fn of_host(netns: &Netns, changes: &Changes) -> Result<Self, NetnsError> {
        let changes = ChangesOf { changes: changes.clone(), part: Part::Host };
        let groups = LINKS | ADDRESSES | QUEUEING | ROUTES | IPV4_SETTINGS | IPV6_SETTINGS;
        let told = changes.clone();
        let tell = move |message: Option<&[u8]>| {
            let notice =
                message.map_or(Notice::Anything, |bytes| host_message::read(bytes, &told.changes.segments().known));
            told.note(notice);
        };
        let route = Listener::open(netns, NETLINK_ROUTE, groups, Box::new(tell))?;
        Self::start(netns, changes, route)
    }

    /// Tells of all changes that were made until now.
    ///
    /// # Errors
    /// When a socket is of no more use: it will tell of nothing from now on.
    pub(super) fn catch_up(&self) -> io::Result<()> {
        self.listeners.iter().try_for_each(|listener| listener.catch_up())
    }

    /// A segment: all that is in it. What grows with its endpoints is kept in the copy.
    pub(super) fn of_segment(
        netns: &Netns,
        network: NetworkId,
        changes: &Changes,
    ) -> Result<(Self, Objects), NetnsError> {
        let changes = ChangesOf { changes: changes.clone(), part: Part::Segment(network) };
        let mirror = Arc::new(Mutex::new(Mirror::default()));
        let (told, kept) = (changes.clone(), Arc::clone(&mirror));
        let tell = move |message: Option<&[u8]>| {
            told.note(tell_of_segment(message, &mut kept.lock().unwrap_or_else(PoisonError::into_inner)));
        };
        let of_links = LINKS | NEIGHBOURS | ADDRESSES | QUEUEING;
        let groups = of_links | ROUTES | ROUTING_RULES | IPV4_SETTINGS | IPV6_SETTINGS;
        let route = Listener::open(netns, NETLINK_ROUTE, groups, Box::new(tell))?;
        let watcher = Self::start(netns, changes, route)?;
        let objects = Objects { mirror, listeners: watcher.listeners.clone() };
        Ok((watcher, objects))
    }

    /// Gives the listener to changes of rules, too.
    fn start(netns: &Netns, changes: ChangesOf, route: Arc<Listener>) -> Result<Self, NetnsError> {
        let tell =
            move |message: Option<&[u8]>| changes.note(message.map_or(Notice::Anything, |_| Notice::Change(None)));
        let rules = Listener::open(netns, NETLINK_NETFILTER, RULES, Box::new(tell))?;
        let listeners = [route, rules];
        let tasks = listeners.clone().map(|listener| tokio::spawn(listener.follow()));
        Ok(Self { listeners, tasks })
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Keeps the copy up to date; gives what the message tells of.
fn tell_of_segment(message: Option<&[u8]>, mirror: &mut Mirror) -> Notice {
    // Of the settings of a single link inotify tells.
    if let Some(link) = message.and_then(host_message::setting_of) {
        return if link < 0 { Notice::Settings } else { Notice::Nothing };
    }
    let Some(message) = message.and_then(parse) else {
        mirror.apply(ObjectChange::Anything);
        return Notice::Anything;
    };
    // The traffic of the containers through their gateway makes and ages neighbours all the time.
    if is_passing(&message, mirror) {
        return Notice::Nothing;
    }
    ObjectChange::of(&message).into_iter().for_each(|change| mirror.apply(change));
    match message {
        RouteNetlinkMessage::NewNeighbour(_) | RouteNetlinkMessage::DelNeighbour(_) => Notice::Copied,
        other => Notice::Change(interface(&other)),
    }
}

/// What a message tells of.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Notice {
    /// Of nothing that is ours.
    Nothing,
    /// Of a row or a neighbour, which the copy has now.
    Copied,
    /// Of a setting of all links of a segment.
    Settings,
    /// Of a change: of this interface, if it says so.
    Change(Option<u32>),
    /// It was lost, and others with it.
    Anything,
}

/// A message, if it can be read.
pub(super) fn parse(message: &[u8]) -> Option<RouteNetlinkMessage> {
    match NetlinkMessage::<RouteNetlinkMessage>::deserialize(message).ok()?.payload {
        NetlinkPayload::InnerMessage(message) => Some(message),
        _ => None,
    }
}

/// The interface that a message is about.
fn interface(message: &RouteNetlinkMessage) -> Option<u32> {
    use RouteNetlinkMessage::{
        DelAddress, DelLink, DelQueueDiscipline, DelRoute, NewAddress, NewLink, NewQueueDiscipline, NewRoute,
    };
    match message {
        NewRoute(route) | DelRoute(route) => addr::interface(route),
        NewLink(link) | DelLink(link) => Some(link.header.index),
        NewQueueDiscipline(queueing) | DelQueueDiscipline(queueing) => u32::try_from(queueing.header.index).ok(),
        NewAddress(address) | DelAddress(address) => Some(address.header.index),
        _ => None,
    }
}

/// A neighbour that comes and goes by itself, at an address that the bridge does not answer for. As long as the copy is not whole, the
/// agent does not know which addresses those are.
fn is_passing(message: &RouteNetlinkMessage, mirror: &Mirror) -> bool {
    use RouteNetlinkMessage::{DelNeighbour, NewNeighbour};
    let (NewNeighbour(neighbour) | DelNeighbour(neighbour)) = message else { return false };
    mirror.is_whole()
        && neighbour.header.state != NeighbourState::Permanent
        && neigh::address(neighbour).is_some_and(|ip| mirror.neighbour(neighbour.header.ifindex, ip).is_none())
}
