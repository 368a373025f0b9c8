//! An endpoint of this host comes: everything about it is decided at once, from what was gathered before.
//!
//! The caller gathers the cluster as it is seen, what is in the container, and which ports of this host can't be had. If another
//! host has to be asked for an address or for space, the answer says so; the caller asks, tells the ledger what it was answered,
//! and decides again.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use super::container::{Container, ContainerRefusal, Priority};
use super::hear::Learn;
use super::publish_port::{self, Obstacles, PortError, WantedPort};
use super::{Change, Decision, Draft, Request, State};
use crate::cluster::bootstrap::reachable;
use crate::cluster::{Cluster, NetworkView};
use crate::ledger::{self, Ask, Denial, Input, Millis, Outcome};
use crate::model::addr::{IfName, Mac};
use crate::model::endpoint::{Assigned, Endpoint};
use crate::model::host::Liveness;
use crate::model::id::{EndpointId, HostId, NetworkId};
use crate::model::intent::Attachment;
use crate::model::network::{Name, Range, Unfit};

mod ask;
mod idempotency;

pub use ask::Reply;
pub use idempotency::{attached_as, difference};

/// How many further names an endpoint may have: all that is said of it has to fit into one value of gossip.
pub const MAX_ALIASES: usize = 64;

/// An endpoint as it is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointSpec {
    /// The network, as people call it.
    pub network: String,
    /// Where the container's network namespace is.
    pub netns: PathBuf,
    /// Its name.
    pub name: Name,
    /// Further names.
    pub aliases: BTreeSet<Name>,
    /// The addresses that it must have, one of each subnet at most.
    pub addresses: BTreeSet<IpAddr>,
    /// The MAC that it must have.
    pub mac: Option<Mac>,
    /// The interface in the container; `None` for the first of eth0, eth1, ... that the container does not have.
    pub ifname: Option<IfName>,
    /// Of the networks that a container is in, the one with the highest priority is its way out.
    pub priority: Priority,
    /// The id of the endpoint, if the request may be made again.
    pub id: Option<EndpointId>,
    /// The ports of this host that are to lead to it.
    pub ports: Vec<WantedPort>,
}

/// An endpoint is to be attached.
#[derive(Debug, Clone)]
pub struct Attach {
    /// What was asked for.
    pub spec: EndpointSpec,
    /// The id that it gets: the one that was asked for, or one drawn at random.
    pub id: EndpointId,
    /// The cluster as it is seen.
    pub cluster: Arc<Cluster>,
    /// The container as it was found.
    pub container: Container,
    /// Ports of this host that can't be had.
    pub obstacles: Obstacles,
    /// What other hosts were asked for already: nothing is asked for twice.
    pub asked: BTreeSet<Ask>,
}

/// What becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attached {
    /// It is attached.
    New(Arc<Attachment>),
    /// It was attached before under this id, as it is asked for.
    Before(Arc<Attachment>),
    /// Another host has to be asked first.
    Ask(NetworkId, Ask),
}

/// Why an endpoint can't be attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttachRefusal {
    /// There is no such network, or not any more.
    UnknownNetwork,
    /// The network belongs to a cluster that was founded apart from that of this host.
    Apart,
    /// The id means another endpoint, or one that is not as it is asked for.
    IdInUse(IdInUse),
    /// The id of another endpoint of this host begins the same, and interfaces are named after that.
    IdTooClose(Name),
    /// It has more aliases than can be told to the other hosts.
    TooManyAliases(usize),
    /// This host has endpoints in as many networks as it can have.
    TooManyNetworks,
    /// Another endpoint of the network has the name.
    NameInUse {
        /// The host that has it.
        host: HostId,
    },
    /// Another endpoint of the network has the MAC.
    MacInUse {
        /// The MAC.
        mac: Mac,
        /// That endpoint.
        name: Name,
        /// Its host.
        host: HostId,
    },
    /// Another endpoint of the network has the address.
    AddressInUse {
        /// The address.
        address: IpAddr,
        /// That endpoint.
        endpoint: EndpointId,
    },
    /// No endpoint of the network can have the address.
    NotAssignable(IpAddr, Unfit),
    /// Something in the container speaks against it.
    Container(ContainerRefusal),
    /// A port of this host can't lead to it.
    Port(PortError),
    /// The ledger has no address for it.
    Denied(Box<ledger::AddressRequest>, Denial),
}

