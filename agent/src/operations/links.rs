//! Links are opened and closed: decided, durable, and followed by the kernel of this host.

use std::sync::Arc;
use std::time::Duration;

use overlay::datapath::status::ReconcileStatus;
use overlay::model::links::Link;
use overlay::operations::link::{DecideLink, LinkRefusal};
use tokio::sync::watch;

use crate::cluster::ClusterView;
use crate::state::store::StoreError;
use crate::state::{self, DecideError};

/// How long the kernel of this host may take to follow.
const KERNEL_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a link can't be opened or closed.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// It was refused.
    #[error(transparent)]
    Refused(LinkRefusal),
    /// It could not be made durable.
    #[error(transparent)]
    Store(StoreError),
}

impl From<DecideError<LinkRefusal>> for LinkError {
    fn from(error: DecideError<LinkRefusal>) -> Self {
        match error {
            DecideError::Refused(refusal) => Self::Refused(refusal),
            DecideError::Store(error) => Self::Store(error),
        }
    }
}

/// Opens and closes links.
#[derive(Debug, Clone)]
pub struct Linker {
    /// The state of this host.
    pub state: state::Handle,
    /// The cluster.
    pub seen: watch::Receiver<ClusterView>,
    /// What has become of the kernel.
    pub settled: watch::Receiver<Arc<ReconcileStatus>>,
}

impl Linker {
    /// Opens a link. When this returns it is durable, and the kernel of this host follows it; those of the other hosts do as soon
    /// as they hear of it.
    ///
    /// # Errors
    /// With the reason; nothing was changed then.
    pub async fn open(&self, network: &str, link: Link) -> Result<(), LinkError> {
        self.decide(network, link, false).await
    }

    /// Closes it, in the same way. Connections that were open over it end as well.
    ///
    /// # Errors
    /// With the reason; nothing was changed then.
    pub async fn close(&self, network: &str, link: Link) -> Result<(), LinkError> {
        self.decide(network, link, true).await
    }

    async fn decide(&self, network: &str, link: Link, removed: bool) -> Result<(), LinkError> {
        let ClusterView { cluster, synced, .. } = self.seen.borrow().clone();
        let id = cluster.find(network).map(|view| view.network.id);
        let request = DecideLink { network: network.to_owned(), link: link.clone(), removed, cluster, synced };
        let decision = self.state.decide(request).await?.answer;
        let follows = |settled: &Arc<ReconcileStatus>| {
            let view = id.and_then(|id| settled.cluster.networks.get(&id));
            view.is_none_or(|view| view.links.of(&link).is_some_and(|known| known >= decision))
        };
        // What stands in the way is in `status`, and tried again.
        let mut settled = self.settled.clone();
        let _ = tokio::time::timeout(KERNEL_TIMEOUT, settled.wait_for(follows)).await;
        tracing::info!(network, %link, removed, "link decided");
        Ok(())
    }
}
