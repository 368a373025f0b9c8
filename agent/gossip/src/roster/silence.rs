//! How long each incarnation has been silent, and what this host may tell others about it. Pure; time is an argument.
//!
//! A host that has just started counts the silence of the dead from its own start. The host that sends it a snapshot says how long they
//! were silent before.

use std::collections::BTreeMap;
use std::time::Duration;

use chitchat::ChitchatId;

use crate::roster::liveness::HeartbeatObservation;
use crate::roster::{Roster, Track};
use crate::standing::Standing;

/// What is known of an incarnation before it is proven to be alive.
#[derive(Debug)]
pub(crate) struct Silence {
    /// How long it was silent before this host learnt of it.
    before: Duration,
    /// Its last heartbeat, 0 if none is known.
    beat: u64,
    /// Whether its heartbeat has risen since this host learnt of it. Then it was alive a moment ago: all hosts tell the same last
    /// heartbeat of an incarnation that ended long ago.
    has_risen: bool,
}

impl Silence {
    /// Of an incarnation that was silent for so long before.
    pub fn told(before: Duration) -> Self {
        Self { before, beat: 0, has_risen: false }
    }

    /// Notes the heartbeat that chitchat has now.
    pub fn note(&mut self, beat: u64) {
        self.has_risen |= self.beat > 0 && beat > self.beat;
        self.beat = beat;
    }
}

impl Roster {
    /// Notes for how long incarnations are silent, as `told` by another host. Those that are not known yet may be at the next look.
    pub fn note_silence(&mut self, told: BTreeMap<ChitchatId, Duration>, now: Duration) {
        for (id, silent) in &told {
            if let Some(track) = self.tracks.get_mut(id) {
                track.silence.before += silent.saturating_sub(track.silent(now));
            }
        }
        self.told = told;
    }

    /// How long an incarnation is silent, as far as this host knows.
    pub fn silence(&self, id: &ChitchatId, now: Duration) -> Duration {
        self.tracks.get(id).map_or(Duration::ZERO, |track| track.silent(now))
    }

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
            HeartbeatObservation::Unproven { since } => now.saturating_sub(since) + self.silence.before,
            HeartbeatObservation::Heard { at, .. } => now.saturating_sub(at),
        }
    }
}

#[cfg(test)]
mod tests;
