//! The acceptor of the peer port: a host that connects has to prove quickly that it is a member, and those that don't can't keep
//! members out.
//!
//! Owns the connections whose TLS handshake is pending, and nothing that comes before or after: a connection whose handshake is
//! done takes no room here, however long it stays open.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, Stream, StreamExt};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// How many handshakes may be pending.
pub(super) const MAX_HANDSHAKES: usize = 128;
/// How long one may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// The system asks the other end of a connection whether it is still there after this time without a packet, in seconds. Agents
/// close their connections before that: this finds those whose machine crashed or was cut off.
const KEEPALIVE_IDLE: u32 = 90;
/// The time between two such questions, in seconds, and how many have to go unanswered.
const KEEPALIVE_INTERVAL: u32 = 10;
const KEEPALIVE_COUNT: u32 = 3;
/// After the system refused a connection, mostly for want of file descriptors: trying again at once would not free any.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections that were refused, by the reason; counted since the start.
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

/// Adds one and gives the count before.
fn count(counter: &AtomicU64) -> u64 {
    counter.fetch_add(1, Ordering::Relaxed)
}

/// The connections whose handshake has succeeded. One that fails ends itself, not the server.
pub(super) fn accepted(
    listener: TcpListener,
    tls: TlsAcceptor,
    refusals: Arc<Refusals>,
) -> impl Stream<Item = io::Result<TlsStream<TcpStream>>> {
    let streams = Box::pin(tcp_streams(listener, Arc::clone(&refusals)));
    let acceptor = Acceptor { tls, handshakes: FuturesUnordered::new(), pending: Pending::default(), refusals };
    futures::stream::unfold((acceptor, streams), |(mut acceptor, mut streams)| async {
        loop {
            tokio::select! {
                Some((ticket, done)) = acceptor.handshakes.next() => {
                    acceptor.pending.remove(ticket);
                    match done {
                        End::Accepted(stream) => return Some((Ok(*stream), (acceptor, streams))),
                        End::Failed => _ = count(&acceptor.refusals.handshakes),
                        End::Displaced => _ = count(&acceptor.refusals.displaced),
                    }
                }
                Some((stream, from)) = streams.next() => acceptor.begin(stream, from.ip()),
                else => return None,
            }
        }
    })
}

fn tcp_streams(listener: TcpListener, refusals: Arc<Refusals>) -> impl Stream<Item = (TcpStream, SocketAddr)> {
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

struct Acceptor {
    tls: TlsAcceptor,
    handshakes: FuturesUnordered<BoxFuture<'static, (u64, End)>>,
    pending: Pending<oneshot::Sender<()>>,
    refusals: Arc<Refusals>,
}

/// How a handshake ended.
enum End {
    Accepted(Box<TlsStream<TcpStream>>),
    Failed,
    Displaced,
}

impl Acceptor {
    fn begin(&mut self, stream: TcpStream, from: IpAddr) {
        // A newer connection that takes its place drops `keep`, which ends this handshake.
        let (keep, dropped) = oneshot::channel();
        let ticket = self.pending.insert(from, keep);
        let tls = self.tls.clone();
        let handshake = async move {
            if prepare(&stream).is_err() {
                return End::Failed;
            }
            tokio::select! {
                done = tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)) => match done {
                    Ok(Ok(stream)) => End::Accepted(Box::new(stream)),
                    Ok(Err(_)) | Err(_) => End::Failed,
                },
                _ = dropped => End::Displaced,
            }
        };
        self.handshakes.push(Box::pin(async move { (ticket, handshake.await) }));
    }
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    setsockopt(stream, sockopt::KeepAlive, &true)?;
    setsockopt(stream, sockopt::TcpKeepIdle, &KEEPALIVE_IDLE)?;
    setsockopt(stream, sockopt::TcpKeepInterval, &KEEPALIVE_INTERVAL)?;
    setsockopt(stream, sockopt::TcpKeepCount, &KEEPALIVE_COUNT)?;
    Ok(())
}

/// Pending handshakes, each with its source address. When there is no room for another one, the source with the most pending
/// handshakes loses its oldest. So a busy source only displaces itself, and among equal sources the oldest handshake goes first.
#[derive(Debug)]
struct Pending<T> {
    next: u64,
    by_age: BTreeMap<u64, (IpAddr, T)>,
}

impl<T> Default for Pending<T> {
    fn default() -> Self {
        Self { next: 0, by_age: BTreeMap::new() }
    }
}

impl<T> Pending<T> {
    fn insert(&mut self, from: IpAddr, item: T) -> u64 {
        if self.by_age.len() >= MAX_HANDSHAKES
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
