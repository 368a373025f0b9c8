//! Reads chitchat's messages before chitchat does, and says which ones it must not see.
//!
//! chitchat 0.13 believes what it decodes: a delta about the receiver itself is applied, a version near the end of its range makes
//! the next write panic, a digest larger than a datagram makes the answer panic, and a delta whose end lies before its last key
//! trips an assertion. A member's message that would do so is dropped here. Mirrors chitchat's wire format V1 (its
//! `message_serialize.rs`, `delta.rs`, `serialize.rs`); the codec's tests hold the two against each other.
//!
//! Pure: bytes in, a summary or a reason out.

use std::collections::BTreeSet;

use chitchat::{ChitchatId, Deserializable, Version};

use crate::counters::{Counters, Reason};
use crate::limits::{Limit, MAX_DIGEST, MAX_INCARNATIONS};

/// The highest version or heartbeat that is believed: far beyond what counting reaches, far below overflow.
pub(crate) const MAX_VERSION: Version = 1 << 62;

const MAGIC: u16 = 45_139;
const FORMAT_V1: u8 = 1;
/// What one message may expand to; chitchat itself sets no limit.
const MAX_EXPANDED: usize = 16 << 20;
const MAX_BLOCK: usize = u16::MAX as usize;

/// An incarnation in a digest: its heartbeat, last gc version and max version.
pub(crate) type Entry = (ChitchatId, [Version; 3]);

/// What a message is about.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    /// Incarnations in its digest.
    pub digest: usize,
    /// How many incarnations of the digest have a heartbeat of 0: the sender has not heard these alive.
    pub unheard: usize,
    /// Incarnations that it brings changes of, each with the highest version.
    pub deltas: Vec<(ChitchatId, Version)>,
}

impl Summary {
    /// Whether the receiver may see the message: `own` is its incarnation with the highest version that it has written. `counters`
    /// tell how large its own digest is, with which it would answer: chitchat panics if there is no room for changes.
    ///
    /// # Errors
    ///
    /// [`Reason::AboutSelf`] or [`Reason::Overflow`].
    pub fn admit(&self, own: (&ChitchatId, Version), counters: &Counters) -> Result<(), Reason> {
        // Our own words may come back to us, when an answer overtakes what we wrote meanwhile. Words that we never said may not.
        if self.deltas.iter().any(|(id, highest)| id == own.0 && *highest > own.1) {
            return Err(Reason::AboutSelf);
        }
        let incarnations = self.digest.max(counters.used(Limit::Incarnations));
        match incarnations > MAX_INCARNATIONS || counters.used(Limit::Digest) > MAX_DIGEST {
            true => Err(Reason::Overflow),
            false => Ok(()),
        }
    }
}

/// What `message` is about, if chitchat will decode it without harm.
///
/// # Errors
///
/// [`Reason::Malformed`], [`Reason::BadVersion`], [`Reason::Oversize`] if it expands to too much, [`Reason::Overflow`].
pub(crate) fn inspect(message: &[u8]) -> Result<Summary, Reason> {
    let mut rest = message;
    if u16::from_le_bytes(take(&mut rest)?) != MAGIC {
        return Err(Reason::Malformed);
    }
    let [format, kind] = take(&mut rest)?;
    if format != FORMAT_V1 {
        return Err(Reason::BadVersion);
    }

    let mut summary = Summary::default();
    match kind {
        0 => {
            (summary.digest, summary.unheard) = digest(&mut rest)?;
            read::<String>(&mut rest)?;
        }
        1 => {
            (summary.digest, summary.unheard) = digest(&mut rest)?;
            summary.deltas = delta(&mut rest)?;
        }
        2 => summary.deltas = delta(&mut rest)?,
        3 => {}
        _ => return Err(Reason::Malformed),
    }
    match rest.is_empty() {
        true => Ok(summary),
        false => Err(Reason::Malformed),
    }
}

