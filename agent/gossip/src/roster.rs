//! All known incarnations and what they announce: chitchat's states joined with pushes, judged for liveness, laid out for consumers.
//!
//! Owns what is remembered from look to look. Pure: states, pushes and time come in; hosts and events go out.

pub(crate) mod liveness;
pub(crate) mod merge;
pub(crate) mod silence;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use chitchat::{ChitchatId, NodeState, Version};

use crate::incarnation::announce::{MARKER, Stamped};
use crate::push::Push;
use crate::roster::liveness::{HeartbeatObservation, LivenessConfig, NodeLiveness, judge, next_deadline};
use crate::roster::merge::{Entries, Fit, PushedEntries, join};
use crate::roster::silence::Silence;
use crate::task::sync::Census;
use crate::{Hosts, NodeIncarnation, Texts};

/// Something that an operator would notice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// A host is known that was not.
    Appeared { node: Arc<str>, addr: SocketAddr },
    /// A host is held dead.
    Gone { node: Arc<str> },
    /// A host that was held dead is heard.
    Back { node: Arc<str> },
    /// Another process that is alive uses this host's ID in a later incarnation.
    Rival { addr: SocketAddr },
}

/// What a look has shown.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct RosterChange {
    /// Whether [`Roster::hosts`] differs from before.
    pub changed: bool,
    pub events: Vec<Event>,
}

/// All that is known of all incarnations.
pub(crate) struct Roster {
    own: ChitchatId,
    config: LivenessConfig,
    /// The hosts that this host waits for at its start. It may not have heard of some of them yet.
    expected: BTreeSet<String>,
    /// In the order of host, generation.
    tracks: BTreeMap<ChitchatId, Track>,
    /// Whether each host is held dead.
    gone: BTreeMap<Arc<str>, bool>,
    rival_told: bool,
    dirty: bool,
    /// For the next look: how long incarnations were silent before this host learnt of them.
    told: BTreeMap<ChitchatId, Duration>,
    /// What [`Roster::hosts`] has shown.
    shown: Hosts,
}

struct Track {
    observation: HeartbeatObservation,
    liveness: NodeLiveness,
    silence: Silence,
    /// (last gc version, max version) of what was loaded.
    loaded: (Version, Version),
    base: Entries,
    pushed: PushedEntries,
    complete: bool,
    shown: Arc<Texts>,
}

impl Roster {
    /// An empty roster of the host that `own` is an incarnation of.
    pub fn new(own: ChitchatId, config: LivenessConfig, expected: BTreeSet<String>) -> Self {
        let (tracks, gone, told) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { own, config, expected, tracks, gone, rival_told: false, dirty: true, told, shown: Hosts::new() }
    }

    /// This host goes on as another incarnation, with a failure detector that has not heard any host yet. A host that is held dead
    /// stays so until it is heard.
    pub fn start_over(&mut self, own: ChitchatId, now: Duration) {
        self.own = own;
        let alive = self.tracks.values_mut().filter(|track| track.liveness != NodeLiveness::Dead);
        alive.for_each(|track| {
            track.silence = Silence::told(track.silent(now));
            track.observation = HeartbeatObservation::Unproven { since: now };
        });
    }

    /// Takes a push. `None` if its incarnation is not known yet: chitchat has to tell of it first.
    pub fn receive(&mut self, push: &Push) -> Option<Fit> {
        let track = self.tracks.get_mut(&push.id)?;
        let fit = track.pushed.receive(push, track.loaded.1);
        track.show();
        self.dirty = true;
        Some(fit)
    }

    /// Looks at chitchat's `states`; `proven` are those that its failure detector has alive.
    pub fn look(
        &mut self,
        states: &BTreeMap<ChitchatId, NodeState>,
        proven: &HashSet<&ChitchatId>,
        now: Duration,
    ) -> RosterChange {
        let mut moved = self.follow(states, now);
        self.told.clear();
        for ((id, state), track) in states.iter().zip(self.tracks.values_mut()) {
            self.dirty |= track.load(state);
            let beat = state.heartbeat().into();
            track.silence.note(beat);
            track.observation = track.observation.observe(proven.contains(id), beat, now, &self.config);
            let liveness = judge(track.observation, now, &self.config);
            moved |= track.liveness != liveness;
            track.liveness = liveness;
        }
        self.dirty |= moved;
        let mut events = if moved { self.events() } else { Vec::new() };
        events.extend(self.rival());
        RosterChange { changed: std::mem::take(&mut self.dirty), events }
    }

