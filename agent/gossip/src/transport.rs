//! The one socket that gossip speaks through: chitchat's envelopes and our pushes, sealed.
//!
//! Owns the socket, what is done with each datagram, and the end that chitchat holds. chitchat never sees an error, whatever arrives,
//! as a single one would end its task. Knows nothing of what is gossiped.

pub(crate) mod codec;
pub(crate) mod datagram;
pub(crate) mod exchange;
pub(crate) mod fragment;
pub(crate) mod hearsay;
pub(crate) mod inspect;
pub(crate) mod replay;
pub(crate) mod seal;

use std::io;
use std::net::{SocketAddr, UdpSocket as StdUdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use chitchat::transport::{RecvOutcome, SendOutcome, Socket, Transport};
use chitchat::{ChitchatEnvelope, ChitchatId, ChitchatMessage, Version};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::UdpSocket;
use tokio::sync::{Notify, mpsc};

use crate::counters::{Counters, Reason};
use crate::limits::Limit;
use crate::push::Push;
use crate::standing::Standing;
use crate::transport::codec::{Codec, NOTHING_MORE};
use crate::transport::exchange::Exchanges;
use crate::transport::fragment::Reassembly;
use crate::transport::hearsay::Standings;
use crate::transport::seal::{Opener, Sealer};

/// Room for the bursts of a large cluster: 500 hosts that all push within a moment.
const RECEIVE_BUFFER: usize = 4 << 20;
/// Larger than any datagram of ours; what is longer is not ours and may be cut.
const DATAGRAM_BUFFER: usize = 2048;
/// Messages that wait for chitchat, and pushes that wait for the task. While a queue is full, what comes is dropped and counted as
/// [`Reason::Backlog`]: the next round of gossip brings it again.
const QUEUE: usize = 1024;
/// A socket that fails again and again must not take the processor.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(10);

/// What a message is, by its first byte.
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
pub(crate) enum Kind {
    Chitchat = 1,
    Push = 2,
}

/// Binds the gossip socket.
pub(crate) fn bind(addr: SocketAddr) -> io::Result<StdUdpSocket> {
    let socket = StdUdpSocket::bind(addr)?;
    socket.set_nonblocking(true)?;
    // Best effort: beyond net.core.rmem_max it takes CAP_NET_ADMIN, and gossip works with less.
    if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
        let _ = setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BUFFER);
    }
    Ok(socket)
}

/// What the sending and the receiving side share.
pub(crate) struct GossipSocket {
    udp: UdpSocket,
    sealer: Mutex<Sealer>,
    counters: Arc<Counters>,
    inbox: Mutex<Option<Inbox>>,
    written: AtomicU64,
    stepped: Notify,
    exchanges: Mutex<Exchanges>,
    standings: Mutex<Arc<Standings>>,
}

/// Where chitchat of the moment takes its messages from.
#[derive(Clone)]
struct Inbox {
    own: ChitchatId,
    messages: mpsc::Sender<RecvOutcome>,
}

impl GossipSocket {
    /// A socket for gossip with `interval` between two rounds.
    pub fn new(udp: UdpSocket, sealer: Sealer, counters: Arc<Counters>, interval: Duration) -> Self {
        Self {
            udp,
            sealer: Mutex::new(sealer),
            counters,
            inbox: Mutex::new(None),
            written: AtomicU64::new(0),
            stepped: Notify::new(),
            exchanges: Mutex::new(Exchanges::new(interval)),
            standings: Mutex::default(),
        }
    }

    /// Waits until chitchat has done something since the last time: taken a message, or begun a round.
    pub async fn stepped(&self) {
        self.stepped.notified().await;
    }

    /// Makes sure that the next exchange with `peer` takes place, also if there was one a moment ago.
    pub fn want(&self, peer: SocketAddr) {
        locked(&self.exchanges).want(peer);
    }

    /// Notes the highest version that this host has written, before it is sent to any other host.
    pub fn note_written(&self, version: Version) {
        self.written.store(version, Ordering::Relaxed);
    }