fn digest(rest: &mut &[u8]) -> Result<(usize, usize), Reason> {
    let before = rest.len();
    let entries = digest_entries(rest)?;
    if before - rest.len() > MAX_DIGEST {
        return Err(Reason::Overflow);
    }
    let unheard = entries.iter().filter(|(_, [heartbeat, ..])| *heartbeat == 0).count();
    Ok((entries.len(), unheard))
}

/// Takes a digest off `rest`.
///
/// # Errors
///
/// [`Reason::Malformed`], [`Reason::Oversize`] if it expands to too much.
pub(crate) fn digest_entries(rest: &mut &[u8]) -> Result<Vec<Entry>, Reason> {
    let bytes = stream(rest)?;
    let mut bytes = bytes.as_slice();
    let mut entries = Vec::new();
    while !bytes.is_empty() {
        let id = read(&mut bytes)?;
        entries.push((id, [version(&mut bytes)?, version(&mut bytes)?, version(&mut bytes)?]));
    }
    Ok(entries)
}

fn delta(rest: &mut &[u8]) -> Result<Vec<(ChitchatId, Version)>, Reason> {
    let operations = stream(rest)?;
    let mut operations = operations.as_slice();
    let mut ids = BTreeSet::new();
    let mut deltas: Vec<(ChitchatId, Version)> = Vec::new();
    while !operations.is_empty() {
        match take(&mut operations)? {
            [0] => {
                let id = read::<ChitchatId>(&mut operations)?;
                let (_last_gc, _from) = (version(&mut operations)?, version(&mut operations)?);
                if !ids.insert(id.clone()) {
                    return Err(Reason::Malformed);
                }
                deltas.push((id, 0));
            }
            [1] => {
                let (_key, _value) = (read::<String>(&mut operations)?, read::<String>(&mut operations)?);
                let next = version(&mut operations)?;
                let [status] = take(&mut operations)?;
                let (_, highest) = deltas.last_mut().ok_or(Reason::Malformed)?;
                if next <= *highest || status > 2 {
                    return Err(Reason::Malformed);
                }
                *highest = next;
            }
            [2] => {
                let end = version(&mut operations)?;
                let (_, highest) = deltas.last_mut().ok_or(Reason::Malformed)?;
                if end < *highest {
                    return Err(Reason::Malformed);
                }
                *highest = end;
            }
            _ => return Err(Reason::Malformed),
        }
    }
    Ok(deltas)
}

/// chitchat's stream of blocks: a tag, a little-endian length, and the bytes, plain or zstd; a last tag ends it.
fn stream(rest: &mut &[u8]) -> Result<Vec<u8>, Reason> {
    let mut expanded = Vec::new();
    loop {
        let [tag] = take(rest)?;
        if tag == 0 {
            return Ok(expanded);
        }
        let length = usize::from(u16::from_le_bytes(take(rest)?));
        let (block, after) = rest.split_at_checked(length).ok_or(Reason::Malformed)?;
        *rest = after;
        match tag {
            1 => expanded.append(&mut zstd::bulk::decompress(block, MAX_BLOCK).map_err(|_| Reason::Malformed)?),
            2 => expanded.extend_from_slice(block),
            _ => return Err(Reason::Malformed),
        }
        if expanded.len() > MAX_EXPANDED {
            return Err(Reason::Oversize);
        }
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], Reason> {
    let (bytes, after) = rest.split_first_chunk().ok_or(Reason::Malformed)?;
    *rest = after;
    Ok(*bytes)
}

fn version(rest: &mut &[u8]) -> Result<Version, Reason> {
    match u64::from_le_bytes(take(rest)?) {
        version if version <= MAX_VERSION => Ok(version),
        _ => Err(Reason::Malformed),
    }
}

fn read<T: Deserializable>(rest: &mut &[u8]) -> Result<T, Reason> {
    T::deserialize(rest).map_err(|_| Reason::Malformed)
}

#[cfg(test)]
pub(crate) mod tests;
