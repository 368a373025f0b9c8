//! Networks are created and removed: decided, durable, and shown by the cluster.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use overlay::ledger::Activation;
use overlay::model::id::NetworkId;
use overlay::operations::define_network::{CreateNetwork, Hindered, NetworkSpec, RemoveNetwork};
use overlay::operations::network_refusal::NetworkRefusal;
use tokio::sync::watch;

use crate::cluster::ClusterView;
use crate::state::store::StoreError;
use crate::state::{self, DecideError};

/// How long the view may take to show what was just written.
const VIEW_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a network can't be created or removed.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// It was refused.
    #[error(transparent)]
    Refused(#[from] NetworkRefusal),
    /// It could not be made durable.
    #[error(transparent)]
    Store(StoreError),
}

impl From<DecideError<NetworkRefusal>> for NetworkError {
    fn from(error: DecideError<NetworkRefusal>) -> Self {
        match error {
            DecideError::Refused(refusal) => Self::Refused(refusal),
            DecideError::Store(error) => Self::Store(error),
        }
    }
}

/// Creates and removes networks.
#[derive(Debug, Clone)]
pub struct Networks {
    /// The state of this host.
    pub state: state::Handle,
    /// The cluster.
    pub seen: watch::Receiver<ClusterView>,
    /// Was this host told of others?
    pub told_to_join: bool,
}

impl Networks {
    /// Creates a network.
    ///
    /// It goes on to its end also when the caller has gone away.
    ///
    /// # Errors
    /// With the reason; nothing was changed then.
    pub async fn create(&self, spec: NetworkSpec) -> Result<NetworkId, NetworkError> {
        let hears_others = self.seen.borrow().cluster.hosts.len() > 1;
        if !self.told_to_join || hears_others {
            // It founds a cluster as soon as no other host was heard for a moment, or joins one with those that it hears.
            let mut activation = self.state.activation.clone();
            let joined = activation.wait_for(|activation| !matches!(activation, Activation::Joining { .. }));
            // If not, the refusal says so.
            let _ = tokio::time::timeout(VIEW_TIMEOUT, joined).await;
        }
        if hears_others {
            let mut seen = self.seen.clone();
            let _ = tokio::time::timeout(VIEW_TIMEOUT, seen.wait_for(|seen| seen.synced)).await;
        }
        let networks = self.clone();
        crate::to_its_end(async move { networks.create_now(spec).await }).await
    }

    async fn create_now(&self, spec: NetworkSpec) -> Result<NetworkId, NetworkError> {
        let ClusterView { cluster, synced, .. } = self.seen.borrow().clone();
        let id = NetworkId::from_bytes(crate::random());
        let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let request = CreateNetwork { spec, id, since, cluster, synced, told_to_join: self.told_to_join };
        let network = self.state.decide(request).await?.answer;
        self.wait_until(|seen| seen.cluster.networks.contains_key(&id)).await;
        tracing::info!(network = %network.name, id = %id.short(), "network created");
        Ok(id)
    }

    /// Removes a network for good, everywhere.
    ///
    /// # Errors
    /// When an endpoint is in it that keeps it.
    pub async fn remove(&self, network: NetworkId, hindered: Hindered) -> Result<(), NetworkError> {
        let ClusterView { cluster, synced, .. } = self.seen.borrow().clone();
        let shown = cluster.networks.get(&network).map_or_else(|| network.short(), |view| view.shown_name());
        let request = RemoveNetwork { network, hindered, cluster: Arc::clone(&cluster), synced };
        self.state.decide(request).await?;
        self.wait_until(|seen| !seen.cluster.networks.contains_key(&network)).await;
        tracing::info!(network = %shown, "network removed");
        Ok(())
    }

    async fn wait_until(&self, shows: impl FnMut(&ClusterView) -> bool) {
        let mut seen = self.seen.clone();
        // The view follows this host's own record at once; should it not, the next command says what it sees.
        let _ = tokio::time::timeout(VIEW_TIMEOUT, seen.wait_for(shows)).await;
    }
}

#[cfg(test)]
mod tests;
