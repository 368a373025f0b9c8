//! The ledger's clock: lets the ledger know that time passes, so that addresses that have rested go back, and so do those that were lent
//! to a host that is forgotten.

use std::sync::Arc;
use std::time::{Duration, Instant};

use overlay::datapath::status::ReconcileStatus;
use overlay::ledger::{Input, REST};
use overlay::model::id::NetworkId;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::state;

/// Between two ticks.
const PERIOD: Duration = Duration::from_secs(1);

/// Starts the clock.
///
/// An endpoint that was let go of, durably, may still be in the kernel: the agent has ended since, or can't remove it. Its
/// address may have rested, but it goes back only when the last round that `settled` tells of has left none there.
pub fn spawn(state: state::Handle, settled: watch::Receiver<Arc<ReconcileStatus>>) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut membership = state.membership.clone();
        loop {
            membership.borrow_and_update();
            let status = Arc::clone(&settled.borrow());
            let clear = |id: &NetworkId| status.is_clear(*id, Duration::from_millis(REST), Instant::now());
            let clear = state.state().ledger.accounts().keys().copied().filter(clear).collect();
            if let Err(error) = state.tell(Input::Tick { clear }).await {
                tracing::error!(%error, "addresses that have rested can't be given back");
            }
            // The addresses that were lent to a forgotten host go home at once: its operator may be about to use them.
            if let Ok(Err(_)) = tokio::time::timeout(PERIOD, membership.changed()).await {
                return;
            }
        }
    })
}

#[cfg(test)]
mod tests;
