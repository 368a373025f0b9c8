//! What this host's state is told of what the other hosts say: each record once, and again where it could not be kept.
//!
//! Pure: the caller gives what it has received, has the [requests](Batch::requests) of a [`Batch`] decided one after the other, and
//! says which of them are durable. None of them waits for another: a full disk that takes no new network still takes what fences this
//! host, and where the other hosts are only matters when this one starts again.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use super::hear::{Bury, HearLinks, Inputs, Learn, RememberPeers};
use super::{Decision, Request, State};
use crate::cluster::{Cluster, own_record};
use crate::ledger::{Activation, Input, Ledger, Millis};
use crate::model::id::{HostId, NetworkId};
use crate::model::links::Links;
use crate::model::member::Boot;
use crate::model::network::Network;
use crate::model::record::{Record, Records};

/// Knows what the state was told.
#[derive(Debug, Default)]
pub struct Feed {
    /// The hosts of which the state may not have been told all.
    news: BTreeSet<HostId>,
    /// The record of each host that the state was told.
    told: BTreeMap<HostId, Arc<Record>>,
    /// The boots of others under this host's identity that it was told of.
    duplicates: BTreeSet<Boot>,
    /// Where the other hosts were heard, as it is on disk.
    peers: BTreeMap<HostId, SocketAddr>,
    /// As whom the ledger was told: one that may not act does not listen to all of it.
    activation: Option<Activation>,
    /// Whom the ledger took for members when it was told: it does not believe all that others say.
    members: BTreeSet<HostId>,
}

/// What was received from the other hosts.
#[derive(Debug, Clone, Copy)]
pub struct Received<'a> {
    /// What all of it means together.
    pub cluster: &'a Cluster,
    /// The records that the cluster was derived from.
    pub records: &'a Records,
    /// Where the newest incarnation of each host is reached.
    pub addresses: &'a BTreeMap<HostId, SocketAddr>,
    /// What is said under this host's own id by other incarnations of it, or by a copy of its disk.
    pub selves: &'a [Arc<Record>],
}

/// What the state is to be told now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Networks that it does not know.
    pub learn: Learn,
    /// Networks that are deleted.
    pub bury: Bury,
    /// What the others say of leases and members.
    pub inputs: Inputs,
    /// What they say of links.
    pub links: HearLinks,
    /// Where they are.
    pub peers: RememberPeers,
    records: Vec<(HostId, Arc<Record>)>,
    duplicates: BTreeSet<Boot>,
}

/// One of the requests of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FeedRequest {
    /// Networks that the state does not know.
    Learn(Learn),
    /// Networks that are deleted.
    Bury(Bury),
    /// What the others say of leases and members.
    Inputs(Inputs),
    /// What they say of links.
    Links(HearLinks),
    /// Where they are.
    Peers(RememberPeers),
}

/// What a request of a batch is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    /// Networks, leases, members and links.
    Leases,
    /// Where the other hosts are.
    Peers,
}

/// What of a batch is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    leases: bool,
    peers: bool,
}

impl Feed {
    /// Something of these hosts has changed.
    pub fn note(&mut self, hosts: impl IntoIterator<Item = HostId>) {
        self.news.extend(hosts);
    }

    /// What the state is to be told; `None` if there is nothing.
    pub fn next(&mut self, state: &State, received: Received<'_>) -> Option<Batch> {
        let Received { cluster, records, addresses, selves } = received;
        self.start_over_where_it_listens_now(&state.ledger, records);
        // A host that is gone for good is told of from the start if it comes back after all.
        self.told.retain(|id, _| !self.news.contains(id) || records.contains_key(id));
        let said = |id: &HostId| Some((*id, &cluster.hosts.get(id).or_else(|| cluster.forgotten.get(id))?.record));
        let is_told = |id: &HostId, record: &Arc<Record>| {
            self.told.get(id).is_some_and(|told| Arc::ptr_eq(told, record) || told == record)
        };
        let changed = self.news.iter().filter_map(said).filter(|(id, record)| !is_told(id, record));
        let changed: Vec<(HostId, Arc<Record>)> = changed.map(|(id, record)| (id, Arc::clone(record))).collect();
        let peers = self.news.iter().filter_map(|id| Some((*id, *addresses.get(id)?)));
        let peers = peers.filter(|(id, address)| self.peers.get(id) != Some(address)).collect();
        let duplicates = selves.iter().filter_map(|record| own_record::duplicate(record));
        let duplicates: BTreeSet<Boot> = duplicates.filter(|boot| !self.duplicates.contains(boot)).collect();
        let heard = changed.iter().flat_map(|(id, record)| own_record::heard(*id, record));
        let inputs = duplicates.iter().map(|boot| Input::Duplicate { boot: *boot }).chain(heard).collect();
        let batch = Batch {
            learn: Learn { networks: unknown(state, cluster), founder: cluster.founder_of(state.ledger.me()) },
            bury: Bury(cluster.tombstones.difference(state.ledger.tombstones()).copied().collect()),
            inputs: Inputs(inputs),
            links: HearLinks(unheard_links(state, cluster)),
            peers: RememberPeers(peers),
            records: changed,
            duplicates,
        };
        if batch.is_empty() {
            self.news.clear();
            return None;
        }
        Some(batch)
    }

