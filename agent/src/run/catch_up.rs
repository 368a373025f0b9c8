//! Catching up: a host that has just started asks another one for all that it knows, which is faster than gossip.

use std::time::Duration;

use overlay::model::host::Liveness;
use overlay::model::id::HostId;
use overlay_gossip as gossip;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::cluster::ClusterView;
use crate::peer::Peers;

/// The time between two attempts, unless the view changes before.
const RETRY_INTERVAL: Duration = Duration::from_millis(200);
/// A host that has received nothing from other hosts for this long logs what to look for.
const NO_HOSTS_TIMEOUT: Duration = Duration::from_secs(5);

/// Ends when this host has caught up, through gossip or by a snapshot of another host.
pub(super) async fn run(gossip: gossip::Handle, mut seen: watch::Receiver<ClusterView>, peers: Peers, me: HostId) {
    let mut no_hosts = std::pin::pin!(sleep(NO_HOSTS_TIMEOUT));
    let mut has_warned = false;
    loop {
        let now = seen.borrow_and_update().clone();
        if now.synced {
            return;
        }
        if no_hosts.is_elapsed() && now.cluster.hosts.len() < 2 && !std::mem::replace(&mut has_warned, true) {
            tracing::warn!(
                "no other host is heard: is overlayd up there, UDP open to it, and the cluster key the same?"
            );
        }
        let live = now.cluster.hosts.iter().filter(|(id, h)| **id != me && h.liveness == Liveness::Live);
        for (id, _) in live {
            if take_snapshot(&gossip, &peers, *id).await {
                return;
            }
        }
        tokio::select! {
            changed = timeout(RETRY_INTERVAL, seen.changed()) => if matches!(changed, Ok(Err(_))) { return },
            () = &mut no_hosts, if !has_warned => {}
        }
    }
}

/// Asks one host for all that it knows, and gives that to gossip; false if that did not succeed.
async fn take_snapshot(gossip: &gossip::Handle, peers: &Peers, from: HostId) -> bool {
    let parts = match peers.snapshot(from).await {
        Ok(parts) => parts,
        Err(error) => {
            tracing::debug!(host = %from.short(), %error, "no snapshot");
            return false;
        }
    };
    let fed = gossip.feed(parts).await;
    if let Err(error) = &fed {
        tracing::warn!(host = %from.short(), %error, "snapshot not taken");
    }
    fed.is_ok()
}
