//! What gossip shows to its consumers: all hosts, what each says, and whether it is alive.

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

/// What all hosts say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// Whether what is *not* said means anything: until then nothing may be removed because nobody mentions it.
    ///
    /// True at once for a host without seeds. Else once all expected hosts and all that are not [`NodeLiveness::Dead`] are complete, at least one of them
    /// heard by ourselves, for two intervals (10 s after the first complete one, if some other never completes), or when a
    /// [snapshot](crate::Handle::feed) was taken in. Then true for good.
    pub synced: bool,
    /// All hosts that are known, ourselves among them.
    pub hosts: Hosts,
    /// What is said under our id by others than this life of ours: by earlier ones, and by a copy of our disk.
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
    /// Whether all is here that it had said when it was first heard of: nothing of it is still to come because it is large.
    pub complete: bool,
    /// Whether it is alive. An old incarnation of a restarted host is dead soon, which says nothing of the host.
    pub liveness: NodeLiveness,
    /// What it says.
    pub entries: Arc<Texts>,
}
