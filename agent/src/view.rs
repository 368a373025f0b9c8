//! The view: gossip in, cluster out. What the others say is decoded once, derived into the cluster, and told to the
//! ledger; what this host says of itself comes from its own disk, never from gossip.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use overlay::cluster::{Cluster, derive};
use overlay::host::Liveness;
use overlay::id::{HostId, NetworkId};
use overlay::ledger::Input;
use overlay::record::{Incarnation, Record, Records};
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
}

/// Between two derivations: a burst of changes is one.
const PAUSE: Duration = Duration::from_millis(5);
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
    let (decoded, told, peers) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    let mut follower = Follower { me, gossip, absent, local, decoded, told, peers };
    sender.send_replace(follower.look());
    tokio::spawn(async move {
        loop {
            let seen = follower.look();
            let told = follower.tell_ledger(&seen).await;
            sender.send_replace(seen);
            tokio::time::sleep(PAUSE).await;
            let changed = tokio::select! {
                changed = follower.gossip.changed() => changed,
                changed = follower.absent.changed() => changed,
                changed = follower.local.record.changed() => changed,
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
    /// What was decoded, by host and generation, so that only changes are decoded again.
    decoded: BTreeMap<(HostId, u64), (Arc<Texts>, Arc<Record>)>,
    /// What the ledger was told.
    told: BTreeMap<HostId, Arc<Record>>,
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
        Seen { cluster: Arc::new(derive(&records)), synced: view.synced }
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
        let changed: Vec<(HostId, Arc<Record>)> = seen
            .cluster
            .hosts
            .iter()
            .filter(|(id, host)| **id != self.me && self.told.get(id) != Some(&host.record))
            .map(|(id, host)| (*id, Arc::clone(&host.record)))
            .collect();
        let peers = self.moved_peers();
        if changed.is_empty() && peers.is_empty() {
            return true;
        }
        let learn = seen.cluster.networks.values().map(|v| Input::Learn(v.network.clone()));
        let heard = changed.iter().flat_map(|(id, record)| statements(*id, record));
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

fn statements(from: HostId, record: &Record) -> Vec<Input> {
    let mut networks: Vec<NetworkId> = record.blocks.keys().chain(record.borrowed.keys()).copied().collect();
    networks.sort();
    networks.dedup();
    let holding = networks.into_iter().map(|network| Input::Holding {
        network,
        from,
        runs: record.blocks.get(&network).cloned().unwrap_or_default(),
        borrowed: record.borrowed.get(&network).cloned().unwrap_or_default(),
    });
    let posted = record.outbox.iter().flat_map(|(network, statements)| {
        statements.iter().map(|statement| Input::Stated { network: *network, from, statement: *statement })
    });
    holding.chain(posted).collect()
}

/// A silent agent is not a dead host: that takes a host that was asked and did not answer.
fn liveness(seen: gossip::Liveness, absent: bool) -> Liveness {
    match seen {
        gossip::Liveness::Live => Liveness::Live,
        gossip::Liveness::Dead if absent => Liveness::Dead,
        gossip::Liveness::Suspect | gossip::Liveness::Dead => Liveness::Suspect,
    }
}
