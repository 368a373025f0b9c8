//! Which incarnations are alive, by how long their heartbeats have been the same. Pure; time is an argument.

use std::time::{Duration, Instant};

/// How long silence means nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LivenessConfig {
    /// Silence that is normal: rounds of gossip may get lost.
    pub suspect_after: Duration,
    /// A host that is silent for less than this is not dead: its processor, or the one of this host, may be busy.
    pub dead_after: Duration,
    /// After this time a host that was heard of, but never heard, is held dead.
    pub first_grace: Duration,
}

impl LivenessConfig {
    /// What suits this time between two rounds of gossip.
    ///
    /// A host is heard at least once a round, and others repeat its last heartbeat for one more round. So at the longest interval that
    /// is permitted, 500 ms, all take a host for dead two and a half seconds after its end.
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

/// When the heartbeat of an incarnation was last seen to change. Times are those of an [`AttendedClock`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeartbeatObservation {
    /// Other hosts told of it; this host has not heard it since it started to listen.
    Unproven { since: Duration },
    /// Heard; its heartbeat was `beat`, for the first time at `at`.
    Heard { beat: u64, at: Duration },
}

impl HeartbeatObservation {
    /// What is seen now that the heartbeat is `beat`; `proven` if chitchat has heard several of them in a row.
    ///
    /// A single new heartbeat does not prove that a dead incarnation, or one that was never heard, is alive. It may be an old
    /// heartbeat, told by a host that had heard it for longer than this one.
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
    let is_before = |start: Duration, timeout: Duration| now.saturating_sub(start) < timeout;
    match observation {
        HeartbeatObservation::Unproven { since } if is_before(since, config.first_grace) => NodeLiveness::Live,
        HeartbeatObservation::Heard { at, .. } if is_before(at, config.suspect_after) => NodeLiveness::Live,
        HeartbeatObservation::Heard { at, .. } if is_before(at, config.dead_after) => NodeLiveness::Suspect,
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

/// A clock that counts only the time during which this host was able to hear others.
///
/// A thread without a processor hears nothing, and neither does a machine that is suspended. That does not mean that the others are
/// dead. So no step of this clock is longer than the time between two looks when all is well.
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
