//! The reconciler: makes the kernel what cluster and intents call for. It runs a round whenever something may have changed, here,
//! elsewhere or in the kernel itself, and an audit every half minute in any case. A round looks only at the parts of the kernel that
//! may have changed ([`attention`](overlay::datapath::attention) says why that is safe). It keeps no observation and no list of what it did.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use overlay::cluster::Cluster;
use overlay::datapath::attention::{Look, News};
use overlay::datapath::desired::{HostConfig, desire};
use overlay::datapath::kernel_api::{Kernel, StepError};
use overlay::datapath::observed::Observed;
use overlay::datapath::plan::Knowledge;
use overlay::datapath::report::Report;
use overlay::datapath::round::round;
use overlay::datapath::rounds::{AUDIT, Rounds};
use overlay::datapath::status::{Failure, LastRound, Reason, ReconcileStatus, Scope};
use overlay::kernel::RealKernel;
use overlay::model::host::Ways;
use overlay::model::id::EndpointId;
use overlay::model::intent::Intents;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::field::display;

use crate::cluster::ClusterView;
use crate::pace::Pace;
use crate::state::{self, CommittedIntents};

mod handle;
mod inspect;
mod lost;

pub use handle::Handle;
pub use inspect::Inspector;
pub use lost::{ReleaseError, Released};

use handle::Command;

/// What a round costs: so many may follow each other at once, and after that one each so often.
const ROUND: Duration = Duration::from_millis(10);
const BURST: u32 = 4;

/// After a round the kernel's news wait this long: those of the round itself are one reason for one more look.
const ECHO: Duration = Duration::from_millis(10);
/// After a failure: doubled each time up to the longest.
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LONGEST_RETRY: Duration = Duration::from_secs(10);
/// After a failure the kernel's own news wait this long at most: a step that fails half-way makes some, and would
/// otherwise be tried again at once, for ever.
const DEAF: Duration = Duration::from_millis(500);

/// Takes everything out of the kernel that a host has put there: what it finds is that of an identity that is no more.
///
/// # Errors
/// When the kernel can't be looked at, or something can't be removed.
pub async fn cut_off<K: Kernel>(kernel: &mut K, host: &HostConfig) -> Result<(), StepError> {
    let nothing = desire(&Cluster::default(), &Intents::default(), host);
    let (_, report) = round(kernel, &Look::Everything, &nothing, Knowledge::Partial).await?;
    report.failed.into_iter().next().map_or(Ok(()), |(_, error)| Err(error))
}

/// Starts the reconciler. Its task may be ended at any moment: the next one goes on from what the kernel has.
pub fn spawn(
    kernel: RealKernel,
    host: HostConfig,
    state: state::Handle,
    seen: watch::Receiver<ClusterView>,
) -> (Handle, JoinHandle<()>) {
    let changes = kernel.changes();
    start((kernel, changes), host, state, seen)
}

/// The same for any kernel and the news of it.
fn start<K: Kernel + Send + Sync + 'static>(
    (kernel, changes): (K, watch::Receiver<News>),
    host: HostConfig,
    state: state::Handle,
    seen: watch::Receiver<ClusterView>,
) -> (Handle, JoinHandle<()>) {
    let (settled_tx, settled) = watch::channel(Arc::default());
    let (commands, commands_rx) = mpsc::channel(1);
    let reconciler = Reconciler {
        kernel,
        host,
        state,
        seen,
        changes,
        rounds: Rounds::default(),
        ways: None,
        audited: Instant::now(),
        commands: commands_rx,
        settled: settled_tx,
    };
    let task = tokio::spawn(reconciler.run());
    (Handle { settled, commands }, task)
}

struct Reconciler<K> {
    kernel: K,
    host: HostConfig,
    state: state::Handle,
    seen: watch::Receiver<ClusterView>,
    changes: watch::Receiver<News>,
    rounds: Rounds,
    /// What the other hosts were last told of the ways of this one.
    ways: Option<Ways>,
    /// When everything was last looked at.
    audited: Instant,
    commands: mpsc::Receiver<Command>,
    settled: watch::Sender<Arc<ReconcileStatus>>,
}

impl<K: Kernel> Reconciler<K> {
    async fn run(mut self) {
        let mut reason = Reason::Started;
        let mut retry = FIRST_RETRY;
        let mut pace = Pace::new(ROUND * BURST, Instant::now().into_std());
        loop {
            // Also when it runs for another reason: there may always be one.
            if self.audited.elapsed() >= AUDIT {
                self.rounds.audit();
            }
            let status = self.round(reason).await;
            let now = Instant::now();
            let (due, when_due, deaf) = if status.failures.is_empty() {
                retry = FIRST_RETRY;
                (self.audited + AUDIT, Reason::Audit, now + ECHO)
            } else {
                let due = (now + retry, Reason::Retry, now + retry.min(DEAF));
                retry = (retry * 2).min(LONGEST_RETRY);
                due
            };
            self.settled.send_replace(Arc::new(status));
            reason = match self.wait(due, deaf).await {
                Wake::For(reason) => reason,
                Wake::Due => when_due,
                Wake::Never => return,
            };
            tokio::time::sleep_until(pace.spend(ROUND, Instant::now().into_std()).into()).await;
        }
    }

