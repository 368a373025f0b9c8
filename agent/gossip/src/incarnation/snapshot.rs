//! What is known of one incarnation as bytes, to catch up over RPC: 100,000 keys take gossip 20 seconds and a snapshot 50 ms.
//!
//! Owns the form; sends and receives nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use chitchat::{Chitchat, ChitchatId, DeletionStatus, NodeState, Version, VersionedValue};
use prost::Message;
use tokio::time::Instant;

use crate::incarnation::announce::{MAX_KEY, MAX_VALUE};
use crate::transport::inspect::MAX_VERSION;

/// Why a part of a snapshot was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// Not a snapshot, or one that contradicts itself.
    #[error("the snapshot is malformed")]
    Malformed,
    /// Gossip has ended.
    #[error("gossip has stopped")]
    Stopped,
}

/// One incarnation's state.
#[derive(Debug, Clone)]
pub(crate) struct Chunk {
    id: ChitchatId,
    max_version: Version,
    last_gc_version: Version,
    entries: Vec<(String, VersionedValue)>,
    silent: Duration,
}

impl Chunk {
    /// The bytes of `state`, the state of `id`, which is `silent` for so long.
    pub fn encode(id: &ChitchatId, state: &NodeState, silent: Duration) -> Vec<u8> {
        let entries = state.key_values_including_deleted().map(|(key, value)| WireEntry {
            key: key.to_owned(),
            version: value.version,
            value: value.value.clone(),
            deleted: value.is_deleted(),
        });
        let wire = WireChunk {
            node: id.node_id.to_string(),
            generation: id.generation_id,
            address: id.gossip_advertise_addr.to_string(),
            max_version: state.max_version(),
            last_gc_version: state.last_gc_version(),
            entries: entries.collect(),
            silent_ms: u64::try_from(silent.as_millis()).unwrap_or(u64::MAX),
        };
        wire.encode_to_vec()
    }

    /// The state that `bytes` stand for.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let wire = WireChunk::decode(bytes).map_err(|_| SnapshotError::Malformed)?;
        let address = wire.address.parse().map_err(|_| SnapshotError::Malformed)?;
        let (max_version, last_gc_version) = (wire.max_version, wire.last_gc_version);
        let keys: BTreeSet<&str> = wire.entries.iter().map(|entry| entry.key.as_str()).collect();
        let entries_fit = wire.entries.iter().all(|entry| entry.fits(max_version));
        if wire.node.is_empty() || keys.len() != wire.entries.len() || !entries_fit {
            return Err(SnapshotError::Malformed);
        }
        if max_version.max(last_gc_version) > MAX_VERSION {
            return Err(SnapshotError::Malformed);
        }
        let id = ChitchatId::new(wire.node, wire.generation, address);
        let entries = wire.entries.into_iter().map(WireEntry::into_pair).collect();
        let silent = Duration::from_millis(wire.silent_ms);
        Ok(Self { id, max_version, last_gc_version, entries, silent })
    }

    /// The incarnation, and how long it is silent, as far as the sender knows. Zero if the sender has an older version of this program.
    pub fn silence(&self) -> (&ChitchatId, Duration) {
        (&self.id, self.silent)
    }

    /// Puts the state into `chitchat`, if it is newer than what is there, and not about `chitchat`'s own host.
    pub fn feed(self, chitchat: &mut Chitchat) {
        if self.id.node_id == chitchat.self_chitchat_id().node_id {
            return;
        }
        let known = chitchat.node_state(&self.id).map_or((0, 0), NodeState::monotonic_property);
        if self.max_version > known.1 && self.last_gc_version >= known.0 {
            let entries = self.entries.into_iter();
            chitchat.reset_node_state_if_update(&self.id, entries, self.max_version, self.last_gc_version);
        }
    }
}

#[derive(Clone, PartialEq, Message)]
struct WireChunk {
    #[prost(string, tag = "1")]
    node: String,
    #[prost(uint64, tag = "2")]
    generation: u64,
    #[prost(string, tag = "3")]
    address: String,
    #[prost(uint64, tag = "4")]
    max_version: u64,
    #[prost(uint64, tag = "5")]
    last_gc_version: u64,
    #[prost(message, repeated, tag = "6")]
    entries: Vec<WireEntry>,
    #[prost(uint64, tag = "7")]
    silent_ms: u64,
}

#[derive(Clone, PartialEq, Message)]
struct WireEntry {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(uint64, tag = "2")]
    version: u64,
    #[prost(string, tag = "3")]
    value: String,
    #[prost(bool, tag = "4")]
    deleted: bool,
}

impl WireEntry {
    fn fits(&self, max_version: Version) -> bool {
        (1..=max_version).contains(&self.version) && self.key.len() <= MAX_KEY && self.value.len() <= MAX_VALUE
    }

    fn into_pair(self) -> (String, VersionedValue) {
        let status = match self.deleted {
            true => DeletionStatus::Deleted(Instant::now()),
            false => DeletionStatus::Set,
        };
        (self.key, VersionedValue { value: self.value, version: self.version, status })
    }
}

#[cfg(test)]
mod tests;
