//! Networks come and go.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use overlay::addr::{Subnet, SubnetError};
use overlay::admission::reachable;
use overlay::cluster::{Cluster, Located};
use overlay::id::{HostId, NetworkId};
use overlay::ledger::{Denial, Input, Outcome, Share, Standing};
use overlay::network::{Name, NameError, Network, Range, RangeError};
use tokio::sync::watch;

use crate::local::{self, Local};
use crate::store::StoreError;
use crate::view::Seen;

/// How long the view may take to show what was just written.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many endpoints an error names.
const SHOWN: usize = 4;

/// Why a network can't be made or removed.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// No such network.
    #[error("there is no network `{0}`: see `overlayctl network ls`")]
    Unknown(String),
    /// Not a name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The name means another one.
    #[error("the name `{name}` is in use by network {} ({subnets}): choose another name, or remove that one", id.short())]
    NameInUse {
        /// The name.
        name: Name,
        /// The other.
        id: NetworkId,
        /// Its subnets.
        subnets: String,
    },
    /// Not a subnet.
    #[error(transparent)]
    Subnet(#[from] SubnetError),
    /// Not a subnet that a network can have.
    #[error(transparent)]
    Range(#[from] RangeError),
    /// Not an address.
    #[error("gateway `{0}` is not an IP address: give one of the subnet's host addresses")]
    Gateway(String),
    /// None, or more than can be.
    #[error("a network takes exactly one --subnet so far, not {0}")]
    Subnets(usize),
    /// Containers could not reach that host.
    #[error("subnet {subnet} overlaps the underlay: {address} is the address of host `{host}`; choose another subnet")]
    Underlay {
        /// The subnet.
        subnet: Subnet,
        /// The address of a host.
        address: IpAddr,
        /// The host.
        host: Name,
    },
    /// Somebody needs it.
    #[error(
        "network `{network}` is in use by {endpoints}: disconnect them first, or remove it with --force, which disconnects those of this host and leaves the others to theirs"
    )]
    InUse {
        /// The network.
        network: String,
        /// Its endpoints.
        endpoints: String,
    },
    /// Somebody came to need it meanwhile.
    #[error("network `{network}` is in use by {endpoints}, attached a moment ago: try again")]
    InUseAgain {
        /// The network.
        network: String,
        /// Its endpoints.
        endpoints: String,
    },
    /// It is that of another cluster.
    #[error(
        "network `{network}` belongs to another cluster, founded apart from that of this host, and is known to {hosts}: remove it there"
    )]
    Apart {
        /// The network.
        network: String,
        /// The hosts that know it.
        hosts: String,
    },
    /// Its networks might have the names of others that it does not know.
    #[error(
        "this host has not reached any of the hosts that it was told to --join: start one of them, or start this host with --bootstrap"
    )]
    NotJoined,
    /// This host may not act yet.
    #[error("no network can be made or removed here yet: {0}; `overlayctl status` says what is waited for")]
    NotReady(Denial),
    /// It could not be made durable.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Which endpoints keep a network from being removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hindered {
    /// Any that the cluster shows.
    ByAll,
    /// Those of this host only: the others drain.
    ByOwn,
}

/// Makes and removes networks.
#[derive(Debug, Clone)]
pub struct Networks {
    /// The owner of ledger and intents.
    pub local: local::Handle,
    /// The cluster.
    pub seen: watch::Receiver<Seen>,
    /// This host.
    pub me: HostId,
    /// Was this host told of others?
    pub told_to_join: bool,
}

impl Networks {
    /// Makes a network. This host then holds all of it, but for the half that a live peer gets.
    ///
    /// It goes on to its end also when nobody waits for it any more.
    ///
    /// # Errors
    /// With the reason; nothing was changed then.
    pub async fn create(&self, name: &str, subnets: &[String], gateway: &str) -> Result<NetworkId, NetworkError> {
        let membership = self.local.call(|local| local.ledger().membership().clone()).await;
        // Who is the only member has nobody to hear of networks from.
        let is_sole = membership.standing == Standing::Established && membership.others().next().is_none();
        let network = {
            let seen = self.seen.borrow();
            if self.told_to_join && !seen.synced && !is_sole {
                let alone = seen.cluster.hosts.len() < 2;
                return Err(match *self.local.standing.borrow() {
                    Standing::Joining { .. } if !alone => NetworkError::NotReady(Denial::Joining),
                    Standing::Unchecked { .. } => NetworkError::NotReady(Denial::Unchecked),
                    _ => NetworkError::NotJoined,
                });
            }
            define(&seen.cluster, self.me, name, subnets, gateway)?
        };
        let networks = self.clone();
        crate::to_its_end(async move { networks.put_in_place(network).await }).await
    }

    async fn put_in_place(&self, network: Network) -> Result<NetworkId, NetworkError> {
        let (id, shown) = (network.id, network.name.clone());
        self.local.call(move |local| begin(local, network)).await?;
        self.wait_until(|seen| seen.cluster.networks.contains_key(&id)).await;
        if let Err(error) = self.give_half(id).await {
            tracing::warn!(network = %shown, %error, "all of the network's space is on this host");
        }
        tracing::info!(network = %shown, id = %id.short(), "network created");
        Ok(id)
    }

