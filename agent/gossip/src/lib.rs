//! Gossip: every host announces keys and values, and every host learns what all hosts announce.
//!
//! Moves maps of keys and values between hosts and tells which hosts are alive. Knows nothing of networks, leases or endpoints, and
//! touches nothing but one UDP socket and loopback.
//!
//! - **Anti-entropy** is [chitchat](https://docs.rs/chitchat) (Scuttlebutt). If messages are lost, late or repeated, all hosts still
//!   end up with the same state. Only the owner writes a host's keys.
//! - **Eager push** on the same socket makes it fast: a host sends each change to every live peer at once, and it arrives within
//!   milliseconds. A push is joined with chitchat's state per key by the higher version. A lost push costs only time.
//! - **Sealing**: every datagram is encrypted and authenticated under the [`ClusterKey`]. A sender without the key learns nothing,
//!   changes nothing and crashes nothing. A sender with the key is trusted to speak for its own host, as a shared key can't tell
//!   members apart.
//! - **Incarnations**: each start of a host is a new one, and the old one's entries stay in the view until the new one is
//!   [complete](NodeIncarnation::complete). So a restart takes nothing away, not even for a moment.
//!
//! Replays: one process does not open a recorded datagram twice. A process that has just started accepts an old recording. It then
//! believes statements that were once true, until it hears newer ones.

#![forbid(unsafe_code)]
// Not for tests: a new case of an enum must be looked at wherever the enum is matched.
#![cfg_attr(not(test), warn(clippy::wildcard_enum_match_arm))]

mod counters;
mod incarnation;
mod key;
mod limits;
mod push;
mod roster;
mod standing;
mod task;
mod transport;
mod unknown_senders;
mod view;

use std::collections::BTreeSet;
use std::error::Error;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket as AsyncUdpSocket;
use tokio::sync::{mpsc, oneshot, watch};

pub use counters::{Counters, Reason};
pub use incarnation::announce::{Announcement, MAX_KEY, MAX_VALUE};
pub use incarnation::snapshot::SnapshotError;
pub use key::{ClusterKey, KEY_BYTES, KeyError};
pub use limits::{Limit, Usage};
pub use roster::liveness::NodeLiveness;
pub use unknown_senders::{UnknownSender, UnknownSenders};
pub use view::{Generations, Hosts, NodeIncarnation, Texts, View};

use incarnation::{Member, NodeIdentity};
use roster::Roster;
use roster::liveness::LivenessConfig;
use task::{COMMANDS, Command, Ends, Task};
use transport::codec::Codec;
use transport::seal::{Opener, Sealer};
use transport::{GossipSocket, Receiver};

/// How long a dead incarnation is remembered, in case its host comes back. The hosts that heard it name it in their digests for half of
/// that time. Snapshots have it for all of that time. A host that started after the death does not tell new hosts of it in digests: each
/// would remember it anew, and it would be passed on for ever. chitchat's default of a day would fill the digests. The view remembers a
/// host for longer if its machine still answers.
pub const REMEMBERED: Duration = Duration::from_secs(15 * 60);

/// How to take part.
#[derive(Debug, Clone)]
pub struct Config {
    /// Our host id, as text.
    pub node: String,
    /// Where to listen, UDP.
    pub listen: SocketAddr,
    /// Where others reach us. Port 0 stands for the port that is listened on.
    pub advertise: SocketAddr,
    /// Peers to begin with. Our own address among them is ignored, so all hosts can have the same list.
    pub seeds: Vec<SocketAddr>,
    /// The IDs of hosts that were known when this host last ran. The view is [synced](View::synced) only once their entries are here.
    pub expected: BTreeSet<String>,
    /// Between two rounds of gossip; 200 to 500 ms are sensible, and make a crashed host [`NodeLiveness::Dead`] within 2.5 s.
    pub interval: Duration,
    /// How long a dead incarnation or a deleted key is remembered; [`REMEMBERED`] unless in a test.
    pub remembered: Duration,
    /// The secret of the cluster.
    pub key: ClusterKey,
}

