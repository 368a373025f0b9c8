//! The wiring: which task gets which channels, in what order all of it starts, and how it stops.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::future::BoxFuture;
use nix::sys::stat::{Mode, umask};
use overlay::desired::Place;
use overlay::host::{HostInfo, Liveness, Phase};
use overlay::id::HostId;
use overlay::kernel::preflight::{PreflightError, preflight};
use overlay::kernel::{self, RealKernel};
use overlay::ledger::{Fencing, Standing};
use overlay::report::StepError;
use overlay_proto::v1::control_server::ControlServer;
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::admission::{self, Policy};
use crate::attach::{Attacher, Turns};
use crate::config::Config;
use crate::control::{self, About};
use crate::convert::encode_record;
use crate::gossip::{self, Generations, Gossip, GossipError};
use crate::local;
use crate::network::Networks;
use crate::peer::{self, Peers};
use crate::reconcile::Settled;
use crate::store::{Found, Machine, StoreError};
use crate::trace::Trace;
use crate::view::{self, Seen};
use crate::{courier, names, probe, reconcile, saying};

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
    /// A part of the daemon ended; a log line or a panic before this one says why.
    #[error("{0} ended: overlayd can't go on without it and has to be started again")]
    PartEnded(&'static str),
    /// A server ended.
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
    if UnixStream::connect(&socket_path(&config.run_dir)).await.is_ok() {
        return Err(RunError::Running(socket_path(&config.run_dir)));
    }
    if config.key_is_readable_by_others {
        let file = config.key_file.display();
        tracing::warn!(%file, "others can read the cluster key, and be members with it: chmod 600 {file}");
    }
    let host = preflight(config.address, &config.run_dir).await?;
    let peer_address = SocketAddr::new(config.address, config.port);
    let listener = TcpListener::bind(peer_address).await;
    let listener = listener.map_err(|source| RunError::Listen { address: peer_address, source })?;
    let socket = control_socket(&config.run_dir)?;
    let trace = Trace::new(&config.run_dir, &boot_id());
    let mut kernel = RealKernel::new(&kernel::Config { run_dir: config.run_dir.clone() })?;
    let place_of =
        |me| Place { me, vtep: config.address, vxlan_port: config.vxlan_port, underlay_mtu: host.underlay_mtu };
    let found = Found::look(&config.state_dir, &machine(&trace))?;
    if found.is_missing() {
        tracing::warn!(
            directory = %config.state_dir.display(),
            "overlayd has run here since the machine booted, but there is no state any more: this host joins as a new one, and \
             its endpoints are cut off. If the directory was not mounted, stop overlayd, mount it, and start it again"
        );
    }
    if !found.is_own() {
        // First of all: on a full disk this host does not get as far as a new identity, and others may be given what the old
        // one had.
        reconcile::cut_off(&mut kernel, &place_of(NOBODY)).await.map_err(RunError::CutOff)?;
    }
    let (store, loaded) = found.take_up()?;
    if let Some((file, why)) = &loaded.put_aside {
        tracing::warn!(file = %file.display(), %why, "the state was put aside: this host has a new identity");
    }
    let identity = Arc::new(loaded.identity.clone());
    let me = identity.id();
    let seeds: Vec<SocketAddr> = config.join.iter().chain(loaded.peers.values()).copied().collect();
    let others = loaded.peers.iter().filter(|(_, address)| **address != peer_address);
    // Who belongs to no cluster yet and knew these before it was started: there may be one, and it rather joins that.
    let known: Vec<SocketAddr> = match loaded.ledger.membership().founder {
        Some(_) => Vec::new(),
        None => others.clone().map(|(_, address)| *address).collect(),
    };
    let expected: BTreeSet<String> = match loaded.put_aside {
        Some(_) => BTreeSet::new(),
        None => others.map(|(id, _)| id.to_string()).collect(),
    };
    let info = HostInfo {
        name: config.name.clone(),
        vtep: config.address,
        vxlan_port: config.vxlan_port,
        peer: peer_address,
        underlay_mtu: host.underlay_mtu,
        stamp: loaded.ledger.stamp(),
        phase: Phase::Joining,
        founder: None,
    };
    let local = local::spawn(store, loaded, info, trace)?;
    let (gossip, saying) = start_gossip(&config, me.to_string(), (seeds, expected), &local).await?;
    let handle = gossip.handle();
    let (absent_tx, absent) = watch::channel(BTreeSet::new());
    let seen = view::spawn(me, gossip.view.clone(), absent, local.clone());
    let prober = probe::spawn(seen.clone(), absent_tx);
    let peers = Peers::new(Arc::clone(&identity), seen.clone());
    let (reconciler, reconciling) = reconcile::spawn(kernel, place_of(me), local.clone(), seen.clone());
    let names = names::spawn(&config.run_dir, config.resolv_conf.clone(), seen.clone(), reconciler.settled.clone());
    let mut parts = Parts::default();
    parts.need("the owner of the ledger", end_of(local.kept.clone()));
    parts.need("gossip", end_of(gossip.view.clone()));
    parts.need("what this host says", saying);
    parts.need("the view of the cluster", end_of(seen.clone()));
    parts.need("the search for silent hosts", prober);
    parts.need("the reconciler", end_of(reconciler.settled.clone()));
    parts.need("DNS", names.task);
    parts.need("the courier of leases", courier::spawn(local.clone(), seen.clone(), peers.clone()));
    let join = config.join.iter().copied().filter(|address| *address != peer_address).collect();
    let policy = Policy { join, bootstrap: config.bootstrap, known, strict: config.strict_boot_check };
    parts.need("admission", admission::spawn(local.clone(), seen.clone(), peers.clone(), policy));
    let (mut fenced, settled, kept) = (local.standing.clone(), reconciler.settled.clone(), local.kept.clone());
    tokio::spawn(catch_up(handle.clone(), seen.clone(), peers.clone(), me));

    let (stop, stopped) = watch::channel(());
    let others = peer::Service::new(local.clone(), seen.clone(), reconciler.settled.clone(), handle.clone());
    let refusals = others.refusals();
    let mut serving_others = {
        let (identity, stopped) = (Arc::clone(&identity), until(stopped.clone()));
        tokio::spawn(async move { others.serve(&identity, listener, stopped).await })
    };
    let turns = Turns::default();
    let attacher =
        Attacher { local: local.clone(), seen: seen.clone(), peers, reconciler, me, turns, named: names.served };
    let networks = Networks { local, seen: seen.clone(), me, told_to_join: !config.join.is_empty() };
    let about = About { netns_dir: config.run_dir.join("netns"), gossip: handle.addr() };
    let control =
        control::Service { attacher, networks, resolver: names.resolver, seen, gossip: handle, refusals, about };
    let mut serving = tokio::spawn(serve_control(socket, control, until(stopped)));

    // Without systemd there is nobody to tell.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    tracing::info!(host = %config.name, id = %me.short(), address = %config.address, "overlayd is ready");
    tokio::select! {
        ended = &mut serving => return ended.expect("the control service does not panic").map(|()| Ended::Told).map_err(RunError::Control),
        _ = &mut serving_others => return Err(RunError::PartEnded("the service for other agents")),
        part = parts.any_ends() => return Err(RunError::PartEnded(part)),
        Ok(standing) = fenced.wait_for(|s| matches!(s, Standing::Fenced(_))) => {
            match &*standing {
                Standing::Fenced(why @ (Fencing::Moves | Fencing::Unjoined)) => {
                    tracing::info!(%why, "this host starts again under a new identity");
                }
                Standing::Fenced(why) => {
                    tracing::error!(%why, "this host gives its identity up and starts again under a new one; its endpoints are cut off");
                }
                _ => {}
            }
            drop(standing);
            let page = kept.borrow().page;
            until_cut_off(page, settled).await;
            return Ok(Ended::Fenced);
        }
        () = told_to_stop() => {}
    }
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    tracing::info!("overlayd stops; the kernel stays as it is");
    stop.send_replace(());
    gossip.shutdown().await;
    // Calls under way may end; what does not end in time is cut off with the process.
    let _ = tokio::time::timeout(LAST_CALLS, futures::future::join(serving, serving_others)).await;
    // Before the ways to the kernel are gone: a round that finds them closed would take that for a failure.
    reconciling.abort();
    let _ = tokio::time::timeout(LAST_CALLS, reconciling).await;
    let _ = std::fs::remove_file(socket_path(&config.run_dir));
    Ok(Ended::Told)
}

