//! Who sends what can't be opened: most likely hosts with another cluster key, and their operators would like to know.
//!
//! Owns a short list of senders; anybody can make senders up, so it is bounded and nothing else depends on it. Time is an argument.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Who was heard this long ago is not worth mentioning any more.
const RECENT: Duration = Duration::from_secs(60);
/// As many senders are kept; the one that was heard longest ago gives way.
const MAX_SENDERS: usize = 16;

/// A sender whose datagrams could not be opened lately.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownSender {
    /// Where they came from; nobody vouches for it.
    pub from: SocketAddr,
    /// How many, since it was first heard or heard again after a minute of silence.
    pub datagrams: u64,
    /// Since the last one; a minute at most.
    pub silent_for: Duration,
}

/// All of them.
#[derive(Debug, Default)]
pub struct UnknownSenders(Mutex<BTreeMap<SocketAddr, Heard>>);

#[derive(Debug, Clone, Copy)]
struct Heard {
    datagrams: u64,
    last: Instant,
}

impl UnknownSenders {
    /// Notes a datagram. Is its sender new, and worth telling of? Once the list is full nobody is: whoever makes senders up could
    /// have any number told.
    pub(crate) fn note(&self, from: SocketAddr, now: Instant) -> bool {
        let mut senders = self.senders();
        senders.retain(|_, heard| heard.is_recent(now));
        let new = !senders.contains_key(&from);
        let full = senders.len() >= MAX_SENDERS;
        if new && full {
            let oldest = senders.iter().min_by_key(|(_, heard)| heard.last).map(|(from, _)| *from);
            oldest.map(|from| senders.remove(&from));
        }
        let heard = senders.entry(from).or_insert(Heard { datagrams: 0, last: now });
        heard.datagrams += 1;
        heard.last = now;
        new && !full
    }

    /// Those of the last minute, by their addresses.
    pub fn recent(&self, now: Instant) -> Vec<UnknownSender> {
        let row = |(from, heard): (&SocketAddr, &Heard)| UnknownSender {
            from: *from,
            datagrams: heard.datagrams,
            silent_for: now.saturating_duration_since(heard.last),
        };
        self.senders().iter().filter(|(_, heard)| heard.is_recent(now)).map(row).collect()
    }

    /// The list is whole between any two statements, so a panic elsewhere does not spoil it.
    fn senders(&self) -> MutexGuard<'_, BTreeMap<SocketAddr, Heard>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Heard {
    fn is_recent(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last) <= RECENT
    }
}

#[cfg(test)]
mod tests;
