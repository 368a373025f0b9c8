//! Why an endpoint can't be had, in the words of the one who asked.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use overlay::cluster::{Cluster, Located, NetworkView};
use overlay::ledger::{AddressRequest, Denial};
use overlay::model::addr::IpVersion;
use overlay::model::host::Liveness;
use overlay::model::id::{EndpointId, HostId};
use overlay::model::network::Unfit;

use overlay::operations::attach::{Attach, AttachRefusal, EndpointSpec, IdInUse};
use overlay::operations::container::ContainerRefusal;
use overlay::operations::network_refusal::known_to;

use super::{AttachError, host_name, shown_name};
use crate::cluster::{ClusterView, LastHeard};
use crate::peer::CallError;

/// A refusal in the words of an operator.
pub(super) fn refused(seen: &ClusterView, me: HostId, request: &Attach, refusal: AttachRefusal) -> AttachError {
    let spec = &request.spec;
    let unknown = || AttachError::UnknownNetwork(spec.network.clone());
    if let AttachRefusal::IdInUse(in_use) = refusal {
        return id_in_use(&seen.cluster, request.id, in_use);
    }
    let Some(then) = request.cluster.find(&spec.network) else { return unknown() };
    // What was heard since may name the endpoint that is in the way.
    let view = seen.cluster.networks.get(&then.network.id).map_or(then, |view| &**view);
    let network = view.shown_name();
    let named =
        |host: HostId| if host == me { host_name(&request.cluster, me) } else { host_name(&seen.cluster, host) };
    match refusal {
        AttachRefusal::UnknownNetwork | AttachRefusal::IdInUse(_) => unknown(),
        AttachRefusal::Apart => {
            let hosts = known_to(&request.cluster, view.network.id);
            AttachError::Apart { network, hosts: hosts.unwrap_or_else(|| "hosts that are gone".to_owned()) }
        }
        AttachRefusal::IdTooClose(name) => AttachError::IdTooClose { id: request.id, name },
        AttachRefusal::TooManyAliases(given) => AttachError::TooManyAliases { name: spec.name.clone(), given },
        AttachRefusal::TooManyNetworks => AttachError::TooManyNetworks(network),
        AttachRefusal::NameInUse { host } => {
            AttachError::NameInUse { name: spec.name.clone(), network, host: named(host) }
        }
        AttachRefusal::MacInUse { mac, name, host } => AttachError::MacInUse { mac, network, name, host: named(host) },
        AttachRefusal::AddressInUse { address, endpoint } => match then.endpoints.get(&endpoint) {
            Some(other) => in_use(seen, view, address, other),
            None => AttachError::AddressTaken { address, network },
        },
        AttachRefusal::NotAssignable(address, why) => not_assignable(view, address, why),
        AttachRefusal::Container(refusal) => in_container(spec, network, refusal),
        AttachRefusal::Port(error) => AttachError::Port(error),
        AttachRefusal::Denied(asked, denial) => denied(seen, view, &asked, denial),
    }
}

/// The id of a request means another endpoint.
pub(super) fn id_in_use(cluster: &Cluster, id: EndpointId, in_use: IdInUse) -> AttachError {
    let IdInUse { host, network, name, differs } = in_use;
    let (network, host) = (shown_name(cluster, network), host_name(cluster, host));
    AttachError::IdInUse { id, name, network, host, differs }
}

fn in_container(spec: &EndpointSpec, network: String, refusal: ContainerRefusal) -> AttachError {
    let netns = spec.netns.clone();
    match refusal {
        ContainerRefusal::InterfaceExists(ifname) => AttachError::InterfaceExists { ifname, netns },
        ContainerRefusal::Overlaps { subnet, address, ifname } => {
            AttachError::Overlaps { subnet, network, address, ifname, netns }
        }
    }
}

fn in_use(seen: &ClusterView, view: &NetworkView, address: IpAddr, other: &Located) -> AttachError {
    let (network, name, host) =
        (view.shown_name(), other.endpoint.name.to_string(), host_name(&seen.cluster, other.host));
    match other.liveness {
        Liveness::Live | Liveness::Suspect => AttachError::AddressInUse { address, network, name, host },
        Liveness::Dead => {
            AttachError::AddressOfGone { address, network, name, host, silence: silence(seen, other.host) }
        }
    }
}

fn not_assignable(view: &NetworkView, address: IpAddr, why: Unfit) -> AttachError {
    let of_version = view.network.ranges.iter().filter(|range| range.subnet.version() == IpVersion::of(address));
    let mut subnets: Vec<String> = of_version.map(|range| range.subnet.to_string()).collect();
    if subnets.is_empty() {
        subnets.push(format!("a network that has {}", IpVersion::of(address)));
    }
    AttachError::NotAssignable { address, network: view.shown_name(), why, subnets: subnets.join(", ") }
}

