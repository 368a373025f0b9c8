//! The view: gossip in, cluster out. What the others say is decoded once, derived into the cluster, and told to the
//! ledger; what this host says of itself comes from its own disk, never from gossip.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::OptionFuture;
use overlay::cluster::own_record;
use overlay::cluster::{Cluster, derive};
use overlay::ledger::{Activation, Input};
use overlay::model::host::Liveness;
use overlay::model::id::{HostId, NetworkId};
use overlay::model::links::Links;
use overlay::model::member::Boot;
use overlay::model::network::Network;
use overlay::model::record::{Incarnation, Record};
use tokio::sync::watch;

pub mod announce;
mod records;

use records::Heard;

use crate::state;
use overlay_gossip as gossip;

/// The cluster as this host sees it.
#[derive(Debug, Clone, Default)]
pub struct ClusterView {
    /// The cluster.
    pub cluster: Arc<Cluster>,
    /// Has this host caught up since it started? Before, what it has not heard of may well be there.
    pub synced: bool,
    /// Who is silent, and since when.
    pub silent: Arc<LastSeen>,
}

/// Since when hosts are not heard.
#[derive(Debug, Clone)]
pub struct LastSeen {
    /// Since this host listens; who was never heard is silent since then.
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
    /// Not since this host listens, which is so long: nobody here knows since when it is silent.
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

    fn look(&self, cluster: &Cluster, now: Instant) -> Self {
        let hosts = cluster.hosts.iter().chain(&cluster.forgotten);
        let heard = hosts.filter_map(|(id, host)| match (host.liveness, self.heard.get(id)) {
            (Liveness::Live, _) => Some((*id, None)),
            (Liveness::Suspect | Liveness::Dead, Some(before)) => Some((*id, Some(before.unwrap_or(now)))),
            (Liveness::Suspect | Liveness::Dead, None) => None,
        });
        // Also who is in gossip no more.
        let mut all = self.heard.clone();
        all.extend(heard);
        Self { start: self.start, heard: all }
    }
}

/// Between two derivations: a burst of changes is one. Where gossip is slow a longer one hides nothing from anybody.
const PAUSE: Duration = Duration::from_millis(5);
const PAUSES_PER_INTERVAL: u32 = 50;
/// The same, as many times as long as the last one took, up to [`LONGEST_PAUSE`]: among many hosts that come and go, to keep
/// up with them takes a fifth of a processor at most.
const REST_PER_WORK: u32 = 4;
const LONGEST_PAUSE: Duration = Duration::from_millis(250);
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

/// Follows gossip, this host's own record, and which silent hosts are `absent`: do not even refuse a connection. One that
/// gossip forgets stays until it has been absent for as long as hosts are `remembered`.
pub fn spawn(
    me: HostId,
    gossip: watch::Receiver<Arc<gossip::View>>,
    absent: watch::Receiver<BTreeSet<HostId>>,
    local: state::Handle,
    Times { interval, remembered }: Times,
) -> watch::Receiver<ClusterView> {
    let (sender, seen) = watch::channel(ClusterView::default());
    let shortest = PAUSE.max(interval / PAUSES_PER_INTERVAL);
    let mut follower = Follower {
        me,
        gossip,
        absent,
        activation: local.activation.clone(),
        local,
        heard: Heard::new(remembered),
        news: BTreeSet::new(),
        told: BTreeMap::new(),
        twins: BTreeSet::new(),
        silent: Arc::default(),
        peers: BTreeMap::new(),
    };
    sender.send_replace(follower.look());
    tokio::spawn(async move {
        let mut activation = follower.activation.clone();
        loop {
            let start = Instant::now();
            let seen = follower.look();
            let pause = (start.elapsed() * REST_PER_WORK).clamp(shortest, LONGEST_PAUSE.max(shortest));
            let told = follower.tell_ledger(&seen).await;
            sender.send_replace(seen);
            tokio::time::sleep(pause).await;
            let forgetting = follower.heard.next_deadline().map(|at| tokio::time::sleep_until(at.into()));
            let changed = tokio::select! {
                changed = follower.gossip.changed() => changed,
                changed = follower.absent.changed() => changed,
                changed = follower.local.record.changed() => changed,
                changed = activation.changed() => changed,
                () = tokio::time::sleep(RETRY), if !told => Ok(()),
                Some(()) = OptionFuture::from(forgetting) => Ok(()),
            };
            if changed.is_err() {
                return;
            }
        }
    });
    seen
}

struct Follower {
    me: HostId,
    gossip: watch::Receiver<Arc<gossip::View>>,
    absent: watch::Receiver<BTreeSet<HostId>>,
    local: state::Handle,
    activation: watch::Receiver<Activation>,
    heard: Heard,
    /// The hosts of which the ledger may not have been told all.
    news: BTreeSet<HostId>,
    /// What the ledger was told.
    told: BTreeMap<HostId, Arc<Record>>,
    /// The boots of others under this host's identity that it was told of.
    twins: BTreeSet<Boot>,
    silent: Arc<LastSeen>,
    /// Where the others were heard, as it is on disk.
    peers: BTreeMap<HostId, SocketAddr>,
}

