//! The wiring: which task gets which channels, in what order all of it starts, and how it stops.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::future::BoxFuture;
use overlay::datapath::report::StepError;
use overlay::kernel::preflight::PreflightError;
use overlay::ledger::{Activation, Fencing};
use overlay::model::host::Liveness;
use overlay::model::id::HostId;
use overlay_proto::v1::control_server::ControlServer;
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::cluster::announce;
use crate::cluster::{self, ClusterView, Times};
use crate::config::Config;
use crate::control::{self, About};
use crate::membership::admission::{self, Policy};
use crate::membership::{outbox, probe};
use crate::operations::attach::{Attacher, Turns};
use crate::operations::links::Linker;
use crate::operations::network::Networks;
use crate::peer::{self, Peers};
use crate::reconcile::Settled;
use crate::state;
use crate::state::store::StoreError;
use crate::wire::encode_record;
use crate::{dns, reconcile};
use overlay_gossip::{self as gossip, Generations, Gossip, GossipError};

mod startup;

use startup::{Acquaintances, Ground, socket_path};

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
    let mut ground = Ground::claim(&config).await?;
    let (store, loaded) = ground.take_up(&config).await?;
    let identity = Arc::new(loaded.identity.clone());
    let me = identity.id();
    let acquaintances = Acquaintances::of(&config, &loaded);
    let (info, place) = (ground.info(&config, &loaded), ground.place(&config, me));
    let Ground { listener, socket, kernel, trace, .. } = ground;
    let state = state::spawn(store, loaded, info, trace)?;
    let (gossip, saying) = start_gossip(&config, me.to_string(), &acquaintances, &state).await?;
    let handle = gossip.handle();
    let (absent_tx, absent) = watch::channel(BTreeSet::new());
    let times = Times { interval: config.gossip_interval, remembered: gossip::REMEMBERED };
    let seen = cluster::spawn(me, gossip.view.clone(), absent, state.clone(), times);
    let prober = probe::spawn(seen.clone(), absent_tx);
    let peers = Peers::new(&identity, seen.clone());
    let (reconciler, reconciling) = reconcile::spawn(kernel, place, state.clone(), seen.clone());
    let names = {
        let (intents, settled) = (state.intents.clone(), reconciler.settled.clone());
        dns::spawn(&config.run_dir, config.resolv_conf.clone(), seen.clone(), intents, settled)
    };
    let mut parts = Parts::default();
    parts.need("the state of this host", end_of(state.committed.clone()));
    parts.need("gossip", end_of(gossip.view.clone()));
    parts.need("what this host says", saying);
    parts.need("the view of the cluster", end_of(seen.clone()));
    parts.need("the search for silent hosts", prober);
    parts.need("the reconciler", end_of(reconciler.settled.clone()));
    parts.need("DNS", names.task);
    let courier = outbox::spawn(state.clone(), seen.clone(), peers.clone(), reconciler.settled.clone());
    parts.need("the courier of leases", courier);
    let policy = Policy {
        join: acquaintances.join,
        bootstrap: config.bootstrap,
        known: acquaintances.known,
        strict: config.strict_boot_check,
        interval: config.gossip_interval,
    };
    parts.need("admission", admission::spawn(state.clone(), seen.clone(), peers.clone(), policy));
    let tended = peers.clone();
    parts.need("the connections to other agents", async move { tended.tend_connections().await });
    let (activation, settled, owner) = (state.activation.clone(), reconciler.settled.clone(), state.clone());
    tokio::spawn(catch_up(handle.clone(), seen.clone(), peers.clone(), me));

    let (stop, stopped) = watch::channel(());
    let others = peer::Service::new(state.clone(), seen.clone(), reconciler.settled.clone(), handle.clone());
    let refusals = others.refusals();
    let mut serving_others = {
        let (identity, stopped) = (Arc::clone(&identity), until(stopped.clone()));
        tokio::spawn(async move { others.serve(&identity, listener, stopped).await })
    };
    let turns = Turns::default();
    let attacher =
        Attacher { state: state.clone(), seen: seen.clone(), peers, reconciler, me, turns, named: names.served };
    let linker = Linker { state: state.clone(), seen: seen.clone(), settled: attacher.reconciler.settled.clone() };
    let networks = Networks { state, seen: seen.clone(), told_to_join: !config.join.is_empty() };
    let about = About {
        netns_dir: config.run_dir.join("netns"),
        gossip: handle.addr(),
        strict_boot_check: config.strict_boot_check,
    };
    let control = control::Service {
        attacher,
        networks,
        linker,
        resolver: names.resolver,
        seen,
        gossip: handle,
        refusals,
        about,
    };
    let mut serving = tokio::spawn(serve_control(socket, control, until(stopped)));

    // From here on, or whoever hears that it is ready and stops it at once would kill it.
    let mut stop_signal = std::pin::pin!(told_to_stop());
    // Without systemd there is nobody to tell.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    tracing::info!(host = %config.name, id = %me.short(), address = %config.address, "overlayd is ready");
    tokio::select! {
        ended = &mut serving => return ended.expect("the control service does not panic").map(|()| Ended::Told).map_err(RunError::Control),
        _ = &mut serving_others => return Err(RunError::PartEnded("the service for other agents")),
        part = parts.any_ends() => return Err(RunError::PartEnded(part)),
        why = given_up(activation) => {
            say_why(why);
            let commit = owner.intents.borrow().commit;
            until_cut_off(commit, settled).await;
            return Ok(until_written(&owner, stop_signal).await);
        }
        () = &mut stop_signal => {}
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

/// Waits until this host gives its identity up.
async fn given_up(mut activation: watch::Receiver<Activation>) -> Fencing {
    loop {
        if let Activation::Fenced(why) = &*activation.borrow_and_update() {
            return *why;
        }
        if activation.changed().await.is_err() {
            // Its owner has ended, which is noticed elsewhere.
            std::future::pending::<()>().await;
        }
    }
}

fn say_why(why: Fencing) {
    match why {
        Fencing::Moves | Fencing::Unjoined => {
            tracing::info!(%why, "this host starts again under a new identity");
        }
        Fencing::Forgotten { .. } | Fencing::Restored { .. } => {
            tracing::error!(%why, "this host gives its identity up and starts again under a new one; its endpoints are cut off");
        }
    }
}

/// How long the kernel may take to cut off the endpoints of a fenced host.
const CUTTING: Duration = Duration::from_secs(5);

/// Before this the next life must not begin: it may not come as far as the kernel.
async fn until_cut_off(commit: u64, mut settled: watch::Receiver<Arc<Settled>>) {
    let cut = settled.wait_for(|settled| settled.commit >= commit && settled.failures.is_empty());
    if !matches!(tokio::time::timeout(CUTTING, cut).await, Ok(Ok(_))) {
        tracing::error!("the endpoints of the identity that is given up may still be up");
    }
}

/// Between two attempts to write that this host gave its identity up.
const REWRITE: Duration = Duration::from_secs(1);

/// Before this the next life must not begin either: it would go on with the ledger that was given up.
async fn until_written(state: &state::Handle, mut stop: Pin<&mut impl Future<Output = ()>>) -> Ended {
    let mut told = false;
    while let Err(error) = state.write_owed().await {
        if !std::mem::replace(&mut told, true) {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "its endpoints are cut off; it waits until it can write that it gave its identity up"
            );
        }
        tokio::select! {
            () = tokio::time::sleep(REWRITE) => {}
            () = &mut stop => return Ended::Told,
        }
    }
    Ended::Fenced
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

/// Numbers the lives of this agent by its disk.
struct Lives(state::Handle);

impl Generations for Lives {
    fn next(&mut self) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis());
        let now = u64::try_from(now).unwrap_or(u64::MAX);
        self.0.next_generation_blocking(now).unwrap_or_else(|error| {
            tracing::error!(%error, "the number of this life can't be kept");
            now
        })
    }
}

