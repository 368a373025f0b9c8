//! The wiring: which task gets which channels, in what order all of it starts, and how it stops. Gossip, control, local,
//! reconciler and DNS know of each other nowhere else.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::stat::{Mode, umask};
use overlay::desired::Place;
use overlay::host::{HostInfo, Liveness};
use overlay::kernel::preflight::{PreflightError, preflight};
use overlay::kernel::{self, RealKernel};
use overlay::report::StepError;
use overlay_proto::v1::control_server::ControlServer;
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::attach::Attacher;
use crate::config::Config;
use crate::control::{self, About};
use crate::convert::encode_record;
use crate::gossip::{self, Generations, Gossip, GossipError, LivenessConfig};
use crate::local;
use crate::network::Networks;
use crate::peer::{self, Peers};
use crate::store::{Machine, Store, StoreError};
use crate::view::{self, Seen};
use crate::{courier, names, reconcile};

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
    /// The port for the other agents.
    #[error(
        "can't listen for other agents on {address}/tcp ({source}): is another overlayd running? Choose another --port"
    )]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The control socket.
    #[error("can't make the control socket {}: {source}", path.display())]
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
    #[error("the control service ended: {0}")]
    Control(#[source] tonic::transport::Error),
}

/// Runs the daemon until it is told to stop. Stopping changes nothing in the kernel: packets go on.
///
/// # Errors
/// When it can't start; then nothing was changed.
pub async fn run(config: Config) -> Result<(), RunError> {
    let host = preflight(config.address, &config.run_dir).await?;
    let socket = control_socket(&config.run_dir).await?;
    let peer_address = SocketAddr::new(config.address, config.port);
    let listener = TcpListener::bind(peer_address).await;
    let listener = listener.map_err(|source| RunError::Listen { address: peer_address, source })?;
    let (store, loaded) = Store::open(&config.state_dir, &machine())?;
    if let Some(aside) = &loaded.put_aside {
        tracing::warn!(file = %aside.display(), "the state was another machine's: put aside, this host has a new identity");
    }
    let identity = Arc::new(loaded.identity.clone());
    let me = identity.id();
    let seeds: Vec<SocketAddr> = config.join.iter().chain(loaded.peers.values()).copied().collect();
    let info = HostInfo {
        name: config.name.clone(),
        vtep: config.address,
        vxlan_port: config.vxlan_port,
        peer: peer_address,
        underlay_mtu: host.underlay_mtu,
        page: loaded.page,
    };
    let local = local::spawn(store, loaded, info)?;
    let gossip = start_gossip(&config, me.to_string(), seeds, &local).await?;
    let handle = gossip.handle();
    let seen = view::spawn(me, gossip.view.clone(), local.clone());
    let peers = Peers::new(Arc::clone(&identity), seen.clone());
    let place = Place { me, vtep: config.address, vxlan_port: config.vxlan_port, underlay_mtu: host.underlay_mtu };
    let kernel = RealKernel::new(&kernel::Config { run_dir: config.run_dir.clone() })?;
    let reconciler = reconcile::spawn(kernel, place, local.clone(), seen.clone());
    let resolver = names::spawn(&config.run_dir, config.resolv_conf.clone(), seen.clone(), reconciler.settled.clone());
    let parts = Parts {
        local: local.kept.clone(),
        gossip: gossip.view.clone(),
        seen: seen.clone(),
        settled: reconciler.settled.clone(),
        courier: courier::spawn(local.clone(), seen.clone(), peers.clone()),
    };
    tokio::spawn(catch_up(handle.clone(), seen.clone(), peers.clone(), me));

    let (stop, stopped) = watch::channel(());
    let others = peer::Service::new(local.clone(), seen.clone(), reconciler.settled.clone(), handle.clone());
    let serving_others = {
        let (identity, stopped) = (Arc::clone(&identity), until(stopped.clone()));
        tokio::spawn(async move { others.serve(&identity, listener, stopped).await })
    };
    let attacher = Attacher { local: local.clone(), seen: seen.clone(), peers, reconciler, me };
    let networks = Networks { local, seen: seen.clone(), me, told_to_join: !config.join.is_empty() };
    let about = About { netns_dir: config.run_dir.join("netns"), gossip: handle.addr() };
    let control = control::Service { attacher, networks, resolver, seen, gossip: handle, about };
    let mut serving = tokio::spawn(serve_control(socket, control, until(stopped)));

    // Without systemd there is nobody to tell.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    tracing::info!(host = %config.name, id = %me.short(), address = %config.address, "overlayd is ready");
    tokio::select! {
        ended = &mut serving => return ended.expect("the control service does not panic").map_err(RunError::Control),
        part = parts.any_ends() => return Err(RunError::PartEnded(part)),
        () = told_to_stop() => {}
    }
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    tracing::info!("overlayd stops; the kernel stays as it is");
    stop.send_replace(());
    gossip.shutdown().await;
    // Calls under way may end; what does not end within a second is cut off with the process.
    let _ = tokio::time::timeout(Duration::from_secs(1), futures::future::join(serving, serving_others)).await;
    let _ = std::fs::remove_file(socket_path(&config.run_dir));
    Ok(())
}