/// Why gossip did not start.
#[derive(Debug, thiserror::Error)]
pub enum GossipError {
    /// The address is in use, or not ours.
    #[error("cannot listen for gossip on {addr}/udp: is another overlayd running, or the address not on this host?")]
    Bind {
        /// The address.
        addr: SocketAddr,
        /// What the kernel says.
        source: io::Error,
    },
    /// 127.0.0.1 cannot be bound. chitchat's codec needs it.
    #[error("cannot use 127.0.0.1: is the loopback interface `lo` of this network namespace up?")]
    Loopback(#[source] io::Error),
    /// The system gave no random bytes.
    #[error("cannot seal gossip: the system gave no random bytes")]
    NoRandomness,
    /// No thread for gossip to run on.
    #[error("cannot start the gossip thread")]
    Thread(#[source] io::Error),
    /// chitchat did not start.
    #[error("cannot start chitchat")]
    Chitchat(#[source] Box<dyn Error + Send + Sync>),
}

/// Running gossip. Dropping it ends it without a message: to other hosts that is a crash.
#[derive(Debug)]
pub struct Gossip {
    /// What all hosts say, ourselves included. Its sender is gone when gossip has ended.
    pub view: watch::Receiver<Arc<View>>,
    /// What this host announces. Send the whole of it whenever it has changed. It goes out at once; of many changes in a row, those
    /// after the eighth go out together every 25 ms.
    pub announce: watch::Sender<Announcement>,
    handle: Handle,
    stop: oneshot::Sender<()>,
    ended: oneshot::Receiver<()>,
}

/// Asks things of running gossip. Cheap to clone; does not keep gossip running.
#[derive(Debug, Clone)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
    counters: Arc<Counters>,
    addr: SocketAddr,
}

/// Starts gossip, which announces `initial` from its first message on.
///
/// # Errors
///
/// Why it did not start; nothing is left behind then.
pub async fn spawn(
    config: Config,
    generations: impl Generations + Send + 'static,
    initial: Announcement,
) -> Result<Gossip, GossipError> {
    let listen = config.listen;
    let socket = transport::bind(listen).map_err(|source| GossipError::Bind { addr: listen, source })?;
    let listen = socket.local_addr().map_err(|source| GossipError::Bind { addr: listen, source })?;
    let mut advertise = config.advertise;
    if advertise.port() == 0 {
        advertise.set_port(listen.port());
    }

    let counters = Arc::new(Counters::default());
    let (announce, announcement) = watch::channel(initial);
    let (commands, asked) = mpsc::channel(COMMANDS);
    let (view_sender, view) = watch::channel(Arc::default());
    let (stop, stopped) = oneshot::channel();
    let (ready_sender, ready) = oneshot::channel();
    let (ended_sender, ended) = oneshot::channel();

    let start = Start { config, listen, advertise, socket, counters: Arc::clone(&counters) };
    let channels = Channels { announcement, commands: asked, view: view_sender, stop: stopped };
    let thread = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        match runtime {
            Ok(runtime) => runtime.block_on(live(start, Box::new(generations), channels, ready_sender)),
            Err(source) => drop(ready_sender.send(Err(GossipError::Thread(source)))),
        }
        drop(ended_sender); // The runtime is gone, and the socket with it.
    };
    std::thread::Builder::new().name("gossip".to_owned()).spawn(thread).map_err(GossipError::Thread)?;

    match ready.await {
        Ok(Ok(())) => {
            Ok(Gossip { view, announce, handle: Handle { commands, counters, addr: advertise }, stop, ended })
        }
        Ok(Err(error)) => Err(error),
        Err(_) => Err(GossipError::Thread(io::Error::other("the thread ended"))),
    }
}

struct Start {
    config: Config,
    listen: SocketAddr,
    advertise: SocketAddr,
    socket: UdpSocket,
    counters: Arc<Counters>,
}

struct Channels {
    announcement: watch::Receiver<Announcement>,
    commands: mpsc::Receiver<Command>,
    view: watch::Sender<Arc<View>>,
    stop: oneshot::Receiver<()>,
}

async fn live(
    start: Start,
    generations: Box<dyn Generations + Send>,
    channels: Channels,
    ready: oneshot::Sender<Result<(), GossipError>>,
) {
    let Channels { announcement, commands, view, stop } = channels;
    let said = announcement.borrow().clone();
    match assemble(start, generations, said).await {
        Ok((receiver, pushes, mut task)) => {
            task.look(&view).await; // The first view that a consumer sees has this host in it.
            // The caller may have given up. Then the stop channel is closed as well.
            let _ = ready.send(Ok(()));
            let mut receiving = tokio::spawn(receiver.run());
            // The task ends with the receiver: a host that hears nothing would hold all others dead.
            tokio::select! {
                () = task.run(Ends { announcement, commands, pushes, view, stop }) => receiving.abort(),
                _ = &mut receiving => tracing::error!("gossip no longer receives: it ends"),
            }
        }
        Err(error) => drop(ready.send(Err(error))),
    }
}

async fn assemble(
    start: Start,
    mut generations: Box<dyn Generations + Send>,
    said: Announcement,
) -> Result<(Receiver, mpsc::Receiver<push::Push>, Task), GossipError> {
    let Start { config, listen, advertise, socket, counters } = start;
    let sealer = Sealer::new(&config.key).ok_or(GossipError::NoRandomness)?;
    let opener = Opener::new(config.key, sealer.session());
    let codec = Codec::open().await.map_err(GossipError::Loopback)?;
    let socket = AsyncUdpSocket::from_std(socket).map_err(GossipError::Thread)?;
    let socket = Arc::new(GossipSocket::new(socket, sealer, Arc::clone(&counters), config.interval));
    let (receiver, pushes) = Receiver::new(Arc::clone(&socket), opener, codec);

    let seeds = config.seeds.into_iter().filter(|seed| *seed != advertise).collect();
    let (interval, remembered) = (config.interval, config.remembered);
    let identity = NodeIdentity { node: config.node.into(), listen, advertise, seeds, interval, remembered };
    let member = Member::start(&identity, generations.next(), Arc::clone(&socket), &said, Vec::new())
        .await
        .map_err(GossipError::Chitchat)?;
    let roster = Roster::new(member.id().clone(), LivenessConfig::of(interval), config.expected);
    let task = Task::new(identity, generations, (socket, counters), (member, roster), said);
    Ok((receiver, pushes, task))
}

impl Gossip {
    /// A handle to ask things of it.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Ends gossip and waits until its socket is closed.
    pub async fn shutdown(self) {
        drop(self.stop);
        let _ = self.ended.await; // The sender is dropped, never used.
    }
}

impl Handle {
    /// Where others reach us for gossip.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What was dropped and why, and how near the limits are.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// All that is known, for a host that has to catch up: opaque parts, one for each incarnation.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Stopped`].
    pub async fn snapshot(&self) -> Result<Vec<Vec<u8>>, SnapshotError> {
        let (answer, answered) = oneshot::channel();
        self.commands.send(Command::Snapshot(answer)).await.map_err(|_| SnapshotError::Stopped)?;
        answered.await.map_err(|_| SnapshotError::Stopped)
    }

    /// Takes in a peer's snapshot, the whole of it; of each host the newer state stays. Makes the view [synced](View::synced).
    ///
    /// # Errors
    ///
    /// [`SnapshotError`]; nothing was taken then.
    pub async fn feed(&self, snapshot: Vec<Vec<u8>>) -> Result<(), SnapshotError> {
        let (answer, answered) = oneshot::channel();
        self.commands.send(Command::Feed(snapshot, answer)).await.map_err(|_| SnapshotError::Stopped)?;
        answered.await.map_err(|_| SnapshotError::Stopped)?
    }

    /// Ends chitchat as a bug in it would; it is started again after `pause`.
    #[cfg(test)]
    fn crash(&self, pause: Duration) {
        self.commands.try_send(Command::Crash { pause }).expect("gossip runs and has room");
    }
}

#[cfg(test)]
mod tests;
