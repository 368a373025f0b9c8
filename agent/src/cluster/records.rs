//! What the others say, decoded. Of gossip's views only what differs from the one before is read. Pure; time is an
//! argument.
//!
//! Gossip forgets whose agent is silent, but packets go through kernels: as long as its machine answers, and for as long
//! as gossip would remember it after that, a host's last word stays.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use overlay::cluster::presence::liveness;
use overlay::model::host::Liveness;
use overlay::model::id::HostId;
use overlay::model::record::{Incarnation, Record, Records};

use crate::wire::{RecordPart, assemble};
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
    /// What their texts say, in the order of their incarnations.
    read: BTreeMap<HostId, Vec<ReadTexts>>,
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
            read: BTreeMap::new(),
            selves: Vec::new(),
            addresses: BTreeMap::new(),
        }
    }

    /// Takes in what gossip shows now, of all hosts but `me`; `absent` are the silent hosts whose port for agents answers neither with a
    /// connection nor with a reset. Gives the hosts that have changed or are gone.
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
            // Each record is that of the incarnation at the same place.
            let known: Vec<(Incarnation, ReadTexts)> = self
                .records
                .remove(&id)
                .unwrap_or_default()
                .into_iter()
                .zip(self.read.remove(&id).unwrap_or_default())
                .collect();
            let is_absent = self.absent.contains_key(&id);
            let heard = lives.iter().map(|life| {
                let (record, read) = record_of(id, life, &known);
                let liveness = liveness(agent(life.liveness), is_absent);
                (Incarnation { generation: life.generation, complete: life.complete, liveness, record }, read)
            });
            let (records, read) = heard.unzip();
            self.records.insert(id, records);
            self.read.insert(id, read);
            self.addresses.extend(lives.first().map(|life| (id, life.gossip_addr)));
            changed.insert(id);
        }
        let selves = view.selves.iter().map(|texts| {
            let known = self.selves.iter().find(|(before, _)| Arc::ptr_eq(before, texts));
            known.cloned().unwrap_or_else(|| (Arc::clone(texts), ReadTexts::read(me, texts, None).record().into()))
        });
        self.selves = selves.collect();
        let gone = before.hosts.keys().filter(|node| !view.hosts.contains_key(*node));
        let gone: BTreeSet<HostId> = gone.filter_map(|node| other(me, node)).collect();
        self.read.retain(|id, _| !gone.contains(id));
        self.kept.extend(&gone);
        changed.extend(gone);
        changed.extend(self.judge_kept(now));
        changed
    }

    /// A host that gossip has dropped counts as suspect as long as its machine answers. Returns the hosts whose liveness changed.
    fn judge_kept(&mut self, now: Instant) -> BTreeSet<HostId> {
        let mut changed = BTreeSet::new();
        for id in self.kept.clone() {
            if self.absent.get(&id).is_some_and(|since| now.duration_since(*since) >= self.remembered) {
                self.forget(id);
                changed.insert(id);
                continue;
            }
            let liveness = liveness(Liveness::Dead, self.absent.contains_key(&id));
            for life in self.records.get_mut(&id).into_iter().flatten().filter(|life| life.liveness != liveness) {
                life.liveness = liveness;
                changed.insert(id);
            }
        }
        changed
    }

    /// Drops the records of the hosts that the operator has forgotten and gossip has dropped too.
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
        self.read.remove(&id);
        self.addresses.remove(&id);
    }
}

fn other(me: HostId, node: &str) -> Option<HostId> {
    node.parse().ok().filter(|id| *id != me)
}

/// The record of an incarnation, and what its texts say: if they are the same, the record is the same.
fn record_of(
    id: HostId,
    life: &gossip::NodeIncarnation,
    known: &[(Incarnation, ReadTexts)],
) -> (Arc<Record>, ReadTexts) {
    let before = known.iter().find(|(known, _)| known.generation == life.generation);
    match before {
        Some((known, read)) if read.texts == life.entries => (Arc::clone(&known.record), read.clone()),
        _ => {
            let read = ReadTexts::read(id, &life.entries, before.or(known.first()).map(|(_, read)| read));
            (read.record().into(), read)
        }
    }
}

/// The texts of an incarnation and what each says, in their order.
#[derive(Debug, Clone)]
struct ReadTexts {
    texts: Arc<gossip::Texts>,
    parts: Arc<[Arc<RecordPart>]>,
}

impl ReadTexts {
    /// Reads the texts that were not there before.
    fn read(id: HostId, texts: &Arc<gossip::Texts>, before: Option<&Self>) -> Self {
        let mut before = before.into_iter().flat_map(|before| before.texts.iter().zip(before.parts.iter())).peekable();
        let part = |(key, text): (&String, &Arc<str>)| {
            while before.next_if(|((known, _), _)| *known < key).is_some() {}
            let known = before.next_if(|((known, _), _)| *known == key).filter(|((_, known), _)| *known == text);
            known.map_or_else(|| Arc::new(read_part(id, key, text)), |(_, part)| Arc::clone(part))
        };
        let parts = texts.iter().map(part).collect();
        Self { texts: Arc::clone(texts), parts }
    }

    fn record(&self) -> Record {
        assemble(self.parts.iter().map(Arc::as_ref))
    }
}

fn read_part(id: HostId, key: &str, text: &str) -> RecordPart {
    let part = RecordPart::read(key, text);
    if let Some(error) = part.error() {
        tracing::warn!(host = %id.short(), key, %error, "part of a host's record can't be read");
    }
    part
}

/// How gossip sees an agent.
fn agent(seen: gossip::NodeLiveness) -> Liveness {
    match seen {
        gossip::NodeLiveness::Live => Liveness::Live,
        gossip::NodeLiveness::Suspect => Liveness::Suspect,
        gossip::NodeLiveness::Dead => Liveness::Dead,
    }
}

#[cfg(test)]
mod tests;
