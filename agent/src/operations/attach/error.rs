//! What a person is told when an endpoint can't be had: the object, the cause and what to try next.

use std::net::IpAddr;

use overlay::datapath::kernel_api::StepError;
use overlay::datapath::status::Failure;
use overlay::kernel::netns::NetnsError;
use overlay::ledger::Denial;
use overlay::model::addr::{IfName, Mac, Subnet};
use overlay::model::id::EndpointId;
use overlay::model::intent::Seat;
use overlay::model::network::{Name, Unfit};

use crate::state::store::StoreError;
use overlay::operations::attach::MAX_ALIASES;
use overlay::operations::publish_port::PortError;

/// Why an endpoint can't be attached or let go.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// This host may not act on its leases yet.
    #[error("no address can be had yet: {0}; `overlayctl status` says what is waited for")]
    NotReady(Denial),
    /// No such network.
    #[error("there is no network `{0}`: see `overlayctl network ls`, or make it with `overlayctl network create`")]
    UnknownNetwork(String),
    /// No such endpoint here.
    #[error("there is no endpoint `{name}` in network `{network}`{}", elsewhere.as_ref().map_or_else(
        || ": see `overlayctl endpoint ls`".to_owned(),
        |host| format!(" on this host: it is on host `{host}`, disconnect it there"),
    ))]
    UnknownEndpoint {
        /// The name.
        name: String,
        /// The network.
        network: String,
        /// The host that it is on.
        elsewhere: Option<String>,
    },
    /// The id means an endpoint that is not as it is wanted.
    #[error(
        "endpoint id {id} is in use in network `{network}` by endpoint `{name}` on host `{host}`, which has another {differs} than is asked for: repeat the request as it was, or choose another id"
    )]
    IdInUse {
        /// The id.
        id: EndpointId,
        /// The endpoint.
        name: Name,
        /// Its network.
        network: String,
        /// Its host.
        host: String,
        /// What is not the same.
        differs: &'static str,
    },
    /// Interfaces are named after ids, and there is no space for all of one.
    #[error(
        "endpoint id {id} begins like that of endpoint `{name}` on this host: choose another id, all of it drawn at random"
    )]
    IdTooClose {
        /// The id.
        id: EndpointId,
        /// The other endpoint.
        name: Name,
    },
    /// The name means another endpoint.
    #[error(
        "the name `{name}` is in use in network `{network}` by an endpoint on host `{host}`: choose another name, or disconnect that one"
    )]
    NameInUse {
        /// The name.
        name: Name,
        /// The network.
        network: String,
        /// The host of the other.
        host: String,
    },
    /// The address is another endpoint's.
    #[error(
        "address {address} is in use in network `{network}` by endpoint `{name}` on host `{host}`: choose another address, or disconnect that one"
    )]
    AddressInUse {
        /// The address.
        address: IpAddr,
        /// The network.
        network: String,
        /// The other endpoint.
        name: String,
        /// Its host.
        host: String,
    },
    /// The address is another endpoint's, whose host is gone: it may come back with it.
    #[error(
        "address {address} is in use in network `{network}` by endpoint `{name}` on host `{host}`, which is gone{silence}: choose another address, or `overlayctl host forget {host}` if that host is off for good"
    )]
    AddressOfGone {
        /// The address.
        address: IpAddr,
        /// The network.
        network: String,
        /// The other endpoint.
        name: String,
        /// Its host.
        host: String,
        /// Since when that has not been heard.
        silence: String,
    },
    /// The address is an endpoint's that nobody has told of yet.
    #[error(
        "address {address} is in use in network `{network}` by an endpoint that is just coming or going: choose another address, or try again in a moment"
    )]
    AddressTaken {
        /// The address.
        address: IpAddr,
        /// The network.
        network: String,
    },
    /// The address is lent to another host.
    #[error(
        "address {address} of network `{network}` is delegated to host `{host}`, which keeps it for a minute after its last use: choose another address, or wait"
    )]
    AddressDelegated {
        /// The address.
        address: IpAddr,
        /// The network.
        network: String,
        /// The borrower.
        host: String,
    },
    /// The address is lent to a host that can't give it back now.
    #[error(
        "address {address} of network `{network}` is delegated to host `{host}`, which does not answer{silence}: start that host, choose another address, or `overlayctl host forget {host}` if that host is off for good"
    )]
    BorrowerAway {
        /// The address.
        address: IpAddr,
        /// The network.
        network: String,
        /// The borrower.
        host: String,
        /// Since when it has not been heard.
        silence: String,
    },
    /// The MAC is another endpoint's.
    #[error(
        "MAC {mac} is in use in network `{network}` by endpoint `{name}` on host `{host}`: choose another MAC, or leave out --mac"
    )]
    MacInUse {
        /// The MAC.
        mac: Mac,
        /// The network.
        network: String,
        /// The other endpoint.
        name: Name,
        /// Its host.
        host: String,
    },
    /// More than can be told to the others.
    #[error("endpoint `{name}` has {given} aliases: {MAX_ALIASES} is the most, leave some out")]
    TooManyAliases {
        /// The endpoint.
        name: Name,
        /// How many.
        given: usize,
    },
    /// As many networks as a host can be in.
    #[error(
        "this host has endpoints in {most} networks, which is the limit, so none can be attached in network `{0}`: disconnect those of a network that is not needed here, or attach on another host",
        most = Seat::TRANSIT_LINKS
    )]
    TooManyNetworks(String),
    /// No endpoint of the network can have the address.
    #[error(
        "address {address} can't be used in network `{network}`: {why}; choose another one of {subnets}, or leave out {} to get a free one",
        if address.is_ipv6() { "--ip6" } else { "--ip" }
    )]
    NotAssignable {
        /// The address.
        address: IpAddr,
        /// The network.
        network: String,
        /// What it is.
        why: Unfit,
        /// The network's subnets.
        subnets: String,
    },
    /// The holder does not answer.
    #[error(
        "address {address} of network `{network}` is in a block held by host `{host}`, which does not answer{silence}: start that host, choose an address that this host holds (`overlayctl lease ls {network}`), or `overlayctl host forget {host}` if that host is off for good"
    )]
    HolderAway {
        /// The address.
        address: IpAddr,
        /// The network.
        network: String,
        /// The holder.
        host: String,
        /// Since when it has not been heard.
        silence: String,
    },
    /// The holder answers, and can't give it or does not.
    #[error(
        "address {address} of network `{network}` is in a block held by host `{host}`, which does not give it: {why}; {next}, or choose an address that this host holds (`overlayctl lease ls {network}`)"
    )]
    HolderRefuses {
        /// The address.
        address: IpAddr,
        /// The network.
        network: String,
        /// The holder.
        host: String,
        /// What it said.
        why: String,
        /// What to do about it.
        next: &'static str,
    },
    /// The holder that was asked is it no more.
    #[error(
        "address {address} of network `{network}` is in a block that has just moved to host `{host}`: try again in a moment"
    )]
    BlockMoved {
        /// The address.
        address: IpAddr,
        /// The network.
        network: String,
        /// The new holder.
        host: String,
    },
    /// The network is that of another cluster.
    #[error(
        "network `{network}` belongs to another cluster, founded apart from that of this host, and is in use on {hosts}: attach the endpoint there, use another network, or make one of both clusters as `overlayctl status` says"
    )]
    Apart {
        /// The network.
        network: String,
        /// The hosts of the other cluster that know it.
        hosts: String,
    },
    /// No address is left.
    #[error(
        "network `{network}` has no free address of {subnet} that can be reached from here: {holders}; disconnect an endpoint, start the hosts that do not answer, or `overlayctl host forget` one that is off for good"
    )]
    Full {
        /// The network.
        network: String,
        /// Its subnet.
        subnet: String,
        /// Who holds how many.
        holders: String,
    },
    /// There is nothing where the namespace should be.
    #[error(
        "there is no network namespace at {}: see that the container runs, and name one like /run/netns/NAME or /proc/PID/ns/net", path.display()
    )]
    NoNetns {
        /// Where it was looked for.
        path: std::path::PathBuf,
    },
    /// Not a namespace that can be used.
    #[error(transparent)]
    Netns(NetnsError),
    /// The interface is there already.
    #[error("interface `{ifname}` exists already in the namespace at {}: choose another one with --ifname", netns.display())]
    InterfaceExists {
        /// The interface.
        ifname: IfName,
        /// The namespace.
        netns: std::path::PathBuf,
    },
    /// The namespace is in an overlapping subnet already.
    #[error("subnet {subnet} of network `{network}` overlaps {address} on interface `{ifname}` in the namespace at {}: it would not know where to send; disconnect that interface, or use a network with another subnet", netns.display())]
    Overlaps {
        /// The network's subnet.
        subnet: Subnet,
        /// The network.
        network: String,
        /// What it overlaps with.
        address: IpAddr,
        /// Where that is.
        ifname: IfName,
        /// The namespace.
        netns: std::path::PathBuf,
    },
    /// The kernel refused.
    #[error("endpoint `{name}` could not be attached to network `{network}`, nothing was changed: {why}")]
    Kernel {
        /// The endpoint.
        name: Name,
        /// The network.
        network: String,
        /// What was refused.
        why: NotApplied,
    },
    /// It can't be told whether the endpoint that had the name is still there.
    #[error("the name `{name}` may be in use, and the kernel does not tell: try again in a moment")]
    Look {
        /// The name.
        name: Name,
        /// What the kernel said.
        #[source]
        source: StepError,
    },
    /// A port can't be published.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The kernel refused.
    #[error(
        "the published ports of `{name}` are kept, but the kernel does not have them yet: {why}; it is tried again, and `overlayctl status` says how it goes"
    )]
    Ports {
        /// The endpoint.
        name: Name,
        /// What was refused.
        why: NotApplied,
    },
    /// It could not be made durable.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why the kernel does not have what is durable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotApplied {
    /// No round with it has ended in time.
    #[error("the kernel took too long")]
    InTime,
    /// It refuses a part of it.
    #[error("{0}")]
    Refused(Box<Failure>),
}

impl From<NetnsError> for AttachError {
    fn from(error: NetnsError) -> Self {
        match error {
            NetnsError::NotFound { path } => Self::NoNetns { path },
            other @ (NetnsError::NotNetns { .. }
            | NetnsError::Replaced { .. }
            | NetnsError::Denied { .. }
            | NetnsError::Bind { .. }
            | NetnsError::Refused { .. }) => Self::Netns(other),
        }
    }
}
