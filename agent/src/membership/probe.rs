//! Tells a host whose agent is down from a host that is gone. If the host still refuses a connection to the agent's port, only its
//! agent is down: its entries stay, and its containers' traffic continues for as long as that lasts.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use futures::future::{OptionFuture, join_all};
use overlay::model::host::Liveness;
use overlay::model::id::HostId;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::cluster::ClusterView;

/// The time between two rounds of probes to silent hosts.
const PERIOD: Duration = Duration::from_millis(200);
/// How long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(300);
/// This many probes in a row have to go unanswered: one packet may get lost.
const PROBES: u8 = 2;

/// Probes the hosts that gossip does not hear, for as long as it does not hear them; those that do not answer are `absent`. Ends only
/// when the view of the cluster ends.
pub async fn run(seen: watch::Receiver<ClusterView>, absent: watch::Sender<BTreeSet<HostId>>) {
    follow(seen, absent, is_there).await;
}

async fn follow<A: Future<Output = bool>>(
    mut seen: watch::Receiver<ClusterView>,
    absent: watch::Sender<BTreeSet<HostId>>,
    ask: impl Fn(SocketAddr) -> A,
) {
    let mut missed: BTreeMap<HostId, u8> = BTreeMap::new();
    loop {
        let (silent, taken) = {
            let seen = seen.borrow_and_update();
            (silent(&seen), taken(&seen))
        };
        let there = silent.values().map(|address| {
            // Another host that has the address now would answer in its place.
            let asked = (!taken.contains(address)).then(|| ask(*address));
            async move { OptionFuture::from(asked).await.unwrap_or(false) }
        });
        let there = join_all(there).await;
        let missing = silent.keys().zip(there).filter(|(_, there)| !there).map(|(id, _)| *id);
        missed = missing.map(|id| (id, missed.get(&id).map_or(1, |n| n.saturating_add(1)))).collect();
        let now: BTreeSet<HostId> = missed.iter().filter(|(_, n)| **n >= PROBES).map(|(id, _)| *id).collect();
        absent.send_if_modified(|before| std::mem::replace(before, now.clone()) != now);
        if !silent.is_empty() {
            sleep(PERIOD).await;
        } else if seen.changed().await.is_err() {
            return;
        }
    }
}

fn silent(seen: &ClusterView) -> BTreeMap<HostId, SocketAddr> {
    let silent = seen.cluster.hosts.iter().filter(|(_, host)| host.liveness != Liveness::Live);
    silent.map(|(id, host)| (*id, host.info.peer)).collect()
}

/// The addresses of the live hosts. A silent host that has the address of a live one is an earlier identity of the same machine.
fn taken(seen: &ClusterView) -> BTreeSet<SocketAddr> {
    let live = seen.cluster.hosts.values().filter(|host| host.liveness == Liveness::Live);
    live.map(|host| host.info.peer).collect()
}

/// Does the host's kernel answer? It refuses a connection to a port without a listener (RFC 9293, section 3.10.7.1), which is an
/// answer. A host that is down or cut off does not answer, or a router answers that it is unreachable.
pub async fn is_there(peer: SocketAddr) -> bool {
    match timeout(ANSWER_TIMEOUT, TcpStream::connect(peer)).await {
        Ok(Ok(_)) => true,
        Ok(Err(error)) => error.kind() == ErrorKind::ConnectionRefused,
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests;