impl Follower {
    fn look(&mut self) -> ClusterView {
        let now = Instant::now();
        let view = Arc::clone(&self.gossip.borrow_and_update());
        let absent = self.absent.borrow_and_update().clone();
        let synced = view.synced;
        self.news.extend(self.heard.hear(self.me, view, &absent, now));
        let record = Arc::clone(&self.local.record.borrow_and_update());
        let founder = record.host.as_ref().and_then(|host| host.founder);
        let life = Incarnation { generation: u64::MAX, complete: true, liveness: Liveness::Live, record };
        self.heard.records.insert(self.me, vec![life]);
        let cluster = Arc::new(derive(&self.heard.records, founder));
        self.heard.release(cluster.forgotten.keys());
        self.silent = Arc::new(self.silent.look(&cluster, now));
        ClusterView { cluster, synced, silent: Arc::clone(&self.silent) }
    }

    /// What others say of links in the networks that this host keeps alive, and it has not kept yet.
    fn unheard_links(&self, cluster: &Cluster) -> BTreeMap<NetworkId, Links> {
        let own = self.local.record.borrow();
        let news = cluster.networks.values().filter(|view| {
            let id = &view.network.id;
            !view.apart
                && own.networks.contains_key(id)
                && own.links.get(id).unwrap_or(&Links::default()) != &view.links
        });
        news.map(|view| (view.network.id, view.links.clone())).collect()
    }

    /// The ledger hears what is new of networks and leases; false if it could not keep it.
    async fn tell_ledger(&mut self, seen: &ClusterView) -> bool {
        if self.activation.has_changed().unwrap_or(false) {
            // Before it may act, a ledger does not listen.
            self.activation.borrow_and_update();
            self.told.clear();
            self.twins.clear();
            self.news.extend(self.heard.records.keys().filter(|id| **id != self.me));
        }
        // Whoever is gone for good is told of from the start if it comes back after all.
        self.told.retain(|id, _| !self.news.contains(id) || self.heard.records.contains_key(id));
        let cluster = &seen.cluster;
        let said = |id: &HostId| Some((*id, &cluster.hosts.get(id).or_else(|| cluster.forgotten.get(id))?.record));
        let changed: Vec<(HostId, Arc<Record>)> = self
            .news
            .iter()
            .filter_map(said)
            .filter(|(id, record)| self.told.get(id) != Some(record))
            .map(|(id, record)| (id, Arc::clone(record)))
            .collect();
        let peers: BTreeMap<HostId, SocketAddr> = self
            .news
            .iter()
            .filter_map(|id| Some((*id, *self.heard.addresses.get(id)?)))
            .filter(|(id, address)| self.peers.get(id) != Some(address))
            .collect();
        let twins = self.heard.selves.iter().filter_map(|(_, record)| own_record::twin(record));
        let twins: BTreeSet<Boot> = twins.filter(|boot| !self.twins.contains(boot)).collect();
        let links = self.unheard_links(cluster);
        if changed.is_empty() && peers.is_empty() && twins.is_empty() && links.is_empty() {
            self.news.clear();
            return true;
        }
        let founder = cluster.founder_of(self.me);
        let networks = cluster.networks.values().filter(|view| !view.apart).map(|view| view.network.clone());
        let networks: Vec<Network> = networks.collect();
        let heard = changed.iter().flat_map(|(id, record)| own_record::heard(*id, record));
        let inputs: Vec<Input> = twins.iter().map(|boot| Input::Twin { boot: *boot }).chain(heard).collect();
        let (tombstones, remember) = (cluster.tombstones.clone(), peers.clone());
        // None waits for another: a full disk that takes no new network still takes what fences this host, and where the
        // others are only matters when it starts again.
        let written = self.local.call(move |local| {
            let of_leases = [
                local.learn(networks, founder),
                local.bury(&tombstones),
                local.step_all(&inputs),
                local.hear_links(&links),
            ];
            (of_leases.into_iter().collect::<Result<(), _>>(), local.remember_peers(&remember))
        });
        // What could not be kept is told again.
        let (of_leases, of_peers) = written.await;
        let is_kept = of_leases.is_ok() && of_peers.is_ok();
        match of_leases {
            Ok(()) => {
                self.told.extend(changed);
                self.twins.extend(twins);
            }
            Err(error) => tracing::error!(%error, "what other hosts say of leases could not be kept"),
        }
        match of_peers {
            Ok(()) => self.peers.extend(peers),
            Err(error) => tracing::error!(%error, "where other hosts are could not be kept"),
        }
        if is_kept {
            self.news.clear();
        }
        is_kept
    }
}

#[cfg(test)]
pub(crate) mod tests;