/// An endpoint id that means another endpoint than the one that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdInUse {
    /// The endpoint's host.
    pub host: HostId,
    /// Its network.
    pub network: NetworkId,
    /// Its name.
    pub name: Name,
    /// What differs from what is asked for.
    pub differs: &'static str,
}

impl AttachRefusal {
    /// Why a ledger, here or on the host that was asked, does not grant an address, if that is the reason.
    pub fn denial(&self) -> Option<&Denial> {
        let Self::Denied(_, denial) = self else { return None };
        Some(denial)
    }

    /// The address that another endpoint has, if that is the reason.
    pub fn taken_address(&self) -> Option<IpAddr> {
        let Some(Denial::Bound { address, .. } | Denial::Delegated { address, .. }) = self.denial() else {
            return None;
        };
        Some(*address)
    }
}

impl Request for Attach {
    type Answer = Attached;
    type Refusal = AttachRefusal;

    fn decide(&self, state: &State, now: Millis) -> Result<Decision<Attached>, AttachRefusal> {
        // First: what the network is called may have changed since, and it may be deleted.
        if let Some(before) = self.attached_before(state).map_err(AttachRefusal::IdInUse)? {
            return Ok(Decision::unchanged(Attached::Before(before)));
        }
        let view = self.cluster.find(&self.spec.network).ok_or(AttachRefusal::UnknownNetwork)?;
        self.check_cluster(view)?;
        self.check_host(state, view)?;
        let network = &view.network;
        let ports = publish_port::publish(state, network, self.id, &self.spec.ports, &self.obstacles);
        let published = ports.map_err(AttachRefusal::Port)?;
        let ifname = self.container.interface_for(network, &state.intents, self.spec.ifname.as_ref());
        let ifname = ifname.map_err(AttachRefusal::Container)?;

        let mut draft = Draft::new(state, now);
        let learnt = self.learn(&mut draft, view);
        let addresses = match self.allocate(&mut draft, view)? {
            Allocation::Granted(addresses) => addresses,
            // What was granted of other ranges is decided again, once this one can be.
            Allocation::Ask(ask) => {
                return Ok(Decision { changes: learnt, answer: Attached::Ask(network.id, ask) });
            }
        };
        let mac = self.mac(&addresses);
        check_mac(view, mac)?;
        let metric = self.spec.priority.free_metric(&state.intents, &self.container.netns);
        let endpoint = self.endpoint(network.id, addresses, mac);
        let netns = self.container.netns.clone();
        let attachment = Arc::new(Attachment { endpoint, netns, ifname, metric, published });
        let seat = draft.state().intents.seat(network.id).ok_or(AttachRefusal::TooManyNetworks)?;
        draft.change(Change::Attach(Arc::clone(&attachment)));
        draft.change(Change::Seat(network.id, Some(seat)));
        Ok(draft.answered(Attached::New(attachment)))
    }
}

enum Allocation {
    Granted(Vec<Assigned>),
    Ask(Ask),
}

impl Attach {
    /// What the cluster says against it.
    fn check_cluster(&self, view: &NetworkView) -> Result<(), AttachRefusal> {
        let spec = &self.spec;
        if view.apart {
            return Err(AttachRefusal::Apart);
        }
        if spec.aliases.len() > MAX_ALIASES {
            return Err(AttachRefusal::TooManyAliases(spec.aliases.len()));
        }
        if let Some(other) = view.named(&spec.name).filter(|located| located.liveness != Liveness::Dead) {
            return Err(AttachRefusal::NameInUse { host: other.host });
        }
        for address in spec.addresses.iter().copied() {
            view.network.admit(address).map_err(|why| AttachRefusal::NotAssignable(address, why))?;
            if let Some(other) = view.at(address) {
                return Err(AttachRefusal::AddressInUse { address, endpoint: other.endpoint.id });
            }
        }
        spec.mac.map_or(Ok(()), |mac| check_mac(view, mac))
    }

