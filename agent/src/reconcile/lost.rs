//! Releasing endpoints whose containers have ended. The reconciler is the only place that does it.

use std::collections::BTreeSet;

use overlay::datapath::attention::Part;
use overlay::datapath::kernel_api::{Kernel, StepError};
use overlay::datapath::observed::Observed;
use overlay::datapath::report::Report;
use overlay::kernel::netns;
use overlay::model::id::{EndpointId, NetworkId};
use overlay::model::intent::{AtPath, Intents, NetnsRef};
use overlay::operations::detach::DetachLost;
use tokio::task::spawn_blocking;
use tracing::field::display;

use crate::state::{self, store::StoreError};

/// What became of an endpoint that was thought to be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Released {
    /// Its container has ended, and it is released.
    Now,
    /// Its container may still run: its namespace's path or its port is there.
    StillHere,
    /// This host has no such endpoint.
    Unknown,
}

/// Why it is not known what became of an endpoint, or why it can't be released.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// The kernel can't be looked at.
    #[error(transparent)]
    Look(#[from] StepError),
    /// The release can't be written to disk.
    #[error("the endpoint can't be released")]
    Store(#[from] StoreError),
}

/// Releases the endpoint if its container has ended.
pub(super) async fn release_if_lost<K: Kernel>(
    kernel: &mut K,
    state: &state::Handle,
    network: NetworkId,
    endpoint: EndpointId,
) -> Result<Released, ReleaseError> {
    let intents = state.intents.borrow().intents.clone();
    let attachment = intents.attachments.get(&endpoint).filter(|a| a.endpoint.network == network);
    let Some(attachment) = attachment else { return Ok(Released::Unknown) };
    let at_path = at_path(&attachment.netns).await;
    if at_path != AtPath::Gone {
        return Ok(Released::StillHere);
    }
    let observed = kernel.observe(&Part::Segment(network).into()).await?;
    if !observed.is_lost(network, endpoint, at_path) {
        return Ok(Released::StillHere);
    }
    let released = release(&[endpoint].into(), state, &intents).await?;
    Ok(if released.is_empty() { Released::StillHere } else { Released::Now })
}

/// The endpoints that a round found lost: their ports could not be made, because their namespaces are gone.
pub(super) async fn lost(observed: &Observed, report: &Report) -> BTreeSet<EndpointId> {
    let mut lost = BTreeSet::new();
    for (network, id, netns) in report.without_namespace() {
        if observed.is_lost(network, id, at_path(netns).await) {
            lost.insert(id);
        }
    }
    lost
}

/// Releases endpoints whose containers have ended, by these intents; those that are released. One that was attached again since
/// stays.
pub(super) async fn release(
    lost: &BTreeSet<EndpointId>,
    state: &state::Handle,
    intents: &Intents,
) -> Result<BTreeSet<EndpointId>, StoreError> {
    let lost = DetachLost::of(lost.iter().copied(), intents);
    if lost.0.is_empty() {
        return Ok(BTreeSet::new());
    }
    let released = state.tell(lost).await?.answer;
    for endpoint in released.iter().filter_map(|id| Some(&intents.attachments.get(id)?.endpoint)) {
        let network = intents.networks.get(&endpoint.network).map(|network| display(&network.name));
        tracing::info!(endpoint = %endpoint.name, network, "container ended: endpoint released");
    }
    Ok(released)
}

/// What stands where the namespace was. Off the threads of the runtime: it enters the namespace.
async fn at_path(netns: &NetnsRef) -> AtPath {
    let netns = netns.clone();
    // If it is not known, the endpoint is not taken for lost.
    spawn_blocking(move || netns::at_path(&netns)).await.unwrap_or(AtPath::Same)
}
