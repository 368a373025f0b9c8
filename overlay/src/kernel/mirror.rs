//! A copy of what grows with the endpoints of a segment: its links, forwarding rows and permanent neighbours.
//!
//! A dump costs the kernel time for each object, and for forwarding rows even for each pair of a port and a row. So all is read once,
//! and after that the kernel's own messages keep the copy up to date. A link's message is only reason to read that link again, since
//! some of its messages are not complete. A row's or a neighbour's message says all that there is to know.
//!
//! The copy is given up, and all is read once more, when a message was lost, could not be read or leaves open what became of a row;
//! and at each audit, for there may be changes of which the kernel tells nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::fdb::{Behind, Row, RowKind};
use super::link::{Interface, Kind};
use super::{fdb, neigh};
use crate::datapath::desired::Remote;
use crate::model::addr::Mac;

/// So many changes may arrive while all is read.
const MOST_PENDING: usize = 100_000;

/// What the kernel has told of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ObjectChange {
    /// The link was made, changed or removed.
    Link(u32),
    /// The row is there now.
    RowCame(Row),
    /// The row is gone.
    RowWent(Row),
    /// The permanent neighbour that a link has at an address; `None` if there is none.
    Neighbour((u32, IpAddr), Option<Mac>),
    /// Anything may have changed.
    Anything,
}

impl ObjectChange {
    /// What a message tells of the objects that are kept here; `None` if nothing.
    pub(super) fn of(message: &RouteNetlinkMessage) -> Option<Self> {
        use RouteNetlinkMessage::{
            DelLink, DelNeighbour, DelQueueDiscipline, NewLink, NewNeighbour, NewQueueDiscipline,
        };
        match message {
            NewLink(link) | DelLink(link) => Some(Self::Link(link.header.index)),
            // A link's own message has the name of its queueing discipline.
            NewQueueDiscipline(queueing) | DelQueueDiscipline(queueing) => {
                u32::try_from(queueing.header.index).ok().map(Self::Link)
            }
            NewNeighbour(row) if is_row(row) => fdb::row(row).filter(|_| is_complete(row)).map(Self::RowCame),
            DelNeighbour(row) if is_row(row) => fdb::row(row).filter(|_| is_complete(row)).map(Self::RowWent),
            NewNeighbour(neighbour) => {
                let (address, mac) = neigh::permanence(neighbour)?;
                Some(Self::Neighbour((neighbour.header.ifindex, address), mac))
            }
            DelNeighbour(neighbour) => {
                let (address, _) = neigh::permanence(neighbour)?;
                Some(Self::Neighbour((neighbour.header.ifindex, address), None))
            }
            _ => None,
        }
    }

    /// May a dump that is under way miss other objects for it?
    fn may_hide_others(&self) -> bool {
        match self {
            Self::Link(_) | Self::RowWent(_) | Self::Neighbour(_, None) | Self::Anything => true,
            Self::RowCame(_) | Self::Neighbour(_, Some(_)) => false,
        }
    }
}

fn is_row(message: &NeighbourMessage) -> bool {
    message.header.family == AddressFamily::Bridge
}

/// Before Linux 6.13 the kernel tells of a row twice: what the driver tells is all, and has the row's age; the other message has no more
/// than the MAC (`nlmsg_populate_fdb_fill`).
fn is_complete(row: &NeighbourMessage) -> bool {
    row.attributes.iter().any(|attribute| matches!(attribute, NeighbourAttribute::CacheInfo(_)))
}

/// All that was read at once.
#[derive(Debug, Default)]
pub(super) struct Dump {
    pub links: Vec<Interface>,
    pub rows: Vec<Row>,
    pub neighbours: BTreeMap<(u32, IpAddr), Mac>,
}

/// The tunnel, whether it is a row that floods, and the MAC.
type TunnelKey = (u32, bool, [u8; 6]);

fn tunnel_key(row: &Row) -> TunnelKey {
    (row.link, row.floods(), row.mac)
}

/// The copy.
#[derive(Debug, Default)]
pub(super) struct Mirror {
    /// It is what the kernel had at the last message.
    whole: bool,
    links: BTreeMap<u32, Interface>,
    /// Links that have to be read again, each with the number of its last message.
    touched: BTreeMap<u32, u64>,
    last_message: u64,
    /// By bridge and MAC: a bridge has one row for a MAC, behind one of its ports.
    bridge_rows: BTreeMap<(u32, [u8; 6]), Row>,
    /// A tunnel may have several for a MAC that floods: one for each VTEP.
    tunnel_rows: BTreeMap<TunnelKey, Vec<Row>>,
    /// By link and address.
    neighbours: BTreeMap<u32, Arc<BTreeMap<IpAddr, Mac>>>,
    remotes: Remotes,
    /// What was told since all began to be read. The answers may or may not have it already.
    pending: Option<Vec<ObjectChange>>,
}

impl Mirror {
    pub(super) fn is_whole(&self) -> bool {
        self.whole
    }

    /// All has to be read again.
    pub(super) fn forget(&mut self) {
        self.whole = false;
        self.pending = None;
    }