    /// Removes a network for good, everywhere.
    ///
    /// # Errors
    /// When an endpoint is in it that keeps it.
    pub async fn remove(&self, id: NetworkId, hindered: Hindered) -> Result<(), NetworkError> {
        let cluster = Arc::clone(&self.seen.borrow().cluster);
        let view = cluster.networks.get(&id).ok_or_else(|| NetworkError::Unknown(id.short()))?;
        // What hosts have left behind that are gone may be removed by anybody.
        if view.apart && cluster.tellers_of(id).next().is_some() {
            let hosts: Vec<String> = cluster.tellers_of(id).take(SHOWN).map(|name| format!("`{name}`")).collect();
            return Err(NetworkError::Apart {
                network: view.shown_name(),
                hosts: listed(hosts, cluster.tellers_of(id).count()),
            });
        }
        if hindered == Hindered::ByAll && !view.endpoints.is_empty() {
            let host = |id: &HostId| cluster.hosts.get(id).map_or_else(|| id.short(), |h| h.info.name.to_string());
            let row = |l: &Located| format!("`{}` on host `{}`", l.endpoint.name, host(&l.host));
            let endpoints: Vec<String> = view.endpoints.values().take(SHOWN).map(row).collect();
            let endpoints = listed(endpoints, view.endpoints.len());
            return Err(NetworkError::InUse { network: view.shown_name(), endpoints });
        }
        if self.local.call(|local| local.ledger().membership().founder).await.is_none() {
            return Err(NetworkError::NotReady(Denial::Joining));
        }
        let ended = self.local.call(move |local| end(local, id)).await?;
        ended.map_err(|left| {
            let endpoints: Vec<String> = left.iter().take(SHOWN).map(|name| format!("`{name}` on this host")).collect();
            NetworkError::InUseAgain { network: view.shown_name(), endpoints: listed(endpoints, left.len()) }
        })?;
        self.wait_until(|seen| !seen.cluster.networks.contains_key(&id)).await;
        tracing::info!(network = %view.shown_name(), "network removed");
        Ok(())
    }

    /// One host's death must not lock all of a network's space.
    async fn give_half(&self, network: NetworkId) -> Result<(), NetworkError> {
        let membership = self.local.call(|local| local.ledger().membership().clone()).await;
        let peers: Vec<HostId> = {
            let seen = self.seen.borrow();
            let is_member = |id: &HostId| membership.members.contains(id);
            reachable(&seen.cluster).into_iter().filter(is_member).collect()
        };
        let dice = usize::from(u16::from_be_bytes([network.as_bytes()[0], network.as_bytes()[1]]));
        if let Some(to) = peers.get(dice % peers.len().max(1)).copied() {
            let give = Input::GiveSpace { network, to, share: Share::Half };
            self.local.call(move |local| local.step(&give)).await?;
        }
        Ok(())
    }

    async fn wait_until(&self, shows: impl FnMut(&Seen) -> bool) {
        let mut seen = self.seen.clone();
        // The view follows this host's own record at once; should it not, the next command says what it sees.
        let _ = tokio::time::timeout(PATIENCE, seen.wait_for(shows)).await;
    }
}

/// What is asked for as a network, if the cluster has nothing against it.
fn define(
    cluster: &Cluster,
    creator: HostId,
    name: &str,
    subnets: &[String],
    gateway: &str,
) -> Result<Network, NetworkError> {
    let name: Name = name.parse()?;
    let gateway = match gateway {
        "" => None,
        text => Some(text.parse().map_err(|_| NetworkError::Gateway(text.to_owned()))?),
    };
    let [subnet] = subnets else { return Err(NetworkError::Subnets(subnets.len())) };
    let range = Range::new(subnet.parse()?, gateway)?;
    if let Some(other) = cluster.networks.values().find(|v| v.network.name == name && !v.apart) {
        return Err(name_in_use(&other.network));
    }
    if let Some(host) = cluster.hosts.values().find(|h| range.subnet.contains(h.info.vtep)) {
        let (address, host) = (host.info.vtep, host.info.name.clone());
        return Err(NetworkError::Underlay { subnet: range.subnet, address, host });
    }
    let id = NetworkId::from_bytes(crate::random());
    Ok(Network { id, name, ranges: vec![range], created: cluster.now + 1, creator })
}

fn listed(mut shown: Vec<String>, count: usize) -> String {
    if count > shown.len() {
        shown.push(format!("{} more", count - shown.len()));
    }
    shown.join(", ")
}

fn name_in_use(other: &Network) -> NetworkError {
    let subnets: Vec<String> = other.ranges.iter().map(|r| r.subnet.to_string()).collect();
    NetworkError::NameInUse { name: other.name.clone(), id: other.id, subnets: subnets.join(", ") }
}

/// Two may have found the name free at the same moment, before the view showed either.
fn begin(local: &mut Local, network: Network) -> Result<(), NetworkError> {
    let intents = local.intents();
    let me = local.ledger().me();
    let mut own = intents.networks.values().filter(|n| n.creator == me && !intents.tombstones.contains(&n.id));
    if let Some(other) = own.find(|n| n.name == network.name) {
        return Err(name_in_use(other));
    }
    match local.step(&Input::Create(network))? {
        Outcome::Denied(denial) => Err(NetworkError::NotReady(denial)),
        _ => Ok(()),
    }
}

/// The view may be a moment behind what is attached here.
fn end(local: &mut Local, id: NetworkId) -> Result<Result<(), Vec<Name>>, StoreError> {
    let left: Vec<Name> = local.intents().attached(id).map(|a| a.endpoint.name.clone()).collect();
    if left.is_empty() { local.bury(&[id].into()).map(Ok) } else { Ok(Err(left)) }
}

#[cfg(test)]
mod tests;
