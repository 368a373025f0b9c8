//! The door of the peer port: who connects has to show quickly that it is a member, and whoever does not keeps nobody out.
//!
//! Owns the connections whose TLS handshake is under way, and nothing that comes before or after.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, Stream, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// How many handshakes may be under way.
pub(super) const HANDSHAKES: usize = 128;
/// How long one may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// After the system refused a connection, mostly for want of file descriptors: trying again at once would not free any.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who did not get in, and why; counted since the start.
#[derive(Debug, Default)]
pub struct Refusals {
    accepts: AtomicU64,
    handshakes: AtomicU64,
    displaced: AtomicU64,
}

impl Refusals {
    /// Each count under its name for metrics and JSON: snake case, stable.
    pub fn all(&self) -> [(&'static str, u64); 3] {
        // The system refused the connection; the handshake failed or took too long; another took its place.
        let counts =
            [("peer_accept", &self.accepts), ("peer_handshake", &self.handshakes), ("peer_displaced", &self.displaced)];
        counts.map(|(name, count)| (name, count.load(Ordering::Relaxed)))
    }
}

/// Counts one more; how many there were before.
fn count(counter: &AtomicU64) -> u64 {
    counter.fetch_add(1, Ordering::Relaxed)
}

/// The connections whose handshake has succeeded. One that fails ends itself, not the server.
pub(super) fn enter(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    refusals: Arc<Refusals>,
) -> impl Stream<Item = io::Result<TlsStream<TcpStream>>> {
    let knocks = Box::pin(knocks(listener, Arc::clone(&refusals)));
    let door = Door { acceptor, handshakes: FuturesUnordered::new(), unfinished: Unfinished::default(), refusals };
    futures::stream::unfold((door, knocks), |(mut door, mut knocks)| async {
        loop {
            tokio::select! {
                Some((ticket, done)) = door.handshakes.next() => {
                    door.unfinished.remove(ticket);
                    match done {
                        End::In(stream) => return Some((Ok(*stream), (door, knocks))),
                        End::Failed => _ = count(&door.refusals.handshakes),
                        End::Displaced => _ = count(&door.refusals.displaced),
                    }
                }
                Some((stream, from)) = knocks.next() => door.begin(stream, from.ip()),
                else => return None,
            }
        }
    })
}

fn knocks(listener: TcpListener, refusals: Arc<Refusals>) -> impl Stream<Item = (TcpStream, SocketAddr)> {
    futures::stream::unfold((listener, refusals), |(listener, refusals)| async {
        loop {
            match listener.accept().await {
                Ok(accepted) => return Some((accepted, (listener, refusals))),
                Err(error) => {
                    if count(&refusals.accepts) == 0 {
                        tracing::warn!(%error, "connections of other agents are refused by the system: are its file descriptors used up?");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    })
}

struct Door {
    acceptor: TlsAcceptor,
    handshakes: FuturesUnordered<BoxFuture<'static, (u64, End)>>,
    unfinished: Unfinished<oneshot::Sender<()>>,
    refusals: Arc<Refusals>,
}

/// How a handshake ended.
enum End {
    In(Box<TlsStream<TcpStream>>),
    Failed,
    Displaced,
}

impl Door {
    fn begin(&mut self, stream: TcpStream, from: IpAddr) {
        // What it is replaced by closes the channel, and that ends it.
        let (keep, dropped) = oneshot::channel();
        let ticket = self.unfinished.insert(from, keep);
        let acceptor = self.acceptor.clone();
        let handshake = async move {
            if stream.set_nodelay(true).is_err() {
                return End::Failed;
            }
            tokio::select! {
                done = tokio::time::timeout(PATIENCE, acceptor.accept(stream)) => match done {
                    Ok(Ok(stream)) => End::In(Box::new(stream)),
                    Ok(Err(_)) | Err(_) => End::Failed,
                },
                _ = dropped => End::Displaced,
            }
        };
        self.handshakes.push(Box::pin(async move { (ticket, handshake.await) }));
    }
}

/// What is under way, with its source. When there is no room, it is made at the cost of the source that takes the most of it: its
/// oldest goes. So one source, however busy, only ever displaces itself, and of many the oldest goes first.
#[derive(Debug)]
struct Unfinished<T> {
    next: u64,
    by_age: BTreeMap<u64, (IpAddr, T)>,
}

impl<T> Default for Unfinished<T> {
    fn default() -> Self {
        Self { next: 0, by_age: BTreeMap::new() }
    }
}

impl<T> Unfinished<T> {
    fn insert(&mut self, from: IpAddr, item: T) -> u64 {
        if self.by_age.len() >= HANDSHAKES
            && let Some(oldest) = self.oldest_of_the_busiest()
        {
            self.remove(oldest);
        }
        self.next += 1;
        self.by_age.insert(self.next, (from, item));
        self.next
    }

    fn remove(&mut self, ticket: u64) {
        self.by_age.remove(&ticket);
    }

    fn oldest_of_the_busiest(&self) -> Option<u64> {
        let mut sources: BTreeMap<IpAddr, (usize, u64)> = BTreeMap::new();
        for (ticket, (from, _)) in &self.by_age {
            sources.entry(*from).or_insert((0, *ticket)).0 += 1;
        }
        let busiest = sources.into_values().max_by_key(|(count, oldest)| (*count, std::cmp::Reverse(*oldest)));
        busiest.map(|(_, oldest)| oldest)
    }
}

#[cfg(test)]
mod tests;
