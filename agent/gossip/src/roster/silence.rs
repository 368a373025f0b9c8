//! How long each incarnation has been silent, and what this host may tell others about it. Pure; time is an argument.
//!
//! A host that has just started counts the silence of the dead from its own start.

use std::time::Duration;

use chitchat::ChitchatId;

use crate::roster::liveness::HeartbeatObservation;
use crate::roster::{Roster, Track};
use crate::standing::Standing;

/// What is known of an incarnation before it is proven to be alive.
#[derive(Debug, Default)]
pub(crate) struct Silence {
    /// Its last heartbeat, 0 if none is known.
    beat: u64,
    /// Whether its heartbeat has risen since this host learnt of it. Then it was alive a moment ago: all hosts tell the same last
    /// heartbeat of an incarnation that ended long ago.
    has_risen: bool,
}

impl Silence {
    /// Notes the heartbeat that chitchat has now.
    pub fn note(&mut self, beat: u64) {
        self.has_risen |= self.beat > 0 && beat > self.beat;
        self.beat = beat;
    }
}

impl Roster {
    /// How this host knows of each incarnation, as of the last look. After a silence of `named` an incarnation is past.
    pub fn standings(
        &self,
        now: Duration,
        named: Duration,
    ) -> impl Iterator<Item = (&ChitchatId, Standing)> + Clone + use<'_> {
        self.tracks.iter().map(move |(id, track)| {
            let is_fresh = id.generation_id >= self.own.generation_id || track.silence.has_risen;
            let standing = match track.observation {
                _ if *id == self.own => Standing::Witnessed,
                _ if track.silent(now) >= named => Standing::Past,
                HeartbeatObservation::Unproven { .. } if !is_fresh => Standing::Hearsay,
                HeartbeatObservation::Unproven { .. } | HeartbeatObservation::Heard { .. } => Standing::Witnessed,
            };
            (id, standing)
        })
    }
}

impl Track {
    pub fn silent(&self, now: Duration) -> Duration {
        match self.observation {
            HeartbeatObservation::Unproven { since } => now.saturating_sub(since),
            HeartbeatObservation::Heard { at, .. } => now.saturating_sub(at),
        }
    }
}

#[cfg(test)]
mod tests;
