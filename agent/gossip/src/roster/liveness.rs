//! Who is alive, by how long its heartbeat has been the same. Pure; time is an argument.

use std::time::{Duration, Instant};

/// How long silence means nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LivenessConfig {
    /// Silence that is normal: rounds of gossip may get lost.
    pub suspect_after: Duration,
    /// Silence that is nobody's death: the processor of one or the other may be busy.
    pub dead_after: Duration,
    /// From a host's being known of to its being held dead if it was never heard.
    pub first_grace: Duration,
}

impl LivenessConfig {
    /// What suits this time between two rounds of gossip.
    ///
    /// A host is heard once a round or more often, and of its last word others tell for one round more. So at the longest interval that
    /// is permitted, 500 ms, it is dead to all within two and a half seconds.
    pub fn of(interval: Duration) -> Self {
        Self {
            suspect_after: (interval * 2 + Duration::from_millis(100)).max(Duration::from_millis(750)),
            dead_after: Duration::from_millis(1500).max(interval * 3),
            first_grace: Duration::from_secs(3).max(interval * 6),
        }
    }
}

/// What is believed of an incarnation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NodeLiveness {
    /// It is heard, or may be expected to be heard soon.
    Live,
    /// It has fallen silent a moment ago.
    Suspect,
    /// It is silent.
    Dead,
}

/// What was seen of an incarnation. Times are those of an [`AttendedClock`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeartbeatObservation {
    /// Known by hearsay; never heard since we started to listen.
    Unproven { since: Duration },
    /// Heard; its heartbeat was `beat`, for the first time at `at`.
    Heard { beat: u64, at: Duration },
}

impl HeartbeatObservation {
    /// What is seen now that the heartbeat is `beat`; `proven` if chitchat has heard several of them in a row.
    ///
    /// A single new heartbeat proves nothing of one that was never heard, or not for so long that it is held dead: it may be an old
    /// one, told by a host that had heard it for longer than we.
    pub fn observe(self, proven: bool, beat: u64, now: Duration, config: &LivenessConfig) -> Self {
        let believed = match self {
            Self::Unproven { .. } => proven,
            Self::Heard { beat: before, at } => {
                before != beat && (proven || now.saturating_sub(at) < config.dead_after)
            }
        };
        if believed { Self::Heard { beat, at: now } } else { self }
    }
}

/// What is to be believed of an incarnation that was seen like this.
///
/// chitchat's failure detector is not asked: it learns how often a host is heard, which in a small cluster is so often that the pause of
/// a busy processor looks long to it, and in a slow one so seldom that a death goes unnoticed for seconds.
pub(crate) fn judge(observation: HeartbeatObservation, now: Duration, config: &LivenessConfig) -> NodeLiveness {
    let within = |start: Duration, length: Duration| now.saturating_sub(start) < length;
    match observation {
        HeartbeatObservation::Unproven { since } if within(since, config.first_grace) => NodeLiveness::Live,
        HeartbeatObservation::Heard { at, .. } if within(at, config.suspect_after) => NodeLiveness::Live,
        HeartbeatObservation::Heard { at, .. } if within(at, config.dead_after) => NodeLiveness::Suspect,
        HeartbeatObservation::Unproven { .. } | HeartbeatObservation::Heard { .. } => NodeLiveness::Dead,
    }
}

/// When another judgement is next due of an incarnation that was seen like this, should nothing be heard of it until then.
pub(crate) fn next_deadline(
    observation: HeartbeatObservation,
    now: Duration,
    config: &LivenessConfig,
) -> Option<Duration> {
    let deadlines = match observation {
        HeartbeatObservation::Unproven { since } => [since + config.first_grace; 2],
        HeartbeatObservation::Heard { at, .. } => [at + config.suspect_after, at + config.dead_after],
    };
    deadlines.into_iter().find(|deadline| *deadline > now)
}

/// The time during which we were able to hear anybody.
///
/// A thread that gets no processor, or a machine that was suspended, hears no one; that is no sign of anybody's death. So no step
/// of this clock is longer than what passes between two looks when all is well.
#[derive(Debug)]
pub(crate) struct AttendedClock {
    last: Instant,
    attended: Duration,
    longest_step: Duration,
}

impl AttendedClock {
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
