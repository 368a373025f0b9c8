//! Lease delivery: brings the leases that were written for other hosts to them, again and again until they have arrived,
//! and lets the ledger know that time passes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use overlay::datapath::status::ReconcileStatus;
use overlay::ledger::{Answer, Input, Question, REST};
use overlay::model::host::Liveness;
use overlay::model::id::{HostId, NetworkId};
use overlay::model::member::Stamp;
use overlay::model::record::Statement;
use overlay::operations::hear::Inputs;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::cluster::ClusterView;
use crate::peer::{CallError, Peers};
use crate::state;

/// Between two rounds if nothing happens.
const PERIOD: Duration = Duration::from_secs(1);

/// Starts lease delivery. It ends only with what it listens to.
///
/// An endpoint that was let go of, durably, may still be in the kernel: the agent has ended since, or can't remove it. Its
/// address may have rested, but it goes back only when the last round that `settled` tells of has left none there.
pub fn spawn(
    state: state::Handle,
    seen: watch::Receiver<ClusterView>,
    peers: Peers,
    settled: watch::Receiver<Arc<ReconcileStatus>>,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut record = state.record.clone();
        loop {
            let settled = Arc::clone(&settled.borrow());
            let clear = |id: &NetworkId| settled.is_clear(*id, Duration::from_millis(REST), Instant::now());
            let clear = state.state().ledger.accounts().keys().copied().filter(clear).collect();
            if let Err(error) = state.tell(Input::Tick { clear }).await {
                tracing::error!(%error, "addresses that have rested can't be given back");
            }
            record.borrow_and_update();
            let ledger = state.state().ledger;
            let (undelivered, stamp) = (ledger.undelivered(), ledger.stamp());
            let live =
                |host: &HostId| seen.borrow().cluster.hosts.get(host).is_some_and(|h| h.liveness == Liveness::Live);
            let undelivered = undelivered.into_iter().filter(|(to, _)| live(to));
            join_all(undelivered.map(|(to, statements)| deliver(&state, &peers, to, (statements, stamp)))).await;
            let changed = tokio::time::timeout(PERIOD, record.changed()).await;
            if matches!(changed, Ok(Err(_))) {
                return;
            }
        }
    })
}

/// Delivers to one host, one lease after the other. A host that does not answer is asked nothing more in this round. What it
/// refuses is delivered again, since it may still have to hear of the network.
async fn deliver(
    state: &state::Handle,
    peers: &Peers,
    to: HostId,
    (statements, stamp): (Vec<(NetworkId, Statement)>, Stamp),
) {
    let later = |error: CallError| tracing::debug!(host = %to.short(), %error, "a lease could not be delivered yet");
    for (network, statement) in statements {
        let question = Question::Deliver { network, statement };
        let answer = match peers.deliver(to, network, &statement, stamp).await {
            Ok(()) => Answer::Done,
            Err(CallError::Denied(denial)) => {
                tracing::debug!(host = %to.short(), %denial, "a lease was refused");
                Answer::Denied(denial)
            }
            Err(error) if error.is_answer() => {
                later(error);
                continue;
            }
            Err(error) => return later(error),
        };
        let heard = Inputs(question.answered((to, stamp), answer));
        if let Err(error) = state.tell(heard).await {
            tracing::error!(%error, "what a member answered could not be kept");
        }
    }
}

#[cfg(test)]
mod tests;
