//! The zone: every name that is to be resolved now, a pure function of the cluster.
//!
//! Owns the meaning of names; knows nothing of packets, sockets or time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use overlay::cluster::{Cluster, Located, NetworkView};
use overlay::model::addr::Subnet;
use overlay::model::endpoint::Endpoint;
use overlay::model::host::Liveness;
use overlay::model::id::NetworkId;
use overlay::model::intent::{Attachment, Intents};
use overlay::model::network::Name;

/// Bytes in the longest label (RFC 1035, section 2.3.4).
const LONGEST_LABEL: usize = 63;

/// The names of all networks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Zone {
    networks: BTreeMap<NetworkId, Names>,
    /// Of the containers of this host that are in several networks: which those are, by each of their addresses.
    together: BTreeMap<Asker, Vec<NetworkId>>,
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    shown: String,
    name: Name,
    internal: bool,
    subnets: Vec<Subnet>,
    addresses: BTreeMap<Name, BTreeSet<IpAddr>>,
    owners: BTreeMap<IpAddr, Name>,
}

impl Zone {
    /// The names of all endpoints on hosts that are live. A host that is only suspected has its names withdrawn: to
    /// resolve to a neighbour is better than to resolve to nobody.
    pub fn build(cluster: &Cluster, intents: &Intents) -> Self {
        Self {
            networks: cluster.networks.iter().map(|(id, view)| (*id, Names::of(view))).collect(),
            together: together(intents),
        }
    }

    /// The networks whose names the asker may know: those that its container is in. The one that it asked in comes first, then
    /// the others in the order in which they are its way out.
    pub fn networks_of(&self, asker: &Asker) -> impl Iterator<Item = &Names> + use<'_> {
        let asked = asker.network;
        let others = self.together.get(asker).into_iter().flatten().copied().filter(move |id| *id != asked);
        std::iter::once(asked).chain(others).filter_map(|id| self.networks.get(&id))
    }
}

fn together(intents: &Intents) -> BTreeMap<Asker, Vec<NetworkId>> {
    let mut containers: BTreeMap<u64, Vec<&Attachment>> = BTreeMap::new();
    for attachment in intents.attachments.values() {
        containers.entry(attachment.netns.cookie).or_default().push(attachment);
    }
    let mut all = BTreeMap::new();
    for mut attached in containers.into_values().filter(|attached| attached.len() > 1) {
        // Of those without a way out none is the way out.
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

impl Names {
    fn of(view: &NetworkView) -> Self {
        let mut addresses: BTreeMap<Name, BTreeSet<IpAddr>> = BTreeMap::new();
        let mut owners = BTreeMap::new();
        for endpoint in view.endpoints.values().filter(|l| is_live(l)).map(|l| &l.endpoint) {
            for alias in &endpoint.aliases {
                addresses.entry(alias.clone()).or_default().extend(addresses_of(endpoint));
            }
            owners.extend(addresses_of(endpoint).map(|address| (address, endpoint.name.clone())));
        }
        // A name beats an alias, or one endpoint could take over another's name by calling itself the same.
        for (name, located) in bearers(view).into_iter().filter(|(_, l)| is_live(l)) {
            addresses.insert(name.clone(), addresses_of(&located.endpoint).collect());
        }
        let subnets = view.network.ranges.iter().map(|range| range.subnet).collect();
        let (name, internal) = (view.network.name.clone(), view.network.settings.internal);
        Self { shown: view.shown_name(), name, internal, subnets, addresses, owners }
    }

    /// The last label of the names in the network: what people see as its name. A doubled name with a mark of its own
    /// may be too long for a label; then it is the plain one, which those in the network can resolve as well.
    pub fn label(&self) -> &str {
        if self.shown.len() <= LONGEST_LABEL { &self.shown } else { self.name.as_str() }
    }

    /// Is this label what people see as the network's name?
    pub fn is_shown_as(&self, label: &[u8]) -> bool {
        self.shown.as_bytes().eq_ignore_ascii_case(label)
    }

    /// Is this label the name that the network was created under, which may mean another network as well?
    pub fn is_named(&self, label: &[u8]) -> bool {
        self.name.as_str().as_bytes().eq_ignore_ascii_case(label)
    }

    /// The addresses of the endpoint with this name, or of all those with this alias; never empty.
    pub fn addresses(&self, name: &Name) -> Option<&BTreeSet<IpAddr>> {
        self.addresses.get(name)
    }

    /// The name of the endpoint with this address.
    pub fn owner(&self, address: IpAddr) -> Option<&Name> {
        self.owners.get(&address)
    }

    /// Does nothing lead out of the network, not even a question?
    pub fn is_internal(&self) -> bool {
        self.internal
    }

    /// The network's subnets.
    pub fn subnets(&self) -> &[Subnet] {
        &self.subnets
    }
}

/// Each name and the endpoint that it means, live or not.
fn bearers(view: &NetworkView) -> BTreeMap<&Name, &Located> {
    let mut bearers: BTreeMap<&Name, &Located> = BTreeMap::new();
    let mut doubled = BTreeSet::new();
    for located in view.endpoints.values() {
        let name = &located.endpoint.name;
        if bearers.insert(name, located).is_some() {
            doubled.insert(name);
        }
    }
    // `named` says who wins, but looks at every endpoint: it is asked only where there is a doubt.
    bearers.extend(doubled.into_iter().filter_map(|name| Some((name, view.named(name)?))));
    bearers
}

fn is_live(located: &Located) -> bool {
    located.liveness == Liveness::Live
}

fn addresses_of(endpoint: &Endpoint) -> impl Iterator<Item = IpAddr> + '_ {
    endpoint.addresses.iter().map(|assigned| assigned.address)
}

#[cfg(test)]
mod tests;
