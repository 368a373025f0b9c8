//! Makes a host that has just started tell no other host of incarnations that ended before it started.
//!
//! chitchat takes in each incarnation that a digest names, and counts it as dead from that moment on, however long ago it ended. So a
//! host that has just started would name the dead for as long again as the hosts that heard them. As long as hosts start one after the
//! other, the dead would be passed on for ever.
//!
//! An incarnation is *hearsay* on a host that started after it and has not heard it alive. Digests give hearsay a heartbeat of 0; those
//! of incarnations themselves begin at 1. A receiver that does not know the incarnation removes such an entry. A receiver that knows it
//! keeps the entry, which says what versions the sender has; without it, the receiver would send the whole state in each exchange.
//!
//! The sender then has an incarnation that its peers do not name, and chitchat would send them its state in each exchange. So to each
//! digest that arrives, a host adds its own hearsay, as if the peer had all of it.
//!
//! Owns the digests of chitchat's messages on their way out and in. Pure: bytes in, bytes out. Hosts with an older version of this
//! program treat 0 as any other heartbeat.

use std::collections::{BTreeMap, BTreeSet};

use chitchat::{ChitchatId, Serializable};

use crate::standing::Standing;
use crate::transport::codec::MAX_ENCODED;
use crate::transport::inspect::{Entry, MAX_VERSION, digest_entries};

/// Bytes of magic, format and kind.
const HEADER: usize = 4;
/// Bytes of the blocks that chitchat compresses a digest in.
const BLOCK: usize = 16_384;

/// All incarnations that this host knows of.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Standings(BTreeMap<ChitchatId, Standing>);

impl Standings {
    /// Makes them the same as `now`. Compares first, as they seldom change.
    pub fn follow<'a>(&mut self, now: impl Iterator<Item = (&'a ChitchatId, Standing)> + Clone) {
        let is_same = |((id, standing), now): ((&ChitchatId, &Standing), _)| (id, *standing) == now;
        if self.0.len() != now.clone().count() || !self.0.iter().zip(now.clone()).all(is_same) {
            self.0 = now.map(|(id, standing)| (id.clone(), standing)).collect();
        }
    }

    /// What `own`, which is this host's incarnation, may send instead of `message`. `None` if it may send the message itself.
    ///
    /// An incarnation that chitchat has learnt of since the last look is hearsay if `own` started after it.
    pub fn outgoing(&self, own: &ChitchatId, message: &[u8]) -> Option<Vec<u8>> {
        let standing = |id: &ChitchatId| match self.0.get(id) {
            _ if id == own => Standing::Witnessed,
            Some(standing) => *standing,
            None if id.generation_id < own.generation_id => Standing::Hearsay,
            None => Standing::Witnessed,
        };
        let (mut entries, tail) = parse(message)?;
        if entries.iter().all(|(id, _)| standing(id) == Standing::Witnessed) {
            return None;
        }
        entries.retain(|(id, _)| standing(id) != Standing::Past);
        for (_, [heartbeat, ..]) in entries.iter_mut().filter(|(id, _)| standing(id) == Standing::Hearsay) {
            *heartbeat = 0;
        }
        let whole = encode(message, &entries, tail);
        if whole.len() <= MAX_ENCODED {
            return Some(whole);
        }
        // The message was full, and zeros may compress worse than heartbeats that are all the same.
        entries.retain(|(id, _)| standing(id) == Standing::Witnessed);
        Some(encode(message, &entries, tail)).filter(|less| less.len() <= MAX_ENCODED)
    }

    /// What chitchat is shown instead of `message`, in whose digest `unheard` incarnations have a heartbeat of 0. `None` if it is shown
    /// the message itself.
    pub fn incoming(&self, message: &[u8], unheard: usize) -> Option<Vec<u8>> {
        let untold = || self.0.iter().filter(|(_, standing)| **standing != Standing::Witnessed).map(|(id, _)| id);
        if unheard == 0 && untold().next().is_none() {
            return None;
        }
        let (mut entries, tail) = parse(message)?;
        let all = entries.len();
        entries.retain(|(id, [heartbeat, ..])| *heartbeat > 0 || self.0.contains_key(id));
        let stripped = entries.len();
        let named: BTreeSet<ChitchatId> = entries.iter().map(|(id, _)| id.clone()).collect();
        entries.extend(untold().filter(|id| !named.contains(*id)).map(|id| (id.clone(), [0, 0, MAX_VERSION])));
        if stripped == all && entries.len() == stripped {
            return None;
        }
        let whole = encode(message, &entries, tail);
        if whole.len() <= MAX_ENCODED {
            return Some(whole);
        }
        // The message was full: this once, the peer is sent what it does not want.
        Some(encode(message, &entries[..stripped], tail)).filter(|less| less.len() <= MAX_ENCODED)
    }
}

/// The digest of `message`, and what follows it. `None` if the message has none or is malformed.
fn parse(message: &[u8]) -> Option<(Vec<Entry>, &[u8])> {
    let (&[_, _, _, kind], mut rest) = message.split_first_chunk::<HEADER>()?;
    if kind > 1 {
        return None;
    }
    let entries = digest_entries(&mut rest).ok()?;
    Some((entries, rest))
}

/// The message that begins as `message` does, with these `entries` as its digest.
fn encode(message: &[u8], entries: &[Entry], tail: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    for (id, numbers) in entries {
        id.serialize(&mut plain);
        numbers.iter().for_each(|number| number.serialize(&mut plain));
    }
    let mut bytes = message[..HEADER].to_vec();
    for part in plain.chunks(BLOCK) {
        let compressed = zstd::bulk::compress(part, 0).ok().filter(|compressed| compressed.len() < part.len());
        let (tag, block) = compressed.as_deref().map_or((2, part), |compressed| (1, compressed));
        bytes.push(tag);
        u16::try_from(block.len()).expect("a block is shorter than 64 KiB").serialize(&mut bytes);
        bytes.extend_from_slice(block);
    }
    bytes.push(0);
    bytes.extend_from_slice(tail);
    bytes
}

#[cfg(test)]
mod tests;
