//! The endpoints of a network with their hosts, found by ID, by address and by name.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;

use crate::model::endpoint::Endpoint;
use crate::model::host::Liveness;
use crate::model::id::{EndpointId, HostId};
use crate::model::network::Name;

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

/// The endpoints of a network. Reads like a map by ID.
///
/// The two indices are sorted vectors: a copy of one is a single block of memory, and every change makes a copy.
#[derive(Debug, Clone, Default)]
pub struct Endpoints {
    by_id: BTreeMap<EndpointId, Located>,
    by_address: Vec<(IpAddr, EndpointId)>,
    /// By the hash of each of their names and aliases.
    by_name: Vec<(u64, EndpointId)>,
}

/// More changes than this at once, and the indices are made anew rather than changed.
const FEW: usize = 64;

impl Endpoints {
    /// The endpoint with this address.
    pub fn at(&self, address: IpAddr) -> Option<&Located> {
        let start = self.by_address.partition_point(|(known, _)| *known < address);
        let (found, id) = self.by_address.get(start)?;
        self.by_id.get(id).filter(|_| *found == address)
    }

    /// The endpoints with this name or alias.
    pub fn called<'a>(&'a self, name: &Name) -> impl Iterator<Item = &'a Located> {
        let hash = hash(name);
        let start = self.by_name.partition_point(|(known, _)| *known < hash);
        let same_hash = self.by_name[start..].iter().take_while(move |(known, _)| *known == hash);
        let located = same_hash.filter_map(|(_, id)| self.by_id.get(id));
        located.filter(move |located| located.endpoint.names().any(|own| own == name))
    }

    /// Has no address more than one endpoint?
    pub(super) fn are_distinct(&self) -> bool {
        self.by_address.windows(2).all(|pair| pair[0].0 != pair[1].0)
    }

    /// Removes endpoints, then adds others. One that is there already under the ID is replaced.
    pub(super) fn change(&mut self, gone: &[EndpointId], come: Vec<Located>) {
        if gone.len() + come.len() > FEW {
            gone.iter().for_each(|id| drop(self.by_id.remove(id)));
            self.by_id.extend(come.into_iter().map(|located| (located.endpoint.id, located)));
            self.index();
            return;
        }
        gone.iter().for_each(|id| self.remove(*id));
        for located in come {
            let id = located.endpoint.id;
            self.remove(id);
            located.addresses().for_each(|address| insert(&mut self.by_address, (address, id)));
            located.endpoint.names().for_each(|name| insert(&mut self.by_name, (hash(name), id)));
            self.by_id.insert(id, located);
        }
    }

    fn remove(&mut self, id: EndpointId) {
        let Some(located) = self.by_id.remove(&id) else { return };
        located.addresses().for_each(|address| remove(&mut self.by_address, &(address, id)));
        located.endpoint.names().for_each(|name| remove(&mut self.by_name, &(hash(name), id)));
    }

    fn index(&mut self) {
        let addresses = self.by_id.iter().flat_map(|(id, l)| l.addresses().map(|address| (address, *id)));
        self.by_address = addresses.collect();
        self.by_address.sort_unstable();
        self.by_address.dedup();
        let names = self.by_id.iter().flat_map(|(id, l)| l.endpoint.names().map(|name| (hash(name), *id)));
        self.by_name = names.collect();
        self.by_name.sort_unstable();
        self.by_name.dedup();
    }
}

impl Deref for Endpoints {
    type Target = BTreeMap<EndpointId, Located>;

    fn deref(&self) -> &Self::Target {
        &self.by_id
    }
}

impl FromIterator<Located> for Endpoints {
    fn from_iter<I: IntoIterator<Item = Located>>(located: I) -> Self {
        let by_id = located.into_iter().map(|located| (located.endpoint.id, located)).collect();
        let mut endpoints = Self { by_id, ..Self::default() };
        endpoints.index();
        endpoints
    }
}

/// The indices follow from the endpoints.
impl PartialEq for Endpoints {
    fn eq(&self, other: &Self) -> bool {
        self.by_id == other.by_id
    }
}

impl Eq for Endpoints {}

/// The keys of the hash are fixed: the worst that well-chosen names do is to make a lookup as slow as a search.
fn hash(name: &Name) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

fn insert<K: Ord>(index: &mut Vec<(K, EndpointId)>, entry: (K, EndpointId)) {
    if let Err(place) = index.binary_search(&entry) {
        index.insert(place, entry);
    }
}

fn remove<K: Ord>(index: &mut Vec<(K, EndpointId)>, entry: &(K, EndpointId)) {
    if let Ok(place) = index.binary_search(entry) {
        index.remove(place);
    }
}

#[cfg(test)]
mod tests;
