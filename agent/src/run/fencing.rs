//! How a daemon ends whose host is fenced: it gives up its identity and starts again under a new one. Before that its endpoints
//! are cut off in the kernel, and it is on disk that the ledger was given up.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use overlay::ledger::{Activation, Fencing};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::Ended;
use crate::state;
use overlay::datapath::status::ReconcileStatus;

/// How long the kernel may take to cut off the endpoints of a fenced host.
const CUT_OFF_TIMEOUT: Duration = Duration::from_secs(5);
/// The time between two attempts to write that this host gave up its identity.
const REWRITE_INTERVAL: Duration = Duration::from_secs(1);

/// Waits until this host gives up its identity; returns why.
pub(super) async fn fenced(mut activation: watch::Receiver<Activation>) -> Fencing {
    loop {
        if let Activation::Fenced(why) = &*activation.borrow_and_update() {
            return *why;
        }
        if activation.changed().await.is_err() {
            // The state thread has ended, which its supervision reports.
            std::future::pending::<()>().await;
        }
    }
}

/// Ends this identity: returns when the next one may begin, or when the daemon is told to stop.
pub(super) async fn end_identity(
    why: Fencing,
    state: &state::Handle,
    settled: watch::Receiver<Arc<ReconcileStatus>>,
    stop: Pin<&mut impl Future<Output = ()>>,
) -> Ended {
    log(why);
    let commit = state.intents.borrow().commit;
    until_cut_off(commit, settled).await;
    until_written(state, stop).await
}

fn log(why: Fencing) {
    match why {
        Fencing::Moves | Fencing::Unjoined => {
            tracing::info!(%why, "this host starts again under a new identity");
        }
        Fencing::Forgotten { .. } | Fencing::Restored { .. } => {
            tracing::error!(%why, "host fenced: it starts again under a new identity; its endpoints lose connectivity");
        }
    }
}

/// The next identity must not begin before the kernel is clear: it may not get far enough to clear it.
async fn until_cut_off(commit: u64, mut settled: watch::Receiver<Arc<ReconcileStatus>>) {
    let cut = settled.wait_for(|settled| settled.commit >= commit && settled.failures.is_empty());
    if !matches!(timeout(CUT_OFF_TIMEOUT, cut).await, Ok(Ok(_))) {
        tracing::error!("the endpoints of the identity that is given up may still be up");
    }
}

/// Nor must it begin before the disk says so: it would go on with the ledger that was given up.
async fn until_written(state: &state::Handle, mut stop: Pin<&mut impl Future<Output = ()>>) -> Ended {
    let mut has_logged = false;
    while let Err(error) = state.write_owed().await {
        if !std::mem::replace(&mut has_logged, true) {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "its endpoints are cut off; it waits until it can write that it gave its identity up"
            );
        }
        tokio::select! {
            () = sleep(REWRITE_INTERVAL) => {}
            () = &mut stop => return Ended::Told,
        }
    }
    Ended::Fenced
}