    /// All is read from now on.
    pub(super) fn begin(&mut self) {
        self.whole = false;
        self.pending = Some(Vec::new());
    }

    /// All was read since [`begin`](Self::begin).
    pub(super) fn finish(&mut self, dump: Dump) {
        let pending = self.pending.take();
        // A dump goes on where it was by counting. It may miss an object if another one before it goes meanwhile.
        let is_whole = pending.as_ref().is_some_and(|pending| !pending.iter().any(ObjectChange::may_hide_others));
        *self = Self { last_message: self.last_message, ..Self::default() };
        self.links = dump.links.into_iter().map(|link| (link.index, link)).collect();
        for ((link, address), mac) in dump.neighbours {
            self.set_neighbour(link, address, Some(mac));
        }
        for row in dump.rows {
            match row.kind {
                RowKind::Bridge { of, .. } => drop(self.bridge_rows.insert((of, row.mac), row)),
                // Other devices have lists of addresses, too, and do not tell of each change of them.
                RowKind::Tunnel { .. } if self.is_tunnel(row.link) => {
                    let rows = self.tunnel_rows.entry(tunnel_key(&row)).or_default();
                    // A row that moved while all was read comes twice.
                    if !rows.contains(&row) {
                        rows.push(row);
                    }
                }
                RowKind::Tunnel { .. } => {}
            }
        }
        self.whole = is_whole;
        pending.into_iter().flatten().for_each(|change| self.apply(change));
    }

    fn is_tunnel(&self, link: u32) -> bool {
        self.links.get(&link).is_some_and(|link| matches!(link.kind, Kind::Vxlan { .. }))
    }

    /// The kernel has told of a change.
    pub(super) fn apply(&mut self, change: ObjectChange) {
        if let Some(pending) = &mut self.pending {
            pending.push(change);
            if pending.len() > MOST_PENDING {
                self.forget();
            }
            return;
        }
        match change {
            ObjectChange::Link(index) => self.touch(index),
            ObjectChange::RowCame(row) => self.row_came(row),
            ObjectChange::RowWent(row) => self.row_went(&row),
            ObjectChange::Neighbour((link, address), mac) => self.set_neighbour(link, address, mac),
            ObjectChange::Anything => self.forget(),
        }
    }

    fn set_neighbour(&mut self, link: u32, address: IpAddr, mac: Option<Mac>) {
        if self.neighbour(link, address) == mac {
            return;
        }
        let on_link = self.neighbours.entry(link).or_default();
        match mac {
            Some(mac) => drop(Arc::make_mut(on_link).insert(address, mac)),
            None => drop(Arc::make_mut(on_link).remove(&address)),
        }
        if on_link.is_empty() {
            self.neighbours.remove(&link);
        }
    }

    fn row_came(&mut self, row: Row) {
        self.remotes.touched.insert(row.mac);
        match row.kind {
            RowKind::Bridge { of, .. } => drop(self.bridge_rows.insert((of, row.mac), row)),
            RowKind::Tunnel { .. } => {
                let rows = self.tunnel_rows.entry(tunnel_key(&row)).or_default();
                match rows.as_slice() {
                    [] => rows.push(row),
                    [only] if only.kind == row.kind => *rows = vec![row],
                    // It may stand in the place of another one, or beside it: the kernel does not say.
                    _ => self.forget(),
                }
            }
        }
    }

    fn row_went(&mut self, row: &Row) {
        self.remotes.touched.insert(row.mac);
        match row.kind {
            RowKind::Bridge { of, .. } => {
                if self.bridge_rows.get(&(of, row.mac)).is_some_and(|there| there.link == row.link) {
                    self.bridge_rows.remove(&(of, row.mac));
                }
            }
            RowKind::Tunnel { .. } => {
                let key = tunnel_key(row);
                match self.tunnel_rows.get(&key).map(Vec::as_slice) {
                    None => {}
                    Some([only]) if only.kind == row.kind => drop(self.tunnel_rows.remove(&key)),
                    Some(_) => self.forget(),
                }
            }
        }
    }

    fn touch(&mut self, link: u32) {
        self.last_message += 1;
        self.touched.insert(link, self.last_message);
    }

    /// The links that have to be read again, each with the number of its last message. Of a link that is down the kernel does not tell
    /// all (`netdev_state_change` in Linux).
    pub(super) fn touched(&self) -> BTreeMap<u32, u64> {
        let down = self.links().filter(|link| !link.up).map(|link| (link.index, 0));
        down.chain(self.touched.iter().map(|(link, number)| (*link, *number))).collect()
    }

    /// How many links there are.
    pub(super) fn link_count(&self) -> usize {
        self.links.len()
    }

