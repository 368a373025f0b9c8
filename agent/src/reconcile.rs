//! The reconciler: makes the kernel what cluster and intents call for. It looks at the kernel whenever something may
//! have changed, here, elsewhere or in the kernel itself, and every half minute in any case; and it remembers nothing of
//! what it did.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use overlay::cluster::{Cluster, NetworkView};
use overlay::datapath::desired::{Desired, HostConfig, Segment, desire};
use overlay::datapath::foreign_chains::{Barrier, barriers};
use overlay::datapath::kernel_api::{Cause, Kernel, StepError};
use overlay::datapath::observed::Observed;
use overlay::datapath::plan::{HostStep, Knowledge, SegmentStep, Step};
use overlay::datapath::report::Report;
use overlay::datapath::round::round;
use overlay::kernel::{RealKernel, netns};
use overlay::model::id::{EndpointId, NetworkId};
use overlay::model::intent::Intents;
use overlay::operations::detach::Detach;
use overlay::operations::hear::UnderlayMtu;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::field::display;

use crate::cluster::ClusterView;
use crate::state::{self, CommittedIntents};

/// A look is due after this long in any case.
const AUDIT: Duration = Duration::from_secs(30);
/// Between two rounds: a burst of changes is one.
const PAUSE: Duration = Duration::from_millis(10);
/// After a failure: doubled each time up to the longest.
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LONGEST_RETRY: Duration = Duration::from_secs(10);
/// After a failure the kernel's own news wait this long at most: a step that fails half-way makes some, and would
/// otherwise be tried again at once, for ever.
const DEAF: Duration = Duration::from_millis(500);

/// How the last round ended.
#[derive(Debug, Clone, Default)]
pub struct Settled {
    /// When it began; `None` if the kernel could not be looked at, or there was no round yet.
    pub began: Option<Instant>,
    /// The commit of the intents that the round was for.
    pub commit: u64,
    /// The networks of which something is left in the kernel that should be gone.
    pub lingering: BTreeSet<NetworkId>,
    /// What is not as it should be.
    pub failures: Vec<Failure>,
    /// What others have in the way of containers, and what is not changed.
    pub barriers: BTreeSet<Barrier>,
    /// The segments that stand, and the addresses that they answer DNS on.
    pub segments: BTreeMap<NetworkId, Vec<IpAddr>>,
    /// The cluster that the round was for.
    pub cluster: Arc<Cluster>,
}

impl Settled {
    /// Is all that was let go of in the network, for so long at least, out of the kernel?
    pub fn is_clear(&self, network: NetworkId, for_long: Duration) -> bool {
        self.began.is_some_and(|began| began.elapsed() < for_long) && !self.lingering.contains(&network)
    }

    /// Do packets of the network find the way from here to the endpoint? Where there is no segment there are none.
    pub fn reaches(&self, network: NetworkId, endpoint: EndpointId) -> bool {
        let known = || self.cluster.networks.get(&network).is_some_and(|v| v.endpoints.contains_key(&endpoint));
        !self.segments.contains_key(&network) || known()
    }
}

/// One thing that could not be done.
#[derive(Debug, Clone)]
pub struct Failure {
    /// What does not work for it.
    pub scope: Scope,
    /// What was tried, and why it could not be done.
    pub message: String,
    /// The kind of reason.
    pub cause: Cause,
}

/// What does not work if a step has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Everything: it is about the host itself.
    Host,
    /// The way to the world, as far as others have a say in it: every endpoint of this host is whole nonetheless.
    Gate,
    /// A whole segment: the rest of it stands on that step.
    Segment(NetworkId),
    /// One endpoint of this host.
    Endpoint(NetworkId, EndpointId),
    /// One entry of the network, or something left over: every endpoint of this host is whole nonetheless.
    Entry(NetworkId),
}

