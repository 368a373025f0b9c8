//! Tells a host whose agent is silent from a host that is gone: whoever still refuses a connection is there, and its
//! containers' packets flow. So stopping an agent, for however long, takes nothing from the traffic of its host.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use futures::future::{OptionFuture, join_all};
use overlay::model::host::Liveness;
use overlay::model::id::HostId;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::cluster::ClusterView;

/// Between two rounds of questions to those that are silent.
const PERIOD: Duration = Duration::from_millis(200);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_millis(300);
/// So many questions in a row have to go unanswered: one may get lost.
const QUESTIONS: u8 = 2;

/// Asks the hosts that gossip does not hear, as long as it does not; `absent` are those that do not answer either.
pub fn spawn(seen: watch::Receiver<ClusterView>, absent: watch::Sender<BTreeSet<HostId>>) -> JoinHandle<()> {
    tokio::spawn(follow(seen, absent, is_there))
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
            // Whoever has the address now would answer for it.
            let asked = (!taken.contains(address)).then(|| ask(*address));
            async move { OptionFuture::from(asked).await.unwrap_or(false) }
        });
        let there = join_all(there).await;
        let missing = silent.keys().zip(there).filter(|(_, there)| !there).map(|(id, _)| *id);
        missed = missing.map(|id| (id, missed.get(&id).map_or(1, |n| n.saturating_add(1)))).collect();
        let now: BTreeSet<HostId> = missed.iter().filter(|(_, n)| **n >= QUESTIONS).map(|(id, _)| *id).collect();
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

/// Where hosts are heard. One that is silent there was there before: its machine has another identity now.
fn taken(seen: &ClusterView) -> BTreeSet<SocketAddr> {
    let live = seen.cluster.hosts.values().filter(|host| host.liveness == Liveness::Live);
    live.map(|host| host.info.peer).collect()
}

/// Does the host's kernel answer? A port that nobody listens on is refused (RFC 9293, section 3.10.7.1), and that is an
/// answer; a host that is down or cut off says nothing, or a router says that it is not there.
pub async fn is_there(peer: SocketAddr) -> bool {
    match timeout(PATIENCE, TcpStream::connect(peer)).await {
        Ok(Ok(_)) => true,
        Ok(Err(error)) => error.kind() == ErrorKind::ConnectionRefused,
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests;
