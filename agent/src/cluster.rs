//! The view: gossip in, cluster out. What the others say is decoded once, derived into the cluster, and told to the
//! ledger; what this host says of itself comes from its own disk, never from gossip.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::OptionFuture;
use overlay::cluster::{Cluster, Derivation};
use overlay::ledger::Membership;
use overlay::model::host::Liveness;
use overlay::model::id::HostId;
use overlay::model::record::{Incarnation, Record};
use overlay::operations::feed::{Feed, Received};
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub mod announce;
mod ledger_feed;
mod records;

use records::Heard;

use crate::pace::Pace;
use crate::state;
use overlay_gossip as gossip;

/// The cluster as this host sees it.
#[derive(Debug, Clone, Default)]
pub struct ClusterView {
    /// The cluster.
    pub cluster: Arc<Cluster>,
    /// Has this host caught up since it started? Before, what it has not heard of may well be there.
    pub synced: bool,
    /// The silent hosts, and since when each of them is silent.
    pub silent: Arc<LastSeen>,
}

/// Since when hosts are not heard.
#[derive(Debug, Clone)]
pub struct LastSeen {
    /// When this agent started to listen. A host that it has never heard counts as silent since then.
    start: Instant,
    /// The hosts that were heard: `None` if they still are.
    heard: BTreeMap<HostId, Option<Instant>>,
}

impl Default for LastSeen {
    fn default() -> Self {
        Self { start: Instant::now(), heard: BTreeMap::new() }
    }
}

/// When a host was heard last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastHeard {
    /// It is heard.
    Now,
    /// So long ago.
    Ago(Duration),
    /// Never since this agent started to listen, so long ago. The host may have been silent for longer.
    NotSinceStart(Duration),
}

impl LastHeard {
    /// How long it is silent for all that is known here.
    pub fn elapsed(self) -> Duration {
        match self {
            Self::Now => Duration::ZERO,
            Self::Ago(silent) | Self::NotSinceStart(silent) => silent,
        }
    }
}

impl LastSeen {
    /// When a host was heard last.
    pub fn of(&self, host: HostId) -> LastHeard {
        match self.heard.get(&host) {
            Some(None) => LastHeard::Now,
            Some(Some(since)) => LastHeard::Ago(since.elapsed()),
            None => LastHeard::NotSinceStart(self.start.elapsed()),
        }
    }

    /// The same as of now; `None` if nothing has changed.
    fn look(&self, cluster: &Cluster, now: Instant) -> Option<Self> {
        let hosts = cluster.hosts.iter().chain(&cluster.forgotten);
        let changed = hosts.filter_map(|(id, host)| match (host.liveness, self.heard.get(id)) {
            (Liveness::Live, Some(None)) => None,
            (Liveness::Live, _) => Some((*id, None)),
            (Liveness::Suspect | Liveness::Dead, Some(None)) => Some((*id, Some(now))),
            (Liveness::Suspect | Liveness::Dead, Some(Some(_)) | None) => None,
        });
        let changed: Vec<(HostId, Option<Instant>)> = changed.collect();
        if changed.is_empty() {
            return None;
        }
        // Hosts that gossip has forgotten stay.
        let mut heard = self.heard.clone();
        heard.extend(changed);
        Some(Self { start: self.start, heard })
    }
}

/// What a derivation of the cluster costs at least, so that a burst of changes takes few of them. With a long interval of gossip it is
/// more, and still little beside the interval.
const LEAST_COST: Duration = Duration::from_millis(5);
const COSTS_PER_INTERVAL: u32 = 50;
/// So many derivations of the least cost may follow each other at once.
const BURST: u32 = 4;
/// A derivation costs so many times what it took, up to [`MOST_COST`]: to keep up with many hosts that come and go takes a fifth of a
/// processor at most.
const COST_PER_WORK: u32 = 4;
const MOST_COST: Duration = Duration::from_millis(250);
/// After the ledger could not keep what it was told.
const RETRY: Duration = Duration::from_secs(1);

/// The times of gossip that the view goes by.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// From one round to the next.
    pub interval: Duration,
    /// How long hosts are remembered that are silent.
    pub remembered: Duration,
}

