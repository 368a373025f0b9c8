//! What the others say, decoded. Of gossip's views only what differs from the one before is read. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use overlay::host::Liveness;
use overlay::id::HostId;
use overlay::record::{Incarnation, Record, Records};

use crate::convert::decode_record;
use crate::gossip;

/// What was heard of all other hosts.
#[derive(Debug, Default)]
pub(super) struct Heard {
    view: Arc<gossip::View>,
    absent: BTreeSet<HostId>,
    /// What they say.
    pub records: Records,
    /// Where the newest life of each is reached.
    pub addresses: BTreeMap<HostId, SocketAddr>,
}

impl Heard {
    /// Takes in what gossip shows now, of all hosts but `me`; `absent` are those that do not even refuse a connection. The
    /// hosts of which something has changed, or that are gone.
    pub fn hear(&mut self, me: HostId, view: Arc<gossip::View>, absent: BTreeSet<HostId>) -> BTreeSet<HostId> {
        let before = std::mem::replace(&mut self.view, view);
        let judged_anew = self.absent != absent;
        self.absent = absent;
        let mut changed = BTreeSet::new();
        for (node, lives) in &self.view.hosts {
            let old = before.hosts.get(node);
            if !judged_anew && old.is_some_and(|old| Arc::ptr_eq(old, lives)) {
                continue;
            }
            let Some(id) = other(me, node) else { continue };
            // Each record is that of the life at the same place.
            let old: Vec<_> =
                old.into_iter().flat_map(|old| old.iter()).zip(self.records.remove(&id).unwrap_or_default()).collect();
            let heard = lives.iter().map(|life| {
                let same = |(old, _): &&(&gossip::Incarnation, Incarnation)| {
                    old.generation == life.generation && old.entries == life.entries
                };
                let record = match old.iter().find(same) {
                    Some((_, known)) => Arc::clone(&known.record),
                    None => Arc::new(decode(id, life)),
                };
                let liveness = liveness(life.liveness, self.absent.contains(&id));
                Incarnation { generation: life.generation, complete: life.complete, liveness, record }
            });
            self.records.insert(id, heard.collect());
            self.addresses.extend(lives.first().map(|life| (id, life.gossip_addr)));
            changed.insert(id);
        }
        let gone = before.hosts.keys().filter(|node| !self.view.hosts.contains_key(*node));
        for id in gone.filter_map(|node| other(me, node)) {
            self.records.remove(&id);
            self.addresses.remove(&id);
            changed.insert(id);
        }
        changed
    }
}

fn other(me: HostId, node: &str) -> Option<HostId> {
    node.parse().ok().filter(|id| *id != me)
}

fn decode(id: HostId, life: &gossip::Incarnation) -> Record {
    let (record, errors) = decode_record(life.entries.iter().map(|(k, v)| (k.as_str(), v.as_ref())));
    for (key, error) in errors {
        tracing::warn!(host = %id.short(), key, %error, "part of a host's record can't be read");
    }
    record
}

/// A silent agent is not a dead host: that takes a host that was asked and did not answer.
fn liveness(seen: gossip::Liveness, absent: bool) -> Liveness {
    match seen {
        gossip::Liveness::Live => Liveness::Live,
        gossip::Liveness::Dead if absent => Liveness::Dead,
        gossip::Liveness::Suspect | gossip::Liveness::Dead => Liveness::Suspect,
    }
}

#[cfg(test)]
mod tests;