/// What the daemon can't do without: each tells of its end by the end of its channel. A daemon that goes on deaf is worse
/// than one that ends and is started again.
struct Parts {
    local: watch::Receiver<local::Kept>,
    gossip: watch::Receiver<Arc<gossip::View>>,
    seen: watch::Receiver<Seen>,
    settled: watch::Receiver<Arc<reconcile::Settled>>,
    courier: tokio::task::JoinHandle<()>,
}

impl Parts {
    async fn any_ends(self) -> &'static str {
        tokio::select! {
            () = end_of(self.local) => "the owner of the ledger",
            () = end_of(self.gossip) => "gossip",
            () = end_of(self.seen) => "the view of the cluster",
            () = end_of(self.settled) => "the reconciler",
            _ = self.courier => "the courier of leases",
        }
    }
}

async fn end_of<T>(mut channel: watch::Receiver<T>) {
    while channel.changed().await.is_ok() {}
}

fn machine() -> Machine {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    Machine { id: read("/etc/machine-id"), boot: read("/proc/sys/kernel/random/boot_id"), now: local::now() }
}

fn socket_path(run_dir: &Path) -> PathBuf {
    run_dir.join("overlayd.sock")
}

/// The control socket, for its owner and group only. One that a killed daemon left is replaced.
async fn control_socket(run_dir: &Path) -> Result<UnixListener, RunError> {
    let path = socket_path(run_dir);
    if UnixStream::connect(&path).await.is_ok() {
        return Err(RunError::Running(path));
    }
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
    seeds: Vec<SocketAddr>,
    local: &local::Handle,
) -> Result<Gossip, GossipError> {
    let address = SocketAddr::new(config.address, config.port);
    let gossip_config = gossip::Config {
        node,
        listen: address,
        advertise: address,
        seeds,
        interval: config.gossip_interval,
        key: config.key.clone(),
        liveness: LivenessConfig::default(),
    };
    let mut record = local.record.clone();
    let first = encode_record(&record.borrow_and_update().clone());
    let gossip = gossip::spawn(gossip_config, Lives(local.clone()), first).await?;
    let publish = gossip.publish.clone();
    tokio::spawn(async move {
        while record.changed().await.is_ok() {
            let said = encode_record(&record.borrow_and_update().clone());
            if publish.send(said).is_err() {
                return;
            }
        }
    });
    Ok(gossip)
}

/// Between two attempts to catch up.
const CATCH_UP: Duration = Duration::from_millis(200);

/// A host that has just started asks another for all that it knows, which is faster than gossip.
async fn catch_up(gossip: gossip::Handle, mut seen: watch::Receiver<Seen>, peers: Peers, me: overlay::id::HostId) {
    loop {
        let now = seen.borrow_and_update().clone();
        if now.synced {
            return;
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
        if matches!(tokio::time::timeout(CATCH_UP, seen.changed()).await, Ok(Err(_))) {
            return;
        }
    }
}

async fn serve_control(
    socket: UnixListener,
    control: control::Service,
    stop: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    let connections = futures::stream::unfold(socket, |socket| async {
        let accepted = socket.accept().await.map(|(stream, _)| stream);
        Some((accepted, socket))
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