/// Who a host is before it has an identity.
const NOBODY: HostId = HostId::from_bytes([0; 16]);

/// How long the kernel may take to cut off the endpoints of a fenced host.
const CUTTING: Duration = Duration::from_secs(5);

/// Before this the next life must not begin: it may not come as far as the kernel.
async fn until_cut_off(page: u64, mut settled: watch::Receiver<Arc<Settled>>) {
    let cut = settled.wait_for(|settled| settled.page >= page && settled.failures.is_empty());
    if !matches!(tokio::time::timeout(CUTTING, cut).await, Ok(Ok(_))) {
        tracing::error!("the endpoints of the identity that is given up may still be up");
    }
}

/// How long a stop may take for what is under way.
const LAST_CALLS: Duration = Duration::from_secs(1);

/// What the daemon can't do without. A daemon that goes on deaf is worse than one that ends and is started again.
#[derive(Default)]
struct Parts(Vec<BoxFuture<'static, &'static str>>);

impl Parts {
    /// A part and the future that ends with it.
    fn need<T: Send>(&mut self, name: &'static str, end: impl Future<Output = T> + Send + 'static) {
        self.0.push(Box::pin(async move {
            end.await;
            name
        }));
    }

    async fn any_ends(self) -> &'static str {
        futures::future::select_all(self.0).await.0
    }
}

async fn end_of<T>(mut channel: watch::Receiver<T>) {
    while channel.changed().await.is_ok() {}
}

