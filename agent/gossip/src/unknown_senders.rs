//! The senders of datagrams that can't be opened: most likely hosts with another cluster key, which an operator wants to know of.
//!
//! Owns a short list of senders. Any machine can forge sender addresses, so the list is bounded and nothing else depends on it. Time is
//! an argument.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A sender is forgotten after it was silent for this long.
const RECENT: Duration = Duration::from_secs(60);
/// Most senders that are kept; the one that was heard longest ago gives way.
const MAX_SENDERS: usize = 16;

/// A sender whose datagrams could not be opened lately.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownSender {
    /// The source address. It can be forged.
    pub from: SocketAddr,
    /// How many, since it was first heard or heard again after a minute of silence.
    pub datagrams: u64,
    /// Since the last one; a minute at most.
    pub silent_for: Duration,
}

/// All of them.
#[derive(Debug, Default)]
pub struct UnknownSenders(Mutex<BTreeMap<SocketAddr, Sender>>);

#[derive(Debug, Clone, Copy)]
struct Sender {
    datagrams: u64,
    last: Instant,
}

impl UnknownSenders {
    /// Notes a datagram. Says whether its sender is new and worth a line in the log. Once the list is full no sender is: forged
    /// addresses could fill the log.
    pub(crate) fn note(&self, from: SocketAddr, now: Instant) -> bool {
        let mut senders = self.senders();
        senders.retain(|_, heard| heard.is_recent(now));
        let new = !senders.contains_key(&from);
        let full = senders.len() >= MAX_SENDERS;
        if new && full {
            let oldest = senders.iter().min_by_key(|(_, heard)| heard.last).map(|(from, _)| *from);
            oldest.map(|from| senders.remove(&from));
        }
        let heard = senders.entry(from).or_insert(Sender { datagrams: 0, last: now });
        heard.datagrams += 1;
        heard.last = now;
        new && !full
    }

    /// Those of the last minute, by their addresses.
    pub fn recent(&self, now: Instant) -> Vec<UnknownSender> {
        let row = |(from, heard): (&SocketAddr, &Sender)| UnknownSender {
            from: *from,
            datagrams: heard.datagrams,
            silent_for: now.saturating_duration_since(heard.last),
        };
        self.senders().iter().filter(|(_, heard)| heard.is_recent(now)).map(row).collect()
    }

    /// The list is whole between any two statements, so a panic elsewhere does not spoil it.
    fn senders(&self) -> MutexGuard<'_, BTreeMap<SocketAddr, Sender>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sender {
    fn is_recent(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last) <= RECENT
    }
}

#[cfg(test)]
mod tests;
