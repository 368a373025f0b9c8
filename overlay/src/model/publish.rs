//! Published ports: ports of a host that lead to an endpoint, whoever asks or only those who may.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use crate::model::addr::{IpVersion, Subnet};

/// What has ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
    /// RFC 9260.
    Sctp,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];

    /// The one of this name, in any case.
    pub fn named(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.to_string() == text.to_ascii_lowercase())
    }

    /// The one with this number in IP headers.
    pub fn numbered(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| u32::from(protocol.number()) == number)
    }

    /// Its number in IP headers (IANA, Protocol Numbers).
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

/// A port of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    /// Of what.
    pub protocol: Protocol,
    /// At this address of the host only: the unspecified one of a version stands for all of that version, and `None` for all
    /// that it has.
    pub address: Option<IpAddr>,
    /// The port, from 1.
    pub port: u16,
}

impl HostPort {
    /// Could a packet be for either?
    pub fn overlaps(&self, other: &Self) -> bool {
        let same = |version| {
            self.at(version)
                .zip(other.at(version))
                .is_some_and(|(a, b)| a == b || a.is_unspecified() || b.is_unspecified())
        };
        (self.protocol, self.port) == (other.protocol, other.port) && IpVersion::ALL.into_iter().any(same)
    }

    /// The address of this version that it is at, the unspecified one for all; `None` if it is at none.
    pub fn at(&self, version: IpVersion) -> Option<IpAddr> {
        match self.address {
            None => Some(version.unspecified()),
            Some(address) => Some(address).filter(|address| IpVersion::of(*address) == version),
        }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            None => write!(f, "{}/{}", self.port, self.protocol),
            Some(IpAddr::V4(address)) => write!(f, "{address}:{}/{}", self.port, self.protocol),
            Some(IpAddr::V6(address)) => write!(f, "[{address}]:{}/{}", self.port, self.protocol),
        }
    }
}

/// Where a published port leads.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// The port of the endpoint, from 1.
    pub port: u16,
    /// The port on the way, of the segment: no other published port of the network on this host has it.
    pub via: u16,
    /// Who may come from outside of the host; anybody if it is empty.
    pub allowed: BTreeSet<Subnet>,
}

/// The published ports of an endpoint.
pub type Published = BTreeMap<HostPort, Target>;

/// One port of a host and the port of an endpoint that it is to lead to.
pub type Pair = (HostPort, u16);

/// A text that names no ports.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// Linux takes no packets from there to another interface.
    #[error(
        "`{0}` can't be published at ::1, which the kernel keeps to itself: publish it at 127.0.0.1, or at an address of this host"
    )]
    Loopback(String),
    /// Not of the form.
    #[error("`{0}` says no port to publish: give [HOSTIP:]HOSTPORT[-END]:PORT[-END][/tcp|udp|sctp], like 8088:80")]
    Form(String),
    /// Not a port.
    #[error("`{port}` in `{spec}` is no port: give 1 to 65535, or a range like 8000-8009")]
    Port {
        /// All of it.
        spec: String,
        /// What should be a port.
        port: String,
    },
    /// As many ports here as there.
    #[error("the ranges in `{spec}` have {host} and {endpoint} ports: give ranges of the same length")]
    Lengths {
        /// All of it.
        spec: String,
        /// Ports of the host.
        host: usize,
        /// Ports of the endpoint.
        endpoint: usize,
    },
    /// Not a protocol.
    #[error("there is no protocol `{protocol}` in `{spec}`: choose tcp, udp or sctp")]
    Protocol {
        /// All of it.
        spec: String,
        /// What should be a protocol.
        protocol: String,
    },
    /// Not an address that a host has.
    #[error(
        "`{address}` in `{spec}` is no address of a host: give one that this host has, IPv6 as in [2001:db8::1]:8088:80, or none for all of them"
    )]
    Address {
        /// All of it.
        spec: String,
        /// What should be an address.
        address: String,
    },
}

