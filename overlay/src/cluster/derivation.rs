//! The cluster, derived step by step: of the cluster before only what the changed records touch is made anew.
//!
//! [`derive`](crate::cluster::derive()) from nothing says what is right; this says the same, and shares what has not changed.
//!
//! What a host says of a network touches that network only. Deletions, seals and what belongs to a cluster that was founded
//! apart touch the networks of the hosts that they are about. Names are compared across networks, but only when a network
//! comes, goes, or gets another definition.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::cluster::derive::{Claim, admit, claims, deleted_by, derive_all, host, is_forgotten};
use crate::cluster::derive::{newest, seals, shadow, tombstones};
use crate::cluster::endpoints::{Endpoints, Located};
use crate::cluster::view::{Cluster, Host, NetworkView};
use crate::model::difference::{Difference, differences};
use crate::model::endpoint::Endpoint;
use crate::model::id::{EndpointId, HostId, NetworkId};
use crate::model::network::{Lamport, Name, Network};
use crate::model::record::{Incarnation, Records};

/// The cluster that was derived last, and what it was derived from.
#[derive(Debug, Default)]
pub struct Derivation {
    founder: Option<HostId>,
    records: Records,
    cluster: Arc<Cluster>,
    /// The networks in which two hosts claim the same: these are made from all claims.
    contested: BTreeSet<NetworkId>,
    /// The newest time in each host's record.
    newest: BTreeMap<HostId, Lamport>,
}

/// How a host changed, as the others see it.
type HostChange<'a> = Difference<'a, HostId, Arc<Host>>;
/// How the incarnations of a host changed.
type LivesChange<'a> = Difference<'a, HostId, Vec<Incarnation>>;

/// What changes in one network.
#[derive(Debug, Default)]
struct Touched<'a> {
    /// Does anything change but for its endpoints?
    frame: bool,
    gone: Vec<(EndpointId, HostId)>,
    come: Vec<Claim<'a>>,
}

impl Derivation {
    /// The cluster that these records mean to a member of the cluster that `founder` founded. Hosts and networks that are the
    /// same as in the cluster before are the same `Arc`, and so is the cluster if all are.
    pub fn derive(&mut self, records: &Records, founder: Option<HostId>) -> &Arc<Cluster> {
        if self.founder != founder || self.records.is_empty() {
            self.derive_from_nothing(records, founder);
            return &self.cluster;
        }
        let before = std::mem::take(&mut self.records);
        let changed = differences(&before, records, |old, new| old == new);
        if !changed.is_empty() {
            self.cluster = Arc::new(self.changed(&changed, records));
        }
        let now: Vec<(HostId, Option<Vec<Incarnation>>)> =
            changed.iter().map(|(id, _, now)| (**id, now.cloned())).collect();
        self.records = before;
        for (id, lives) in now {
            match lives {
                Some(lives) => drop(self.records.insert(id, lives)),
                None => drop(self.records.remove(&id)),
            }
        }
        &self.cluster
    }

    fn derive_from_nothing(&mut self, records: &Records, founder: Option<HostId>) {
        let (mut cluster, contested) = derive_all(records, founder);
        for (id, view) in &mut cluster.networks {
            keep(view, self.cluster.networks.get(id));
        }
        for (id, host) in &mut cluster.hosts {
            keep(host, self.cluster.hosts.get(id));
        }
        self.newest = cluster.hosts.iter().map(|(id, host)| (*id, newest(&host.record))).collect();
        self.contested = contested;
        (self.founder, self.records) = (founder, records.clone());
        if *self.cluster != cluster {
            self.cluster = Arc::new(cluster);
        }
    }

