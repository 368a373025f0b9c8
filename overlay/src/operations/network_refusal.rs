//! Why a network can't be created or removed.

use std::net::IpAddr;

use crate::cluster::Cluster;
use crate::ledger::Denial;
use crate::model::addr::{IpVersion, Subnet};
use crate::model::id::NetworkId;
use crate::model::network::{Name, Network, RangeError, SettingsError, Unfit};

/// How many endpoints or hosts an error names.
pub(super) const SHOWN: usize = 4;

/// Why a network can't be made or removed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworkRefusal {
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
    #[error(
        "all of {}, {} and {}, where subnets are taken from, is in use by networks or routed elsewhere by hosts: name one with --subnet",
        .0[0], .0[1], .0[2]
    )]
    PoolEmpty([Subnet; 3]),
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
    /// It hears others, but not yet all that they have.
    #[error(
        "this host has not caught up with the others since its agent started, and they may have a network of this name: try again in a moment; `overlayctl status` says whether it is in step with them"
    )]
    CatchingUp,
    /// This host may not act yet.
    #[error("no network can be made or removed here yet: {0}; `overlayctl status` says what is waited for")]
    NotReady(Denial),
}

/// The hosts that say that there is this network, if they are not gone.
pub fn known_to(cluster: &Cluster, network: NetworkId) -> Option<String> {
    let names: Vec<String> = cluster.tellers_of(network).map(|name| format!("`{name}`")).collect();
    let count = names.len();
    (count > 0).then(|| listed(names.into_iter().take(SHOWN).collect(), count))
}

pub(super) fn listed(mut shown: Vec<String>, count: usize) -> String {
    if count > shown.len() {
        shown.push(format!("{} more", count - shown.len()));
    }
    shown.join(", ")
}

pub(super) fn name_in_use(other: &Network) -> NetworkRefusal {
    let subnets: Vec<String> = other.ranges.iter().map(|r| r.subnet.to_string()).collect();
    NetworkRefusal::NameInUse { name: other.name.clone(), id: other.id, subnets: subnets.join(", ") }
}
