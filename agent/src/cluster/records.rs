//! What the others say, decoded. Of gossip's views only what differs from the one before is read. Pure; time is an
//! argument.
//!
//! Gossip forgets whose agent is silent, but packets go through kernels: as long as its machine answers, and for as long
//! as gossip would remember it after that, a host's last word stays.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use overlay::model::host::Liveness;
use overlay::model::id::HostId;
use overlay::model::record::{Incarnation, Record, Records};

use crate::wire::decode_record;
use overlay_gossip as gossip;

/// What was heard of all other hosts.
#[derive(Debug)]
pub(super) struct Heard {
    /// How long a host is remembered whose machine does not answer either.
    remembered: Duration,
    view: Arc<gossip::View>,
    /// Whose machines do not answer, and since when.
    absent: BTreeMap<HostId, Instant>,
    /// Whom gossip has forgotten; their last words are still among the records.
    kept: BTreeSet<HostId>,
    /// What they say.
    pub records: Records,
    /// What is said under this host's own id, but not by this life of it.
    pub selves: Vec<(Arc<gossip::Texts>, Arc<Record>)>,
    /// Where the newest life of each is reached.
    pub addresses: BTreeMap<HostId, SocketAddr>,
}

impl Heard {
    /// Nothing was heard yet. A host whose machine does not answer is remembered for so long.
    pub fn new(remembered: Duration) -> Self {
        Self {
            remembered,
            view: Arc::default(),
            absent: BTreeMap::new(),
            kept: BTreeSet::new(),
            records: Records::new(),
            selves: Vec::new(),
            addresses: BTreeMap::new(),
        }
    }

    /// Takes in what gossip shows now, of all hosts but `me`; `absent` are those that do not even refuse a connection. The
    /// hosts of which something has changed, or that are gone.
    pub fn hear(
        &mut self,
        me: HostId,
        view: Arc<gossip::View>,
        absent: &BTreeSet<HostId>,
        now: Instant,
    ) -> BTreeSet<HostId> {
        let before = std::mem::replace(&mut self.view, view);
        let judged_anew = &self.absent.keys().copied().collect() ^ absent;
        if !judged_anew.is_empty() {
            self.absent = absent.iter().map(|id| (*id, self.absent.get(id).copied().unwrap_or(now))).collect();
        }
        let mut changed = BTreeSet::new();
        let view = Arc::clone(&self.view);
        for (node, lives) in &view.hosts {
            let old = before.hosts.get(node);
            let is_same = old.is_some_and(|old| Arc::ptr_eq(old, lives));
            if is_same && judged_anew.is_empty() {
                continue;
            }
            let Some(id) = other(me, node).filter(|id| !is_same || judged_anew.contains(id)) else { continue };
            self.kept.remove(&id);
            // Each record is that of the life at the same place.
            let old: Vec<_> =
                old.into_iter().flat_map(|old| old.iter()).zip(self.records.remove(&id).unwrap_or_default()).collect();
            let heard = lives.iter().map(|life| {
                let same = |(old, _): &&(&gossip::NodeIncarnation, Incarnation)| {
                    old.generation == life.generation && old.entries == life.entries
                };
                let record = match old.iter().find(same) {
                    Some((_, known)) => Arc::clone(&known.record),
                    None => Arc::new(decode(id, &life.entries)),
                };
                let liveness = liveness(life.liveness, self.absent.contains_key(&id));
                Incarnation { generation: life.generation, complete: life.complete, liveness, record }
            });
            self.records.insert(id, heard.collect());
            self.addresses.extend(lives.first().map(|life| (id, life.gossip_addr)));
            changed.insert(id);
        }
        let selves = view.selves.iter().map(|texts| {
            let known = self.selves.iter().find(|(before, _)| Arc::ptr_eq(before, texts));
            known.cloned().unwrap_or_else(|| (Arc::clone(texts), Arc::new(decode(me, texts))))
        });
        self.selves = selves.collect();
        let gone = before.hosts.keys().filter(|node| !view.hosts.contains_key(*node));
        let gone: BTreeSet<HostId> = gone.filter_map(|node| other(me, node)).collect();
        self.kept.extend(&gone);
        changed.extend(gone);
        changed.extend(self.judge_kept(now));
        changed
    }

    /// Whom gossip has forgotten is there as long as its machine is. Who of them is judged otherwise now.
    fn judge_kept(&mut self, now: Instant) -> BTreeSet<HostId> {
        let mut changed = BTreeSet::new();
        for id in self.kept.clone() {
            if self.absent.get(&id).is_some_and(|since| now.duration_since(*since) >= self.remembered) {
                self.forget(id);
                changed.insert(id);
                continue;
            }
            let liveness = liveness(gossip::NodeLiveness::Dead, self.absent.contains_key(&id));
            for life in self.records.get_mut(&id).into_iter().flatten().filter(|life| life.liveness != liveness) {
                life.liveness = liveness;
                changed.insert(id);
            }
        }
        changed
    }

    /// These were forgotten by the operator: whoever of them gossip has forgotten too has nothing more to say.
    pub fn release<'a>(&mut self, forgotten: impl IntoIterator<Item = &'a HostId>) {
        for id in forgotten {
            if self.kept.contains(id) {
                self.forget(*id);
            }
        }
    }

    /// When the next host is to be forgotten, if nothing is heard until then.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.kept.iter().filter_map(|id| Some(*self.absent.get(id)? + self.remembered)).min()
    }

    fn forget(&mut self, id: HostId) {
        self.kept.remove(&id);
        self.records.remove(&id);
        self.addresses.remove(&id);
    }
}

fn other(me: HostId, node: &str) -> Option<HostId> {
    node.parse().ok().filter(|id| *id != me)
}

fn decode(id: HostId, texts: &gossip::Texts) -> Record {
    let (record, errors) = decode_record(texts.iter().map(|(k, v)| (k.as_str(), v.as_ref())));
    for (key, error) in errors {
        tracing::warn!(host = %id.short(), key, %error, "part of a host's record can't be read");
    }
    record
}

/// A silent agent is not a dead host: that takes a host that was asked and did not answer.
fn liveness(seen: gossip::NodeLiveness, absent: bool) -> Liveness {
    match seen {
        gossip::NodeLiveness::Live => Liveness::Live,
        gossip::NodeLiveness::Dead if absent => Liveness::Dead,
        gossip::NodeLiveness::Suspect | gossip::NodeLiveness::Dead => Liveness::Suspect,
    }
}

#[cfg(test)]
mod tests;