impl Scope {
    fn of(step: &Step, desired: &Desired) -> Self {
        use SegmentStep::{ConnectPort, CreatePort, DeletePort, Row, UpdatePort};
        let (network, step) = match step {
            Step::Host(HostStep::SetGate(..)) => return Self::Gate,
            Step::Host(_) => return Self::Host,
            Step::Segment(network, step) => (network, step),
        };
        match step {
            CreatePort(id, _) => Self::Endpoint(*network, *id),
            ConnectPort(port) | UpdatePort(port) => {
                let mut ports = desired.segments.get(network).into_iter().flat_map(|segment| &segment.ports);
                let endpoint = ports.find(|(_, p)| p.host_ifname == port.host_ifname).map(|(id, _)| *id);
                endpoint.map_or(Self::Entry(*network), |id| Self::Endpoint(*network, id))
            }
            Row(_) | DeletePort(_) => Self::Entry(*network),
            _ => Self::Segment(*network),
        }
    }

    /// The network that it is about; `None` for the host itself and its neighbours.
    pub fn network(self) -> Option<NetworkId> {
        match self {
            Self::Host | Self::Gate => None,
            Self::Segment(network) | Self::Endpoint(network, _) | Self::Entry(network) => Some(network),
        }
    }

    /// Is that endpoint of this host not whole for it?
    pub fn breaks(self, network: NetworkId, endpoint: EndpointId) -> bool {
        match self {
            Self::Host => true,
            Self::Segment(broken) => broken == network,
            Self::Endpoint(_, broken) => broken == endpoint,
            Self::Gate | Self::Entry(_) => false,
        }
    }
}

/// The way to the reconciler.
#[derive(Debug, Clone)]
pub struct Handle {
    /// How the last round ended.
    pub settled: watch::Receiver<Arc<Settled>>,
    looks: mpsc::Sender<oneshot::Sender<Result<Observed, StepError>>>,
}

impl Handle {
    /// The kernel as it is now.
    ///
    /// # Errors
    /// When it can't be looked at.
    pub async fn look(&self) -> Result<Observed, StepError> {
        let stopping =
            || StepError::new("look at the kernel", Cause::Busy).with_detail("overlayd stops: start it, and try again");
        let (answer, observed) = oneshot::channel();
        self.looks.send(answer).await.map_err(|_| stopping())?;
        observed.await.map_err(|_| stopping())?
    }
}

/// Takes everything out of the kernel that a host has put there: what it finds is that of an identity that is no more.
///
/// # Errors
/// When the kernel can't be looked at, or something can't be removed.
pub async fn cut_off<K: Kernel>(kernel: &mut K, host: &HostConfig) -> Result<(), StepError> {
    let nothing = desire(&Cluster::default(), &Intents::default(), host);
    let (_, report) = round(kernel, &nothing, Knowledge::Partial).await?;
    report.failed.into_iter().next().map_or(Ok(()), |(_, error)| Err(error))
}

/// Starts the reconciler. Its task may be ended at any moment: the next one goes on from what the kernel has.
pub fn spawn(
    kernel: RealKernel,
    place: HostConfig,
    state: state::Handle,
    seen: watch::Receiver<ClusterView>,
) -> (Handle, JoinHandle<()>) {
    let changes = kernel.changes();
    start((kernel, changes), place, state, seen)
}

/// The same for any kernel and the news of it.
fn start<K: Kernel + Send + Sync + 'static>(
    (kernel, changes): (K, watch::Receiver<u64>),
    place: HostConfig,
    state: state::Handle,
    seen: watch::Receiver<ClusterView>,
) -> (Handle, JoinHandle<()>) {
    let (settled_tx, settled) = watch::channel(Arc::default());
    let (looks, looks_rx) = mpsc::channel(1);
    let reconciler = Reconciler { kernel, place, state, seen, changes, looks: looks_rx, settled: settled_tx };
    let task = tokio::spawn(reconciler.run());
    (Handle { settled, looks }, task)
}

struct Reconciler<K> {
    kernel: K,
    place: HostConfig,
    state: state::Handle,
    seen: watch::Receiver<ClusterView>,
    changes: watch::Receiver<u64>,
    looks: mpsc::Receiver<oneshot::Sender<Result<Observed, StepError>>>,
    settled: watch::Sender<Arc<Settled>>,
}

