//! From what is asked for to the definition of a network.

use std::fmt::Display;
use std::net::{IpAddr, Ipv6Addr};

use crate::cluster::{Cluster, Host};
use crate::model::addr::{IpVersion, Subnet};
use crate::model::id::{HostId, NetworkId};
use crate::model::network::{Name, Network, Range, Settings, Unfit};
use crate::model::pool::{Pool, pools};
use crate::operations::network_refusal::{NetworkRefusal, name_in_use};

/// A network as it is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkSpec {
    /// What people are to call it.
    pub name: Name,
    /// Its subnets, one for each version of IP at most; none for one that is free.
    pub subnets: Vec<Subnet>,
    /// Is it to have an IPv6 subnet, if none is named?
    pub ipv6: bool,
    /// Gateways, one of a subnet at most.
    pub gateways: Vec<IpAddr>,
    /// Where addresses are taken from, one of a subnet at most.
    pub pools: Vec<Subnet>,
    /// How it is to behave.
    pub settings: Settings,
}

/// What the modes of `overlayctl run --network` are called.
const MODES: [&str; 2] = ["host", "none"];

/// What is asked for, if nothing known of the cluster is against it.
pub(super) fn define(
    cluster: &Cluster,
    (creator, id): (HostId, NetworkId),
    spec: NetworkSpec,
    since: u64,
) -> Result<Network, NetworkRefusal> {
    let NetworkSpec { name, subnets, ipv6, mut gateways, mut pools, settings } = spec;
    if MODES.contains(&name.as_str()) {
        return Err(NetworkRefusal::Mode(name));
    }
    let subnets = choose(cluster, subnets, ipv6, id)?;
    let range = |subnet: &Subnet| -> Result<Range, NetworkRefusal> {
        let gateway = only("gateway", &mut gateways, subnet, |gateway| subnet.contains(*gateway))?;
        let pool = only("range", &mut pools, subnet, |pool| subnet.overlaps(pool))?;
        let range = Range::new(*subnet, gateway)?;
        Ok(pool.map_or(Ok(range), |pool| range.with_pool(pool))?)
    };
    let ranges: Vec<Range> = subnets.iter().map(range).collect::<Result<_, _>>()?;
    let left = gateways.first().map(|gateway| format!("gateway {gateway}"));
    if let Some(what) = left.or_else(|| pools.first().map(|pool| format!("range {pool}"))) {
        let subnets: Vec<String> = subnets.iter().map(Subnet::to_string).collect();
        return Err(NetworkRefusal::Nowhere { what, subnets: subnets.join(", ") });
    }
    for range in &ranges {
        check_subnet(cluster, range.subnet, &settings)?;
    }
    if let Some(other) = cluster.networks.values().find(|v| v.network.name == name && !v.apart) {
        return Err(name_in_use(&other.network));
    }
    let settings = settings.checked()?;
    if let (Some(mtu), Some(v6)) = (settings.mtu.filter(|mtu| *mtu < MIN_MTU6), of(&subnets, IpVersion::V6)) {
        return Err(NetworkRefusal::Mtu { mtu, subnet: *v6 });
    }
    let network = Network { id, name, ranges, created: cluster.now + 1, creator, since, settings };
    for (address, name) in &network.settings.auxiliary {
        match network.admit(*address) {
            // It could be an endpoint's if it were not set aside.
            Ok(()) | Err(Unfit::Auxiliary) => {}
            Err(why) => return Err(NetworkRefusal::Auxiliary { address: *address, name: name.clone(), why }),
        }
    }
    Ok(network)
}

/// What every IPv6 link has to carry (RFC 8200, section 5).
const MIN_MTU6: u16 = 1280;

fn of(subnets: &[Subnet], version: IpVersion) -> Option<&Subnet> {
    subnets.iter().find(|subnet| subnet.version() == version)
}

/// The subnets of a network, IPv4 first: those that are named, and those that are to be found for it.
fn choose(
    cluster: &Cluster,
    mut subnets: Vec<Subnet>,
    ipv6: bool,
    id: NetworkId,
) -> Result<Vec<Subnet>, NetworkRefusal> {
    for version in IpVersion::ALL {
        let mut named = subnets.iter().filter(|subnet| subnet.version() == version);
        if let (Some(first), Some(second)) = (named.next(), named.next()) {
            return Err(NetworkRefusal::Subnets { first: *first, second: *second, version });
        }
    }
    if subnets.is_empty() {
        subnets.push(free(cluster)?);
    }
    if ipv6 && of(&subnets, IpVersion::V6).is_none() {
        subnets.push(drawn(id));
    }
    subnets.sort_by_key(Subnet::version);
    Ok(subnets)
}

/// The first of the pools that no network and no address of a host is in, and that no host routes elsewhere.
fn free(cluster: &Cluster) -> Result<Subnet, NetworkRefusal> {
    let taken = |subnet: &Subnet| {
        let mut ranges = cluster.networks.values().flat_map(|view| &view.network.ranges);
        let is_routed = |host: &Host| host.info.routed.iter().any(|routed| routed.overlaps(subnet));
        ranges.any(|range| range.subnet.overlaps(subnet))
            || cluster.hosts.values().any(|host| subnet.contains(host.info.vtep) || is_routed(host))
    };
    let free = pools().into_iter().flat_map(Pool::subnets).find(|subnet| !taken(subnet));
    free.ok_or_else(|| NetworkRefusal::PoolEmpty(pools().map(|pool| pool.all)))
}

/// A unique local /64: the 40 bits that are to be random (RFC 4193, section 3.2) are the network's own.
fn drawn(id: NetworkId) -> Subnet {
    let [a, b, c, d, e, ..] = *id.as_bytes();
    let octets = [0xfd, a, b, c, d, e, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    Subnet::of(Ipv6Addr::from(octets).into(), 64).expect("a length of IPv6")
}

/// Takes the one that is the subnet's.
fn only<T: Display + Copy>(
    kind: &str,
    all: &mut Vec<T>,
    subnet: &Subnet,
    belongs: impl Fn(&T) -> bool,
) -> Result<Option<T>, NetworkRefusal> {
    let mut own = all.extract_if(.., |one| belongs(one));
    let first = own.next();
    match own.next() {
        Some(second) => Err(NetworkRefusal::Second { what: format!("{kind} {second}"), subnet: *subnet }),
        None => Ok(first),
    }
}

fn check_subnet(cluster: &Cluster, subnet: Subnet, settings: &Settings) -> Result<(), NetworkRefusal> {
    if let Some(host) = cluster.hosts.values().find(|h| subnet.contains(h.info.vtep)) {
        let (address, host) = (host.info.vtep, host.info.name.clone());
        return Err(NetworkRefusal::Underlay { subnet, address, host });
    }
    let mut routed = cluster.networks.values().filter(|view| !settings.masquerade && !view.network.settings.masquerade);
    match routed.find(|view| view.network.ranges.iter().any(|range| range.subnet.overlaps(&subnet))) {
        Some(other) => Err(NetworkRefusal::Routed { subnet, other: other.shown_name() }),
        None => Ok(()),
    }
}
