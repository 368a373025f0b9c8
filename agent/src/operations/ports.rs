//! Ports of this host: whether one can be published, and who has it if not.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::path::Path;

use nix::sys::socket::sockopt::{Ipv6V6Only, ReuseAddr};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket};
use overlay::model::addr::{IpVersion, Subnet};
use overlay::model::id::EndpointId;
use overlay::model::intent::Intents;
use overlay::model::network::{Name, Network};
use overlay::model::publish::{HostPort, Protocol, Published, Target, vias};

/// A port that is to lead to an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The port of this host.
    pub host: HostPort,
    /// The port of the endpoint.
    pub port: u16,
    /// Who may come from outside of this host; anybody if it is empty.
    pub allowed: BTreeSet<Subnet>,
}

/// Why a port can't be published, or is published no more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// It leads to another endpoint.
    #[error(
        "port {port} of this host can't be published: {other} leads to `{name}` of network `{network}` already; choose another port, or unpublish that one"
    )]
    Published {
        /// The port.
        port: HostPort,
        /// What is in its way.
        other: HostPort,
        /// Where that leads.
        name: Name,
        /// Its network.
        network: Name,
    },
    /// It is there twice.
    #[error("port {0} is to be published twice: give it once")]
    Twice(HostPort),
    /// A program listens on it.
    #[error("port {port} of this host can't be published: {program} uses it; choose another port, or end that")]
    InUse {
        /// The port.
        port: HostPort,
        /// Who, as far as can be told.
        program: String,
    },
    /// What comes in there are packets of the tunnels.
    #[error("port {0} of this host can't be published: the tunnels between hosts use it; choose another port")]
    Tunnel(HostPort),
    /// The address is another host's.
    #[error(
        "port {0} can't be published: the address is none of this host's; `ip address` shows those, and without one it is published on all"
    )]
    NotHere(HostPort),
    /// No packet comes in there.
    #[error(
        "port {port} can't be published: network `{network}` is internal, so nothing from outside gets there; use another network"
    )]
    Internal {
        /// The port.
        port: HostPort,
        /// The network.
        network: Name,
    },
    /// Nobody there has an address of that version.
    #[error(
        "port {port} can't be published: network `{network}` has no {version}; leave its address out, or use a network that has it"
    )]
    Version {
        /// The port.
        port: HostPort,
        /// The network.
        network: Name,
        /// What it has not.
        version: IpVersion,
    },
    /// Nobody could come.
    #[error(
        "port {port} can't be published for {allowed} only: nobody from there comes to it in network `{network}`, which is of another version of IP"
    )]
    Nobody {
        /// The port.
        port: HostPort,
        /// The network.
        network: Name,
        /// One of those who may.
        allowed: Subnet,
    },
    /// All ports of the segment are taken.
    #[error("no more ports can be published in network `{0}` on this host: unpublish some, or use another network")]
    Full(Name),
    /// It is not published.
    #[error("port {port} of this host does not lead to `{name}`: see `overlayctl endpoint port {name}`")]
    NotPublished {
        /// The port.
        port: HostPort,
        /// The endpoint.
        name: Name,
    },
}

/// The published ports of an endpoint once it has these as well. What it has under the same ports is replaced.
///
/// # Errors
/// When one leads elsewhere, or can't lead there.
pub fn publish(
    intents: &Intents,
    network: &Network,
    endpoint: EndpointId,
    wanted: &[Wanted],
) -> Result<Published, PortError> {
    let own = intents.attachments.get(&endpoint).map(|a| a.published.clone()).unwrap_or_default();
    let mut published = own.clone();
    published.retain(|host, _| !wanted.iter().any(|w| w.host == *host));
    for (n, Wanted { host, allowed, .. }) in wanted.iter().enumerate() {
        if network.settings.internal {
            return Err(PortError::Internal { port: *host, network: network.name.clone() });
        }
        check_versions(network, *host, allowed)?;
        let taken =
            intents.publishers(host).find(|(a, other)| a.endpoint.id != endpoint || published.contains_key(other));
        if let Some((attachment, other)) = taken {
            let of = intents.networks.get(&attachment.endpoint.network).map_or(&network.name, |n| &n.name);
            let (name, network) = (attachment.endpoint.name.clone(), of.clone());
            return Err(PortError::Published { port: *host, other, name, network });
        }
        if wanted[..n].iter().any(|before| before.host.overlaps(host)) {
            return Err(PortError::Twice(*host));
        }
    }
    let mut taken = intents.vias(network.id);
    // What is published anew goes the way that it went.
    let kept: Vec<Option<u16>> = wanted.iter().map(|w| own.get(&w.host).map(|target| target.via)).collect();
    let fresh: Vec<HostPort> = wanted.iter().zip(&kept).filter(|(_, via)| via.is_none()).map(|(w, _)| w.host).collect();
    taken.extend(wanted.iter().zip(&kept).filter_map(|(w, via)| Some((w.host.protocol, (*via)?))));
    let mut fresh = vias(&taken, &fresh).ok_or_else(|| PortError::Full(network.name.clone()))?.into_iter();
    for (Wanted { host, port, allowed }, via) in wanted.iter().cloned().zip(kept) {
        let via = via.or_else(|| fresh.next()).expect("there is one for each");
        published.insert(host, Target { port, via, allowed });
    }
    Ok(published)
}

