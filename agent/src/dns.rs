//! DNS: keeps the zone as the cluster is, and a listener on every address of every segment that stands.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use overlay::cluster::Cluster;
use overlay::datapath::status::ReconcileStatus;
use overlay::kernel::netns::{self, NetnsError};
use overlay::model::id::NetworkId;
use overlay::model::intent::Intents;
use overlay_dns::forward::{Config, Forwarder};
use overlay_dns::server::{Limits, Listener, Resolver};
use overlay_dns::zone::Zone;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::cluster::ClusterView;
use crate::state::CommittedIntents;

/// Where DNS listens (RFC 1035, section 4.2).
const PORT: u16 = 53;

/// DNS of this host.
#[derive(Debug)]
pub struct DnsService {
    /// What answers.
    pub resolver: Resolver,
    /// The networks in whose segments it does.
    pub served: watch::Receiver<BTreeSet<NetworkId>>,
    /// The task. It ends only with what it listens to.
    pub task: JoinHandle<()>,
}

/// Starts DNS for all segments of this host.
pub fn spawn(
    run_dir: &Path,
    resolv_conf: PathBuf,
    seen: watch::Receiver<ClusterView>,
    kept: watch::Receiver<CommittedIntents>,
    settled: watch::Receiver<Arc<ReconcileStatus>>,
) -> DnsService {
    let (cluster, intents) = (Arc::clone(&seen.borrow().cluster), Arc::clone(&kept.borrow().intents));
    let (zone_tx, zone) = watch::channel(Arc::new(Zone::build(&cluster, &intents)));
    let resolver = Resolver::new(zone, Forwarder::new(Config { resolv_conf, ..Config::default() }), Limits::default());
    let (serves, served) = watch::channel(BTreeSet::new());
    let (netns_dir, listeners) = (run_dir.join("netns"), BTreeMap::new());
    let keeper = Keeper { netns_dir, resolver: resolver.clone(), listeners, serves };
    let task = tokio::spawn(async move {
        tokio::select! {
            () = follow_cluster((cluster, intents), seen, kept, zone_tx) => {}
            () = keeper.run(settled) => {}
        }
    });
    DnsService { resolver, served, task }
}

/// Keeps the zone as cluster and intents are. It was built for those that are given.
async fn follow_cluster(
    mut built_for: (Arc<Cluster>, Arc<Intents>),
    mut seen: watch::Receiver<ClusterView>,
    mut intents_seen: watch::Receiver<CommittedIntents>,
    zone: watch::Sender<Arc<Zone>>,
) {
    loop {
        let cluster = Arc::clone(&seen.borrow_and_update().cluster);
        let intents = Arc::clone(&intents_seen.borrow_and_update().intents);
        let same_intents = Arc::ptr_eq(&built_for.1, &intents);
        // Most commits are about leases only, and most changes elsewhere about networks that this host is not in.
        let changed = match same_intents {
            true if Arc::ptr_eq(&built_for.0, &cluster) => None,
            true => zone.borrow().follow(&cluster, &intents),
            false => Some(Zone::build(&cluster, &intents)),
        };
        if let Some(changed) = changed {
            zone.send_replace(Arc::new(changed));
        }
        built_for = (cluster, intents);
        let changed = tokio::select! {
            changed = seen.changed() => changed,
            changed = intents_seen.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}

/// A segment's namespace, by device and inode number, and an address in it.
///
/// No other namespace has the inode number while a listener is there: its sockets keep the namespace.
type ListenerKey = (NetworkId, (u64, u64), IpAddr);

/// The sockets of a listener.
type Sockets = (UdpSocket, TcpListener);

struct Keeper {
    netns_dir: PathBuf,
    resolver: Resolver,
    listeners: BTreeMap<ListenerKey, Listener>,
    serves: watch::Sender<BTreeSet<NetworkId>>,
}

impl Keeper {
    async fn run(mut self, mut settled: watch::Receiver<Arc<ReconcileStatus>>) {
        loop {
            let segments = settled.borrow_and_update().segments.clone();
            self.keep(segments.clone()).await;
            let serves = |network: &NetworkId| self.listeners.keys().any(|(of, ..)| of == network);
            self.serves.send_replace(segments.keys().copied().filter(serves).collect());
            if settled.changed().await.is_err() {
                return;
            }
        }
    }

    /// Starts what is missing and stops what is too much.
    async fn keep(&mut self, segments: BTreeMap<NetworkId, Vec<IpAddr>>) {
        self.listeners.retain(|_, listener| !listener.has_stopped());
        let known: BTreeSet<ListenerKey> = self.listeners.keys().copied().collect();
        let netns_dir = self.netns_dir.clone();
        let opened = tokio::task::spawn_blocking(move || {
            let wanted = wanted(&netns_dir, &segments);
            let missing = wanted.difference(&known).map(|key| (*key, open(&netns_dir, *key)));
            let missing: Vec<(ListenerKey, Result<Sockets, NetnsError>)> = missing.collect();
            (wanted, missing)
        });
        // It only fails if the runtime stops.
        let Ok((wanted, missing)) = opened.await else { return };
        self.listeners.retain(|key, _| wanted.contains(key));
        for (key, sockets) in missing {
            match self.listen(key.0, sockets) {
                Ok(listener) => drop(self.listeners.insert(key, listener)),
                // The next round of the reconciler tries again.
                Err(error) => tracing::warn!(network = %key.0.short(), address = %key.2, error, "no DNS"),
            }
        }
    }

    fn listen(&self, network: NetworkId, sockets: Result<Sockets, NetnsError>) -> Result<Listener, Box<dyn Error>> {
        let (udp, tcp) = sockets?;
        Ok(self.resolver.listen(network, udp, tcp)?)
    }
}

/// The listeners that there should be: one on each address of each segment whose namespace is there.
fn wanted(netns_dir: &Path, segments: &BTreeMap<NetworkId, Vec<IpAddr>>) -> BTreeSet<ListenerKey> {
    let there = segments.iter().filter_map(|(id, addresses)| {
        let netns = std::fs::metadata(netns_dir.join(id.to_string())).ok()?;
        Some(addresses.iter().map(move |address| (*id, (netns.dev(), netns.ino()), *address)))
    });
    there.flatten().collect()
}

fn open(netns_dir: &Path, (network, _, address): ListenerKey) -> Result<Sockets, NetnsError> {
    let (netns, address) = (netns_dir.join(network.to_string()), SocketAddr::new(address, PORT));
    Ok((netns::udp_socket_in(&netns, address)?, netns::tcp_listener_in(&netns, address)?))
}
