//! DNS: keeps the zone as the cluster is, and a listener on every address of every segment that stands.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use overlay::cluster::Cluster;
use overlay::datapath::status::ReconcileStatus;
use overlay::kernel::netns;
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
pub struct Names {
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
) -> Names {
    let (zone_tx, zone) = watch::channel(Arc::new(Zone::build(&seen.borrow().cluster, &kept.borrow().intents)));
    let resolver = Resolver::new(zone, Forwarder::new(Config { resolv_conf, ..Config::default() }), Limits::default());
    let (serves, served) = watch::channel(BTreeSet::new());
    let (netns_dir, listeners) = (run_dir.join("netns"), BTreeMap::new());
    let keeper = Keeper { netns_dir, resolver: resolver.clone(), listeners, serves };
    let task = tokio::spawn(async move {
        tokio::select! {
            () = follow_cluster(seen, kept, zone_tx) => {}
            () = keeper.run(settled) => {}
        }
    });
    Names { resolver, served, task }
}

async fn follow_cluster(
    mut seen: watch::Receiver<ClusterView>,
    mut intents_seen: watch::Receiver<CommittedIntents>,
    zone: watch::Sender<Arc<Zone>>,
) {
    let mut built_for: Option<(Arc<Cluster>, Arc<Intents>)> = None;
    loop {
        let changed = tokio::select! {
            changed = seen.changed() => changed,
            changed = intents_seen.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
        let cluster = Arc::clone(&seen.borrow_and_update().cluster);
        let intents = Arc::clone(&intents_seen.borrow_and_update().intents);
        // Most commits are about leases only.
        let same = |(c, i): &(_, _)| Arc::ptr_eq(c, &cluster) && Arc::ptr_eq(i, &intents);
        if !built_for.as_ref().is_some_and(same) {
            zone.send_replace(Arc::new(Zone::build(&cluster, &intents)));
            built_for = Some((cluster, intents));
        }
    }
}

/// A segment's namespace and an address in it. A namespace that was made anew has another cookie.
type ListenerKey = (NetworkId, u64, IpAddr);

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
            self.keep(&segments);
            let serves = |network: &NetworkId| self.listeners.keys().any(|(of, ..)| of == network);
            self.serves.send_replace(segments.keys().copied().filter(serves).collect());
            if settled.changed().await.is_err() {
                return;
            }
        }
    }

    /// Starts what is missing and stops what is too much.
    fn keep(&mut self, segments: &BTreeMap<NetworkId, Vec<IpAddr>>) {
        let mut wanted: BTreeMap<ListenerKey, PathBuf> = BTreeMap::new();
        for (id, addresses) in segments {
            let path = self.netns_dir.join(id.to_string());
            let Ok(netns) = netns::identify(&path) else { continue };
            wanted.extend(addresses.iter().map(|address| ((*id, netns.cookie, *address), path.clone())));
        }
        self.listeners.retain(|key, listener| wanted.contains_key(key) && !listener.has_stopped());
        for (key, path) in wanted {
            if let std::collections::btree_map::Entry::Vacant(entry) = self.listeners.entry(key) {
                match listen(&self.resolver, key, &path) {
                    Ok(listener) => drop(entry.insert(listener)),
                    // The next round of the reconciler tries again.
                    Err(error) => tracing::warn!(network = %key.0.short(), address = %key.2, error, "no DNS"),
                }
            }
        }
    }
}

fn listen(
    resolver: &Resolver,
    (network, _, address): ListenerKey,
    netns: &Path,
) -> Result<Listener, Box<dyn std::error::Error>> {
    let address = SocketAddr::new(address, PORT);
    let udp = netns::udp_socket_in(netns, address)?;
    let tcp = netns::tcp_listener_in(netns, address)?;
    Ok(resolver.listen(network, udp, tcp)?)
}