    /// Notes how this host knows of each incarnation: all of them, in the order of their IDs.
    pub fn note_standings<'a>(&self, now: impl Iterator<Item = (&'a ChitchatId, Standing)> + Clone) {
        Arc::make_mut(&mut locked(&self.standings)).follow(now);
    }

    fn standings(&self) -> Arc<Standings> {
        Arc::clone(&locked(&self.standings))
    }

    /// Seals `message` once and sends it to each of `peers`. A datagram that can't be sent is counted; the peer's own gossip asks again.
    pub async fn send(&self, peers: &[SocketAddr], kind: Kind, message: &[u8]) {
        let mut whole = Vec::with_capacity(1 + message.len());
        whole.push(kind as u8);
        whole.extend_from_slice(message);
        let datagrams = match locked(&self.sealer).seal(&whole) {
            Ok(datagrams) => datagrams,
            Err(reason) => return self.counters.count(reason),
        };
        for peer in peers {
            for datagram in &datagrams {
                if self.udp.send_to(datagram, peer).await.is_err() {
                    self.counters.count(Reason::Send);
                }
            }
        }
    }
}

/// The receiving side: takes datagrams for as long as it runs, and hands on what is good.
pub(crate) struct Receiver {
    socket: Arc<GossipSocket>,
    opener: Opener,
    reassembly: Reassembly,
    codec: Codec,
    pushes: mpsc::Sender<Push>,
}

impl Receiver {
    /// The receiver of `socket`, and where it puts pushes.
    pub fn new(socket: Arc<GossipSocket>, opener: Opener, codec: Codec) -> (Self, mpsc::Receiver<Push>) {
        let (pushes, received) = mpsc::channel(QUEUE);
        (Self { socket, opener, reassembly: Reassembly::default(), codec, pushes }, received)
    }

    pub async fn run(mut self) {
        let socket = Arc::clone(&self.socket);
        let mut buffer = [0; DATAGRAM_BUFFER];
        loop {
            match socket.udp.recv_from(&mut buffer).await {
                Ok((length, from)) => {
                    if let Err(reason) = self.take(&mut buffer[..length], from).await {
                        socket.counters.count(reason);
                        // Most likely a host with the wrong key file.
                        if reason == Reason::BadSeal && socket.counters.unknown_senders().note(from, Instant::now()) {
                            tracing::warn!(host = %from, "this host's gossip is sealed with another key: copy the same cluster key file to all hosts");
                        }
                    }
                }
                Err(_) => {
                    socket.counters.count(Reason::Receive);
                    tokio::time::sleep(PAUSE_AFTER_ERROR).await;
                }
            }
        }
    }

    async fn take(&mut self, datagram: &mut [u8], from: SocketAddr) -> Result<(), Reason> {
        let opened = self.opener.open(datagram)?;
        let from_part = (opened.session, opened.counter);
        let (now, counters) = (Instant::now(), &self.socket.counters);
        let Some(message) = self.reassembly.accept(from_part, opened.index, opened.part, now, counters)? else {
            return Ok(());
        };
        let inbox = locked(&self.socket.inbox).clone().ok_or(Reason::Backlog)?;
        match message.split_first() {
            Some((&kind, envelope)) if kind == Kind::Chitchat as u8 => self.take_envelope(envelope, from, &inbox).await,
            Some((&kind, push)) if kind == Kind::Push as u8 => self.take_push(push, &inbox),
            _ => Err(Reason::Malformed),
        }
    }

    async fn take_envelope(&mut self, bytes: &[u8], from: SocketAddr, inbox: &Inbox) -> Result<(), Reason> {
        if bytes == NOTHING_MORE {
            locked(&self.socket.exchanges).complete(from, Instant::now());
            return Ok(());
        }
        let summary = inspect::inspect(bytes)?;
        let written = self.socket.written.load(Ordering::Relaxed);
        summary.admit((&inbox.own, written), &self.socket.counters)?;
        let shown = self.socket.standings().incoming(bytes, summary.unheard);
        let envelope = self.codec.decode(shown.as_deref().unwrap_or(bytes)).await?;
        if matches!(envelope.message, ChitchatMessage::Ack { .. }) {
            locked(&self.socket.exchanges).complete(from, Instant::now());
        }
        let received = RecvOutcome { from_addr: from, envelope, num_bytes_received: bytes.len() };
        inbox.messages.try_send(received).map_err(|_| Reason::Backlog)
    }

