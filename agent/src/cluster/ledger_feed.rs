//! From what the other hosts say to this host's state.

use overlay::operations::feed::{Batch, Told};

use crate::state::Handle;
use crate::state::store::StoreError;

/// Tells the state a batch. None of its parts waits for another.
pub(super) async fn tell(state: &Handle, batch: &Batch) -> Told {
    let of_leases: [Result<(), StoreError>; 4] = [
        state.tell(batch.learn.clone()).await.map(drop),
        state.tell(batch.bury.clone()).await.map(drop),
        state.tell(batch.inputs.clone()).await.map(drop),
        state.tell(batch.links.clone()).await.map(drop),
    ];
    let of_leases: Result<(), StoreError> = of_leases.into_iter().collect();
    if let Err(error) = &of_leases {
        tracing::error!(%error, "what other hosts say of leases could not be kept");
    }
    let of_peers = state.tell(batch.peers.clone()).await;
    if let Err(error) = &of_peers {
        tracing::error!(%error, "where other hosts are could not be kept");
    }
    Told { leases: of_leases.is_ok(), peers: of_peers.is_ok() }
}