impl<K: Kernel> Reconciler<K> {
    async fn run(mut self) {
        let mut retry = FIRST_RETRY;
        loop {
            let settled = self.round().await;
            let (due, deaf) = if settled.failures.is_empty() { (AUDIT, PAUSE) } else { (retry, retry.min(DEAF)) };
            retry = if settled.failures.is_empty() { FIRST_RETRY } else { (retry * 2).min(LONGEST_RETRY) };
            self.settled.send_replace(Arc::new(settled));
            let now = Instant::now();
            tokio::time::sleep(PAUSE).await;
            if !self.wait(now + due, now + deaf).await {
                return;
            }
        }
    }

    /// Until there is reason for another round, of which the kernel gives none while it is `deaf`; false if there will
    /// be no more.
    async fn wait(&mut self, due: Instant, deaf: Instant) -> bool {
        let Self { kernel, state, seen, changes, looks, .. } = self;
        let news = async {
            tokio::time::sleep_until(deaf).await;
            changes.changed().await
        };
        tokio::pin!(news);
        let mut over = false;
        loop {
            tokio::select! {
                changed = state.intents.changed() => return changed.is_ok(),
                changed = seen.changed() => return changed.is_ok(),
                told = &mut news, if !over => match told {
                    Ok(()) => return true,
                    Err(_) => over = true,
                },
                () = tokio::time::sleep_until(due) => return true,
                Some(answer) = looks.recv() => drop(answer.send(kernel.observe().await)),
            }
        }
    }

    async fn round(&mut self) -> Settled {
        let began = Some(Instant::now());
        // Noted before looking: what changes from here on is reason for another round.
        self.changes.borrow_and_update();
        let CommittedIntents { commit, intents } = self.state.intents.borrow_and_update().clone();
        let seen = self.seen.borrow_and_update().clone();
        let knowledge = if seen.synced { Knowledge::Whole } else { Knowledge::Partial };
        let cluster = seen.cluster;
        let desired = desire(&cluster, &intents, &self.place);
        match round(&mut self.kernel, &desired, knowledge).await {
            Ok((observed, report)) => {
                self.follow(observed.underlay_mtu).await;
                let released = self.let_go_of_the_lost(&observed, &report, &intents).await;
                let (segments, failures) = (standing_segments(&desired, &report), failures(&desired, &report));
                let (lingering, barriers) = (lingering(&report), barriers(&observed.others, &desired));
                let settled = Settled { began, commit, lingering, segments, failures, barriers, cluster };
                self.log(&settled, &intents, &released);
                settled
            }
            Err(error) => {
                // What stood a moment ago stands as far as anybody can tell.
                let segments = self.settled.borrow().segments.clone();
                let failures = vec![failure(Scope::Host, &error)];
                let settled = Settled { commit, failures, segments, cluster, ..Settled::default() };
                self.log(&settled, &intents, &BTreeSet::new());
                settled
            }
        }
    }

    /// What the underlay carries has changed: the other hosts are told, and the next round, which that brings, goes by it.
    async fn follow(&mut self, underlay_mtu: Option<u32>) {
        let Some(mtu) = underlay_mtu.filter(|mtu| *mtu != self.place.underlay_mtu) else { return };
        tracing::info!(before = self.place.underlay_mtu, now = mtu, "the MTU of the underlay has changed");
        self.place.underlay_mtu = mtu;
        if let Err(error) = self.state.tell(UnderlayMtu(mtu)).await {
            tracing::error!(%error, "what the underlay carries can't be told to other hosts");
        }
    }