/// Is there an address of the network that the port could lead to, and anybody who may come there?
fn check_versions(network: &Network, port: HostPort, allowed: &BTreeSet<Subnet>) -> Result<(), PortError> {
    let versions: Vec<IpVersion> = network.versions().filter(|version| port.at(*version).is_some()).collect();
    let network = network.name.clone();
    match (port.address, allowed.first()) {
        (Some(address), _) if versions.is_empty() => {
            Err(PortError::Version { port, network, version: IpVersion::of(address) })
        }
        (_, Some(first)) if !allowed.iter().any(|subnet| versions.contains(&subnet.version())) => {
            Err(PortError::Nobody { port, network, allowed: *first })
        }
        _ => Ok(()),
    }
}

/// Publishes a port no more. One that is published at all addresses goes on under the other version of IP if only those of one
/// were said.
pub fn withdraw(published: &mut Published, port: HostPort) -> Result<(), HostPort> {
    if published.remove(&port).is_some() {
        return Ok(());
    }
    let everywhere = HostPort { address: None, ..port };
    let Some(address) = port.address.filter(IpAddr::is_unspecified) else { return Err(port) };
    let target = published.remove(&everywhere).ok_or(port)?;
    let others = IpVersion::ALL.into_iter().filter(|version| *version != IpVersion::of(address));
    published.extend(others.map(|v| (HostPort { address: Some(v.unspecified()), ..port }, target.clone())));
    Ok(())
}

/// Is a port free on this host? Only as far as programs are concerned: to be asked before it leads anywhere.
///
/// # Errors
/// When a program has it, or the address is none of this host's.
pub fn check_unused(port: HostPort) -> Result<(), PortError> {
    for at in IpVersion::ALL.into_iter().filter_map(|version| port.at(version)) {
        match try_out(port.protocol, SocketAddr::new(at, port.port)).map_err(|error| error.kind()) {
            Err(io::ErrorKind::AddrInUse) => {
                let program = user(Path::new("/proc"), port).unwrap_or_else(|| "another program".to_owned());
                return Err(PortError::InUse { port, program });
            }
            Err(io::ErrorKind::AddrNotAvailable) => return Err(PortError::NotHere(port)),
            // What else may be wrong with a socket of ours says nothing of the port.
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// Takes the address for a moment, under its own version of IP only.
fn try_out(protocol: Protocol, at: SocketAddr) -> io::Result<()> {
    let family = if at.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let kind = match protocol {
        Protocol::Tcp => SockType::Stream,
        Protocol::Udp => SockType::Datagram,
        // There is no telling without a socket of its kind, which few hosts have.
        Protocol::Sctp => return Ok(()),
    };
    let tried = socket(family, kind, SockFlag::SOCK_CLOEXEC, None)?;
    if at.is_ipv6() {
        setsockopt(&tried, Ipv6V6Only, &true)?;
    }
    if kind == SockType::Stream {
        // What is left for a minute of a program that has ended is in nobody's way.
        setsockopt(&tried, ReuseAddr, &true)?;
    }
    bind(tried.as_raw_fd(), &SockaddrStorage::from(at))?;
    // Of two TCP sockets that only have the address, either may be meant to listen.
    if kind == SockType::Stream { listen(&tried, Backlog::new(1)?).map_err(io::Error::from) } else { Ok(()) }
}

/// The program that has a socket with this port (proc_net_tcp(5)).
fn user(proc: &Path, port: HostPort) -> Option<String> {
    let tables: &[&str] = match port.protocol {
        Protocol::Tcp => &["tcp", "tcp6"],
        Protocol::Udp => &["udp", "udp6"],
        Protocol::Sctp => &[],
    };
    let text = |table: &&str| fs::read_to_string(proc.join("self/net").join(table)).ok();
    let inode = tables.iter().filter_map(text).find_map(|table| table.lines().find_map(|line| inode(line, port)))?;
    let socket = format!("socket:[{inode}]");
    let processes = fs::read_dir(proc).ok()?.flatten().map(|entry| entry.path());
    let has = |process: &std::path::PathBuf| {
        let files = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
        files.into_iter().any(|file| fs::read_link(file.path()).is_ok_and(|to| to.as_os_str() == socket.as_str()))
    };
    let process = processes.filter(|path| is_number(path)).find(has)?;
    let name = fs::read_to_string(process.join("comm")).ok()?;
    Some(format!("`{}` (process {})", name.trim(), process.file_name()?.to_string_lossy()))
}

fn is_number(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()))
}

/// The inode of a row's socket, if that is bound to the port and nobody is connected to it.
fn inode(line: &str, port: HostPort) -> Option<u64> {
    let columns: Vec<&str> = line.split_whitespace().collect();
    let (local, state) = (columns.get(1)?, columns.get(3)?);
    let (address, number) = local.split_once(':')?;
    let bound = u16::from_str_radix(number, 16).ok()? == port.port;
    let at = in_memory(address)?;
    // An IPv6 socket at no address in particular may take IPv4 as well.
    let wanted = port.at(IpVersion::of(at));
    let same = at.is_unspecified() || wanted.is_some_and(|wanted| wanted.is_unspecified() || wanted == at);
    // TCP_LISTEN and, for UDP, TCP_CLOSE: `include/net/tcp_states.h`.
    (bound && same && ["0A", "07"].contains(state)).then(|| columns.get(9)?.parse().ok()).flatten()
}

/// An address that is written as the machine has it in memory, four bytes at a time.
fn in_memory(digits: &str) -> Option<IpAddr> {
    let word = |n: usize| Some(u32::from_str_radix(digits.get(8 * n..8 * n + 8)?, 16).ok()?.to_ne_bytes());
    match digits.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let octets: [u8; 16] = [word(0)?, word(1)?, word(2)?, word(3)?].concat().try_into().ok()?;
            Some(IpAddr::from(Ipv6Addr::from(octets)).to_canonical())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
