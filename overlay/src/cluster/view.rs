//! The types of the cluster as a host sees it: hosts, networks and their endpoints.
//!
//! Hosts and networks are shared (`Arc`), so that a cluster in which one network has changed has all the others in common with
//! the cluster before. Two clusters with the same `Arc` of a network have the same network.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::cluster::endpoints::{Endpoints, Located};
use crate::model::host::{HostInfo, Liveness};
use crate::model::id::{HostId, NetworkId, Vni};
use crate::model::intent::Intents;
use crate::model::links::Links;
use crate::model::member::Seal;
use crate::model::network::{Lamport, Name, Network};
use crate::model::record::Record;

/// What the hosts know together.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cluster {
    /// The hosts, without those that are forgotten.
    pub hosts: BTreeMap<HostId, Arc<Host>>,
    /// The hosts that are forgotten: of what they say, only the deletions of networks count.
    pub forgotten: BTreeMap<HostId, Arc<Host>>,
    /// The sealed hosts, each with its heir.
    pub seals: BTreeMap<HostId, Seal>,
    /// The networks that are not deleted.
    pub networks: BTreeMap<NetworkId, Arc<NetworkView>>,
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
    /// The incarnation that said it.
    pub generation: u64,
    /// Is that the newest incarnation? If not, the newest one has not said all yet.
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
    pub endpoints: Endpoints,
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
            endpoints: Endpoints::default(),
        }
    }

    /// What people see: the name, or `name~id` where the name means another network.
    pub fn shown_name(&self) -> String {
        if self.shadowed {
            format!("{}~{}", self.network.name, self.network.id.short())
        } else {
            self.network.name.to_string()
        }
    }

    /// Is this text, in any case, what people see as the network's name?
    pub fn is_shown_as(&self, text: &[u8]) -> bool {
        // The names of most networks are compared without being written down.
        let name = self.network.name.as_str().as_bytes();
        let may_be = text.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
        let shows_id = || self.shown_name().as_bytes().eq_ignore_ascii_case(text);
        may_be && if self.shadowed { shows_id() } else { text.len() == name.len() }
    }

    /// The endpoint with this address.
    pub fn at(&self, address: IpAddr) -> Option<&Located> {
        self.endpoints.at(address)
    }

    /// The endpoint that this name means: where two hosts gave it at once, the one attached first.
    pub fn named(&self, name: &Name) -> Option<&Located> {
        let named = self.endpoints.called(name).filter(|l| l.endpoint.name == *name);
        named.min_by_key(|l| (l.liveness == Liveness::Dead, l.endpoint.created, l.endpoint.id))
    }
}

impl Cluster {
    /// What people call a network. A deleted one that still has endpoints on this host is in no cluster, but in its `intents`.
    pub fn name_of(&self, network: NetworkId, intents: &Intents) -> String {
        let shown = self.networks.get(&network).map(|view| view.shown_name());
        let deleted = || intents.networks.get(&network).map(|network| network.name.to_string());
        shown.or_else(deleted).unwrap_or_else(|| network.short())
    }

    /// Is a host's identity alive at another address than the one that it calls from? Then its disk was copied.
    pub fn is_elsewhere(&self, caller: HostId, from: IpAddr) -> bool {
        // A host that boots with another address than before is heard before all of it is.
        let is_alive = |host: &Host| host.is_newest && host.liveness == Liveness::Live;
        let known = self.hosts.get(&caller);
        known.is_some_and(|host| is_alive(host) && host.info.peer.ip().to_canonical() != from.to_canonical())
    }

    /// The founder of the cluster that a host says it belongs to.
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
        let views = || self.networks.values().map(Arc::as_ref);
        if let Some(view) = views().find(|v| v.is_shown_as(text.as_bytes())) {
            return Some(view);
        }
        // `name~id` still works after the other network with the name has gone.
        let mut meant = views().filter(|v| v.network.may_be_called(text));
        meant.next().filter(|_| meant.next().is_none())
    }
}