    /// The cluster after these changes.
    fn changed(&mut self, changed: &[LivesChange<'_>], records: &Records) -> Cluster {
        let before = Arc::clone(&self.cluster);
        let mut cluster = self.with_hosts(changed);
        let deleted = |lives: Option<&Vec<Incarnation>>| -> BTreeSet<NetworkId> {
            lives.into_iter().flat_map(|lives| deleted_by(lives, self.founder)).collect()
        };
        cluster.tombstones = match changed.iter().any(|(_, old, new)| deleted(*old) != deleted(*new)) {
            true => tombstones(records, self.founder),
            false => before.tombstones.clone(),
        };
        let host_changes = differences(&before.hosts, &cluster.hosts, Arc::ptr_eq);
        for (id, _, host) in &host_changes {
            match host {
                Some(host) => drop(self.newest.insert(**id, newest(&host.record))),
                None => drop(self.newest.remove(id)),
            }
        }
        let mut touched = self.touched(&host_changes);
        for id in cluster.tombstones.symmetric_difference(&before.tombstones) {
            touched.entry(*id).or_default().frame = true;
        }
        cluster.networks.clone_from(&before.networks);
        let networks = self.networks(touched, &cluster);
        let is_renamed = networks.iter().any(|(id, view)| name_of(before.networks.get(id)) != name_of(view.as_ref()));
        for (id, view) in networks {
            match view {
                Some(view) => drop(cluster.networks.insert(id, view)),
                None => drop(cluster.networks.remove(&id)),
            }
        }
        if is_renamed {
            shadow(&mut cluster.networks);
        }
        let of_links = cluster.networks.values().filter_map(|view| view.links.newest());
        cluster.now = self.newest.values().copied().chain(of_links).max().unwrap_or_default();
        cluster
    }

    /// A cluster of no networks with the hosts, those that are forgotten, and the seals after these changes.
    fn with_hosts(&self, changed: &[LivesChange<'_>]) -> Cluster {
        let before = &self.cluster;
        let mut hosts = before.hosts.clone();
        hosts.extend(before.forgotten.iter().map(|(id, host)| (*id, Arc::clone(host))));
        let counted = |host: Option<&Arc<Host>>| {
            host.filter(|host| !host.info.is_apart_from(self.founder)).map(|host| host.record.seals.clone())
        };
        let mut are_sealed_anew = false;
        for (id, _, lives) in changed {
            let (old, new) = (hosts.remove(id), lives.and_then(|lives| host(lives)).map(Arc::new));
            let (old_seals, new_seals) = (counted(old.as_ref()), counted(new.as_ref()));
            are_sealed_anew |= old_seals.unwrap_or_default() != new_seals.unwrap_or_default();
            hosts.extend(new.map(|mut new| {
                keep(&mut new, old.as_ref());
                (**id, new)
            }));
        }
        let seals = if are_sealed_anew { seals(&hosts, self.founder) } else { before.seals.clone() };
        let forgotten = hosts.extract_if(.., |id, _| is_forgotten(&seals, *id)).collect();
        Cluster { hosts, forgotten, seals, ..Cluster::default() }
    }

    /// The networks that changes of hosts touch, and how.
    fn touched<'a>(&self, changes: &[HostChange<'a>]) -> BTreeMap<NetworkId, Touched<'a>> {
        static NOTHING: BTreeMap<EndpointId, Arc<Endpoint>> = BTreeMap::new();
        let mut touched: BTreeMap<NetworkId, Touched<'a>> = BTreeMap::new();
        for (id, old, new) in changes {
            for network in self.reframed(*old, *new) {
                touched.entry(network).or_default().frame = true;
            }
            let liveness = |host: &Option<&'a Arc<Host>>| host.map(|host| host.liveness);
            let is_judged_alike = liveness(old) == liveness(new);
            let endpoints = |host: &Option<&'a Arc<Host>>| host.map_or(&NOTHING, |host| &host.record.endpoints);
            let same = |old: &Arc<Endpoint>, new: &Arc<Endpoint>| is_judged_alike && old == new;
            for (endpoint, old, come) in differences(endpoints(old), endpoints(new), same) {
                if let Some(gone) = old {
                    touched.entry(gone.network).or_default().gone.push((*endpoint, **id));
                }
                if let (Some(endpoint), Some(liveness)) = (come, liveness(new)) {
                    let claim = Claim { endpoint, host: **id, liveness };
                    touched.entry(endpoint.network).or_default().come.push(claim);
                }
            }
        }
        touched
    }

    /// The networks of which a host says something else now, but for its endpoints.
    fn reframed(&self, old: Option<&Arc<Host>>, new: Option<&Arc<Host>>) -> BTreeSet<NetworkId> {
        let is_apart = |host: &Arc<Host>| host.info.is_apart_from(self.founder);
        match (old, new) {
            (Some(old), Some(new)) if is_apart(old) == is_apart(new) => {
                let (old, new) = (&old.record, &new.record);
                let networks = differences(&old.networks, &new.networks, |old, new| old == new);
                let links = differences(&old.links, &new.links, |old, new| old == new);
                let ids = networks.into_iter().map(|(id, ..)| *id);
                ids.chain(links.into_iter().map(|(id, ..)| *id)).collect()
            }
            _ => old.into_iter().chain(new).flat_map(|host| host.record.networks.keys()).copied().collect(),
        }
    }

    /// The touched networks as they are now; `None` for those that are no more. `cluster` has the hosts and tombstones of now
    /// and the networks of before.
    fn networks(
        &mut self,
        touched: BTreeMap<NetworkId, Touched<'_>>,
        cluster: &Cluster,
    ) -> BTreeMap<NetworkId, Option<Arc<NetworkView>>> {
        let (mut made, mut unfilled) = (BTreeMap::new(), BTreeMap::new());
        for (id, touch) in touched {
            let before = cluster.networks.get(&id);
            let frame = match touch.frame {
                true => self.frame(id, cluster),
                false => before.map(|before| without_endpoints(before)),
            };
            let Some(mut view) = frame else {
                self.contested.remove(&id);
                made.insert(id, None);
                continue;
            };
            view.shadowed = before.is_some_and(|before| before.shadowed);
            let may_change =
                |before: &&Arc<NetworkView>| before.network == view.network && !self.contested.contains(&id);
            match before.filter(may_change).and_then(|before| change(&before.endpoints, &view.network, &touch)) {
                Some(endpoints) => {
                    view.endpoints = endpoints;
                    made.insert(id, Some(Arc::new(view)));
                }
                None => drop(unfilled.insert(id, view)),
            }
        }
        let mut claims = match unfilled.is_empty() {
            true => BTreeMap::new(),
            false => claims(&cluster.hosts, |id| unfilled.contains_key(&id)),
        };
        for (id, mut view) in unfilled {
            let (endpoints, is_contested) = admit(&view.network, claims.remove(&id).unwrap_or_default());
            match is_contested {
                true => self.contested.insert(id),
                false => self.contested.remove(&id),
            };
            view.endpoints = endpoints;
            made.insert(id, Some(Arc::new(view)));
        }
        for (id, view) in &mut made {
            view.iter_mut().for_each(|view| keep(view, cluster.networks.get(id)));
        }
        made
    }

    /// All of a network but its endpoints, from what all hosts say; `None` if it is deleted, or no host keeps it.
    fn frame(&self, id: NetworkId, cluster: &Cluster) -> Option<NetworkView> {
        let mut frame: Option<NetworkView> = None;
        let hosts = cluster.hosts.iter().filter(|_| !cluster.tombstones.contains(&id));
        for (host_id, host) in hosts {
            let Some(membership) = host.record.networks.get(&id) else { continue };
            let view =
                frame.get_or_insert_with(|| NetworkView { apart: true, ..NetworkView::new(&membership.network) });
            view.vnis.extend(membership.vni.map(|vni| (*host_id, vni)));
            view.apart &= host.info.is_apart_from(self.founder);
            host.record.links.get(&id).into_iter().for_each(|links| view.links.join(links));
        }
        frame
    }
}