/// Follows gossip, this host's own record, and the silent hosts that are `absent`: those whose port for agents answers neither with a
/// connection nor with a reset. A host that gossip forgets stays until it has been absent for as long as hosts are `remembered`.
pub fn spawn(
    me: HostId,
    gossip: watch::Receiver<Arc<gossip::View>>,
    absent: watch::Receiver<BTreeSet<HostId>>,
    state: state::Handle,
    Times { interval, remembered }: Times,
) -> (watch::Receiver<ClusterView>, JoinHandle<()>) {
    let (sender, seen) = watch::channel(ClusterView::default());
    let least = LEAST_COST.max(interval / COSTS_PER_INTERVAL);
    let mut follower = Follower {
        me,
        gossip,
        absent,
        record: state.record.clone(),
        state,
        heard: Heard::new(remembered),
        feed: Feed::default(),
        derivation: Derivation::default(),
        silent: Arc::default(),
    };
    sender.send_replace(follower.look());
    let task = tokio::spawn(async move {
        let mut membership = follower.state.membership.clone();
        let mut pace = Pace::new(least * BURST, Instant::now());
        loop {
            let start = Instant::now();
            let before = Arc::clone(&membership.borrow_and_update());
            // A ledger that may act now, or has other members, listens to more than before: it is told again.
            let listens_otherwise =
                |now: &Arc<Membership>| now.activation != before.activation || now.members != before.members;
            let seen = follower.look();
            let cost = (start.elapsed() * COST_PER_WORK).clamp(least, MOST_COST.max(least));
            let next = pace.spend(cost, start);
            // The state is told first: a task that sees a network in the view may ask the state for an address in it.
            let told = follower.tell_state(&seen).await;
            sender.send_replace(seen);
            let forgetting = follower.heard.next_deadline().map(|at| tokio::time::sleep_until(at.into()));
            let changed = tokio::select! {
                changed = follower.gossip.changed() => changed,
                changed = follower.absent.changed() => changed,
                changed = follower.record.changed() => changed,
                changed = membership.wait_for(listens_otherwise) => changed.map(drop),
                () = tokio::time::sleep(RETRY), if !told => Ok(()),
                Some(()) = OptionFuture::from(forgetting) => Ok(()),
            };
            if changed.is_err() {
                return;
            }
            tokio::time::sleep_until(next.into()).await;
        }
    });
    (seen, task)
}

struct Follower {
    me: HostId,
    gossip: watch::Receiver<Arc<gossip::View>>,
    absent: watch::Receiver<BTreeSet<HostId>>,
    state: state::Handle,
    record: watch::Receiver<Arc<Record>>,
    heard: Heard,
    feed: Feed,
    derivation: Derivation,
    silent: Arc<LastSeen>,
}

impl Follower {
    fn look(&mut self) -> ClusterView {
        let now = Instant::now();
        let view = Arc::clone(&self.gossip.borrow_and_update());
        let absent = self.absent.borrow_and_update().clone();
        let synced = view.synced;
        self.feed.note(self.heard.hear(self.me, view, &absent, now));
        let record = Arc::clone(&self.record.borrow_and_update());
        let founder = record.host.as_ref().and_then(|host| host.founder);
        let own = Incarnation { generation: u64::MAX, complete: true, liveness: Liveness::Live, record };
        self.heard.records.insert(self.me, vec![own]);
        let cluster = Arc::clone(self.derivation.derive(&self.heard.records, founder));
        self.heard.release(cluster.forgotten.keys());
        if let Some(silent) = self.silent.look(&cluster, now) {
            self.silent = Arc::new(silent);
        }
        ClusterView { cluster, synced, silent: Arc::clone(&self.silent) }
    }

    /// The state is told what is new of networks, leases and peers; false if it could not keep it.
    async fn tell_state(&mut self, seen: &ClusterView) -> bool {
        let selves: Vec<Arc<Record>> = self.heard.selves.iter().map(|(_, record)| Arc::clone(record)).collect();
        let received = Received {
            cluster: &seen.cluster,
            records: &self.heard.records,
            addresses: &self.heard.addresses,
            selves: &selves,
        };
        let Some(batch) = self.feed.next(&self.state.state(), received) else { return true };
        let told = ledger_feed::tell(&self.state, &batch).await;
        self.feed.told(batch, told);
        told.is_all()
    }
}

#[cfg(test)]
pub(crate) mod tests;