    /// Until there is reason for another round, of which the kernel gives none while it is `deaf`.
    async fn wait(&mut self, due: Instant, deaf: Instant) -> Wake {
        let Self { kernel, state, seen, changes, commands, .. } = self;
        let news = async {
            tokio::time::sleep_until(deaf).await;
            changes.changed().await
        };
        tokio::pin!(news);
        let mut over = false;
        loop {
            let changed =
                |changed: Result<(), _>, reason| if changed.is_ok() { Wake::For(reason) } else { Wake::Never };
            tokio::select! {
                told = state.intents.changed() => return changed(told, Reason::IntentsChanged),
                told = seen.changed() => return changed(told, Reason::ClusterChanged),
                told = &mut news, if !over => match told {
                    Ok(()) => return Wake::For(Reason::KernelChanged),
                    Err(_) => over = true,
                },
                () = tokio::time::sleep_until(due) => return Wake::Due,
                Some(command) = commands.recv() => {
                    if answer(kernel, state, command).await {
                        return Wake::For(Reason::Asked);
                    }
                }
            }
        }
    }

    async fn round(&mut self, reason: Reason) -> ReconcileStatus {
        let began = Instant::now();
        // Noted before looking: what changes from here on is reason for another round.
        let news = self.changes.borrow_and_update().clone();
        let CommittedIntents { commit, intents } = self.state.intents.borrow_and_update().clone();
        let seen = self.seen.borrow_and_update().clone();
        let knowledge = if seen.synced { Knowledge::Whole } else { Knowledge::Partial };
        let cluster = seen.cluster;
        let due = self.rounds.next((&cluster, &intents), &self.host, knowledge, news);
        if due.look == Look::Everything {
            self.audited = Instant::now();
        }
        let before = Arc::clone(&self.settled.borrow());
        let rounds = before.last.rounds + 1;
        let looks = before.last.looks + u64::from(!due.look.is_empty());
        let outcome = self.rounds.carry_out(&mut self.kernel, &due, began.into_std()).await;
        let mut released = BTreeSet::new();
        if let Ok((observed, report)) = &outcome {
            self.follow(observed).await;
            released = self.release_the_lost(observed, report, &intents).await;
        }
        let ended = ReconcileStatus::after(&before, &due, began.into_std(), &outcome);
        let last = LastRound { reason, took: began.elapsed(), rounds, looks };
        let contested = self.rounds.contested(Instant::now().into_std());
        let status = ReconcileStatus { commit, cluster, last, contested, ..ended };
        log(&status, &before, &intents, &released);
        status
    }

    /// The ways to others have changed: the other hosts are told, and the next round, which that brings, goes by it.
    async fn follow(&mut self, observed: &Observed) {
        let underlay_mtu = observed.underlay_mtu.unwrap_or(self.host.underlay_mtu);
        if underlay_mtu != self.host.underlay_mtu {
            tracing::info!(before = self.host.underlay_mtu, now = underlay_mtu, "the MTU of the underlay has changed");
            self.host.underlay_mtu = underlay_mtu;
        }
        let Some(routed) = observed.routed.clone() else { return };
        let ways = Ways { underlay_mtu, routed };
        if self.ways.as_ref() == Some(&ways) {
            return;
        }
        match self.state.tell(ways.clone()).await {
            Ok(_) => self.ways = Some(ways),
            Err(error) => tracing::error!(%error, "the ways of this host can't be told to other hosts"),
        }
    }

    /// Releases the endpoints whose containers have ended: no event tells of that.
    async fn release_the_lost(&self, observed: &Observed, report: &Report, intents: &Intents) -> BTreeSet<EndpointId> {
        let lost = lost::lost(observed, report).await;
        lost::release(&lost, &self.state, intents).await.unwrap_or_else(|error| {
            tracing::error!(%error, "endpoints whose namespaces are gone can't be released");
            BTreeSet::new()
        })
    }
}

/// Why the reconciler goes on.
enum Wake {
    For(Reason),
    /// As it was planned.
    Due,
    /// What it listens to has ended.
    Never,
}

/// Answers a question; gives whether that is reason for a round.
async fn answer<K: Kernel>(kernel: &mut K, state: &state::Handle, command: Command) -> bool {
    // A question whose asker has gone has been answered all the same.
    match command {
        Command::Look(look, answer) => {
            let _ = answer.send(kernel.observe(&look).await);
            false
        }
        Command::Release(network, endpoint, answer) => {
            let released = lost::release_if_lost(kernel, state, network, endpoint).await;
            let is_released = matches!(released, Ok(Released::Now));
            let _ = answer.send(released);
            is_released
        }
    }
}

/// Logs the failures that are new. That a container has ended is no failure.
fn log(status: &ReconcileStatus, before: &ReconcileStatus, intents: &Intents, released: &BTreeSet<EndpointId>) {
    let ended = |f: &Failure| matches!(f.scope, Scope::Endpoint(_, id) if released.contains(&id));
    for failure in status.new_failures(before).filter(|failure| !ended(failure)) {
        let network = failure.scope.network().map(|id| display(status.cluster.name_of(id, intents)));
        let endpoint = match failure.scope {
            Scope::Endpoint(_, id) => intents.attachments.get(&id).map(|a| display(&a.endpoint.name)),
            Scope::Host | Scope::ForeignChain | Scope::Segment(_) | Scope::Entry(_) => None,
        };
        tracing::warn!(network, endpoint, %failure, "the kernel is not as it should be");
    }
}

#[cfg(test)]
pub(crate) mod tests;
