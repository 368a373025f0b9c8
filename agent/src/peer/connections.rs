//! The connections from this host to the other agents: one per host, made for the first question and kept for the next.
//!
//! - A connection belongs to a [`Route`]: the host, its address, and the address of this host. When one of them changes,
//!   the next question makes a new connection.
//! - A connection is closed after [`IDLE_TIMEOUT`] without a question, when its host is gone or forgotten, and when it is
//!   the least recently used of more than [`MAX_CONNECTIONS`]. A call that is under way on it still ends normally.
//! - A connection that has failed is never repaired: [`Connection::discard`] removes it, and the next question makes
//!   another one.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, OptionFuture, Shared};
use hyper_util::rt::TokioIo;
use nix::sys::socket::{setsockopt, sockopt};
use overlay::model::id::HostId;
use rustls::pki_types::ServerName;
use tokio::net::TcpSocket;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint, Uri};

use super::client::CallError;
use super::tls::Credentials;
use crate::cluster::ClusterView;
use crate::state::identity::Identity;
use cache::Cache;

mod cache;

/// How long connecting to another agent may take, with TLS.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the system may try to deliver bytes that the other host does not acknowledge. A connection that a firewall or a
/// crashed machine has forgotten fails after this time, even if no question waits for its own timeout.
const UNACKNOWLEDGED_TIMEOUT: Duration = Duration::from_secs(4);
/// How long a connection is kept without a question.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// How many connections are kept.
const MAX_CONNECTIONS: usize = 128;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// From where to where a connection goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Route {
    host: HostId,
    to: SocketAddr,
    /// The address that this host announces, if it is known: a witness recognises a copied disk by the address of its caller.
    from: Option<IpAddr>,
}

/// A connection that is made by a task of its own, so that a caller that gives up does not leave it half made.
type Connecting = Shared<BoxFuture<'static, Result<Channel, Arc<BoxError>>>>;

/// All connections from this host to others.
#[derive(Debug)]
pub(super) struct Connections {
    me: HostId,
    credentials: Credentials,
    view: watch::Receiver<ClusterView>,
    cache: Mutex<Cache<Connecting>>,
    /// Wakes [`Self::tend`] when the first connection is made.
    first: Notify,
}

/// A connection that is there for the next question to a host.
pub(super) struct Connection<'a> {
    pub channel: Channel,
    /// Was it there before this question? Then the other host may have closed it meanwhile.
    pub is_reused: bool,
    number: u64,
    host: HostId,
    connections: &'a Connections,
}

impl Connection<'_> {
    /// Forgets the connection, because it has failed.
    pub fn discard(&self) {
        self.connections.cache().remove(self.host, self.number);
    }
}

impl Connections {
    pub fn new(identity: &Identity, view: watch::Receiver<ClusterView>) -> Self {
        let credentials = Credentials::new(identity);
        Self {
            me: identity.id(),
            credentials,
            view,
            cache: Mutex::new(Cache::new(MAX_CONNECTIONS)),
            first: Notify::new(),
        }
    }