    /// An endpoint whose namespace is gone is released: nobody else would tell.
    async fn let_go_of_the_lost(
        &self,
        observed: &Observed,
        report: &Report,
        intents: &Intents,
    ) -> BTreeSet<EndpointId> {
        let lost = |step: &Step| match step {
            Step::Segment(network, SegmentStep::CreatePort(id, port))
                if observed.is_lost(*network, *id, netns::at_path(&port.netns)) =>
            {
                Some(*id)
            }
            _ => None,
        };
        let gone = report.failed.iter().filter(|(_, error)| error.cause == Cause::Gone);
        let lost: BTreeSet<EndpointId> = gone.filter_map(|(step, _)| lost(step)).collect();
        if lost.is_empty() {
            return lost;
        }
        let ids: Vec<EndpointId> = lost.iter().copied().collect();
        match self.state.tell(Detach(ids)).await {
            Ok(_) => {
                for endpoint in lost.iter().filter_map(|id| Some(&intents.attachments.get(id)?.endpoint)) {
                    let network = intents.networks.get(&endpoint.network).map(|network| display(&network.name));
                    tracing::info!(endpoint = %endpoint.name, network, "released: neither its path nor its interface is there");
                }
                lost
            }
            Err(error) => {
                tracing::error!(%error, "endpoints whose namespaces are gone can't be released");
                BTreeSet::new()
            }
        }
    }

    /// Logs what is new. That a container has ended is no failure.
    fn log(&self, settled: &Settled, intents: &Intents, released: &BTreeSet<EndpointId>) {
        let known: BTreeSet<String> = self.settled.borrow().failures.iter().map(|f| f.message.clone()).collect();
        let ended = |f: &Failure| matches!(f.scope, Scope::Endpoint(_, id) if released.contains(&id));
        let new = |f: &&Failure| !known.contains(&f.message) && !ended(f);
        for failure in settled.failures.iter().filter(new) {
            let network = failure.scope.network().map(|id| display(network_name(id, &settled.cluster, intents)));
            let endpoint = match failure.scope {
                Scope::Endpoint(_, id) => intents.attachments.get(&id).map(|a| display(&a.endpoint.name)),
                Scope::Host | Scope::Gate | Scope::Segment(_) | Scope::Entry(_) => None,
            };
            tracing::warn!(network, endpoint, failure = failure.message, "the kernel is not as it should be");
        }
    }
}

/// What people call a network. A deleted one that still has endpoints here is in no cluster.
fn network_name(id: NetworkId, cluster: &Cluster, intents: &Intents) -> String {
    let shown = cluster.networks.get(&id).map(NetworkView::shown_name);
    shown.or_else(|| Some(intents.networks.get(&id)?.name.to_string())).unwrap_or_else(|| id.short())
}

/// The segments whose bridges are there, and so the addresses that DNS is asked on. Whatever else is missing, names go on.
fn standing_segments(desired: &Desired, report: &Report) -> BTreeMap<NetworkId, Vec<IpAddr>> {
    let undone = report.skipped.iter().chain(report.failed.iter().map(|(step, _)| step));
    let carries = |step: &&Step| {
        use SegmentStep::{Create, CreateBridge, UpdateBridge};
        matches!(step, Step::Segment(_, Create(_) | CreateBridge(_) | UpdateBridge(_)))
    };
    let fallen: BTreeSet<NetworkId> = undone.filter(carries).filter_map(Step::network).collect();
    let standing_segments = desired.segments.iter().filter(|(id, _)| !fallen.contains(id));
    // A link-local address is asked by nobody, who would have to say on which link.
    let asked = |address: &IpAddr| !matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
    let addresses = |segment: &Segment| segment.bridge.addresses.iter().map(|a| a.address).filter(asked).collect();
    standing_segments.map(|(id, segment)| (*id, addresses(segment))).collect()
}

/// Ports that should be gone, alone or with their segment, and are not.
fn lingering(report: &Report) -> BTreeSet<NetworkId> {
    let undone = report.skipped.iter().chain(report.failed.iter().map(|(step, _)| step));
    let removes = |step: &&Step| matches!(step, Step::Segment(_, SegmentStep::DeletePort(_) | SegmentStep::Delete));
    undone.filter(removes).filter_map(Step::network).collect()
}

fn failures(desired: &Desired, report: &Report) -> Vec<Failure> {
    report.failed.iter().map(|(step, error)| failure(Scope::of(step, desired), error)).collect()
}

fn failure(scope: Scope, error: &StepError) -> Failure {
    let said = error.source.as_ref().map_or_else(String::new, |source| format!(" ({source})"));
    Failure { scope, message: format!("{error}{said}"), cause: error.cause }
}

#[cfg(test)]
pub(crate) mod tests;
