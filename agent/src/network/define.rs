//! From what is asked for to the definition of a network.

use std::fmt::Display;
use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use overlay::addr::Subnet;
use overlay::cluster::Cluster;
use overlay::id::{HostId, NetworkId};
use overlay::network::{Name, Network, Range, Settings, Unfit};

use super::{NetworkError, name_in_use};

/// A network as it is asked for.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// What people are to call it.
    pub name: Name,
    /// Its subnets.
    pub subnets: Vec<Subnet>,
    /// Gateways, one of a subnet at most.
    pub gateways: Vec<IpAddr>,
    /// Where addresses are taken from, one of a subnet at most.
    pub pools: Vec<Subnet>,
    /// How it is to behave.
    pub settings: Settings,
}

/// What is asked for, if nothing known of the cluster is against it.
pub(super) fn define(cluster: &Cluster, creator: HostId, wanted: Wanted) -> Result<Network, NetworkError> {
    let Wanted { name, subnets, mut gateways, mut pools, settings } = wanted;
    if subnets.len() != 1 {
        return Err(NetworkError::Subnets(subnets.len()));
    }
    let range = |subnet: &Subnet| -> Result<Range, NetworkError> {
        let gateway = only("gateway", &mut gateways, subnet, |gateway| subnet.contains(*gateway))?;
        let pool = only("range", &mut pools, subnet, |pool| subnet.overlaps(pool))?;
        let range = Range::new(*subnet, gateway)?;
        Ok(pool.map_or(Ok(range), |pool| range.with_pool(pool))?)
    };
    let ranges: Vec<Range> = subnets.iter().map(range).collect::<Result<_, _>>()?;
    let left = gateways.first().map(|gateway| format!("gateway {gateway}"));
    if let Some(what) = left.or_else(|| pools.first().map(|pool| format!("range {pool}"))) {
        let subnets: Vec<String> = subnets.iter().map(Subnet::to_string).collect();
        return Err(NetworkError::Nowhere { what, subnets: subnets.join(", ") });
    }
    for range in &ranges {
        check_subnet(cluster, range.subnet, &settings)?;
    }
    if let Some(other) = cluster.networks.values().find(|v| v.network.name == name && !v.apart) {
        return Err(name_in_use(&other.network));
    }
    let id = NetworkId::from_bytes(crate::random());
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let network = Network { id, name, ranges, created: cluster.now + 1, creator, since, settings: settings.checked()? };
    for (address, name) in &network.settings.auxiliary {
        match network.admit(*address) {
            // It could be an endpoint's if it were not set aside.
            Ok(()) | Err(Unfit::Auxiliary) => {}
            Err(why) => return Err(NetworkError::Auxiliary { address: *address, name: name.clone(), why }),
        }
    }
    Ok(network)
}

/// Takes the one that is the subnet's.
fn only<T: Display + Copy>(
    kind: &str,
    all: &mut Vec<T>,
    subnet: &Subnet,
    belongs: impl Fn(&T) -> bool,
) -> Result<Option<T>, NetworkError> {
    let mut own = all.extract_if(.., |one| belongs(one));
    let first = own.next();
    match own.next() {
        Some(second) => Err(NetworkError::Second { what: format!("{kind} {second}"), subnet: *subnet }),
        None => Ok(first),
    }
}

fn check_subnet(cluster: &Cluster, subnet: Subnet, settings: &Settings) -> Result<(), NetworkError> {
    if let Some(host) = cluster.hosts.values().find(|h| subnet.contains(h.info.vtep)) {
        let (address, host) = (host.info.vtep, host.info.name.clone());
        return Err(NetworkError::Underlay { subnet, address, host });
    }
    let mut routed = cluster.networks.values().filter(|view| !settings.masquerade && !view.network.settings.masquerade);
    match routed.find(|view| view.network.ranges.iter().any(|range| range.subnet.overlaps(&subnet))) {
        Some(other) => Err(NetworkError::Routed { subnet, other: other.shown_name() }),
        None => Ok(()),
    }
}
