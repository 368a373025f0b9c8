//! Whether we have heard enough to act on what is *not* said. Pure; time is an argument.

use std::time::Duration;

/// After this long with a peer that is complete, one that is not is no longer waited for.
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
    /// No one complete was heard yet.
    Alone,
    /// Someone was, since `first`; and since `settled` no one lacks anything.
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
