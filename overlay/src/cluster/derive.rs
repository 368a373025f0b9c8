//! What all records mean together. A pure function of them, so that hosts that have received the same records agree, in
//! whatever order they received them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::cluster::endpoints::{Endpoints, Located};
use crate::cluster::view::{Cluster, Host, NetworkView};
use crate::model::endpoint::Endpoint;
use crate::model::host::Liveness;
use crate::model::id::{HostId, NetworkId};
use crate::model::member::Seal;
use crate::model::network::{Lamport, Name, Network};
use crate::model::record::{Incarnation, Record, Records};

/// What the records mean.
///
/// Of each host the newest incarnation counts, but an agent that is starting says nothing yet: until all has arrived that it
/// said at its start, the record of the incarnation before stays. Only the deletion of a network counts in any incarnation.
///
/// It is seen by a member of the cluster that `founder` founded, if there is one yet. Of hosts of a cluster that was founded
/// apart, neither seals nor deletions count, and a name means a network that can be used here.
pub fn derive(records: &Records, founder: Option<HostId>) -> Cluster {
    derive_all(records, founder).0
}

/// The same, and the networks that did not take all endpoints that hosts claim.
pub(super) fn derive_all(records: &Records, founder: Option<HostId>) -> (Cluster, BTreeSet<NetworkId>) {
    let mut cluster = Cluster { tombstones: tombstones(records, founder), ..Cluster::default() };
    let mut hosts: BTreeMap<HostId, Arc<Host>> =
        records.iter().filter_map(|(id, lives)| Some((*id, host(lives)?.into()))).collect();
    cluster.seals = seals(&hosts, founder);
    cluster.forgotten = hosts.extract_if(.., |id, _| is_forgotten(&cluster.seals, *id)).collect();
    let mut networks: BTreeMap<NetworkId, NetworkView> = BTreeMap::new();
    for (id, host) in &hosts {
        cluster.now = cluster.now.max(newest(&host.record));
        for (network_id, membership) in &host.record.networks {
            if !cluster.tombstones.contains(network_id) {
                let view = networks.entry(*network_id).or_insert_with(|| NetworkView::new(&membership.network));
                view.vnis.extend(membership.vni.map(|vni| (*id, vni)));
                host.record.links.get(network_id).into_iter().for_each(|links| view.links.join(links));
            }
        }
    }
    let mut contested = BTreeSet::new();
    let mut claims = claims(&hosts, |id| networks.contains_key(&id));
    for (id, view) in &mut networks {
        let (endpoints, is_contested) = admit(&view.network, claims.remove(id).unwrap_or_default());
        view.endpoints = endpoints;
        contested.extend(is_contested.then_some(*id));
    }
    let is_ours = |host: &&Arc<Host>| !host.info.is_apart_from(founder);
    let of_ours = hosts.values().filter(is_ours).flat_map(|host| host.record.networks.keys());
    let ours: BTreeSet<NetworkId> = of_ours.copied().collect();
    networks.values_mut().for_each(|view| view.apart = !ours.contains(&view.network.id));
    cluster.now = networks.values().filter_map(|view| view.links.newest()).fold(cluster.now, Lamport::max);
    cluster.hosts = hosts;
    cluster.networks = networks.into_iter().map(|(id, view)| (id, view.into())).collect();
    shadow(&mut cluster.networks);
    (cluster, contested)
}

/// What is deleted, also if only an earlier incarnation of a host said so: all incarnations of a host belong to one cluster.
pub(super) fn tombstones(records: &Records, founder: Option<HostId>) -> BTreeSet<NetworkId> {
    records.values().flat_map(|lives| deleted_by(lives, founder)).collect()
}

/// The networks that a host has deleted.
pub(super) fn deleted_by(lives: &[Incarnation], founder: Option<HostId>) -> impl Iterator<Item = NetworkId> {
    let info = lives.iter().find_map(|life| life.record.host.as_ref());
    let is_ours = founder.is_none() || info.is_some_and(|info| !info.is_apart_from(founder));
    let counted = lives.iter().filter(move |_| is_ours);
    counted.flat_map(|life| &life.record.tombstones).copied()
}

