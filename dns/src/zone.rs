//! The zone: every name that is to be resolved now, a pure function of the cluster.
//!
//! Owns the meaning of names; knows nothing of packets, sockets or time.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use overlay::cluster::{Cluster, Located, NetworkView};
use overlay::model::addr::Subnet;
use overlay::model::endpoint::Endpoint;
use overlay::model::host::Liveness;
use overlay::model::id::NetworkId;
use overlay::model::intent::{Attachment, Intents};
use overlay::model::network::Name;

/// Bytes in the longest label (RFC 1035, section 2.3.4).
const LONGEST_LABEL: usize = 63;

/// The names of the networks that this host has endpoints in.
///
/// They are looked up in the networks themselves, which the zone shares with the cluster. So a change anywhere costs the zone
/// nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Zone {
    networks: BTreeMap<NetworkId, Arc<NetworkView>>,
    /// For each address of a container of this host that is in several networks: those networks.
    together: Arc<BTreeMap<Asker, Vec<NetworkId>>>,
}

/// Who asks: the network whose listener was asked, and the source address of the question.
///
/// Networks may share a subnet, so an address alone says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Asker {
    /// The network of the listener.
    pub network: NetworkId,
    /// The source address. It need not be an endpoint's: whatever can reach the listener is inside the segment.
    pub address: IpAddr,
}

/// The names of one network.
#[derive(Debug, Clone, Copy)]
pub struct Names<'a>(&'a NetworkView);

impl Zone {
    /// The names of all endpoints on hosts that are live. A host that is only suspected has its names withdrawn: to
    /// resolve to a neighbour is better than to resolve to nobody.
    pub fn build(cluster: &Cluster, intents: &Intents) -> Self {
        Self { networks: networks(cluster, intents), together: Arc::new(together(intents)) }
    }

    /// The zone of another cluster, for the same intents; `None` if it is the same zone.
    pub fn follow(&self, cluster: &Cluster, intents: &Intents) -> Option<Self> {
        let networks = networks(cluster, intents);
        let is_same = self.networks.len() == networks.len()
            && self.networks.iter().zip(&networks).all(|(old, new)| old.0 == new.0 && Arc::ptr_eq(old.1, new.1));
        (!is_same).then(|| Self { networks, together: Arc::clone(&self.together) })
    }

    /// The networks whose names the asker may know: those that its container is in. The one that it asked in comes first, then
    /// the others in the order in which they are its way out.
    pub fn networks_of(&self, asker: &Asker) -> impl Iterator<Item = Names<'_>> + use<'_> {
        let asked = asker.network;
        let others = self.together.get(asker).into_iter().flatten().copied().filter(move |id| *id != asked);
        std::iter::once(asked).chain(others).filter_map(|id| self.networks.get(&id).map(|view| Names(view)))
    }
}

/// Those that this host has endpoints in: only their listeners are asked, by containers that are in no others.
fn networks(cluster: &Cluster, intents: &Intents) -> BTreeMap<NetworkId, Arc<NetworkView>> {
    let here = intents.seats.keys();
    here.filter_map(|id| Some((*id, Arc::clone(cluster.networks.get(id)?)))).collect()
}

fn together(intents: &Intents) -> BTreeMap<Asker, Vec<NetworkId>> {
    let mut containers: BTreeMap<u64, Vec<&Attachment>> = BTreeMap::new();
    for attachment in intents.attachments.values() {
        containers.entry(attachment.netns.cookie).or_default().push(attachment);
    }
    let mut all = BTreeMap::new();
    for mut attached in containers.into_values().filter(|attached| attached.len() > 1) {
        // Networks without a way out come last.
        let internal = |network| intents.networks.get(network).is_some_and(|network| network.settings.internal);
        attached.sort_by_key(|a| (internal(&a.endpoint.network), a.metric, a.endpoint.id));
        let networks: Vec<NetworkId> = attached.iter().map(|attachment| attachment.endpoint.network).collect();
        for endpoint in attached.iter().map(|attachment| &attachment.endpoint) {
            let askers = addresses_of(endpoint).map(|address| Asker { network: endpoint.network, address });
            all.extend(askers.map(|asker| (asker, networks.clone())));
        }
    }
    all
}

impl<'a> Names<'a> {
    /// The last label of the names in the network: what people see as its name. A doubled name with a mark of its own
    /// may be too long for a label; then it is the plain one, which those in the network can resolve as well.
    pub fn label(&self) -> Cow<'a, str> {
        let name = self.0.network.name.as_str();
        let marked = self.0.shadowed.then(|| self.0.shown_name()).filter(|shown| shown.len() <= LONGEST_LABEL);
        marked.map_or(Cow::Borrowed(name), Cow::Owned)
    }

    /// Is this label what people see as the network's name?
    pub fn is_shown_as(&self, label: &[u8]) -> bool {
        self.0.is_shown_as(label)
    }

    /// Is this label the name that the network was created under, which may mean another network as well?
    pub fn is_named(&self, label: &[u8]) -> bool {
        self.0.network.name.as_str().as_bytes().eq_ignore_ascii_case(label)
    }

    /// The addresses of the endpoint with this name, or of all those with this alias, sorted; none if there is no such name.
    ///
    /// A name beats an alias, or one endpoint could take over another's name by calling itself the same.
    pub fn addresses(&self, name: &Name) -> Vec<IpAddr> {
        let mut addresses: Vec<IpAddr> = match self.0.named(name).filter(|located| is_live(located)) {
            Some(bearer) => addresses_of(&bearer.endpoint).collect(),
            None => {
                let aliased = |located: &&Located| is_live(located) && located.endpoint.aliases.contains(name);
                let called = self.0.endpoints.called(name).filter(aliased);
                called.flat_map(|located| addresses_of(&located.endpoint)).collect()
            }
        };
        addresses.sort_unstable();
        addresses.dedup();
        addresses
    }

    /// Does an endpoint have this name or alias, whether or not its host is live?
    pub fn is_taken(&self, name: &Name) -> bool {
        let mut called = self.0.endpoints.called(name);
        self.0.named(name).is_some() || called.any(|located| located.endpoint.aliases.contains(name))
    }

    /// The name of the endpoint with this address.
    pub fn owner(&self, address: IpAddr) -> Option<&'a Name> {
        self.0.at(address).filter(|located| is_live(located)).map(|located| &located.endpoint.name)
    }

    /// Does nothing lead out of the network, not even a question?
    pub fn is_internal(&self) -> bool {
        self.0.network.settings.internal
    }

    /// The network's subnets.
    pub fn subnets(&self) -> impl Iterator<Item = &'a Subnet> {
        self.0.network.ranges.iter().map(|range| &range.subnet)
    }
}

fn is_live(located: &Located) -> bool {
    located.liveness == Liveness::Live
}

fn addresses_of(endpoint: &Endpoint) -> impl Iterator<Item = IpAddr> + '_ {
    endpoint.addresses.iter().map(|assigned| assigned.address)
}

#[cfg(test)]
mod tests;
