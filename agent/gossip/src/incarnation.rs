//! One run of chitchat: one incarnation of this host. Owns its start and its state; never restarts itself.

pub(crate) mod announce;
pub(crate) mod snapshot;

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use chitchat::{
    ChitchatConfig, ChitchatHandle, ChitchatId, FailureDetectorConfig, ListenerHandle, NodeState, ProtocolVersion,
    spawn_chitchat,
};
use tokio::sync::Notify;

use crate::incarnation::announce::{Announcement, Written};
use crate::incarnation::snapshot::Chunk;
use crate::transport::{GossipSocket, SealedTransport};

/// The seal already keeps clusters apart; chitchat wants a name all the same.
const CLUSTER: &str = "overlay";
/// phi from which on chitchat counts a host as silent and gossips with it less: some eight times what it heard in between before.
const PHI: f64 = 8.0;
const SAMPLES: usize = 100;
/// At most so many intervals after its last heartbeat chitchat takes an incarnation for dead: [`PHI`] times the two intervals that may
/// lie between heartbeats.
const NOTICED: u32 = 16;
/// Incarnations of one host that are worth handing on: the newest, and the one before in case the newest is not complete.
const WORTH_KEEPING: usize = 2;

/// What all incarnations of this host have in common.
#[derive(Debug, Clone)]
pub(crate) struct NodeIdentity {
    pub node: Arc<str>,
    pub listen: SocketAddr,
    pub advertise: SocketAddr,
    pub seeds: Vec<SocketAddr>,
    pub interval: Duration,
    pub remembered: Duration,
}

impl NodeIdentity {
    /// For how long after its last heartbeat an incarnation is named by the hosts that have heard it. chitchat names the dead for half of
    /// the time that it remembers them.
    pub fn named(&self) -> Duration {
        self.remembered / 2 + self.interval * NOTICED
    }
}

/// A running incarnation.
pub(crate) struct Member {
    id: ChitchatId,
    handle: ChitchatHandle,
    socket: Arc<GossipSocket>,
    changed: Arc<Notify>,
    _listener: ListenerHandle,
}

impl Member {
    /// Starts chitchat as the incarnation `generation`, which says `said` and knows what `carried` tells.
    pub async fn start(
        identity: &NodeIdentity,
        generation: u64,
        socket: Arc<GossipSocket>,
        said: &Announcement,
        carried: Vec<Chunk>,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let id = ChitchatId::new(Arc::clone(&identity.node), generation, identity.advertise);
        let first = announce::first(said);
        socket.note_written(first.len() as u64);
        let transport = SealedTransport { socket: Arc::clone(&socket), own: id.clone() };
        let handle = spawn_chitchat(config(identity, id.clone()), first, &transport).await?;

        let changed = Arc::new(Notify::new());
        let notify = Arc::clone(&changed);
        let mut carried = Some(carried);
        let listener = handle
            .with_chitchat(|chitchat| {
                carried.take().into_iter().flatten().for_each(|chunk| chunk.feed(chitchat));
                // The marker is set with every batch, so this is called for batches of deletes, too.
                let notify = Arc::clone(&notify);
                chitchat.subscribe_event("", move |_| notify.notify_one())
            })
            .await;
        Ok(Self { id, handle, socket, changed, _listener: listener })
    }

    pub fn id(&self) -> &ChitchatId {
        &self.id
    }

    /// Says `wanted` from now on.
    pub async fn write(&self, wanted: &Announcement) -> Written {
        let socket = &self.socket;
        let write = |chitchat: &mut chitchat::Chitchat| {
            let written = announce::write(chitchat.self_node_state(), wanted);
            socket.note_written(written.upto);
            written
        };
        self.handle.with_chitchat(write).await
    }

    /// Calls `look` with all states and with those that chitchat has alive.
    pub async fn look<T>(
        &self,
        mut look: impl FnMut(&BTreeMap<ChitchatId, NodeState>, &HashSet<&ChitchatId>) -> T,
    ) -> T {
        let look = |chitchat: &mut chitchat::Chitchat| {
            let states = chitchat.node_states();
            let mut alive = HashSet::with_capacity(states.len());
            alive.extend(chitchat.live_nodes());
            look(states, &alive)
        };
        self.handle.with_chitchat(look).await
    }

    /// What is known of the other hosts. `silence` says how long an incarnation is silent. Those that are silent for `at_most` or longer
    /// are left out.
    pub async fn snapshot(&self, silence: impl Fn(&ChitchatId) -> Duration, at_most: Duration) -> Vec<Vec<u8>> {
        self.handle.with_chitchat(|chitchat| encode(chitchat.node_states(), &silence, at_most)).await
    }

    /// Takes over what `chunks` know better.
    pub async fn feed(&self, chunks: Vec<Chunk>) {
        let mut chunks = Some(chunks);
        self.handle
            .with_chitchat(|chitchat| chunks.take().into_iter().flatten().for_each(|chunk| chunk.feed(chitchat)))
            .await;
    }

    /// Exchanges states with `peer` now.
    pub fn greet(&self, peer: SocketAddr) {
        self.socket.want(peer);
        // It fails only if chitchat has ended, and then `died` tells.
        let _ = self.handle.gossip(peer);
    }

    /// Waits until some state has changed since the last time.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Waits until chitchat has ended, for whatever reason.
    pub fn died(&self) -> impl Future<Output = ()> + use<> {
        let ended = self.handle.termination_watcher();
        async move {
            let _why = ended.await; // A panic has been reported by the panic hook already.
        }
    }

    #[cfg(test)]
    pub fn crash(&self) {
        self.handle.abort();
    }
}

fn encode(
    states: &BTreeMap<ChitchatId, NodeState>,
    silence: impl Fn(&ChitchatId) -> Duration,
    at_most: Duration,
) -> Vec<Vec<u8>> {
    let mut kept: BTreeMap<&str, usize> = BTreeMap::new();
    let mut chunks = Vec::new();
    for (id, state) in states.iter().rev() {
        let kept = kept.entry(&id.node_id).or_default();
        *kept += 1;
        let silent = silence(id);
        if *kept <= WORTH_KEEPING && state.max_version() > 0 && silent < at_most {
            chunks.push(Chunk::encode(id, state, silent));
        }
    }
    chunks
}

fn config(identity: &NodeIdentity, chitchat_id: ChitchatId) -> ChitchatConfig {
    let interval = identity.interval;
    ChitchatConfig {
        chitchat_id,
        cluster_id: CLUSTER.to_owned(),
        gossip_interval: interval,
        listen_addr: identity.listen,
        seed_nodes: identity.seeds.iter().map(SocketAddr::to_string).collect(),
        failure_detector_config: FailureDetectorConfig::new(PHI, SAMPLES, interval * 10, interval, identity.remembered),
        marked_for_deletion_grace_period: identity.remembered,
        catchup_callback: None,
        extra_liveness_predicate: None,
        // Every host of ours can read V1, and the digest takes a third of V0's room.
        protocol_version: ProtocolVersion::V1,
    }
}
