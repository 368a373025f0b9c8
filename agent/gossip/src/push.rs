//! The eager push: one batch of a host's changes, told to all live peers at once. Owns its form on the wire; keeps nothing.
//!
//! A push is a hint. Whether it comes or not, chitchat's anti-entropy brings the same changes some intervals later.

use chitchat::{ChitchatId, Version};
use prost::Message;

use crate::counters::Reason;
use crate::incarnation::announce::{MARKER, MAX_KEY, MAX_VALUE, Stamped};
use crate::transport::inspect::MAX_VERSION;

/// Bytes in one push: what fits into a sealed message, with some room.
pub(crate) const MAX_PUSH: usize = 60_000;

/// A batch of changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Push {
    /// The incarnation that changed, told by itself.
    pub id: ChitchatId,
    /// The incarnation's version before the batch.
    pub after: Version,
    /// The incarnation's version after the batch.
    pub upto: Version,
    /// Whether these are all changes in between.
    pub whole: bool,
    /// Each with a version beyond `after`, up to `upto`.
    pub changes: Vec<(String, Stamped)>,
}

impl Push {
    /// The messages that tell of the batch. One, if it fits. If not, several with what was set: deletes are left to
    /// anti-entropy then, since a receiver could not tell whether all that was set before them has come.
    pub fn messages(&self) -> Vec<Vec<u8>> {
        let mut messages = vec![self.encode()];
        if messages[0].len() <= MAX_PUSH {
            return messages;
        }
        messages.clear();
        let mut part = Vec::new();
        let mut length = 0;
        for (key, stamped) in &self.changes {
            let Some(value) = &stamped.value else { continue };
            let more = key.len() + value.len() + ROOM;
            if length + more > MAX_PUSH - ROOM && !part.is_empty() {
                messages.push(self.part(std::mem::take(&mut part)).encode());
                length = 0;
            }
            part.push((key.clone(), stamped.clone()));
            length += more;
        }
        if !part.is_empty() {
            messages.push(self.part(part).encode());
        }
        messages
    }

    fn part(&self, changes: Vec<(String, Stamped)>) -> Self {
        Self { id: self.id.clone(), after: self.after, upto: self.upto, whole: false, changes }
    }

    fn encode(&self) -> Vec<u8> {
        let changes = self.changes.iter().map(|(key, stamped)| WireChange {
            key: key.clone(),
            version: stamped.version,
            value: stamped.value.as_deref().map(str::to_owned),
        });
        let wire = WirePush {
            node: self.id.node_id.to_string(),
            generation: self.id.generation_id,
            address: self.id.gossip_advertise_addr.to_string(),
            after: self.after,
            upto: self.upto,
            whole: self.whole,
            changes: changes.collect(),
        };
        wire.encode_to_vec()
    }

    /// The push that `bytes` stand for.
    ///
    /// # Errors
    ///
    /// [`Reason::Malformed`], [`Reason::Oversize`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Reason> {
        let wire = WirePush::decode(bytes).map_err(|_| Reason::Malformed)?;
        let address = wire.address.parse().map_err(|_| Reason::Malformed)?;
        if wire.node.is_empty() || wire.after > wire.upto || wire.upto > MAX_VERSION {
            return Err(Reason::Malformed);
        }
        let (after, upto) = (wire.after, wire.upto);
        let changes = wire.changes.into_iter().map(|change| change.check(after, upto)).collect::<Result<_, _>>()?;
        let id = ChitchatId::new(wire.node, wire.generation, address);
        Ok(Self { id, after, upto, whole: wire.whole, changes })
    }
}

/// More than the wire format adds to a key and a value, or to all of them.
const ROOM: usize = 256;

#[derive(Clone, PartialEq, Message)]
struct WirePush {
    #[prost(string, tag = "1")]
    node: String,
    #[prost(uint64, tag = "2")]
    generation: u64,
    #[prost(string, tag = "3")]
    address: String,
    #[prost(uint64, tag = "4")]
    after: u64,
    #[prost(uint64, tag = "5")]
    upto: u64,
    #[prost(bool, tag = "6")]
    whole: bool,
    #[prost(message, repeated, tag = "7")]
    changes: Vec<WireChange>,
}

#[derive(Clone, PartialEq, Message)]
struct WireChange {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(uint64, tag = "2")]
    version: u64,
    /// Absent: deleted.
    #[prost(string, optional, tag = "3")]
    value: Option<String>,
}

impl WireChange {
    fn check(self, after: Version, upto: Version) -> Result<(String, Stamped), Reason> {
        if self.version <= after || self.version > upto || self.key == MARKER {
            return Err(Reason::Malformed);
        }
        if self.key.len() > MAX_KEY || self.value.as_ref().is_some_and(|value| value.len() > MAX_VALUE) {
            return Err(Reason::Oversize);
        }
        Ok((self.key, Stamped { version: self.version, value: self.value.map(Into::into) }))
    }
}

#[cfg(test)]
mod tests;
