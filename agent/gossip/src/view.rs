//! What gossip shows to its consumers: all hosts, what each announces, and whether it is alive.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::roster::liveness::NodeLiveness;

/// Numbers the incarnations of this host.
pub trait Generations {
    /// A generation higher than any before, also in earlier lives of the host: the maximum of the time in ms and of one more than
    /// the last one stored, stored durably before it is returned. A number that was used before would be ignored by all peers.
    fn next(&mut self) -> u64;
}

/// What all hosts announce.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// Whether a missing entry means that it does not exist. Until then nothing may be removed because no host announces it.
    ///
    /// True at once for a host without seeds. Otherwise true once all expected hosts, and all hosts that are not
    /// [`NodeLiveness::Dead`], have been complete for two intervals, and this host has itself heard one of them. It does not wait longer
    /// than 10 s after the first complete host. Also true after a [snapshot](crate::Handle::feed). Then true for good.
    pub synced: bool,
    /// All hosts that are known, ourselves among them.
    pub hosts: Hosts,
    /// What other incarnations announce under this host's ID: earlier ones of this host, and a copy of its disk.
    pub selves: Vec<Arc<Texts>>,
}

/// By host id, the incarnations from the newest down to the newest complete one; at least one. Of a host of which nothing has
/// changed they are shared from view to view.
pub type Hosts = BTreeMap<Arc<str>, Arc<[NodeIncarnation]>>;

/// Keys and values of one incarnation. Unchanged values are shared from view to view.
pub type Texts = BTreeMap<String, Arc<str>>;

/// One run of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeIncarnation {
    /// Higher is newer.
    pub generation: u64,
    /// Where it is reached for gossip.
    pub gossip_addr: SocketAddr,
    /// Whether everything has arrived that the incarnation announced when this host first heard of it. A large announcement takes
    /// several messages.
    pub complete: bool,
    /// Whether it is alive. The old incarnation of a restarted host is dead soon. That does not mean that the host is.
    pub liveness: NodeLiveness,
    /// What it announces.
    pub entries: Arc<Texts>,
}
