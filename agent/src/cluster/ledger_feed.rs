//! From what the other hosts say to this host's state.

use std::collections::BTreeMap;

use overlay::operations::feed::{Batch, Told, Topic};

use crate::state::Handle;
use crate::state::store::StoreError;

/// Tells the state a batch. What is durable of it.
pub(super) async fn tell(state: &Handle, batch: &Batch) -> Told {
    let mut failed: BTreeMap<Topic, StoreError> = BTreeMap::new();
    for request in batch.requests() {
        let topic = request.topic();
        if let Err(error) = state.tell(request).await {
            failed.entry(topic).or_insert(error);
        }
    }
    for (topic, error) in &failed {
        match topic {
            Topic::Leases => tracing::error!(%error, "what other hosts say of leases could not be kept"),
            Topic::Peers => tracing::error!(%error, "where other hosts are could not be kept"),
        }
    }
    Told::all_but(failed.keys())
}
