//! What is asked for, parsed: whatever is wrong with it is refused here, in one line that names it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use overlay::model::addr::Subnet;
use overlay::model::links::{Link, Reached};
use overlay::model::network::{Driver, Name, Settings, SettingsError};
use overlay::model::publish::{self, HostPort};
use overlay::operations::container::Priority;
use overlay::operations::define_network::NetworkSpec;
use overlay::operations::network_refusal::NetworkRefusal;
use overlay::operations::publish_port::WantedPort;
use overlay_proto::v1 as pb;
use tonic::Status;

use super::{parse, parse_some};
use crate::operations::network::NetworkError;

/// A network.
pub(crate) fn network(request: pb::CreateNetworkRequest) -> Result<NetworkSpec, Status> {
    let auxiliary = |(name, address): &(String, String)| {
        let of = format!("auxiliary address of `{name}`");
        Ok((address_of(&of, address)?, parse::<Name>(name)?))
    };
    let given: Vec<(String, String)> = request.aux_addresses.into_iter().collect();
    let settings = Settings {
        driver: if request.driver.is_empty() { Driver::default() } else { parse(&request.driver)? },
        internal: request.internal,
        masquerade: !request.no_masquerade,
        icc: !request.no_icc,
        mtu: match request.mtu {
            0 => None,
            mtu => Some(
                u16::try_from(mtu).map_err(|_| NetworkError::from(NetworkRefusal::from(SettingsError::Mtu(mtu))))?,
            ),
        },
        auxiliary: given.iter().map(auxiliary).collect::<Result<BTreeMap<_, _>, Status>>()?,
        labels: request.labels,
    };
    Ok(NetworkSpec {
        name: parse(&request.name)?,
        subnets: all(&request.subnets)?,
        gateways: request.gateways.iter().map(|text| address_of("gateway", text)).collect::<Result<_, _>>()?,
        pools: all(&request.ip_ranges)?,
        ipv6: request.ipv6,
        settings,
    })
}

/// Ports in one request: each is looked at beside all others.
const MAX_PORTS: usize = 2048;

/// Ports that are to be published.
pub(crate) fn ports(specs: &pb::PublishSpecs) -> Result<Vec<WantedPort>, Status> {
    let given: BTreeSet<Subnet> = all::<Subnet>(&specs.allow_from)?.into_iter().collect();
    let allowed: BTreeSet<Subnet> = publish::widest(&given).collect();
    let is_mapped = |subnet: &&Subnet| subnet.network() != subnet.network().to_canonical();
    if let Some(mapped) = allowed.iter().find(is_mapped) {
        return Err(Status::invalid_argument(format!(
            "--allow-from {mapped} is an IPv4 subnet written as IPv6, which no packet comes from: write it as IPv4"
        )));
    }
    if specs.ports.is_empty() && !allowed.is_empty() {
        return Err(Status::invalid_argument("--allow-from says who may reach a published port, and none is: give -p"));
    }
    let mut wanted = Vec::new();
    for spec in &specs.ports {
        let pairs = publish::parse(spec).map_err(|error| Status::invalid_argument(error.to_string()))?;
        if wanted.len() + pairs.len() > MAX_PORTS {
            let many =
                format!("`{spec}` makes more than {MAX_PORTS} ports to be published at once: do it in several calls");
            return Err(Status::invalid_argument(many));
        }
        wanted.extend(pairs.into_iter().map(|(host, port)| WantedPort { host, port, allowed: allowed.clone() }));
    }
    Ok(wanted)
}

/// Ports of this host, whatever they lead to.
pub(crate) fn host_ports(specs: &[String]) -> Result<Vec<HostPort>, Status> {
    let mut ports = Vec::new();
    for spec in specs {
        let pairs = publish::parse_host(spec).map_err(|error| Status::invalid_argument(error.to_string()))?;
        ports.extend(pairs);
    }
    Ok(ports)
}

/// The addresses that an endpoint is to have.
pub(crate) fn addresses(ip: &str, ip6: &str) -> Result<BTreeSet<IpAddr>, Status> {
    let v4 = parse_some::<Ipv4Addr>("IPv4 address", ip, "one like 172.38.0.11, without a prefix length")?;
    let v6 = parse_some::<Ipv6Addr>("IPv6 address", ip6, "one like fd00:38::11, without a prefix length")?;
    Ok(v4.map(IpAddr::V4).into_iter().chain(v6.map(IpAddr::V6)).collect())
}

/// A gateway priority.
pub(crate) fn priority(number: i32) -> Result<Priority, Status> {
    Priority::try_from(number).map_err(|error| Status::invalid_argument(error.to_string()))
}

/// A link, and the network that it is in.
pub(crate) fn link(request: pb::LinkRequest) -> Result<(String, Link), Status> {
    let pb::LinkRequest { network, from, to } = request;
    let Reached { to, service } = parse(&to)?;
    Ok((network, Link { from: parse(&from)?, to, service }))
}

fn all<T: FromStr>(texts: &[String]) -> Result<Vec<T>, Status>
where
    T::Err: std::fmt::Display,
{
    texts.iter().map(|text| parse(text)).collect()
}

fn address_of(what: &str, text: &str) -> Result<IpAddr, Status> {
    let given = parse_some(what, text, "an IP address, without a prefix length")?;
    given.ok_or_else(|| Status::invalid_argument(format!("{what} is empty: give an IP address")))
}