fn first_line(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn boot_id() -> String {
    first_line("/proc/sys/kernel/random/boot_id")
}

fn machine(trace: &Trace) -> Machine {
    let random = crate::random();
    let nonce = u64::from_be_bytes(*random.first_chunk().expect("16 bytes are 8 and more"));
    Machine { id: first_line("/etc/machine-id"), boot: boot_id(), now: local::now(), ran: trace.find(), nonce }
}

fn socket_path(run_dir: &Path) -> PathBuf {
    run_dir.join("overlayd.sock")
}

/// The control socket, for its owner and group only. One that a killed daemon left is replaced.
fn control_socket(run_dir: &Path) -> Result<UnixListener, RunError> {
    let path = socket_path(run_dir);
    let bind = || {
        std::fs::create_dir_all(run_dir)?;
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        // So that nobody gets in between making the socket and closing it to others.
        let before = umask(Mode::from_bits_truncate(0o117));
        let socket = UnixListener::bind(&path);
        umask(before);
        socket
    };
    bind().map_err(|source| RunError::Socket { path: path.clone(), source })
}

/// Numbers the lives of this agent by its disk.
struct Lives(local::Handle);

impl Generations for Lives {
    fn next(&mut self) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis());
        let now = u64::try_from(now).unwrap_or(u64::MAX);
        self.0.call_and_block(move |local| local.next_generation(now)).unwrap_or_else(|error| {
            tracing::error!(%error, "the number of this life can't be kept");
            now
        })
    }
}

/// Starts gossip, and keeps it saying what this host has to say.
async fn start_gossip(
    config: &Config,
    node: String,
    (seeds, expected): (Vec<SocketAddr>, BTreeSet<String>),
    local: &local::Handle,
) -> Result<(Gossip, JoinHandle<()>), GossipError> {
    let address = SocketAddr::new(config.address, config.port);
    let gossip_config = gossip::Config {
        node,
        listen: address,
        advertise: address,
        seeds,
        expected,
        interval: config.gossip_interval,
        remembered: gossip::REMEMBERED,
        key: config.key.clone(),
    };
    let record = local.record.clone();
    let first = encode_record(&record.borrow().clone());
    let gossip = gossip::spawn(gossip_config, Lives(local.clone()), first).await?;
    let saying = saying::spawn(record, gossip.publish.clone());
    Ok((gossip, saying))
}

/// Between two attempts to catch up.
const CATCH_UP: Duration = Duration::from_millis(200);
/// Who has heard nobody for this long is told what to look for.
const DOUBT: Duration = Duration::from_secs(5);

/// A host that has just started asks another for all that it knows, which is faster than gossip.
async fn catch_up(gossip: gossip::Handle, mut seen: watch::Receiver<Seen>, peers: Peers, me: HostId) {
    let mut doubt = std::pin::pin!(tokio::time::sleep(DOUBT));
    let mut told = false;
    loop {
        let now = seen.borrow_and_update().clone();
        if now.synced {
            return;
        }
        if doubt.is_elapsed() && now.cluster.hosts.len() < 2 && !std::mem::replace(&mut told, true) {
            tracing::warn!(
                "no other host is heard: is overlayd up there, UDP open to it, and the cluster key the same?"
            );
        }
        let live = now.cluster.hosts.iter().filter(|(id, h)| **id != me && h.liveness == Liveness::Live);
        for (id, _) in live {
            match peers.snapshot(*id).await {
                Ok(parts) => match gossip.feed(parts).await {
                    Ok(()) => return,
                    Err(error) => tracing::warn!(host = %id.short(), %error, "snapshot not taken"),
                },
                Err(error) => tracing::debug!(host = %id.short(), %error, "no snapshot"),
            }
        }
        tokio::select! {
            changed = tokio::time::timeout(CATCH_UP, seen.changed()) => if matches!(changed, Ok(Err(_))) { return },
            () = &mut doubt, if !told => {}
        }
    }
}

async fn serve_control(
    socket: UnixListener,
    control: control::Service,
    stop: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    let connections = futures::stream::unfold((socket, false), |(socket, mut told)| async move {
        loop {
            match socket.accept().await {
                Ok((stream, _)) => return Some((Ok::<_, std::io::Error>(stream), (socket, told))),
                Err(error) => {
                    if !std::mem::replace(&mut told, true) {
                        tracing::warn!(%error, "connections of overlayctl are refused by the system: are its file descriptors used up?");
                    }
                    tokio::time::sleep(peer::ACCEPT_PAUSE).await;
                }
            }
        }
    });
    tonic::transport::Server::builder()
        .add_service(ControlServer::new(control))
        .serve_with_incoming_shutdown(connections, stop)
        .await
}

async fn until(mut stopped: watch::Receiver<()>) {
    // Also when the sender is gone.
    let _ = stopped.changed().await;
}

async fn told_to_stop() {
    let mut term = signal(SignalKind::terminate()).expect("the runtime handles signals");
    let mut interrupt = signal(SignalKind::interrupt()).expect("the runtime handles signals");
    tokio::select! {
        _ = term.recv() => {}
        _ = interrupt.recv() => {}
    }
}
