//! DNS over TCP (RFC 7766): messages with their length in front, and how many connections and how long they may last.
//!
//! The connections are counted and timed here because hickory-server accepts as many as are made, and one container
//! must not be able to use up the daemon's file descriptors.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// How long a client may be idle, or take to send a question or to accept an answer (RFC 7766, section 6.2.3).
const IDLE: Duration = Duration::from_secs(10);
/// How long to pause when a connection can't be accepted: without file descriptors, the next one can't be either.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Slots for connections: some for all listeners together, fewer for each.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionSlots {
    /// For all listeners.
    pub all: Arc<Semaphore>,
    /// For this one.
    pub own: Arc<Semaphore>,
}

/// A slot taken, free again when dropped.
pub(crate) type ConnectionPermit = (OwnedSemaphorePermit, OwnedSemaphorePermit);

impl ConnectionSlots {
    /// Takes a slot if there is one.
    pub fn take(&self) -> Option<ConnectionPermit> {
        let own = Arc::clone(&self.own).try_acquire_owned().ok()?;
        let all = Arc::clone(&self.all).try_acquire_owned().ok()?;
        Some((own, all))
    }
}

/// Answers one message; `None` closes the connection.
pub(crate) trait Responder: Clone + Send + 'static {
    /// The reply to `message` from `client`.
    fn respond(&self, message: Vec<u8>, client: SocketAddr) -> impl Future<Output = Option<Vec<u8>>> + Send;

    /// A connection was closed at once because there was no slot for it.
    fn turned_away(&self);
}

/// Serves connections until dropped.
pub(crate) async fn serve(listener: TcpListener, slots: ConnectionSlots, responder: impl Responder) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, client)) => match slots.take() {
                    Some(permit) => drop(connections.spawn(converse(stream, client, permit, responder.clone()))),
                    None => responder.turned_away(),
                },
                Err(error) => {
                    tracing::debug!(%error, "can't accept a DNS connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn converse(
    mut stream: TcpStream,
    client: SocketAddr,
    permit: ConnectionPermit,
    responder: impl Responder,
) -> io::Result<()> {
    let _permit = permit;
    while let Some(message) = timeout(IDLE, read(&mut stream)).await?? {
        let Some(reply) = responder.respond(message, client).await else { break };
        timeout(IDLE, write(&mut stream, &reply)).await??;
    }
    Ok(())
}

/// The next message; `None` if the other side is done.
///
/// # Errors
/// When the connection breaks, also in the middle of a message.
pub(crate) async fn read(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let length = match stream.read_u16().await {
        Ok(length) => length,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut message = vec![0; usize::from(length)];
    stream.read_exact(&mut message).await?;
    Ok(Some(message))
}

/// Sends a message, length and all in one segment where it fits (RFC 7766, section 8).
///
/// # Errors
/// When the connection breaks, or the message is longer than 65,535 bytes.
pub(crate) async fn write(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut framed = Vec::with_capacity(2 + message.len());
    framed.extend(length.to_be_bytes());
    framed.extend(message);
    stream.write_all(&framed).await
}