/// A denial in the words of the one who asked.
fn denied(seen: &ClusterView, view: &NetworkView, request: &AddressRequest, denial: Denial) -> AttachError {
    let network = view.shown_name();
    match denial {
        Denial::UnknownNetwork | Denial::Deleted => AttachError::UnknownNetwork(network),
        // Definitions never change: whoever refuses the address sees the same as we do.
        Denial::NotAssignable(address) => {
            not_assignable(view, address, view.network.admit(address).err().unwrap_or(Unfit::Outside))
        }
        Denial::Bound { address, endpoint } => match view.endpoints.get(&endpoint) {
            Some(other) => in_use(seen, view, address, other),
            None => AttachError::AddressTaken { address, network },
        },
        Denial::Delegated { address, to } => match view.at(address) {
            Some(other) => in_use(seen, view, address, other),
            None => delegated(seen, network, address, to),
        },
        Denial::Unreachable { address, holder } => {
            let (host, silence) = (host_name(&seen.cluster, holder), silence(seen, holder));
            AttachError::HolderAway { address, network, host, silence }
        }
        Denial::NotHolder { holder } => match (request.address, holder) {
            (Some(address), Some(holder)) => {
                AttachError::BlockMoved { address, network, host: host_name(&seen.cluster, holder) }
            }
            _ => full(seen, view, request.range, &[].into()),
        },
        Denial::Full { holders } => full(seen, view, request.range, &holders),
        denial @ (Denial::Joining
        | Denial::Unchecked
        | Denial::Fenced
        | Denial::Stranger { .. }
        | Denial::Apart { .. }
        | Denial::Sealed { .. }
        | Denial::Stale { .. }
        | Denial::Restored(_)
        | Denial::Readmitted { .. }
        | Denial::Unnamed { .. }
        | Denial::TooMany
        | Denial::Rival { .. }) => AttachError::NotReady(denial),
    }
}

/// Only its borrower gives it back.
fn delegated(seen: &ClusterView, network: String, address: IpAddr, to: HostId) -> AttachError {
    let host = host_name(&seen.cluster, to);
    match seen.cluster.hosts.get(&to).map(|borrower| borrower.liveness) {
        Some(Liveness::Live) => AttachError::AddressDelegated { address, network, host },
        Some(Liveness::Suspect | Liveness::Dead) | None => {
            AttachError::BorrowerAway { address, network, host, silence: silence(seen, to) }
        }
    }
}

/// The holder of an address has answered, but does not give it: what it has against that, if it is not about the address.
pub(super) fn not_given(
    seen: &ClusterView,
    view: &NetworkView,
    (address, holder): (IpAddr, HostId),
    answer: &CallError,
) -> Option<AttachError> {
    let there = "`overlayctl status` there says what is waited for";
    let (why, next) = match answer {
        CallError::Denied(denial @ (Denial::Joining | Denial::Unchecked)) => (denial.to_string(), there),
        CallError::Denied(denial @ Denial::Fenced) => {
            (denial.to_string(), "it comes back as another host; then `overlayctl host forget` the old one")
        }
        // It speaks of this host.
        CallError::Denied(Denial::Stranger { .. }) => {
            ("it does not know this host as a member yet".to_owned(), "try again in a moment")
        }
        CallError::Denied(Denial::Sealed { .. } | Denial::Stale { .. } | Denial::Restored(_)) => (
            "this host was forgotten, or runs on an old disk".to_owned(),
            "`overlayctl status` here says how it goes on",
        ),
        CallError::Denied(denial @ Denial::Apart { .. }) => {
            (denial.to_string(), "`overlayctl status` says how to make one of both")
        }
        CallError::Denied(_) | CallError::Unknown(_) | CallError::Silent { .. } => return None,
        CallError::Refused { .. } if !answer.is_answer() => return None,
        CallError::Refused { status, .. } => (status.message().to_owned(), "mend that there, and try again"),
        CallError::Nonsense { source, .. } => {
            (format!("its answer can't be read ({source})"), "see that both run the same version of overlayd")
        }
    };
    let (network, host) = (view.shown_name(), host_name(&seen.cluster, holder));
    Some(AttachError::HolderRefuses { address, network, host, why, next })
}

fn full(seen: &ClusterView, view: &NetworkView, range: u8, holders: &BTreeMap<HostId, usize>) -> AttachError {
    let state = |host: &HostId| match seen.cluster.hosts.get(host).map(|h| h.liveness) {
        Some(Liveness::Live) => String::new(),
        Some(Liveness::Suspect | Liveness::Dead) | None => format!(", which does not answer{}", silence(seen, *host)),
    };
    let rows = holders
        .iter()
        .map(|(h, n)| format!("{n} blocks are held by host `{}`{}", host_name(&seen.cluster, *h), state(h)));
    let rows: Vec<String> = rows.collect();
    let holders = if rows.is_empty() { "no holder of its blocks is known yet".to_owned() } else { rows.join(", ") };
    let subnet = view.network.ranges.get(usize::from(range)).map_or_else(String::new, |r| r.subnet.to_string());
    AttachError::Full { network: view.shown_name(), subnet, holders }
}

/// Since when a host has not been heard, if that is a while.
fn silence(seen: &ClusterView, host: HostId) -> String {
    let last = seen.silent.of(host);
    match (last, last.elapsed().as_secs()) {
        (_, 0) | (LastHeard::Now, _) => String::new(),
        (LastHeard::Ago(_), seconds) => format!(" (not heard for {})", in_words(seconds)),
        (LastHeard::NotSinceStart(_), seconds) => {
            format!(" (not heard since overlayd started, {} ago)", in_words(seconds))
        }
    }
}

fn in_words(seconds: u64) -> humantime::FormattedDuration {
    humantime::format_duration(Duration::from_secs(seconds))
}
