//! Ports of this host that lead to an endpoint.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::{Change, Decision, Request, State};
use crate::ledger::Millis;
use crate::model::addr::{IpVersion, Subnet};
use crate::model::id::EndpointId;
use crate::model::intent::{Attachment, Intents};
use crate::model::network::{Name, Network};
use crate::model::publish::{HostPort, Protocol, Published, Target, vias};

/// Ports of this host are to lead to an endpoint of it too, and others no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishPorts {
    /// The endpoint.
    pub endpoint: EndpointId,
    /// The ports that are to lead to it.
    pub publish: Vec<WantedPort>,
    /// The ports that are to lead to it no more.
    pub withdraw: Vec<HostPort>,
    /// What was found to be in the way of ports on this host.
    pub obstacles: Obstacles,
}

/// Ports of this host that can't be had, and why: a program uses them, or their address is not on this host.
pub type Obstacles = BTreeMap<HostPort, PortError>;

/// Why the ports of an endpoint can't be changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublishRefusal {
    /// The endpoint is not there any more.
    Gone,
    /// A port can't be had, or is not published.
    Port(PortError),
}

impl Request for PublishPorts {
    type Answer = Arc<Attachment>;
    type Refusal = PublishRefusal;

    fn decide(&self, state: &State, _: Millis) -> Result<Decision<Arc<Attachment>>, PublishRefusal> {
        let there = state.intents.attachments.get(&self.endpoint).ok_or(PublishRefusal::Gone)?;
        let network = state.intents.networks.get(&there.endpoint.network).ok_or(PublishRefusal::Gone)?;
        let published = self.after(state, there, network).map_err(PublishRefusal::Port)?;
        let after = Arc::new(Attachment { published, ..Attachment::clone(there) });
        Ok(Decision { changes: vec![Change::Attach(Arc::clone(&after))], answer: after })
    }
}

impl PublishPorts {
    /// The ports that lead to the endpoint afterwards.
    fn after(&self, state: &State, there: &Attachment, network: &Network) -> Result<Published, PortError> {
        let mut left = there.published.clone();
        for port in &self.withdraw {
            let gone = |port| PortError::NotPublished { port, name: there.endpoint.name.clone() };
            withdraw(&mut left, *port).map_err(gone)?;
        }
        let mut published = publish(state, network, self.endpoint, &self.publish, &self.obstacles)?;
        for port in &self.withdraw {
            // A port that is gone meanwhile leads nowhere, as was asked.
            let _ = withdraw(&mut published, *port);
        }
        Ok(published)
    }
}

/// The ports that lead to an endpoint once these do as well, if nothing on this host is in their way.
pub(super) fn publish(
    state: &State,
    network: &Network,
    endpoint: EndpointId,
    wanted: &[WantedPort],
    obstacles: &Obstacles,
) -> Result<Published, PortError> {
    let published = published_with(&state.intents, network, endpoint, wanted)?;
    let own = state.intents.attachments.get(&endpoint).map(|attachment| &attachment.published);
    let fresh = wanted.iter().map(|wanted| wanted.host).filter(|host| !own.is_some_and(|own| own.contains_key(host)));
    for host in fresh {
        // Also where there is no tunnel yet.
        if host.protocol == Protocol::Udp && host.port == state.info.vxlan_port {
            return Err(PortError::Tunnel(host));
        }
        obstacles.get(&host).cloned().map_or(Ok(()), Err)?;
    }
    Ok(published)
}

/// A port that is to lead to an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedPort {
    /// The port of this host.
    pub host: HostPort,
    /// The port of the endpoint.
    pub port: u16,
    /// Who may come from outside of this host; anybody if it is empty.
    pub allowed: BTreeSet<Subnet>,
}

/// Why a port can't be published, or is published no more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// It leads to another endpoint.
    #[error(
        "port {port} of this host can't be published: {other} leads to `{name}` of network `{network}` already; choose another port, or unpublish that one"
    )]
    Published {
        /// The port.
        port: HostPort,
        /// What is in its way.
        other: HostPort,
        /// Where that leads.
        name: Name,
        /// Its network.
        network: Name,
    },
    /// It is there twice.
    #[error("port {0} is to be published twice: give it once")]
    Twice(HostPort),
    /// A program listens on it.
    #[error("port {port} of this host can't be published: {program} uses it; choose another port, or end that")]
    InUse {
        /// The port.
        port: HostPort,
        /// Who, as far as can be told.
        program: String,
    },
    /// What comes in there are packets of the tunnels.
    #[error("port {0} of this host can't be published: the tunnels between hosts use it; choose another port")]
    Tunnel(HostPort),
    /// The address is another host's.
    #[error(
        "port {0} can't be published: the address is none of this host's; `ip address` shows those, and without one it is published on all"
    )]
    NotHere(HostPort),
    /// No packet comes in there.
    #[error(
        "port {port} can't be published: network `{network}` is internal, so nothing from outside gets there; use another network"
    )]
    Internal {
        /// The port.
        port: HostPort,
        /// The network.
        network: Name,
    },
    /// Nobody there has an address of that version.
    #[error(
        "port {port} can't be published: network `{network}` has no {version}; leave its address out, or use a network that has it"
    )]
    Version {
        /// The port.
        port: HostPort,
        /// The network.
        network: Name,
        /// What it has not.
        version: IpVersion,
    },
    /// Nobody could come.
    #[error(
        "port {port} can't be published for {allowed} only: network `{network}` has no addresses of that version of IP; name a range of the other version"
    )]
    Nobody {
        /// The port.
        port: HostPort,
        /// The network.
        network: Name,
        /// One of those who may.
        allowed: Subnet,
    },
    /// All ports of the segment are taken.
    #[error("no more ports can be published in network `{0}` on this host: unpublish some, or use another network")]
    Full(Name),
    /// It is not published.
    #[error("port {port} of this host does not lead to `{name}`: see `overlayctl endpoint port {name}`")]
    NotPublished {
        /// The port.
        port: HostPort,
        /// The endpoint.
        name: Name,
    },
}

