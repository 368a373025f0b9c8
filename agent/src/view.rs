//! The view: gossip in, cluster out. What the others say is decoded once, derived into the cluster, and told to the
//! ledger; what this host says of itself comes from its own disk, never from gossip.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use overlay::cluster::{Cluster, derive};
use overlay::host::Liveness;
use overlay::id::HostId;
use overlay::ledger::{Input, Standing};
use overlay::network::Network;
use overlay::record::{Incarnation, Record};
use overlay::said;
use tokio::sync::watch;

mod heard;

use heard::Heard;

use crate::gossip;
use crate::local;

/// The cluster as this host sees it.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// The cluster.
    pub cluster: Arc<Cluster>,
    /// Has this host caught up since it started? Before, what it has not heard of may well be there.
    pub synced: bool,
    /// Who is silent, and since when.
    pub silent: Arc<Silence>,
}

/// Since when hosts are not heard.
#[derive(Debug, Clone)]
pub struct Silence {
    /// Since this host listens; who was never heard is silent since then.
    start: Instant,
    /// The hosts that were heard: `None` if they still are.
    heard: BTreeMap<HostId, Option<Instant>>,
}

impl Default for Silence {
    fn default() -> Self {
        Self { start: Instant::now(), heard: BTreeMap::new() }
    }
}

impl Silence {
    /// How long a host has not been heard, or has not been while this host listened.
    pub fn of(&self, host: HostId) -> Duration {
        self.heard.get(&host).map_or(Some(self.start), |since| *since).map_or(Duration::ZERO, |since| since.elapsed())
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

/// Between two derivations: a burst of changes is one.
const PAUSE: Duration = Duration::from_millis(5);
/// The same, as many times as long as the last one took, up to [`LONGEST_PAUSE`]: among many hosts that come and go, to keep
/// up with them takes a fifth of a processor at most.
const REST_PER_WORK: u32 = 4;
const LONGEST_PAUSE: Duration = Duration::from_millis(250);
/// After the ledger could not keep what it was told.
const RETRY: Duration = Duration::from_secs(1);

/// Follows gossip, this host's own record, and which silent hosts are `absent`: do not even refuse a connection.
pub fn spawn(
    me: HostId,
    gossip: watch::Receiver<Arc<gossip::View>>,
    absent: watch::Receiver<BTreeSet<HostId>>,
    local: local::Handle,
) -> watch::Receiver<Seen> {
    let (sender, seen) = watch::channel(Seen::default());
    let (heard, news, told, silent, peers) =
        (Heard::default(), BTreeSet::new(), BTreeMap::new(), Arc::default(), BTreeMap::new());
    let standing = local.standing.clone();
    let mut follower = Follower { me, gossip, absent, local, standing, heard, news, told, silent, peers };
    sender.send_replace(follower.look());
    tokio::spawn(async move {
        let mut standing = follower.standing.clone();
        loop {
            let start = Instant::now();
            let seen = follower.look();
            let pause = (start.elapsed() * REST_PER_WORK).clamp(PAUSE, LONGEST_PAUSE);
            let told = follower.tell_ledger(&seen).await;
            sender.send_replace(seen);
            tokio::time::sleep(pause).await;
            let changed = tokio::select! {
                changed = follower.gossip.changed() => changed,
                changed = follower.absent.changed() => changed,
                changed = follower.local.record.changed() => changed,
                changed = standing.changed() => changed,
                () = tokio::time::sleep(RETRY), if !told => Ok(()),
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
    local: local::Handle,
    standing: watch::Receiver<Standing>,
    heard: Heard,
    /// The hosts of which the ledger may not have been told all.
    news: BTreeSet<HostId>,
    /// What the ledger was told.
    told: BTreeMap<HostId, Arc<Record>>,
    silent: Arc<Silence>,
    /// Where the others were heard, as it is on disk.
    peers: BTreeMap<HostId, SocketAddr>,
}

impl Follower {
    fn look(&mut self) -> Seen {
        let view = Arc::clone(&self.gossip.borrow_and_update());
        let absent = self.absent.borrow_and_update().clone();
        let synced = view.synced;
        self.news.extend(self.heard.hear(self.me, view, absent));
        let record = Arc::clone(&self.local.record.borrow_and_update());
        let founder = record.host.as_ref().and_then(|host| host.founder);
        let life = Incarnation { generation: u64::MAX, complete: true, liveness: Liveness::Live, record };
        self.heard.records.insert(self.me, vec![life]);
        let cluster = Arc::new(derive(&self.heard.records, founder));
        self.silent = Arc::new(self.silent.look(&cluster, Instant::now()));
        Seen { cluster, synced, silent: Arc::clone(&self.silent) }
    }

    /// The ledger hears what is new of networks and leases; false if it could not keep it.
    async fn tell_ledger(&mut self, seen: &Seen) -> bool {
        if self.standing.has_changed().unwrap_or(false) {
            // Before it may act, a ledger does not listen.
            self.standing.borrow_and_update();
            self.told.clear();
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
        if changed.is_empty() && peers.is_empty() {
            self.news.clear();
            return true;
        }
        let founder = cluster.hosts.get(&self.me).and_then(|me| me.info.founder);
        let networks = cluster.networks.values().filter(|view| !view.apart).map(|view| view.network.clone());
        let networks: Vec<Network> = networks.collect();
        let inputs: Vec<Input> = changed.iter().flat_map(|(id, record)| said::heard(*id, record)).collect();
        let (tombstones, remember) = (cluster.tombstones.clone(), peers.clone());
        let told = self.local.call(move |local| {
            local.bury(&tombstones)?;
            local.remember_peers(&remember)?;
            local.learn(networks, founder)?;
            local.step_all(&inputs)
        });
        match told.await {
            // It is told again.
            Err(error) => {
                tracing::error!(%error, "what other hosts say of leases could not be kept");
                false
            }
            Ok(()) => {
                self.told.extend(changed);
                self.peers.extend(peers);
                self.news.clear();
                true
            }
        }
    }
}