    /// The connection to a host; a new one if there is none.
    pub async fn to(&self, host: HostId) -> Result<Connection<'_>, CallError> {
        let route = self.route(host).ok_or(CallError::Unknown(host))?;
        let (number, connecting, is_reused) = self.find_or_start(route);
        match connecting.await {
            Ok(channel) => Ok(Connection { channel, is_reused, number, host, connections: self }),
            Err(error) => {
                self.cache().remove(host, number);
                Err(CallError::Silent { host, address: route.to, source: Box::new(SharedError(error)) })
            }
        }
    }

    /// A connection for one question with a large answer. It is not kept: on a kept one the large answer would hold up the
    /// small ones behind it.
    pub async fn once(&self, host: HostId) -> Result<Channel, CallError> {
        let route = self.route(host).ok_or(CallError::Unknown(host))?;
        let connected = connect(self.credentials.connector(host), route, None).await;
        connected.map_err(|source| CallError::Silent { host, address: route.to, source })
    }

    /// Closes connections that are idle, and those to hosts that are gone or have another address. Never ends by itself.
    pub async fn tend(&self) {
        let mut view = self.view.clone();
        loop {
            view.borrow_and_update();
            let idle = {
                let mut cache = self.cache();
                cache.retain((Instant::now(), IDLE_TIMEOUT), |route| self.route(route.host).as_ref() == Some(route));
                cache.least_recent_use().map(|used| used + IDLE_TIMEOUT)
            };
            let is_empty = idle.is_none();
            tokio::select! {
                () = self.first.notified(), if is_empty => {}
                Some(()) = OptionFuture::from(idle.map(sleep_until)) => {}
                Ok(()) = view.changed(), if !is_empty => {}
                else => return,
            }
        }
    }

    fn route(&self, host: HostId) -> Option<Route> {
        let view = self.view.borrow();
        let address = |host| view.cluster.hosts.get(&host).map(|h| h.info.peer);
        Some(Route { host, to: address(host)?, from: address(self.me).map(|own| own.ip()) })
    }

    /// Its number, and whether it was made already.
    fn find_or_start(&self, route: Route) -> (u64, Connecting, bool) {
        let mut cache = self.cache();
        let now = Instant::now();
        if let Some((number, connecting)) = cache.get(route, now) {
            match connecting.peek() {
                // All its callers have given up before it failed.
                Some(Err(_)) => {}
                made => {
                    let is_made = made.is_some();
                    return (number, connecting, is_made);
                }
            }
        }
        let task = tokio::spawn(connect(self.credentials.connector(route.host), route, Some(UNACKNOWLEDGED_TIMEOUT)));
        let made = async move { task.await.map_err(BoxError::from).flatten().map_err(Arc::new) };
        let connecting = made.boxed().shared();
        let number = cache.insert(route, connecting.clone(), now);
        self.first.notify_one();
        (number, connecting, false)
    }

    /// No code panics while it holds the lock but between whole changes.
    fn cache(&self) -> MutexGuard<'_, Cache<Connecting>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An error that several callers have in common.
#[derive(Debug)]
struct SharedError(Arc<BoxError>);

impl std::fmt::Display for SharedError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for SharedError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

/// Makes a connection within [`CONNECT_TIMEOUT`].
async fn connect(tls: TlsConnector, route: Route, unacknowledged: Option<Duration>) -> Result<Channel, BoxError> {
    let connecting = async {
        let stream = open(&tls, route, unacknowledged).await?;
        one_connection(stream).await
    };
    timeout(CONNECT_TIMEOUT, connecting).await?
}

async fn open(
    tls: &TlsConnector,
    Route { to, from, .. }: Route,
    unacknowledged: Option<Duration>,
) -> Result<TlsStream<tokio::net::TcpStream>, BoxError> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    from.map_or(Ok(()), |from| socket.bind(SocketAddr::new(from, 0)))?;
    let stream = socket.connect(to).await?;
    stream.set_nodelay(true)?;
    if let Some(time) = unacknowledged {
        setsockopt(&stream, sockopt::TcpUserTimeout, &u32::try_from(time.as_millis())?)?;
    }
    // The name is not looked at: the key is.
    Ok(tls.connect(ServerName::IpAddress(to.ip().into()), stream).await?)
}

/// A channel that is this connection and no other: when it is closed, every further call fails at once. A channel that connects
/// again by itself would do so for one waiting call after the other, each with its own timeout.
async fn one_connection(stream: TlsStream<tokio::net::TcpStream>) -> Result<Channel, BoxError> {
    let mut stream = Some(TokioIo::new(stream));
    let once = tower::service_fn(move |_: Uri| std::future::ready(stream.take().ok_or(Closed)));
    Ok(Endpoint::from_static("http://peer").connect_with_connector(once).await?)
}

/// The connection is closed.
#[derive(Debug, thiserror::Error)]
#[error("the connection is closed")]
struct Closed;

#[cfg(test)]
mod tests;
