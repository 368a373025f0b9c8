//! The cluster: what all records say together. A pure function of them, so that all hosts that have heard the same
//! agree, in whatever order they heard it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::model::endpoint::Endpoint;
use crate::model::host::{HostInfo, Liveness};
use crate::model::id::{EndpointId, HostId, NetworkId, Vni};
use crate::model::links::Links;
use crate::model::member::Seal;
use crate::model::network::{Lamport, Name, Network};
use crate::model::record::{Incarnation, Record, Records};

/// What the hosts know together.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cluster {
    /// The hosts, without those that are forgotten.
    pub hosts: BTreeMap<HostId, Host>,
    /// The hosts that are forgotten: nothing counts that they say, but which networks are deleted.
    pub forgotten: BTreeMap<HostId, Host>,
    /// Who is sealed by somebody, and for which heir.
    pub seals: BTreeMap<HostId, Seal>,
    /// The networks that are not deleted.
    pub networks: BTreeMap<NetworkId, NetworkView>,
    /// The networks that are deleted.
    pub tombstones: BTreeSet<NetworkId>,
    /// The highest time that anything carries: what is created next gets one more.
    pub now: Lamport,
}

/// A host as the others see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// What it says of itself.
    pub info: HostInfo,
    /// Is it there?
    pub liveness: Liveness,
    /// All that it says; also the leases that the ledger takes from there.
    pub record: Arc<Record>,
    /// The life that said it.
    pub generation: u64,
    /// Is that the newest? If not, that one has not said all yet.
    pub is_newest: bool,
}

/// A network as the hosts see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkView {
    /// The definition.
    pub network: Network,
    /// Does its name mean another network that was created under the same name elsewhere?
    pub shadowed: bool,
    /// Is it one of a cluster that was founded apart? Nothing can be attached to it here.
    pub apart: bool,
    /// The hosts that take its packets, and under which identifier each does.
    pub vnis: BTreeMap<HostId, Vni>,
    /// Which of its containers reach each other, if not all do.
    pub links: Links,
    /// Its endpoints.
    pub endpoints: BTreeMap<EndpointId, Located>,
}

/// An endpoint and the host that it is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// The endpoint.
    pub endpoint: Arc<Endpoint>,
    /// Its host.
    pub host: HostId,
    /// Is that host there?
    pub liveness: Liveness,
}

impl Located {
    /// Its addresses.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.endpoint.addresses.iter().map(|a| a.address)
    }
}

impl NetworkView {
    /// What people see: the name, or `name~id` where the name means another network.
    pub fn shown_name(&self) -> String {
        if self.shadowed {
            format!("{}~{}", self.network.name, self.network.id.short())
        } else {
            self.network.name.to_string()
        }
    }

    /// The endpoint with this address.
    pub fn at(&self, address: IpAddr) -> Option<&Located> {
        self.endpoints.values().find(|l| l.endpoint.has(address))
    }

    /// The endpoint that this name means: where two hosts gave it at once, the one attached first.
    pub fn named(&self, name: &Name) -> Option<&Located> {
        let named = self.endpoints.values().filter(|l| l.endpoint.name == *name);
        named.min_by_key(|l| (l.liveness == Liveness::Dead, l.endpoint.created, l.endpoint.id))
    }
}

impl Cluster {
    /// Who founded the cluster that a host belongs to, by its own word.
    pub fn founder_of(&self, host: HostId) -> Option<HostId> {
        self.hosts.get(&host).and_then(|host| host.info.founder)
    }

    /// The names of the hosts that say that there is this network, and are not gone.
    pub fn tellers_of(&self, network: NetworkId) -> impl Iterator<Item = &Name> {
        let there = self.hosts.values().filter(|host| host.liveness != Liveness::Dead);
        let tellers = there.filter(move |host| host.record.networks.contains_key(&network));
        tellers.map(|host| &host.info.name)
    }

    /// The network that people mean: a name, `name~id`, an id, or the start of one that is not ambiguous.
    pub fn find(&self, text: &str) -> Option<&NetworkView> {
        let text = text.to_ascii_lowercase();
        if let Some(view) = self.networks.values().find(|v| v.shown_name() == text) {
            return Some(view);
        }
        // `name~id` goes on to work when the rival has gone.
        let mut meant = self.networks.values().filter(|v| v.network.may_be_called(&text));
        meant.next().filter(|_| meant.next().is_none())
    }
}

