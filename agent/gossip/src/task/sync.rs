//! Whether this host has heard enough to take a missing entry for a removed one. Pure; time is an argument.

use std::time::Duration;

/// So long after the first complete peer, the view is synced also if other peers are incomplete.
const INCOMPLETE_TIMEOUT: Duration = Duration::from_secs(10);

/// What is known of the others at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Census {
    /// Hosts that were heard and have an incarnation that is complete.
    pub complete: usize,
    /// Hosts that are not held dead and have none.
    pub lacking: usize,
}

/// The rule behind [`crate::View::synced`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SyncState {
    /// No complete host was heard yet.
    Alone,
    /// A complete host was heard, first at `first`. Since `settled` no host lacks anything.
    Meeting { first: Duration, settled: Option<Duration> },
    /// Done; for the life of the process.
    Synced,
}

impl SyncState {
    /// The state after a look at the others; `settle` is how long all has to be complete.
    pub fn step(self, census: Census, now: Duration, settle: Duration) -> Self {
        let (first, settled) = match self {
            Self::Synced => return self,
            _ if census.complete == 0 => return Self::Alone,
            Self::Alone => (now, None),
            Self::Meeting { first, settled } => (first, settled),
        };
        let settled = (census.lacking == 0).then(|| settled.unwrap_or(now));
        let all_here = settled.is_some_and(|since| now.saturating_sub(since) >= settle);
        match all_here || now.saturating_sub(first) >= INCOMPLETE_TIMEOUT {
            true => Self::Synced,
            false => Self::Meeting { first, settled },
        }
    }
}

#[cfg(test)]
mod tests;