    /// Has a track for each of the `states` and for no other; says whether that is a change.
    fn follow(&mut self, states: &BTreeMap<ChitchatId, NodeState>, now: Duration) -> bool {
        if self.tracks.keys().eq(states.keys()) {
            return false;
        }
        self.tracks.retain(|id, _| states.contains_key(id));
        for id in states.keys() {
            let silence = Silence::told(self.told.get(id).copied().unwrap_or_default());
            self.tracks.entry(id.clone()).or_insert_with(|| Track::new(now, silence));
        }
        true
    }

    /// Each host's incarnations, newest first, down to the newest complete one: what is older has nothing to add.
    pub fn hosts(&mut self) -> Hosts {
        let all: Vec<(&ChitchatId, &Track)> = self.tracks.iter().collect();
        let hosts = all.chunk_by(|(left, _), (right, _)| left.node_id == right.node_id).filter_map(|incarnations| {
            let (id, _) = incarnations.first()?;
            let before = self.shown.get(&id.node_id).filter(|before| told(incarnations).eq(before.iter().cloned()));
            let now = before.map_or_else(|| told(incarnations).collect(), Arc::clone);
            (!now.is_empty()).then(|| (Arc::clone(&id.node_id), now))
        });
        self.shown = hosts.collect();
        self.shown.clone()
    }

    /// What is announced under this host's ID by other incarnations than this one.
    pub fn selves(&self) -> Vec<Arc<Texts>> {
        let others = self.tracks.iter().filter(|(id, _)| id.node_id == self.own.node_id && **id != self.own);
        others.map(|(_, track)| Arc::clone(&track.shown)).collect()
    }

    /// The addresses of all other hosts that are not held dead.
    pub fn peers(&self) -> Vec<SocketAddr> {
        let alive = self.newest().filter(|(_, track)| track.liveness != NodeLiveness::Dead);
        alive.map(|(id, _)| id.gossip_advertise_addr).collect()
    }

    /// When the next incarnation has been silent for too long, if nothing is heard until then.
    pub fn next_deadline(&self, now: Duration) -> Option<Duration> {
        self.tracks.values().filter_map(|track| next_deadline(track.observation, now, &self.config)).min()
    }

    /// How many incarnations are known.
    pub fn len(&self) -> usize {
        self.tracks.len()
    }

    /// The newest incarnation of each other host.
    fn newest(&self) -> impl Iterator<Item = (&ChitchatId, &Track)> {
        let mut later: Option<&Arc<str>> = None;
        let newest = self.tracks.iter().rev().filter(move |(id, _)| later.replace(&id.node_id) != Some(&id.node_id));
        newest.filter(|(id, _)| id.node_id != self.own.node_id)
    }

    /// What is known of the others.
    pub fn census(&self) -> Census {
        let mut census = Census::default();
        for (_, track) in self.newest() {
            census.complete += usize::from(track.complete && track.is_heard());
            census.lacking += usize::from(!track.complete && track.liveness != NodeLiveness::Dead);
        }
        let known: BTreeSet<&str> = self.tracks.keys().map(|id| id.node_id.as_ref()).collect();
        census.lacking += self.expected.iter().filter(|node| !known.contains(node.as_str())).count();
        census
    }

    fn events(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        let mut gone = BTreeMap::new();
        for (id, track) in self.newest() {
            let node = Arc::clone(&id.node_id);
            let dead = track.liveness == NodeLiveness::Dead;
            match (self.gone.get(&node), dead) {
                (None, false) => events.push(Event::Appeared { node: node.clone(), addr: id.gossip_advertise_addr }),
                (Some(false), true) => events.push(Event::Gone { node: node.clone() }),
                (Some(true), false) => events.push(Event::Back { node: node.clone() }),
                (None | Some(true), true) | (Some(false), false) => {}
            }
            gone.insert(node, dead);
        }
        self.gone = gone;
        events
    }