/// A host as its incarnations show it, once it has said what it is.
pub(super) fn host(lives: &[Incarnation]) -> Option<Host> {
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

/// The newest time that a record carries, but for those of links: these count only where there is the network.
pub(super) fn newest(record: &Record) -> Lamport {
    let networks = record.networks.values().map(|membership| membership.network.created);
    networks.chain(record.endpoints.values().map(|endpoint| endpoint.created)).max().unwrap_or_default()
}

/// A seal that is done counts more than one that is not; of two others the one with the lower heir counts.
pub(super) fn seals(hosts: &BTreeMap<HostId, Arc<Host>>, founder: Option<HostId>) -> BTreeMap<HostId, Seal> {
    let mut seals: BTreeMap<HostId, Seal> = BTreeMap::new();
    let rank = |seal: &Seal| (!seal.done, seal.heir);
    let ours = hosts.values().filter(|host| !host.info.is_apart_from(founder));
    for (host, seal) in ours.flat_map(|host| &host.record.seals) {
        let known = seals.entry(*host).or_insert(*seal);
        *known = std::cmp::min_by_key(*known, *seal, rank);
    }
    seals
}

/// Is the host forgotten?
pub(super) fn is_forgotten(seals: &BTreeMap<HostId, Seal>, host: HostId) -> bool {
    seals.get(&host).is_some_and(|seal| seal.done)
}

/// What a host says of one of its endpoints, before it is compared with what others say.
#[derive(Debug, Clone)]
pub(super) struct Claim<'a> {
    pub endpoint: &'a Arc<Endpoint>,
    pub host: HostId,
    pub liveness: Liveness,
}

/// The claims of all hosts, by network.
pub(super) fn claims(
    hosts: &BTreeMap<HostId, Arc<Host>>,
    is_meant: impl Fn(NetworkId) -> bool,
) -> BTreeMap<NetworkId, Vec<Claim<'_>>> {
    let mut claims: BTreeMap<NetworkId, Vec<Claim<'_>>> = BTreeMap::new();
    for (id, host) in hosts {
        for endpoint in host.record.endpoints.values().filter(|endpoint| is_meant(endpoint.network)) {
            let claim = Claim { endpoint, host: *id, liveness: host.liveness };
            claims.entry(endpoint.network).or_default().push(claim);
        }
    }
    claims
}

impl Claim<'_> {
    fn rank(&self) -> impl Ord + use<> {
        let lease = self.endpoint.addresses.iter().map(|a| a.lease).max();
        (lease, std::cmp::Reverse((self.endpoint.id, self.host)))
    }

    fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.endpoint.addresses.iter().map(|a| a.address)
    }

    /// Can an endpoint of the network have these addresses?
    pub fn is_possible(&self, network: &Network) -> bool {
        self.addresses().all(|address| network.assignable(address))
    }

    pub fn located(&self) -> Located {
        Located { endpoint: Arc::clone(self.endpoint), host: self.host, liveness: self.liveness }
    }
}

/// Takes in each endpoint unless the network has no such address, or there is a better claim on its identity or on one of its
/// addresses. The second value says whether there were two claims on anything.
///
/// Where two claim an address, the higher lease is right. A tie, which the ledger rules out, goes to the lower ID.
pub(super) fn admit(network: &Network, mut claims: Vec<Claim<'_>>) -> (Endpoints, bool) {
    claims.retain(|claim| claim.is_possible(network));
    let endpoints: Endpoints = claims.iter().map(Claim::located).collect();
    if endpoints.len() == claims.len() && endpoints.are_distinct() {
        return (endpoints, false);
    }
    claims.sort_by_cached_key(|claim| std::cmp::Reverse(claim.rank()));
    let (mut taken, mut admitted) = (BTreeSet::new(), BTreeMap::new());
    for claim in claims {
        if claim.addresses().all(|address| !taken.contains(&address)) && !admitted.contains_key(&claim.endpoint.id) {
            taken.extend(claim.addresses());
            admitted.insert(claim.endpoint.id, claim.located());
        }
    }
    (admitted.into_values().collect(), true)
}

/// A name means a network that can be used here if there is one, and of several the one that was created first; its rivals
/// are shown with their IDs.
pub(super) fn shadow(networks: &mut BTreeMap<NetworkId, Arc<NetworkView>>) {
    let rank = |view: &NetworkView| (view.apart, view.network.created, view.network.id);
    let mut first: BTreeMap<Name, (bool, Lamport, NetworkId)> = BTreeMap::new();
    for view in networks.values() {
        let rank = rank(view);
        let best = first.entry(view.network.name.clone()).or_insert(rank);
        *best = rank.min(*best);
    }
    for view in networks.values_mut() {
        let shadowed = first.get(&view.network.name) != Some(&rank(view));
        if view.shadowed != shadowed {
            Arc::make_mut(view).shadowed = shadowed;
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
