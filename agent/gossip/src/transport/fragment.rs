//! Messages larger than a datagram: cut into parts, and put together again within fixed bounds.
//!
//! The parts of a message have consecutive counters in their sender's session, so (session, counter - index) names the message and
//! no further number is needed. Only parts whose seal was good get here: a sender without the key cannot fill the table.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::counters::{Counters, Reason};
use crate::transport::datagram::{FragmentIndex, MAX_PART, Session};

/// Parts in one message.
pub(crate) const MAX_PARTS: usize = 64;
/// Bytes in one message: more than the 65,507 that chitchat makes at most.
pub(crate) const MAX_MESSAGE: usize = MAX_PARTS * MAX_PART;

const MAX_PARTIALS: usize = 256;
const MAX_BYTES: usize = 8 << 20;
const MAX_AGE: Duration = Duration::from_secs(2);

/// The parts of `message` in order, none of them empty.
///
/// # Errors
///
/// [`Reason::Oversize`] if it is empty or larger than [`MAX_MESSAGE`].
pub(crate) fn split(message: &[u8]) -> Result<impl Iterator<Item = (FragmentIndex, &[u8])>, Reason> {
    let count = message.len().div_ceil(MAX_PART);
    if count == 0 || count > MAX_PARTS {
        return Err(Reason::Oversize);
    }
    let count = count as u8; // at most MAX_PARTS
    Ok((0..count).zip(message.chunks(MAX_PART)).map(move |(index, part)| (FragmentIndex { index, count }, part)))
}

/// Messages of which some parts have come.
#[derive(Debug, Default)]
pub(crate) struct Reassembly {
    partials: BTreeMap<(Session, u64), Partial>,
    bytes: usize,
}

#[derive(Debug)]
struct Partial {
    parts: Vec<Option<Vec<u8>>>,
    missing: usize,
    bytes: usize,
    started: Instant,
}

impl Reassembly {
    /// Takes one part; gives the message that it completes. Messages that are given up are counted as incomplete.
    ///
    /// # Errors
    ///
    /// [`Reason::Malformed`] if the part cannot stand where it says, [`Reason::Replayed`] if it is there already.
    pub fn accept(
        &mut self,
        (session, counter): (Session, u64),
        at: FragmentIndex,
        part: &[u8],
        now: Instant,
        counters: &Counters,
    ) -> Result<Option<Vec<u8>>, Reason> {
        let (index, count) = (usize::from(at.index), usize::from(at.count));
        let first = counter.checked_sub(u64::from(at.index)).filter(|first| *first > 0).ok_or(Reason::Malformed)?;
        if index >= count || count > MAX_PARTS || part.is_empty() || part.len() > MAX_PART {
            return Err(Reason::Malformed);
        }
        if count == 1 {
            return Ok(Some(part.to_vec()));
        }

        let message = (session, first);
        if !self.partials.contains_key(&message) {
            self.make_room(now, counters);
        }
        let partial = self.partials.entry(message).or_insert_with(|| Partial::new(count, now));
        let slot = match partial.parts.len() == count {
            true => partial.parts.get_mut(index).ok_or(Reason::Malformed)?,
            false => return Err(Reason::Malformed),
        };
        if slot.is_some() {
            return Err(Reason::Replayed);
        }
        *slot = Some(part.to_vec());
        partial.missing -= 1;
        partial.bytes += part.len();
        self.bytes += part.len();
        if partial.missing > 0 {
            return Ok(None);
        }
        Ok(self.take(message).map(|whole| whole.parts.into_iter().flatten().flatten().collect()))
    }

    fn make_room(&mut self, now: Instant, counters: &Counters) {
        while let Some((oldest, started)) = self.oldest() {
            let expired = now.saturating_duration_since(started) > MAX_AGE;
            let full = self.partials.len() >= MAX_PARTIALS || self.bytes + MAX_MESSAGE > MAX_BYTES;
            if !expired && !full {
                break;
            }
            self.take(oldest);
            counters.count(Reason::Incomplete);
        }
    }

    fn oldest(&self) -> Option<((Session, u64), Instant)> {
        self.partials.iter().map(|(message, partial)| (*message, partial.started)).min_by_key(|(_, started)| *started)
    }

    fn take(&mut self, message: (Session, u64)) -> Option<Partial> {
        let partial = self.partials.remove(&message)?;
        self.bytes -= partial.bytes;
        Some(partial)
    }
}

impl Partial {
    fn new(count: usize, started: Instant) -> Self {
        Self { parts: vec![None; count], missing: count, bytes: 0, started }
    }
}

#[cfg(test)]
mod tests;
