//! Who is alive: our own judgement on top of chitchat's failure detector. Pure; time is an argument.

use std::time::{Duration, Instant};

/// How long doubt lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LivenessConfig {
    /// From a host's silence being noticed to its being held dead.
    pub suspect_for: Duration,
    /// Silence that is nobody's death. The failure detector learns how often a host is heard; in a small cluster that is so often that
    /// the pause of a busy processor looks long.
    pub silent_for: Duration,
    /// From a host's being known of to its being held dead if it was never heard.
    pub first_grace: Duration,
}

impl Default for LivenessConfig {
    fn default() -> Self {
        Self {
            suspect_for: Duration::from_millis(400),
            silent_for: Duration::from_millis(1500),
            first_grace: Duration::from_secs(3),
        }
    }
}

/// What is believed of an incarnation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Liveness {
    /// It is heard, or may be expected to be heard soon.
    Live,
    /// It has fallen silent a moment ago.
    Suspect,
    /// It is silent.
    Dead,
}

/// What was seen of an incarnation. Times are those of an [`Attention`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sighting {
    /// Known by hearsay; never heard since we started to listen.
    Unproven { since: Duration },
    /// Heard; its heartbeat was `beat`, for the first time at `at`.
    Heard { beat: u64, at: Duration },
    /// Heard once, with its last new heartbeat at `at`; since `since` the failure detector misses it.
    Lost { beat: u64, at: Duration, since: Duration },
}

impl Sighting {
    /// What is seen now that the heartbeat is `beat`, and the failure detector says `heard`.
    pub fn observe(self, heard: bool, beat: u64, now: Duration) -> Self {
        let at = match self {
            Self::Heard { beat: before, at } | Self::Lost { beat: before, at, .. } if before == beat => at,
            _ => now,
        };
        match self {
            _ if heard => Self::Heard { beat, at },
            Self::Unproven { .. } => self,
            Self::Heard { .. } => Self::Lost { beat, at, since: now },
            Self::Lost { since, .. } => Self::Lost { beat, at, since },
        }
    }
}

/// What is to be believed of an incarnation that was seen like this.
pub(super) fn judge(sighting: Sighting, now: Duration, config: &LivenessConfig) -> Liveness {
    let within = |start: Duration, length: Duration| now.saturating_sub(start) < length;
    match sighting {
        Sighting::Heard { .. } => Liveness::Live,
        Sighting::Unproven { since } if within(since, config.first_grace) => Liveness::Live,
        Sighting::Lost { at, since, .. } if within(since, config.suspect_for) || within(at, config.silent_for) => {
            Liveness::Suspect
        }
        Sighting::Unproven { .. } | Sighting::Lost { .. } => Liveness::Dead,
    }
}

/// The time during which we were able to hear anybody.
///
/// A thread that gets no processor, or a machine that was suspended, hears no one; that is no sign of anybody's death. So no step
/// of this clock is longer than what passes between two looks when all is well.
#[derive(Debug)]
pub(super) struct Attention {
    last: Instant,
    attended: Duration,
    longest_step: Duration,
}

impl Attention {
    pub fn new(now: Instant, longest_step: Duration) -> Self {
        Self { last: now, attended: Duration::ZERO, longest_step }
    }

    /// The attended time up to `now`.
    pub fn advance(&mut self, now: Instant) -> Duration {
        self.attended += now.saturating_duration_since(self.last).min(self.longest_step);
        self.last = now;
        self.attended
    }
}

#[cfg(test)]
mod tests;
