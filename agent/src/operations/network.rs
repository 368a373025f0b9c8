//! Networks come and go.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use overlay::cluster::bootstrap::partners;
use overlay::cluster::{Cluster, Located};
use overlay::ledger::{Activation, Denial, Input, Outcome, Share};
use overlay::model::addr::{IpVersion, Subnet};
use overlay::model::id::{HostId, NetworkId};
use overlay::model::network::{Driver, Name, Network, RangeError, SettingsError, Unfit};
use tokio::sync::watch;

use crate::cluster::ClusterView;
use crate::state::store::StoreError;
use crate::state::{self, Local};

mod define;

pub use define::Wanted;
use define::define;

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
    /// Not a subnet that a network can have.
    #[error(transparent)]
    Range(#[from] RangeError),
    /// Not how a network can behave.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// Something that belongs into a subnet is in none.
    #[error("{what} is in none of the network's subnets, {subnets}: choose one in there")]
    Nowhere {
        /// What it is.
        what: String,
        /// The subnets.
        subnets: String,
    },
    /// There can be one of it in a subnet.
    #[error("{what} is the second one of subnet {subnet}: give one at most")]
    Second {
        /// What it is.
        what: String,
        /// The subnet.
        subnet: Subnet,
    },
    /// It can't be set aside.
    #[error("auxiliary address {address} (`{name}`) can't be set aside: {why}")]
    Auxiliary {
        /// The address.
        address: IpAddr,
        /// What has it.
        name: Name,
        /// Why not.
        why: Unfit,
    },
    /// One host can route it to one of them only.
    #[error(
        "subnet {subnet} overlaps that of network `{other}`, and neither is masqueraded: a host can't route it to both; choose another subnet"
    )]
    Routed {
        /// The subnet.
        subnet: Subnet,
        /// The other network.
        other: String,
    },
    /// A container has one address of each version.
    #[error(
        "subnets {first} and {second} are both {version}: a network takes one of IPv4 and one of IPv6; leave one out"
    )]
    Subnets {
        /// One of them.
        first: Subnet,
        /// The other.
        second: Subnet,
        /// Of both.
        version: IpVersion,
    },
    /// No more networks without a subnet of their own.
    #[error("all of {0}, where subnets are taken from, is in use: name one with --subnet")]
    PoolEmpty(Subnet),
    /// It could not be told from that.
    #[error(
        "`{0}` can't be the name of a network, `overlayctl run --network {0}` means something else: choose another name"
    )]
    Mode(Name),
    /// Linux takes IPv6 away from links that carry less.
    #[error(
        "MTU {mtu} is too small for subnet {subnet}, IPv6 needs 1280 bytes (RFC 8200): choose a larger one, or leave that subnet out"
    )]
    Mtu {
        /// What was asked for.
        mtu: u16,
        /// The IPv6 subnet.
        subnet: Subnet,
    },
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
    /// Others may be in it.
    #[error(
        "this host has not heard from the others since it started, so it can't tell who is in network `{0}`: try again when `overlayctl status` says that it is in step"
    )]
    Behind(String),
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
    pub local: state::Handle,
    /// The cluster.
    pub seen: watch::Receiver<ClusterView>,
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
    pub async fn create(&self, wanted: Wanted) -> Result<NetworkId, NetworkError> {
        if !self.told_to_join {
            // It founds its own cluster as soon as nobody else was heard for a moment.
            let mut activation = self.local.activation.clone();
            let joined = activation.wait_for(|activation| !matches!(activation, Activation::Joining { .. }));
            // If not, the refusal says so.
            let _ = tokio::time::timeout(PATIENCE, joined).await;
        }
        let is_sole = self.is_sole().await;
        let network = {
            let seen = self.seen.borrow();
            if self.told_to_join && !seen.synced && !is_sole {
                let alone = seen.cluster.hosts.len() < 2;
                return Err(match *self.local.activation.borrow() {
                    Activation::Joining { .. } if !alone => NetworkError::NotReady(Denial::Joining),
                    Activation::Unchecked { .. } => NetworkError::NotReady(Denial::Unchecked),
                    _ => NetworkError::NotJoined,
                });
            }
            define(&seen.cluster, self.me, wanted)?
        };
        let networks = self.clone();
        crate::to_its_end(async move { networks.put_in_place(network).await }).await
    }

    /// Who is the only member has nobody to hear of networks and endpoints from.
    async fn is_sole(&self) -> bool {
        let membership = self.local.call(|local| local.ledger().membership().clone()).await;
        membership.activation == Activation::Established && membership.others().next().is_none()
    }

    async fn put_in_place(&self, network: Network) -> Result<NetworkId, NetworkError> {
        let (id, shown, driver) = (network.id, network.name.clone(), network.settings.driver);
        self.local.call(move |local| begin(local, network)).await?;
        self.wait_until(|seen| seen.cluster.networks.contains_key(&id)).await;
        if driver == Driver::Vxlan
            && let Err(error) = self.give_half(id).await
        {
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
        if view.apart
            && let Some(hosts) = known_to(&cluster, id)
        {
            return Err(NetworkError::Apart { network: view.shown_name(), hosts });
        }
        if hindered == Hindered::ByAll && !self.seen.borrow().synced && !self.is_sole().await {
            return Err(NetworkError::Behind(view.shown_name()));
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
            partners(&seen.cluster, membership.founder).into_iter().filter(is_member).collect()
        };
        let dice = usize::from(u16::from_be_bytes([network.as_bytes()[0], network.as_bytes()[1]]));
        if let Some(to) = peers.get(dice % peers.len().max(1)).copied() {
            let halves = move |local: &mut Local| -> Result<(), StoreError> {
                let ranges = local.intents().networks.get(&network).map_or(0, |network| network.ranges.len());
                (0_u8..).zip(0..ranges).try_for_each(|(range, _)| {
                    local.step(&Input::GiveSpace { network, range, to, share: Share::Half }).map(drop)
                })
            };
            self.local.call(halves).await?;
        }
        Ok(())
    }

    async fn wait_until(&self, shows: impl FnMut(&ClusterView) -> bool) {
        let mut seen = self.seen.clone();
        // The view follows this host's own record at once; should it not, the next command says what it sees.
        let _ = tokio::time::timeout(PATIENCE, seen.wait_for(shows)).await;
    }
}

/// The hosts that say that there is this network, if they are not gone.
pub(crate) fn known_to(cluster: &Cluster, network: NetworkId) -> Option<String> {
    let names: Vec<String> = cluster.tellers_of(network).map(|name| format!("`{name}`")).collect();
    let count = names.len();
    (count > 0).then(|| listed(names.into_iter().take(SHOWN).collect(), count))
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
