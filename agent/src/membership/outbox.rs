//! The courier: brings the leases that were written for other hosts to them, again and again until they have arrived,
//! and lets the ledger know that time passes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use overlay::ledger::{Input, Ledger, REST};
use overlay::model::host::Liveness;
use overlay::model::id::{HostId, NetworkId};
use overlay::model::member::Stamp;
use overlay::model::record::Statement;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::cluster::ClusterView;
use crate::peer::{CallError, Peers};
use crate::reconcile::Settled;
use crate::state;

/// Between two rounds if nothing happens.
const PERIOD: Duration = Duration::from_secs(1);

/// Starts the courier. It ends only with what it listens to.
///
/// An endpoint that was let go of, durably, may still be in the kernel: the agent has ended since, or can't remove it. Its
/// address may have rested, but it goes back only when the last round that `settled` tells of has left none there.
pub fn spawn(
    local: state::Handle,
    seen: watch::Receiver<ClusterView>,
    peers: Peers,
    settled: watch::Receiver<Arc<Settled>>,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut record = local.record.clone();
        loop {
            let settled = Arc::clone(&settled.borrow());
            let passed = local.call(move |local| {
                let clear = |id: &NetworkId| settled.is_clear(*id, Duration::from_millis(REST));
                let clear = local.ledger().accounts().keys().copied().filter(clear).collect();
                local.step(&Input::Tick { clear })
            });
            if let Err(error) = passed.await {
                tracing::error!(%error, "addresses that have rested can't be given back");
            }
            record.borrow_and_update();
            let (mail, stamp) = local.call(|local| (sorted(local.ledger()), local.ledger().stamp())).await;
            let live =
                |host: &HostId| seen.borrow().cluster.hosts.get(host).is_some_and(|h| h.liveness == Liveness::Live);
            let mail = mail.into_iter().filter(|(to, _)| live(to));
            join_all(mail.map(|(to, posted)| deliver(&local, &peers, to, (posted, stamp)))).await;
            let changed = tokio::time::timeout(PERIOD, record.changed()).await;
            if matches!(changed, Ok(Err(_))) {
                return;
            }
        }
    })
}

/// What is posted, by the host that it is for.
fn sorted(ledger: &Ledger) -> BTreeMap<HostId, Vec<(NetworkId, Statement)>> {
    let mut mail: BTreeMap<HostId, Vec<_>> = BTreeMap::new();
    for (network, account) in ledger.accounts() {
        for statement in &account.outbox {
            let to = match statement {
                Statement::Transfer { to, .. } | Statement::Delegate { to, .. } => Some(*to),
                Statement::Return { address, .. } => account.block_lease(*address).map(|lease| lease.holder),
            };
            if let Some(to) = to {
                mail.entry(to).or_default().push((*network, *statement));
            }
        }
    }
    mail
}

/// Over one connection. Of one that does not answer no more is asked in this round; what it refuses is told again, since
/// it may still have to hear of the network.
async fn deliver(
    local: &state::Handle,
    peers: &Peers,
    to: HostId,
    (posted, stamp): (Vec<(NetworkId, Statement)>, Stamp),
) {
    let later = |error: CallError| tracing::debug!(host = %to.short(), %error, "a lease could not be delivered yet");
    let mut line = match peers.line(to).await {
        Ok(line) => line,
        Err(error) => return later(error),
    };
    for (network, statement) in posted {
        match line.deliver(network, &statement, stamp).await {
            Ok(()) => {
                let taken = Input::Taken { network, statement };
                if let Err(error) = local.call(move |local| local.step(&taken)).await {
                    tracing::error!(%error, "a delivered lease stays posted");
                }
            }
            Err(CallError::Denied(denial)) => {
                tracing::debug!(host = %to.short(), %denial, "a lease was refused");
                let refused = Input::Refused { by: to, denial };
                if let Err(error) = local.call(move |local| local.step(&refused)).await {
                    tracing::error!(%error, "what a member answered could not be kept");
                }
            }
            Err(error) if error.is_answer() => later(error),
            Err(error) => return later(error),
        }
    }
}

#[cfg(test)]
mod tests;
