//! The way to the reconciler.

use std::sync::Arc;

use overlay::datapath::attention::{Look, Part};
use overlay::datapath::kernel_api::{Cause, StepError};
use overlay::datapath::observed::Observed;
use overlay::datapath::status::ReconcileStatus;
use overlay::model::id::{EndpointId, NetworkId};
use tokio::sync::{mpsc, oneshot, watch};

use super::lost::{ReleaseError, Released};

/// The way to the reconciler.
#[derive(Debug, Clone)]
pub struct Handle {
    /// How the last round ended.
    pub settled: watch::Receiver<Arc<ReconcileStatus>>,
    pub(super) commands: mpsc::Sender<Command>,
}

/// What the reconciler is asked for between two rounds.
#[derive(Debug)]
pub(super) enum Command {
    Look(Look, oneshot::Sender<Result<Observed, StepError>>),
    Release(NetworkId, EndpointId, oneshot::Sender<Result<Released, ReleaseError>>),
}

impl Handle {
    /// The kernel as it is now.
    ///
    /// # Errors
    /// When it can't be looked at.
    pub async fn look(&self) -> Result<Observed, StepError> {
        self.look_at(Look::Everything).await
    }

    /// The segment of a network as it is now. The answer has nothing else.
    ///
    /// # Errors
    /// When it can't be looked at.
    pub async fn look_into(&self, network: NetworkId) -> Result<Observed, StepError> {
        self.look_at(Part::Segment(network).into()).await
    }

    async fn look_at(&self, look: Look) -> Result<Observed, StepError> {
        self.ask(|answer| Command::Look(look, answer)).await?
    }

    /// Releases an endpoint of this host if its container has ended: if neither its namespace's path nor its port is there. The
    /// kernel is looked at now.
    ///
    /// # Errors
    /// When the kernel can't be looked at, or the release can't be written to disk.
    pub async fn release_if_lost(&self, network: NetworkId, endpoint: EndpointId) -> Result<Released, ReleaseError> {
        self.ask(|answer| Command::Release(network, endpoint, answer)).await?
    }

    async fn ask<T>(&self, ask: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, StepError> {
        let stopping = || {
            StepError::new("look at the kernel", Cause::Busy)
                .with_detail("overlayd is stopping: start it, and try again")
        };
        let (answer, answered) = oneshot::channel();
        self.commands.send(ask(answer)).await.map_err(|_| stopping())?;
        answered.await.map_err(|_| stopping())
    }
}