    /// A link was read after the message of this number; `None` if it is not there.
    pub(super) fn set_link(&mut self, index: u32, after: Option<u64>, link: Option<Interface>) {
        if self.touched.get(&index) == after.as_ref() {
            self.touched.remove(&index);
        }
        match link {
            Some(link) => {
                let is_new_tunnel = matches!(link.kind, Kind::Vxlan { .. }) && !self.is_tunnel(index);
                self.links.insert(index, link);
                // It may come from another namespace, with rows.
                if is_new_tunnel {
                    self.forget();
                }
            }
            None => {
                if self.links.remove(&index).is_some() {
                    let touched = &mut self.remotes.touched;
                    touched
                        .extend(self.bridge_rows.extract_if(.., |_, row| row.link == index).map(|((_, mac), _)| mac));
                    touched.extend(
                        self.tunnel_rows.extract_if(.., |(link, ..), _| *link == index).map(|((.., mac), _)| mac),
                    );
                    self.neighbours.remove(&index);
                }
            }
        }
    }

    pub(super) fn links(&self) -> impl Iterator<Item = &Interface> {
        self.links.values()
    }

    /// The link of that name.
    pub(super) fn named(&self, name: &str) -> Option<&Interface> {
        self.links().find(|link| link.name == name)
    }

    /// The bridge's rows for MACs behind its ports, by port; without those of the tunnel.
    pub(super) fn behind_ports(&self, tunnel: Option<u32>) -> BTreeMap<u32, Vec<&Row>> {
        let mut rows = BTreeMap::<u32, Vec<&Row>>::new();
        for row in self.bridge_rows.values().filter(|row| Some(row.link) != tunnel && row.is_behind_port()) {
            rows.entry(row.link).or_default().push(row);
        }
        rows
    }

    /// Has the tunnel rows that send to nobody in particular: for the zero MAC, or a group?
    pub(super) fn floods(&self, tunnel: u32) -> bool {
        self.rows_of(tunnel, true).next().is_some()
    }

    fn rows_of(&self, tunnel: u32, floods: bool) -> impl Iterator<Item = (&TunnelKey, &Vec<Row>)> {
        self.tunnel_rows.range((tunnel, floods, [0; 6])..=(tunnel, floods, [0xff; 6]))
    }

    /// The MACs behind a tunnel that is known by `own`: those with one row of each, and those with anything else.
    pub(super) fn remotes(&mut self, tunnel: u32, own: Remote) -> (Arc<BTreeMap<Mac, Remote>>, BTreeSet<Mac>) {
        let mut remotes = std::mem::take(&mut self.remotes);
        let bridge = self.links.get(&tunnel).and_then(|link| link.master);
        if remotes.of != Some((tunnel, bridge, own)) {
            let on_bridge = self.bridge_rows.values().filter(|row| row.link == tunnel).map(|row| row.mac);
            let on_tunnel = self.rows_of(tunnel, false).map(|((.., mac), _)| *mac);
            remotes = Remotes {
                of: Some((tunnel, bridge, own)),
                touched: on_bridge.chain(on_tunnel).collect(),
                ..Remotes::default()
            };
        }
        for mac in std::mem::take(&mut remotes.touched) {
            let row = bridge.and_then(|bridge| self.bridge_rows.get(&(bridge, mac))).filter(|row| row.link == tunnel);
            let rows = self.tunnel_rows.get(&(tunnel, false, mac)).map_or([].as_slice(), Vec::as_slice);
            remotes.set(mac, fdb::behind(row, rows, own));
        }
        self.remotes = remotes;
        (Arc::clone(&self.remotes.whole), self.remotes.half.clone())
    }

    /// The permanent neighbours on a link.
    pub(super) fn neighbours(&self, link: u32) -> Arc<BTreeMap<IpAddr, Mac>> {
        self.neighbours.get(&link).cloned().unwrap_or_default()
    }

    /// The permanent neighbour on a link at this address.
    pub(super) fn neighbour(&self, link: u32, address: IpAddr) -> Option<Mac> {
        self.neighbours.get(&link)?.get(&address).copied()
    }
}

/// What is behind the tunnel, made of its rows and the bridge's: kept, because most of it stays as it is.
#[derive(Debug, Default)]
struct Remotes {
    /// The tunnel, its bridge, and its own VTEP, port and VNI.
    of: Option<(u32, Option<u32>, Remote)>,
    whole: Arc<BTreeMap<Mac, Remote>>,
    half: BTreeSet<Mac>,
    /// Those that have changed since.
    touched: BTreeSet<[u8; 6]>,
}

impl Remotes {
    fn set(&mut self, mac: [u8; 6], behind: Behind) {
        let Some(mac) = Mac::new(mac) else { return };
        let remote = match behind {
            Behind::Whole(remote) => Some(remote),
            Behind::Half | Behind::Nothing => None,
        };
        if self.whole.get(&mac) != remote.as_ref() {
            let whole = Arc::make_mut(&mut self.whole);
            match remote {
                Some(remote) => drop(whole.insert(mac, remote)),
                None => drop(whole.remove(&mac)),
            }
        }
        match behind {
            Behind::Half => drop(self.half.insert(mac)),
            Behind::Whole(_) | Behind::Nothing => drop(self.half.remove(&mac)),
        }
    }
}

#[cfg(test)]
mod tests;
