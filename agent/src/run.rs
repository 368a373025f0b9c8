//! The wiring: which task gets which channels, in what order all of it starts, and how it stops.
//!
//! # Tasks and threads
//!
//! The tasks of the first table are supervised (`tasks.rs`): when one ends or panics, the daemon ends with an error that
//! names it, and systemd starts it again. When the daemon stops, the two services finish the calls that are under way, within
//! `LAST_CALLS`; everything else is aborted or ends with its channels. That is safe for each of them: what must not be half
//! done is done by the state thread (one transaction), or is looked at again by the next round (kernel, DNS). Almost all
//! channels are `watch` channels, which hold one value and can't grow.
//!
//! | name | owns | reads | writes | aborting it |
//! |---|---|---|---|---|
//! | the state thread (OS thread `state`) | ledger, intents, disk | calls of all others | committed state and intents, own record, activation, membership (`watch`) | never: it ends when the last handle is dropped, between two calls |
//! | gossip (OS thread `gossip`, runtime of its own) | UDP socket, chitchat | own record, commands | view of gossip (`watch`) | told to stop: it closes its socket |
//! | the announcements | nothing | own record | announcement for gossip (`watch`) | loses an announcement that the next start makes |
//! | the view of the cluster | received records | gossip, absent hosts, own record, membership | `ClusterView` (`watch`); state thread | the view is derived anew at the next start |
//! | the search for silent hosts | counts of missed answers | `ClusterView` | absent hosts (`watch`) | nothing is kept |
//! | the reconciler | the kernel | committed intents, `ClusterView`, kernel events, requests to look (`mpsc` of 1: senders wait) | `ReconcileStatus` (`watch`); state thread | the next one goes on from what the kernel has |
//! | DNS | zone, sockets in the segments | `ClusterView`, committed intents, `ReconcileStatus` | served networks (`watch`) | sockets are opened anew at the next start |
//! | the delivery of leases | nothing | `ClusterView`, own record, committed state | other agents; state thread | what is in the outbox is delivered again; receivers take it once |
//! | the clock of the ledger | nothing | committed state, membership, `ReconcileStatus` | state thread | the next tick comes later |
//! | admission | the hosts that it has asked | `ClusterView`, membership, committed state | other agents; state thread | admission asks the hosts again |
//! | catching up | nothing | `ClusterView`, a snapshot of another host | gossip | ends by itself when this host has caught up |
//! | the connections to other agents | nothing: it closes idle connections of `Peers` | `ClusterView` | | connections close with the process |
//! | the service for other agents | TCP socket, TLS connections | requests | state thread, gossip | finishes calls first; askers repeat theirs |
//! | the control service | Unix socket | calls of `overlayctl` | state thread, reconciler, other agents | finishes calls first; attach and detach go on in tasks of their own |
//!
//! These are not supervised. Each ends by itself, or with the part that has started it, and that part sees its end:
//!
//! | task | started by | bound |
//! |---|---|---|
//! | one connection of a server | tonic, per accepted connection | peer port: members only, and each member keeps one, which it closes after 60 s without a call; pending handshakes: 128 (`peer/accept.rs`). Control socket: root only, and as many as there are descriptors |
//! | making a connection to another agent | `peer/connections.rs` | one per host, 2 s |
//! | one client connection of HTTP/2 | tonic | 128 kept ones, and one for each seal or snapshot that is asked for |
//! | asking one host for seals | admission | one per host, of which 8 ask at the same time; a panic is logged with the host, and the host is asked again |
//! | an operation of `overlayctl` that must not be left half done | `to_its_end` | one per call that `overlayctl` has made |
//! | the DNS listeners of a segment | `overlay_dns` | two per address of a segment; see `overlay_dns::server` |
//! | kernel events | `overlay::kernel` | two per namespace of a segment or of the host; when one has ended, the next look fails and others are started |
//! | a connection of route-netlink | `overlay::kernel` | one per namespace that is open, and one for each call that looks into another |
//! | a blocking call: to enter a namespace, to read `/proc`, to open sockets | `overlay::kernel`, `operations`, `reconcile/lost.rs`, `dns.rs` | threads of the runtime (512); one at a time for the reconciler and for DNS, one for each call of `overlayctl` |
//!
//! # Queues
//!
//! Where a queue could grow, this is its bound and what happens when it is full. Requests to look at the kernel: one, and the
//! callers wait. Pending handshakes: 128, and the source with the most loses its oldest one. Kept connections to other agents:
//! 128 of about 40 KiB at each end, and the least recently used is closed. Calls to the state thread: 256, and the callers wait, as each
//! waits for its answer anyway. Gossip: 16 commands, for which the callers wait; 1,024 datagrams in each direction, beyond which datagrams
//! are dropped, as UDP drops them.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use overlay::datapath::desired::HostConfig;
use overlay::datapath::kernel_api::StepError;
use overlay::kernel::RealKernel;
use overlay::kernel::preflight::PreflightError;
use overlay::model::id::{HostId, NetworkId};
use overlay_dns::server::Resolver;
use overlay_gossip::{self as gossip, Gossip, GossipError};
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::cluster::{self, ClusterView, Times};
use crate::config::Config;
use crate::control::{self, About};
use crate::membership::admission::{self, Policy};
use crate::membership::{clock, outbox, probe};
use crate::operations::attach::{Attacher, KeyedLock};
use crate::operations::links::Linker;
use crate::operations::network::Networks;
use crate::peer::{self, Peers};
use crate::reconcile::Inspector;
use crate::state::identity::Identity;
use crate::state::store::StoreError;
use crate::{dns, reconcile, state};