    fn take_push(&self, bytes: &[u8], inbox: &Inbox) -> Result<(), Reason> {
        let push = Push::decode(bytes)?;
        if push.id.node_id == inbox.own.node_id {
            return Err(Reason::AboutSelf);
        }
        self.pushes.try_send(push).map_err(|_| Reason::Backlog)
    }
}

/// What chitchat is given as its transport: it opens the end of the socket that one incarnation holds.
pub(crate) struct SealedTransport {
    pub socket: Arc<GossipSocket>,
    pub own: ChitchatId,
}

#[async_trait]
impl Transport for SealedTransport {
    async fn open(&self, listen_addr: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        let codec = Codec::open().await?;
        let (messages, inbox) = mpsc::channel(QUEUE);
        let own = self.own.clone();
        // This incarnation may not know what the one before it knew.
        *locked(&self.socket.standings) = Arc::default();
        *locked(&self.socket.inbox) = Some(Inbox { own: own.clone(), messages });
        Ok(Box::new(SealedSocket { socket: Arc::clone(&self.socket), own, listen_addr, codec, inbox }))
    }
}

struct SealedSocket {
    socket: Arc<GossipSocket>,
    own: ChitchatId,
    listen_addr: SocketAddr,
    codec: Codec,
    inbox: mpsc::Receiver<RecvOutcome>,
}

#[async_trait]
impl Socket for SealedSocket {
    fn local_addr(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.listen_addr)
    }

    async fn send(&mut self, to: SocketAddr, envelope: ChitchatEnvelope) -> anyhow::Result<SendOutcome> {
        let begins = matches!(envelope.message, ChitchatMessage::Syn { .. });
        let encoded = match &envelope.message {
            ChitchatMessage::Syn { .. } if locked(&self.socket.exchanges).is_fresh(to, Instant::now()) => {
                return Ok(SendOutcome { num_bytes_sent: 0 });
            }
            ChitchatMessage::Ack { delta } if *delta == Default::default() => Ok(&NOTHING_MORE[..]),
            ChitchatMessage::Syn { .. }
            | ChitchatMessage::SynAck { .. }
            | ChitchatMessage::Ack { .. }
            | ChitchatMessage::BadCluster => self.codec.encode(envelope).await,
        };
        match encoded {
            Ok(bytes) => {
                let told = self.socket.standings().outgoing(&self.own, bytes);
                let bytes = told.as_deref().unwrap_or(bytes);
                let num_bytes_sent = bytes.len();
                if begins {
                    self.socket.counters.note_use(Limit::Digest, num_bytes_sent);
                }
                self.socket.send(&[to], Kind::Chitchat, bytes).await;
                Ok(SendOutcome { num_bytes_sent })
            }
            Err(reason) => {
                self.socket.counters.count(reason);
                if begins && reason == Reason::Oversize {
                    self.socket.counters.note_use(Limit::Digest, codec::MAX_ENCODED);
                }
                Ok(SendOutcome { num_bytes_sent: 0 })
            }
        }
    }

    /// Cancel-safe, as chitchat needs it: all that is awaited is the queue.
    async fn recv(&mut self) -> anyhow::Result<RecvOutcome> {
        // chitchat is ready for more: it is done with what it did before.
        self.socket.stepped.notify_one();
        match self.inbox.recv().await {
            Some(received) => Ok(received),
            // A later incarnation has the socket; this one receives nothing more.
            None => std::future::pending().await,
        }
    }
}

/// What these locks guard is whole between any two statements, so a panic elsewhere does not spoil it.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