/// What the records mean.
///
/// Of each host the newest life counts, but an agent that is starting says nothing yet: until all has arrived that it
/// said at its start, what its life before said stays. Only a deletion counts as soon as anybody has ever said it.
///
/// It is seen by a member of the cluster that `founder` founded, if there is one yet. Of hosts of a cluster that was founded apart
/// it counts neither whom they seal nor what they delete, and a name means a network that can be used here.
pub fn derive(records: &Records, founder: Option<HostId>) -> Cluster {
    let mut cluster = Cluster { tombstones: tombstones(records, founder), ..Cluster::default() };
    let mut hosts: BTreeMap<HostId, Host> =
        records.iter().filter_map(|(id, lives)| Some((*id, host(lives)?))).collect();
    let is_ours = |host: &&Host| !host.info.is_apart_from(founder);
    cluster.seals = seals(hosts.values().filter(is_ours));
    let is_forgotten = |host: &HostId| cluster.seals.get(host).is_some_and(|seal| seal.done);
    cluster.forgotten = hosts.extract_if(.., |id, _| is_forgotten(id)).collect();
    for (id, host) in &hosts {
        for (network_id, membership) in &host.record.networks {
            cluster.now = cluster.now.max(membership.network.created);
            if !cluster.tombstones.contains(network_id) {
                let view = cluster.networks.entry(*network_id).or_insert_with(|| NetworkView::new(&membership.network));
                view.vnis.extend(membership.vni.map(|vni| (*id, vni)));
                let links = host.record.links.get(network_id);
                cluster.now = cluster.now.max(links.and_then(Links::newest).unwrap_or_default());
                links.into_iter().for_each(|links| view.links.join(links));
            }
        }
    }
    let mut claims: Vec<Claim<'_>> = hosts.iter().flat_map(claims).collect();
    // Where two claim an address, the higher lease is right; a tie, which the ledger rules out, goes to the lower id.
    claims.sort_by_cached_key(|claim| std::cmp::Reverse(claim.rank()));
    let mut taken = BTreeSet::new();
    for claim in claims {
        cluster.now = cluster.now.max(claim.endpoint.created);
        if let Some(view) = cluster.networks.get_mut(&claim.endpoint.network) {
            view.admit(&claim, &mut taken);
        }
    }
    let of_ours = hosts.values().filter(is_ours).flat_map(|host| host.record.networks.keys());
    let ours: BTreeSet<NetworkId> = of_ours.copied().collect();
    cluster.networks.values_mut().for_each(|view| view.apart = !ours.contains(&view.network.id));
    cluster.hosts = hosts;
    shadow(&mut cluster.networks);
    cluster
}

/// What is deleted, also if only an earlier life of a host said so: all lives of a host belong to one cluster.
fn tombstones(records: &Records, founder: Option<HostId>) -> BTreeSet<NetworkId> {
    let is_ours = |lives: &&Vec<Incarnation>| {
        let info = lives.iter().find_map(|life| life.record.host.as_ref());
        founder.is_none() || info.is_some_and(|info| !info.is_apart_from(founder))
    };
    records.values().filter(is_ours).flatten().flat_map(|life| &life.record.tombstones).copied().collect()
}

fn host(lives: &[Incarnation]) -> Option<Host> {
    let newest = lives.iter().max_by_key(|l| l.generation)?;
    let complete = lives.iter().filter(|l| l.complete).max_by_key(|l| l.generation);
    let says = complete.unwrap_or(newest);
    let info = says.record.host.clone()?;
    Some(Host {
        info,
        liveness: newest.liveness,
        record: Arc::clone(&says.record),
        generation: says.generation,
        is_newest: says.generation == newest.generation,
    })
}

impl NetworkView {
    /// A network of which nothing is known but its definition.
    pub fn new(network: &Network) -> Self {
        Self {
            network: network.clone(),
            shadowed: false,
            apart: false,
            vnis: BTreeMap::new(),
            links: Links::default(),
            endpoints: BTreeMap::new(),
        }
    }

    /// Takes in an endpoint unless the network has no such address, or a better claim on its identity or on one of its
    /// addresses is there already.
    fn admit(&mut self, claim: &Claim<'_>, taken: &mut BTreeSet<(NetworkId, IpAddr)>) {
        let (id, endpoint) = (self.network.id, claim.endpoint);
        let addresses = || endpoint.addresses.iter().map(|a| a.address);
        let possible = addresses().all(|a| self.network.assignable(a) && !taken.contains(&(id, a)));
        if possible && !self.endpoints.contains_key(&endpoint.id) {
            taken.extend(addresses().map(|a| (id, a)));
            let located = Located { endpoint: Arc::clone(endpoint), host: claim.host, liveness: claim.liveness };
            self.endpoints.insert(endpoint.id, located);
        }
    }
}

/// A seal that is done counts more than one that is not; else the lower heir goes on.
fn seals<'a>(hosts: impl Iterator<Item = &'a Host>) -> BTreeMap<HostId, Seal> {
    let mut seals: BTreeMap<HostId, Seal> = BTreeMap::new();
    let rank = |seal: &Seal| (!seal.done, seal.heir);
    for (host, seal) in hosts.flat_map(|host| &host.record.seals) {
        let known = seals.entry(*host).or_insert(*seal);
        *known = std::cmp::min_by_key(*known, *seal, rank);
    }
    seals
}

/// What a host says of one of its endpoints, before it is compared with what others say.
struct Claim<'a> {
    endpoint: &'a Arc<Endpoint>,
    host: HostId,
    liveness: Liveness,
}

fn claims<'a>((id, host): (&HostId, &'a Host)) -> impl Iterator<Item = Claim<'a>> + use<'a> {
    let (id, liveness) = (*id, host.liveness);
    host.record.endpoints.values().map(move |endpoint| Claim { endpoint, host: id, liveness })
}

impl Claim<'_> {
    fn rank(&self) -> impl Ord + use<> {
        let lease = self.endpoint.addresses.iter().map(|a| a.lease).max();
        (lease, std::cmp::Reverse((self.endpoint.id, self.host)))
    }
}

/// A name means a network that can be used here if there is one, and of several the one that was created first; its rivals
/// are shown with their ids.
fn shadow(networks: &mut BTreeMap<NetworkId, NetworkView>) {
    let rank = |view: &NetworkView| (view.apart, view.network.created, view.network.id);
    let mut first: BTreeMap<Name, (bool, Lamport, NetworkId)> = BTreeMap::new();
    for view in networks.values() {
        let rank = rank(view);
        let best = first.entry(view.network.name.clone()).or_insert(rank);
        *best = rank.min(*best);
    }
    for view in networks.values_mut() {
        view.shadowed = first.get(&view.network.name) != Some(&rank(view));
    }
}

#[cfg(test)]
mod tests;
