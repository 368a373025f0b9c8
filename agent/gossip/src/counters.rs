//! What was dropped and why, and how near the limits are. Owns the reasons and all numbers; logs nothing.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::limits::{Gauges, Limit, Usage};
use crate::unknown_senders::UnknownSenders;

/// Why something was dropped, as counted in [`Counters`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Reason {
    /// A datagram without our magic: of another program.
    #[error("not an overlay gossip datagram")]
    NotOurs,
    /// A datagram in a format of another version.
    #[error("a format of another version")]
    BadVersion,
    /// A datagram that was not sealed with our cluster key, or was altered.
    #[error("not sealed with the cluster key, or altered")]
    BadSeal,
    /// A datagram that was opened before, or is too old to tell.
    #[error("opened before, or too old to tell")]
    Replayed,
    /// A datagram of our own that came back to us.
    #[error("our own datagram come back")]
    Reflected,
    /// A message that is well sealed and makes no sense.
    #[error("malformed")]
    Malformed,
    /// A message, key or value beyond the limits, in or out.
    #[error("larger than allowed")]
    Oversize,
    /// A statement about ourselves that we did not make.
    #[error("a statement about ourselves that is not ours")]
    AboutSelf,
    /// A digest of more incarnations than fit into an answer.
    #[error("more incarnations than an answer can hold")]
    Overflow,
    /// A message that came faster than it could be handled.
    #[error("the queue is full")]
    Backlog,
    /// Fragments of a message whose rest did not come in time.
    #[error("incomplete")]
    Incomplete,
    /// chitchat's codec did not answer.
    #[error("the codec did not answer")]
    Codec,
    /// The socket refused to send.
    #[error("cannot send")]
    Send,
    /// The socket failed to receive.
    #[error("cannot receive")]
    Receive,
}

impl Reason {
    /// All reasons, in the order of their declaration.
    pub const ALL: [Self; 14] = [
        Self::NotOurs,
        Self::BadVersion,
        Self::BadSeal,
        Self::Replayed,
        Self::Reflected,
        Self::Malformed,
        Self::Oversize,
        Self::AboutSelf,
        Self::Overflow,
        Self::Backlog,
        Self::Incomplete,
        Self::Codec,
        Self::Send,
        Self::Receive,
    ];

    /// The reason's name for metrics and JSON: snake case, stable.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotOurs => "not_ours",
            Self::BadVersion => "bad_version",
            Self::BadSeal => "bad_seal",
            Self::Replayed => "replayed",
            Self::Reflected => "reflected",
            Self::Malformed => "malformed",
            Self::Oversize => "oversize",
            Self::AboutSelf => "about_self",
            Self::Overflow => "overflow",
            Self::Backlog => "backlog",
            Self::Incomplete => "incomplete",
            Self::Codec => "codec",
            Self::Send => "send",
            Self::Receive => "receive",
        }
    }
}

/// How often each [`Reason`] occurred since the start, and how much of each [`Limit`] is in use.
#[derive(Debug, Default)]
pub struct Counters {
    counts: [AtomicU64; Reason::ALL.len()],
    unknown_senders: UnknownSenders,
    gauges: Gauges,
}

impl Counters {
    /// The count of one reason.
    pub fn of(&self, reason: Reason) -> u64 {
        self.counts[reason as usize].load(Ordering::Relaxed)
    }

    /// All counts, in the order of [`Reason::ALL`].
    pub fn all(&self) -> impl Iterator<Item = (Reason, u64)> + '_ {
        Reason::ALL.into_iter().map(|reason| (reason, self.of(reason)))
    }

    /// The senders of datagrams that were dropped lately for [`Reason::BadSeal`].
    pub fn unknown_senders(&self) -> &UnknownSenders {
        &self.unknown_senders
    }

    /// How much of each limit is in use, in the order of [`Limit::ALL`].
    pub fn usage(&self) -> impl Iterator<Item = Usage> + '_ {
        Limit::ALL.into_iter().map(|limit| Usage { limit, used: self.gauges.get(limit) })
    }

    /// How much of one limit is in use.
    pub fn used(&self, limit: Limit) -> usize {
        self.gauges.get(limit)
    }

    pub(crate) fn note_use(&self, limit: Limit, used: usize) {
        self.gauges.set(limit, used);
    }

    pub(crate) fn count(&self, reason: Reason) {
        self.counts[reason as usize].fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