/// The published ports of an endpoint once it has these as well. What it has under the same ports is replaced.
///
/// # Errors
/// When one leads elsewhere, or can't lead there.
pub fn published_with(
    intents: &Intents,
    network: &Network,
    endpoint: EndpointId,
    wanted: &[WantedPort],
) -> Result<Published, PortError> {
    let own = intents.attachments.get(&endpoint).map(|a| a.published.clone()).unwrap_or_default();
    let mut published = own.clone();
    published.retain(|host, _| !wanted.iter().any(|w| w.host == *host));
    for (n, WantedPort { host, allowed, .. }) in wanted.iter().enumerate() {
        if network.settings.internal {
            return Err(PortError::Internal { port: *host, network: network.name.clone() });
        }
        check_versions(network, *host, allowed)?;
        let taken =
            intents.publishers(host).find(|(a, other)| a.endpoint.id != endpoint || published.contains_key(other));
        if let Some((attachment, other)) = taken {
            let of = intents.networks.get(&attachment.endpoint.network).map_or(&network.name, |n| &n.name);
            let (name, network) = (attachment.endpoint.name.clone(), of.clone());
            return Err(PortError::Published { port: *host, other, name, network });
        }
        if wanted[..n].iter().any(|before| before.host.overlaps(host)) {
            return Err(PortError::Twice(*host));
        }
    }
    let mut taken = intents.vias(network.id);
    // What is published anew goes the way that it went.
    let kept: Vec<Option<u16>> = wanted.iter().map(|w| own.get(&w.host).map(|target| target.via)).collect();
    let fresh: Vec<HostPort> = wanted.iter().zip(&kept).filter(|(_, via)| via.is_none()).map(|(w, _)| w.host).collect();
    taken.extend(wanted.iter().zip(&kept).filter_map(|(w, via)| Some((w.host.protocol, (*via)?))));
    let mut fresh = vias(&taken, &fresh).ok_or_else(|| PortError::Full(network.name.clone()))?.into_iter();
    for (WantedPort { host, port, allowed }, via) in wanted.iter().cloned().zip(kept) {
        let via = via.or_else(|| fresh.next()).expect("there is one for each");
        published.insert(host, Target { port, via, allowed });
    }
    Ok(published)
}

/// Is there an address of the network that the port could lead to, and anybody who may come there?
fn check_versions(network: &Network, port: HostPort, allowed: &BTreeSet<Subnet>) -> Result<(), PortError> {
    let versions: Vec<IpVersion> = network.versions().filter(|version| port.at(*version).is_some()).collect();
    let network = network.name.clone();
    match (port.address, allowed.first()) {
        (Some(address), _) if versions.is_empty() => {
            Err(PortError::Version { port, network, version: IpVersion::of(address) })
        }
        (_, Some(first)) if !allowed.iter().any(|subnet| versions.contains(&subnet.version())) => {
            Err(PortError::Nobody { port, network, allowed: *first })
        }
        _ => Ok(()),
    }
}

/// Publishes a port no more. One that is published at all addresses goes on under the other version of IP if only those of one
/// were said.
fn withdraw(published: &mut Published, port: HostPort) -> Result<(), HostPort> {
    if published.remove(&port).is_some() {
        return Ok(());
    }
    let everywhere = HostPort { address: None, ..port };
    let Some(address) = port.address.filter(IpAddr::is_unspecified) else { return Err(port) };
    let target = published.remove(&everywhere).ok_or(port)?;
    let others = IpVersion::ALL.into_iter().filter(|version| *version != IpVersion::of(address));
    published.extend(others.map(|v| (HostPort { address: Some(v.unspecified()), ..port }, target.clone())));
    Ok(())
}

#[cfg(test)]
mod tests;