/// Starts gossip, and keeps it saying what this host has to say.
async fn start_gossip(
    config: &Config,
    node: String,
    acquaintances: &Acquaintances,
    state: &state::Handle,
) -> Result<(Gossip, JoinHandle<()>), GossipError> {
    let address = SocketAddr::new(config.address, config.port);
    let gossip_config = gossip::Config {
        node,
        listen: address,
        advertise: address,
        seeds: acquaintances.seeds.clone(),
        expected: acquaintances.expected.clone(),
        interval: config.gossip_interval,
        remembered: gossip::REMEMBERED,
        key: config.key.clone(),
    };
    let record = state.record.clone();
    let first = encode_record(&record.borrow().for_others());
    let gossip = gossip::spawn(gossip_config, Lives(state.clone()), first).await?;
    let saying = announce::spawn(record, gossip.announce.clone());
    Ok((gossip, saying))
}

/// Between two attempts to catch up.
const CATCH_UP: Duration = Duration::from_millis(200);
/// Who has heard nobody for this long is told what to look for.
const DOUBT: Duration = Duration::from_secs(5);

/// A host that has just started asks another for all that it knows, which is faster than gossip.
async fn catch_up(gossip: gossip::Handle, mut seen: watch::Receiver<ClusterView>, peers: Peers, me: HostId) {
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

/// Signals are taken from the moment of the call, not only when somebody waits.
fn told_to_stop() -> impl Future<Output = ()> {
    let mut term = signal(SignalKind::terminate()).expect("the runtime handles signals");
    let mut interrupt = signal(SignalKind::interrupt()).expect("the runtime handles signals");
    async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
}