mod catch_up;
mod control_socket;
mod fencing;
mod limits;
mod start_gossip;
mod startup;
mod tasks;

use startup::{BootstrapPeers, Startup};
use tasks::Tasks;

/// How long a stop may take for the calls that are under way.
const LAST_CALLS: Duration = Duration::from_secs(1);

/// Why the daemon does not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The host lacks something.
    #[error(transparent)]
    Preflight(#[from] PreflightError),
    /// Its state can't be had.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Gossip can't start.
    #[error(transparent)]
    Gossip(#[from] GossipError),
    /// The kernel can't be used.
    #[error(transparent)]
    Kernel(#[from] StepError),
    /// The kernel still has what an earlier identity had, if there was one.
    #[error(
        "this host has no state to go on with, and what an earlier identity may have left in the kernel can't be taken out: start overlayd again once the cause is gone"
    )]
    CutOff(#[source] StepError),
    /// The port for the other agents.
    #[error("can't listen for other agents on {address}/tcp: is another overlayd running? Choose another --port")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The control socket.
    #[error("can't make the control socket {}: see that its directory can be written, or name another with --run-dir", path.display())]
    Socket {
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Another daemon has the run directory.
    #[error("another overlayd answers on {}: stop it, or choose another --run-dir", .0.display())]
    Running(PathBuf),
    /// A task or thread of the daemon ended; a log line or a panic before this one says why.
    #[error("{0} ended: overlayd can't go on without it and has to be started again")]
    TaskEnded(&'static str),
    /// A task of the daemon panicked.
    #[error("{name} panicked ({message}): overlayd can't go on without it and has to be started again")]
    TaskPanicked {
        /// The task.
        name: &'static str,
        /// What the panic said.
        message: String,
    },
    /// The service for the other agents ended.
    #[error("the service for other agents ended")]
    Peer(#[source] tonic::transport::Error),
    /// The control service ended.
    #[error("the control service ended")]
    Control(#[source] tonic::transport::Error),
}

/// Why the daemon has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was told to stop.
    Told,
    /// Its identity is given up: it starts again under a new one.
    Fenced,
}

/// Runs the daemon until it is told to stop. Stopping changes nothing in the kernel: packets go on.
///
/// # Errors
/// When it can't start, or can't go on.
pub async fn run(config: Config) -> Result<Ended, RunError> {
    limits::raise();
    let mut startup = Startup::claim(&config).await?;
    let (store, loaded) = startup.open_state(&config).await?;
    let identity = Arc::new(loaded.identity.clone());
    let id = identity.id();
    let bootstrap = BootstrapPeers::of(&config, &loaded);
    let (info, host) = (startup.info(&config, &loaded), startup.host_config(&config, id));
    let Startup { listener, socket, kernel, trace, .. } = startup;
    let state = state::spawn(store, loaded, info, trace)?;
    let mut tasks = Tasks::default();
    let gossip = start_gossip::start(&config, id, &bootstrap, &state, &mut tasks).await?;
    let parts = Parts::start(&config, (identity, state), (kernel, host), &gossip, &mut tasks);
    parts.start_membership(&config, bootstrap, &mut tasks);
    parts.start_services(&config, listener, socket, &mut tasks);
    // From here on signals are taken: a supervisor that stops the daemon as soon as it is ready would else kill it.
    let stop_signal = std::pin::pin!(stop_signal());
    // Without systemd there is no one to notify.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    tracing::info!(host = %config.name, id = %id.short(), address = %config.address, "overlayd is ready");
    until_end(parts, tasks, gossip, stop_signal).await.inspect(|ended| {
        if *ended == Ended::Told {
            let _ = std::fs::remove_file(control_socket::path(&config.run_dir));
        }
    })
}

/// Waits for a signal, for the end of a task, or for the end of this identity, and does what is to be done then.
async fn until_end(
    parts: Parts,
    mut tasks: Tasks,
    gossip: Gossip,
    mut stop_signal: Pin<&mut impl Future<Output = ()>>,
) -> Result<Ended, RunError> {
    tokio::select! {
        failure = tasks.first_failure() => return Err(failure),
        why = fencing::fenced(parts.state.activation.clone()) => {
            let settled = parts.reconciler.settled.clone();
            return Ok(fencing::end_identity(why, &parts.state, settled, stop_signal).await);
        }
        () = &mut stop_signal => {}
    }
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    tracing::info!("overlayd stops; the kernel stays as it is");
    tasks.begin_stop();
    if timeout(LAST_CALLS, gossip.shutdown()).await.is_err() {
        tracing::warn!("gossip did not stop in time");
    }
    // The reconciler is aborted here, before the runtime closes its sockets to the kernel: a round would take that for a failure.
    tasks.stop(LAST_CALLS).await;
    Ok(Ended::Told)
}

/// The handles and channels through which the tasks work together.
struct Parts {
    identity: Arc<Identity>,
    state: state::Handle,
    gossip: gossip::Handle,
    seen: watch::Receiver<ClusterView>,
    peers: Peers,
    reconciler: reconcile::Handle,
    resolver: Resolver,
    /// The networks in whose segments DNS answers.
    named: watch::Receiver<BTreeSet<NetworkId>>,
}

impl Parts {
    /// Starts what makes the kernel and DNS follow the cluster and this host's state.
    fn start(
        config: &Config,
        (identity, state): (Arc<Identity>, state::Handle),
        (kernel, host): (RealKernel, HostConfig),
        gossip: &Gossip,
        tasks: &mut Tasks,
    ) -> Self {
        tasks.watch("the state thread", state.committed.clone());
        tasks.watch("gossip", gossip.view.clone());
        let (absent_tx, absent) = watch::channel(BTreeSet::new());
        let times = Times { interval: config.gossip_interval, remembered: gossip::REMEMBERED };
        let (seen, viewing) = cluster::spawn(identity.id(), gossip.view.clone(), absent, state.clone(), times);
        tasks.adopt("the view of the cluster", viewing);
        tasks.spawn("the search for silent hosts", probe::run(seen.clone(), absent_tx));
        let peers = Peers::new(&identity, seen.clone());
        let (reconciler, reconciling) = reconcile::spawn(kernel, host, state.clone(), seen.clone());
        tasks.adopt("the reconciler", reconciling);
        let (intents, settled) = (state.intents.clone(), reconciler.settled.clone());
        let dns = dns::spawn(&config.run_dir, config.resolv_conf.clone(), seen.clone(), intents, settled);
        tasks.adopt("DNS", dns.task);
        let gossip = gossip.handle();
        Self { identity, state, gossip, seen, peers, reconciler, resolver: dns.resolver, named: dns.served }
    }

    fn me(&self) -> HostId {
        self.identity.id()
    }

    /// Starts what speaks to other agents by itself.
    fn start_membership(&self, config: &Config, bootstrap: BootstrapPeers, tasks: &mut Tasks) {
        let (state, seen, peers) = (&self.state, &self.seen, &self.peers);
        tasks.adopt("the delivery of leases", outbox::spawn(state.clone(), seen.clone(), peers.clone()));
        tasks.adopt("the clock of the ledger", clock::spawn(state.clone(), self.reconciler.settled.clone()));
        let policy = Policy {
            join: bootstrap.join,
            bootstrap: config.bootstrap,
            known: bootstrap.known,
            strict: config.strict_boot_check,
            interval: config.gossip_interval,
        };
        tasks.adopt("admission", admission::spawn(state.clone(), seen.clone(), peers.clone(), policy));
        let catch_up = catch_up::run(self.gossip.clone(), seen.clone(), peers.clone(), self.me());
        tasks.spawn_until_done("catching up", catch_up);
        let peers = peers.clone();
        tasks.spawn("the connections to other agents", async move { peers.tend_connections().await });
    }

    /// Starts the services for other agents and for `overlayctl`.
    fn start_services(&self, config: &Config, listener: TcpListener, socket: UnixListener, tasks: &mut Tasks) {
        let (state, seen, settled) = (&self.state, &self.seen, &self.reconciler.settled);
        let service = peer::Service::new(state.clone(), seen.clone(), settled.clone(), self.gossip.clone());
        let refusals = service.refusals();
        let identity = Arc::clone(&self.identity);
        tasks.serve("the service for other agents", |stop| async move {
            service.serve(&identity, listener, stop.cancelled_owned()).await.map_err(RunError::Peer)
        });
        let control = control::Service {
            attacher: Attacher {
                state: state.clone(),
                seen: seen.clone(),
                peers: self.peers.clone(),
                reconciler: self.reconciler.clone(),
                me: self.me(),
                lock: KeyedLock::default(),
                named: self.named.clone(),
            },
            networks: Networks { state: state.clone(), seen: seen.clone(), told_to_join: !config.join.is_empty() },
            linker: Linker { state: state.clone(), seen: seen.clone(), settled: settled.clone() },
            inspector: Inspector { netns_dir: config.run_dir.join("netns") },
            resolver: self.resolver.clone(),
            seen: seen.clone(),
            gossip: self.gossip.clone(),
            refusals,
            about: About { gossip: self.gossip.addr(), strict_boot_check: config.strict_boot_check },
        };
        tasks.serve("the control service", |stop| control_socket::serve(socket, control, stop));
    }
}

/// Takes SIGTERM and SIGINT from the moment of the call, not only when the future is awaited.
fn stop_signal() -> impl Future<Output = ()> {
    let mut term = signal(SignalKind::terminate()).expect("the runtime handles signals");
    let mut interrupt = signal(SignalKind::interrupt()).expect("the runtime handles signals");
    async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
}