fn without_endpoints(view: &NetworkView) -> NetworkView {
    let NetworkView { network, shadowed, apart, vnis, links, endpoints: _ } = view;
    NetworkView {
        network: network.clone(),
        shadowed: *shadowed,
        apart: *apart,
        vnis: vnis.clone(),
        links: links.clone(),
        endpoints: Endpoints::default(),
    }
}

/// The endpoints after these changes of claims; `None` if two claim the same now. Before, no two did.
fn change(before: &Endpoints, network: &Network, touch: &Touched<'_>) -> Option<Endpoints> {
    let admitted = |(id, host): &&(EndpointId, HostId)| before.get(id).is_some_and(|located| located.host == *host);
    let gone: Vec<EndpointId> = touch.gone.iter().filter(admitted).map(|(id, _)| *id).collect();
    let possible = touch.come.iter().filter(|claim| claim.is_possible(network));
    let come: Vec<Located> = possible.map(Claim::located).collect();
    let expected = before.len() + come.len() - gone.len();
    let mut endpoints = before.clone();
    endpoints.change(&gone, come);
    (endpoints.len() == expected && endpoints.are_distinct()).then_some(endpoints)
}

/// What decides whether a network's name means it.
fn name_of(view: Option<&Arc<NetworkView>>) -> Option<(&Name, bool, Lamport)> {
    view.map(|view| (&view.network.name, view.apart, view.network.created))
}

/// Shares what is the same as before.
fn keep<T: PartialEq>(now: &mut Arc<T>, before: Option<&Arc<T>>) {
    if let Some(before) = before.filter(|before| before == &now) {
        *now = Arc::clone(before);
    }
}

#[cfg(test)]
mod tests;