    /// What the endpoints of this host say against it. The cluster may not show yet what was attached a moment ago.
    fn check_host(&self, state: &State, view: &NetworkView) -> Result<(), AttachRefusal> {
        let host = state.ledger.me();
        let others = || state.intents.attachments.values().map(|a| &a.endpoint).filter(|e| e.id != self.id);
        if let Some(other) = others().find(|other| other.id.tag() == self.id.tag()) {
            return Err(AttachRefusal::IdTooClose(other.name.clone()));
        }
        for other in others().filter(|other| other.network == view.network.id) {
            if other.name == self.spec.name {
                return Err(AttachRefusal::NameInUse { host });
            }
            if let Some(mac) = self.spec.mac.filter(|mac| *mac == other.mac) {
                return Err(AttachRefusal::MacInUse { mac, name: other.name.clone(), host });
            }
        }
        Ok(())
    }

    /// The ledger must know the network before it can be asked about it. The changes are needed also if another host is asked first.
    fn learn(&self, draft: &mut Draft, view: &NetworkView) -> Vec<Change> {
        let founder = self.cluster.founder_of(draft.state().ledger.me());
        draft.also(&Learn { networks: vec![view.network.clone()], founder })
    }

    /// An address of each of the network's ranges.
    fn allocate(&self, draft: &mut Draft, view: &NetworkView) -> Result<Allocation, AttachRefusal> {
        let mut granted = Vec::new();
        for (number, range) in (0_u8..).zip(&view.network.ranges) {
            let request = self.request(view.network.id, number, range);
            match draft.step(&Input::Allocate(request.clone())) {
                Outcome::Granted { address, lease } => granted.push(Assigned { address, lease }),
                Outcome::Ask(ask) => return Ok(Allocation::Ask(ask)),
                Outcome::Denied(denial) => return Err(AttachRefusal::Denied(Box::new(request), denial)),
                other @ (Outcome::Done | Outcome::Given(_) | Outcome::MemberList(_) | Outcome::Sealed(_)) => {
                    unreachable!("an allocation is granted, denied or asked for, and not {other:?}")
                }
            }
        }
        Ok(Allocation::Granted(granted))
    }

    /// What the ledger is asked for on behalf of this address of the network.
    fn request_for(&self, network: NetworkId, address: IpAddr) -> Option<ledger::AddressRequest> {
        let (number, range) = self.cluster.networks.get(&network)?.network.range_of(address)?;
        Some(self.request(network, number, range))
    }

    fn request(&self, network: NetworkId, number: u8, range: &Range) -> ledger::AddressRequest {
        let is_of_range = |ask: &&Ask| match ask {
            Ask::Space { range, .. } => *range == number,
            Ask::Address { address, .. } => range.subnet.contains(*address),
        };
        ledger::AddressRequest {
            network,
            endpoint: self.id,
            name: self.spec.name.clone(),
            range: number,
            address: self.spec.addresses.iter().copied().find(|address| range.subnet.contains(*address)),
            reachable: reachable(&self.cluster),
            asked: self.asked.iter().filter(is_of_range).copied().collect(),
        }
    }

    /// The MAC that was asked for, or that of an address: of one that was asked for, which may go to another host at once, since
    /// those that know the address know its MAC.
    fn mac(&self, addresses: &[Assigned]) -> Mac {
        let by_number = |assigned: &&Assigned| self.spec.addresses.contains(&assigned.address);
        let named = addresses.iter().find(by_number).or(addresses.first());
        let mac = self.spec.mac.or_else(|| named.map(|assigned| Mac::of_address(assigned.address)));
        mac.expect("a network has a range, and an endpoint an address of each")
    }

    fn endpoint(&self, network: NetworkId, addresses: Vec<Assigned>, mac: Mac) -> Endpoint {
        Endpoint {
            id: self.id,
            network,
            name: self.spec.name.clone(),
            aliases: self.spec.aliases.clone(),
            addresses,
            mac,
            created: self.cluster.now + 1,
        }
    }
}

/// An operator may have given an endpoint, by hand, the MAC that goes with the address of another.
fn check_mac(view: &NetworkView, mac: Mac) -> Result<(), AttachRefusal> {
    match view.endpoints.values().find(|located| located.endpoint.mac == mac) {
        None => Ok(()),
        Some(other) => {
            let (name, host) = (other.endpoint.name.clone(), other.host);
            Err(AttachRefusal::MacInUse { mac, name, host })
        }
    }
}

#[cfg(test)]
mod tests;