/// The ports that a text like `127.0.0.1:8088:80/tcp` or `8000-8009:80-89/udp` means, in Docker's words.
///
/// # Errors
/// When it means none.
pub fn parse(spec: &str) -> Result<Vec<Pair>, SpecError> {
    let form = || SpecError::Form(spec.to_owned());
    let (ports, protocol) = match spec.rsplit_once('/') {
        None => (spec, Protocol::Tcp),
        Some((ports, text)) => {
            let unknown = || SpecError::Protocol { spec: spec.to_owned(), protocol: text.to_owned() };
            (ports, Protocol::named(text).ok_or_else(unknown)?)
        }
    };
    // What is in brackets is an address, and no port.
    let (host, endpoint) = ports
        .rsplit_once(':')
        .filter(|(host, endpoint)| !host.ends_with(']') && !endpoint.ends_with(']'))
        .ok_or_else(form)?;
    let (address, host) = match host.rsplit_once(':') {
        None => (None, host),
        Some((address, host)) => (Some(address_of(spec, address)?), host),
    };
    if host.is_empty() || endpoint.is_empty() {
        return Err(form());
    }
    let (host, endpoint) = (range(spec, host)?, range(spec, endpoint)?);
    if host.len() != endpoint.len() {
        return Err(SpecError::Lengths { spec: spec.to_owned(), host: host.len(), endpoint: endpoint.len() });
    }
    Ok(host.zip(endpoint).map(|(port, endpoint)| (HostPort { protocol, address, port }, endpoint)).collect())
}

/// The ports of a host that a text means: one that [`parse`] takes, or one without the endpoint's ports.
///
/// # Errors
/// When it means none.
pub fn parse_host(spec: &str) -> Result<Vec<HostPort>, SpecError> {
    let (ports, protocol) = match spec.rsplit_once('/') {
        Some((ports, protocol)) => (ports, format!("/{protocol}")),
        None => (spec, String::new()),
    };
    let whole = match ports.split(':').collect::<Vec<_>>().as_slice() {
        [host] => format!("{host}:{host}{protocol}"),
        [address, host] if address.contains('.') => format!("{ports}:{host}{protocol}"),
        _ => match ports.rsplit_once("]:") {
            Some((_, host)) if !host.contains(':') => format!("{ports}:{host}{protocol}"),
            _ => spec.to_owned(),
        },
    };
    Ok(parse(&whole)?.into_iter().map(|(host, _)| host).collect())
}

fn address_of(spec: &str, text: &str) -> Result<IpAddr, SpecError> {
    let wrong = || SpecError::Address { spec: spec.to_owned(), address: text.to_owned() };
    let address = match text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        Some(text) => IpAddr::V6(text.parse().map_err(|_| wrong())?),
        None => IpAddr::V4(text.parse().map_err(|_| wrong())?),
    };
    match address {
        IpAddr::V6(v6) if v6.is_loopback() => Err(SpecError::Loopback(spec.to_owned())),
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() || v6.is_unicast_link_local() => Err(wrong()),
        IpAddr::V4(v4) if v4.is_broadcast() => Err(wrong()),
        IpAddr::V4(_) | IpAddr::V6(_) if address.is_multicast() => Err(wrong()),
        IpAddr::V4(_) | IpAddr::V6(_) => Ok(address),
    }
}

/// The port that a text of digits says, from 1.
pub fn port(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| *port > 0 && digits)
}

fn range(spec: &str, text: &str) -> Result<std::ops::RangeInclusive<u16>, SpecError> {
    let wrong = || SpecError::Port { spec: spec.to_owned(), port: text.to_owned() };
    let port = |text: &str| port(text).ok_or_else(wrong);
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range = port(first)?..=port(last)?;
    if range.is_empty() { Err(wrong()) } else { Ok(range) }
}

/// The same addresses without the subnets that are inside of another one: the kernel takes no element twice.
pub fn widest(subnets: &BTreeSet<Subnet>) -> impl Iterator<Item = Subnet> + '_ {
    let inside = |a: &Subnet, b: &Subnet| a != b && b.contains(a.network()) && b.prefix_len() <= a.prefix_len();
    subnets.iter().copied().filter(move |subnet| !subnets.iter().any(|other| inside(subnet, other)))
}

/// A port on the way for each of `wanted`: its own number if that is free, else the lowest that is. `None` if too few are.
pub fn vias(taken: &BTreeSet<(Protocol, u16)>, wanted: &[HostPort]) -> Option<Vec<u16>> {
    let mut taken = taken.clone();
    wanted
        .iter()
        .map(|host| {
            let mut free = std::iter::once(host.port).chain(1..=u16::MAX);
            free.find(|via| taken.insert((host.protocol, *via)))
        })
        .collect()
}

#[cfg(test)]
mod tests;
