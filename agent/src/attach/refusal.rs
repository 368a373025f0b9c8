//! Why an endpoint can't be had, in the words of the one who asked.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use overlay::cluster::{Located, NetworkView};
use overlay::endpoint::Endpoint;
use overlay::host::Liveness;
use overlay::id::HostId;
use overlay::ledger::Denial;
use overlay::network::Unfit;

use super::{AttachError, Wanted, host_name};
use crate::local::AdmitError;
use crate::view::Seen;

/// A refusal at the last moment in the words of the one who asked.
pub(super) fn not_admitted(host: &str, view: &NetworkView, endpoint: &Endpoint, refusal: AdmitError) -> AttachError {
    let (network, host) = (view.shown_name(), host.to_owned());
    match refusal {
        AdmitError::NoNetwork => AttachError::UnknownNetwork(network),
        AdmitError::NameInUse => AttachError::NameInUse { name: endpoint.name.clone(), network, host },
        AdmitError::MacInUse(name) => AttachError::MacInUse { mac: endpoint.mac, network, name, host },
        AdmitError::IdTooClose(name) => AttachError::IdTooClose { id: endpoint.id, name },
        AdmitError::Store(error) => AttachError::Store(error),
    }
}

pub(super) fn in_use(seen: &Seen, view: &NetworkView, address: IpAddr, other: &Located) -> AttachError {
    let (network, name, host) =
        (view.shown_name(), other.endpoint.name.to_string(), host_name(&seen.cluster, other.host));
    match other.liveness {
        Liveness::Live | Liveness::Suspect => AttachError::AddressInUse { address, network, name, host },
        Liveness::Dead => {
            AttachError::AddressOfGone { address, network, name, host, silence: silence(seen, other.host) }
        }
    }
}

pub(super) fn not_assignable(view: &NetworkView, address: IpAddr, why: Unfit) -> AttachError {
    let subnets: Vec<String> = view.network.ranges.iter().map(|range| range.subnet.to_string()).collect();
    AttachError::NotAssignable { address, network: view.shown_name(), why, subnets: subnets.join(", ") }
}

/// A denial in the words of the one who asked.
pub(super) fn denied(seen: &Seen, view: &NetworkView, wanted: &Wanted, denial: Denial) -> AttachError {
    let network = view.shown_name();
    match denial {
        Denial::UnknownNetwork => AttachError::UnknownNetwork(wanted.network.clone()),
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
            None => AttachError::AddressDelegated { address, network, host: host_name(&seen.cluster, to) },
        },
        Denial::Unreachable { address, holder } => {
            let (host, silence) = (host_name(&seen.cluster, holder), silence(seen, holder));
            AttachError::HolderAway { address, network, host, silence }
        }
        Denial::NotHolder { holder } => match (wanted.address, holder) {
            (Some(address), Some(holder)) => {
                AttachError::BlockMoved { address, network, host: host_name(&seen.cluster, holder) }
            }
            _ => full(seen, network, &[].into()),
        },
        Denial::Full { holders } => full(seen, network, &holders),
        Denial::Deleted => AttachError::UnknownNetwork(wanted.network.clone()),
        denial => AttachError::NotReady(denial),
    }
}

fn full(seen: &Seen, network: String, holders: &BTreeMap<HostId, usize>) -> AttachError {
    let state = |host: &HostId| match seen.cluster.hosts.get(host).map(|h| h.liveness) {
        Some(Liveness::Live) => String::new(),
        Some(Liveness::Suspect | Liveness::Dead) | None => format!(", which does not answer{}", silence(seen, *host)),
    };
    let rows = holders
        .iter()
        .map(|(h, n)| format!("{n} blocks are held by host `{}`{}", host_name(&seen.cluster, *h), state(h)));
    let rows: Vec<String> = rows.collect();
    let holders = if rows.is_empty() { "no holder of its blocks is known yet".to_owned() } else { rows.join(", ") };
    AttachError::Full { network, holders }
}

/// Since when a host has not been heard, if that is a while.
fn silence(seen: &Seen, host: HostId) -> String {
    match seen.silent.of(host).as_secs() {
        0 => String::new(),
        seconds => format!(" (not heard for {})", humantime::format_duration(Duration::from_secs(seconds))),
    }
}