    fn rival(&mut self) -> Option<Event> {
        let later = self.tracks.range(&self.own..).skip_while(|(id, _)| **id == self.own);
        let mut same_host = later.take_while(|(id, _)| id.node_id == self.own.node_id);
        let (id, _) = same_host.find(|(_, track)| track.is_heard())?;
        let addr = id.gossip_advertise_addr;
        (!std::mem::replace(&mut self.rival_told, true)).then_some(Event::Rival { addr })
    }
}

impl Track {
    fn new(now: Duration, silence: Silence) -> Self {
        Self {
            observation: HeartbeatObservation::Unproven { since: now },
            liveness: NodeLiveness::Live,
            silence,
            loaded: (0, 0),
            base: Entries::new(),
            pushed: PushedEntries::default(),
            complete: false,
            shown: Arc::default(),
        }
    }

    fn is_heard(&self) -> bool {
        matches!(self.observation, HeartbeatObservation::Heard { .. }) && self.liveness == NodeLiveness::Live
    }

    /// Takes over chitchat's state, if it has changed; says whether it has.
    fn load(&mut self, state: &NodeState) -> bool {
        let version = state.monotonic_property();
        if version == self.loaded {
            return false;
        }
        if version.1 < self.loaded.1 {
            // chitchat has dropped the state to fetch it again, since tombstones that it never saw are gone.
            self.pushed = PushedEntries::default();
        }
        self.loaded = version;
        self.pushed.prune(version.1);
        let old = std::mem::take(&mut self.base);
        let entries = state.key_values_including_deleted().map(|(key, now)| {
            let stamped = match old.get(key).filter(|before| before.version == now.version) {
                Some(before) => before.clone(),
                None => {
                    let value = (!now.is_deleted()).then(|| now.value.as_str().into());
                    Stamped { version: now.version, value }
                }
            };
            (key.to_owned(), stamped)
        });
        self.base = entries.collect();
        self.show();
        true
    }

    fn show(&mut self) {
        let complete = self.base.get(MARKER).is_some_and(|marker| marker.value.is_some());
        if self.complete && !complete {
            // chitchat fetches it again: the complete state stays until the new one is complete.
            return;
        }
        self.complete = complete;
        let entries = join(self.base.clone(), self.pushed.entries());
        let visible = entries.into_iter().filter(|(key, _)| key != MARKER);
        self.shown = Arc::new(visible.filter_map(|(key, stamped)| Some((key, stamped.value?))).collect());
    }

    fn incarnation(&self, id: &ChitchatId) -> NodeIncarnation {
        NodeIncarnation {
            generation: id.generation_id,
            gossip_addr: id.gossip_advertise_addr,
            complete: self.complete,
            liveness: self.liveness,
            entries: Arc::clone(&self.shown),
        }
    }
}

/// What consumers see of a host's `incarnations`, which are in the order of their generations.
fn told(incarnations: &[(&ChitchatId, &Track)]) -> impl Iterator<Item = NodeIncarnation> {
    let own = incarnations.iter().enumerate().rev().filter(|(at, (id, _))| !is_copy(id, &incarnations[..*at]));
    let mut enough = false;
    let told = own.take_while(move |(_, (_, track))| !std::mem::replace(&mut enough, track.complete));
    told.map(|(_, (id, track))| track.incarnation(id))
}

/// Does one of the `earlier` incarnations of the host go on at another address? Then its disk was copied to another machine, and
/// this incarnation does not speak for the host.
fn is_copy(id: &ChitchatId, earlier: &[(&ChitchatId, &Track)]) -> bool {
    let elsewhere = |other: &ChitchatId| other.gossip_advertise_addr.ip() != id.gossip_advertise_addr.ip();
    // Also if it has been silent for a moment: it may have started anew there, and not be proven yet.
    let goes_on = |track: &Track| {
        matches!(track.observation, HeartbeatObservation::Heard { .. }) && track.liveness != NodeLiveness::Dead
    };
    earlier.iter().any(|(other, track)| elsewhere(other) && goes_on(track))
}

#[cfg(test)]
pub(crate) mod tests;