    /// A ledger that was told something before it could use it is told it again.
    fn start_over_where_it_listens_now(&mut self, ledger: &Ledger, records: &Records) {
        let membership = ledger.membership();
        if self.activation.as_ref() != Some(&membership.activation) {
            self.activation = Some(membership.activation.clone());
            self.told.clear();
            self.duplicates.clear();
            self.news.extend(records.keys().copied().filter(|id| *id != ledger.me()));
        }
        if self.members != membership.members {
            let new: Vec<HostId> = membership.members.difference(&self.members).copied().collect();
            self.told.retain(|id, _| !new.contains(id));
            self.news.extend(new);
            self.members = membership.members.clone();
        }
    }

    /// What of a batch is durable. The rest is told again.
    pub fn told(&mut self, batch: Batch, told: Told) {
        if told.leases {
            self.told.extend(batch.records);
            self.duplicates.extend(batch.duplicates);
        }
        if told.peers {
            self.peers.extend(batch.peers.0);
        }
        if told.is_all() {
            self.news.clear();
        }
    }
}

impl Request for FeedRequest {
    type Answer = ();
    type Refusal = Infallible;

    fn decide(&self, state: &State, now: Millis) -> Result<Decision<()>, Infallible> {
        match self {
            Self::Learn(learn) => learn.decide(state, now),
            Self::Bury(bury) => bury.decide(state, now),
            Self::Inputs(inputs) => inputs.decide(state, now),
            Self::Links(links) => links.decide(state, now),
            Self::Peers(peers) => peers.decide(state, now),
        }
    }
}

impl FeedRequest {
    /// What it is about.
    pub fn topic(&self) -> Topic {
        match self {
            Self::Learn(_) | Self::Bury(_) | Self::Inputs(_) | Self::Links(_) => Topic::Leases,
            Self::Peers(_) => Topic::Peers,
        }
    }
}

impl Told {
    /// All of a batch but what is about these topics. One request that is not durable leaves its whole topic to be told again.
    pub fn all_but<'a>(failed: impl IntoIterator<Item = &'a Topic>) -> Self {
        let failed: BTreeSet<&Topic> = failed.into_iter().collect();
        Self { leases: !failed.contains(&Topic::Leases), peers: !failed.contains(&Topic::Peers) }
    }

    /// Is nothing left to be told again?
    pub fn is_all(self) -> bool {
        self.leases && self.peers
    }
}

impl Batch {
    /// What the state decides, in this order. A request that can't be made durable does not stop those after it.
    pub fn requests(&self) -> [FeedRequest; 5] {
        let Self { learn, bury, inputs, links, peers, .. } = self;
        [
            FeedRequest::Learn(learn.clone()),
            FeedRequest::Bury(bury.clone()),
            FeedRequest::Inputs(inputs.clone()),
            FeedRequest::Links(links.clone()),
            FeedRequest::Peers(peers.clone()),
        ]
    }

    fn is_empty(&self) -> bool {
        let Self { learn, bury, inputs, links, peers, records, duplicates } = self;
        learn.networks.is_empty()
            && bury.0.is_empty()
            && inputs.0.is_empty()
            && links.0.is_empty()
            && peers.0.is_empty()
            && records.is_empty()
            && duplicates.is_empty()
    }
}

/// The networks of this host's cluster that its ledger does not know. One that it has deleted is in no cluster.
fn unknown(state: &State, cluster: &Cluster) -> Vec<Network> {
    let views = cluster.networks.values().filter(|view| !view.apart);
    let unknown = views.filter(|view| !state.ledger.accounts().contains_key(&view.network.id));
    unknown.map(|view| view.network.clone()).collect()
}

/// What other hosts say of links in the networks that this host keeps alive, and that it does not know yet.
fn unheard_links(state: &State, cluster: &Cluster) -> BTreeMap<NetworkId, Links> {
    let nothing = Links::default();
    let views = cluster.networks.values().filter(|view| {
        let id = &view.network.id;
        !view.apart
            && state.intents.links.get(id).unwrap_or(&nothing) != &view.links
            && own_record::keeps(&state.ledger, &state.intents, *id)
    });
    views.map(|view| (view.network.id, view.links.clone())).collect()
}

#[cfg(test)]
mod tests;
