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
use overlay::record::{Incarnation, Record, Records};
use overlay::said;
use tokio::sync::watch;

use crate::convert::decode_record;
use crate::gossip::{self, Texts};
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
    let (decoded, told, silent, peers) = (BTreeMap::new(), BTreeMap::new(), Arc::default(), BTreeMap::new());
    let standing = local.standing.clone();
    let mut follower = Follower { me, gossip, absent, local, standing, decoded, told, silent, peers };
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
    /// What was decoded, by host and generation, so that only changes are decoded again.
    decoded: BTreeMap<(HostId, u64), (Arc<Texts>, Arc<Record>)>,
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
        let mut records = Records::new();
        let mut decoded = BTreeMap::new();
        for (node, lives) in &view.hosts {
            let Ok(id) = node.parse::<HostId>() else { continue };
            let lives = lives.iter().map(|life| {
                let record = self.decode(id, life);
                decoded.insert((id, life.generation), (Arc::clone(&life.entries), Arc::clone(&record)));
                let liveness = liveness(life.liveness, absent.contains(&id));
                Incarnation { generation: life.generation, complete: life.complete, liveness, record }
            });
            records.insert(id, lives.collect());
        }
        self.decoded = decoded;
        let record = Arc::clone(&self.local.record.borrow_and_update());
        let life = Incarnation { generation: u64::MAX, complete: true, liveness: Liveness::Live, record };
        records.insert(self.me, vec![life]);
        let cluster = Arc::new(derive(&records));
        self.silent = Arc::new(self.silent.look(&cluster, Instant::now()));
        Seen { cluster, synced: view.synced, silent: Arc::clone(&self.silent) }
    }

    fn decode(&self, id: HostId, life: &gossip::Incarnation) -> Arc<Record> {
        if let Some((entries, record)) = self.decoded.get(&(id, life.generation))
            && entries == &life.entries
        {
            return Arc::clone(record);
        }
        let (record, errors) = decode_record(life.entries.iter().map(|(k, v)| (k.as_str(), v.as_ref())));
        for (key, error) in errors {
            tracing::warn!(host = %id.short(), key, %error, "part of a host's record can't be read");
        }
        Arc::new(record)
    }

    /// The ledger hears what is new of networks and leases; false if it could not keep it.
    async fn tell_ledger(&mut self, seen: &Seen) -> bool {
        if self.standing.has_changed().unwrap_or(false) {
            // Before it may act, a ledger does not listen.
            self.standing.borrow_and_update();
            self.told.clear();
        }
        let changed: Vec<(HostId, Arc<Record>)> = seen
            .cluster
            .hosts
            .iter()
            .chain(&seen.cluster.forgotten)
            .filter(|(id, host)| **id != self.me && self.told.get(id) != Some(&host.record))
            .map(|(id, host)| (*id, Arc::clone(&host.record)))
            .collect();
        // Whoever is gone for good is told of from the start if it comes back after all.
        self.told.retain(|id, _| seen.cluster.hosts.contains_key(id) || seen.cluster.forgotten.contains_key(id));
        let peers = self.moved_peers();
        if changed.is_empty() && peers.is_empty() {
            return true;
        }
        let learn = seen.cluster.networks.values().map(|v| Input::Learn(v.network.clone()));
        let heard = changed.iter().flat_map(|(id, record)| said::heard(*id, record));
        let inputs: Vec<Input> = learn.chain(heard).collect();
        let (tombstones, remember) = (seen.cluster.tombstones.clone(), peers.clone());
        let told = self.local.call(move |local| {
            local.bury(&tombstones)?;
            local.remember_peers(&remember)?;
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
                true
            }
        }
    }

    fn moved_peers(&self) -> BTreeMap<HostId, SocketAddr> {
        let view = self.gossip.borrow();
        let newest =
            view.hosts.iter().filter_map(|(node, lives)| Some((node.parse().ok()?, lives.first()?.gossip_addr)));
        newest.filter(|(id, address)| *id != self.me && self.peers.get(id) != Some(address)).collect()
    }
}

/// A silent agent is not a dead host: that takes a host that was asked and did not answer.
fn liveness(seen: gossip::Liveness, absent: bool) -> Liveness {
    match seen {
        gossip::Liveness::Live => Liveness::Live,
        gossip::Liveness::Dead if absent => Liveness::Dead,
        gossip::Liveness::Suspect | gossip::Liveness::Dead => Liveness::Suspect,
    }
}
