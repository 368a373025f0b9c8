//! Lease delivery: brings the leases that were written for other hosts to them, again and again until they have arrived.

use std::time::Duration;

use futures::future::join_all;
use overlay::ledger::{Answer, Question};
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
pub fn spawn(state: state::Handle, seen: watch::Receiver<ClusterView>, peers: Peers) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut record = state.record.clone();
        loop {
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
