//! What is in the way of a port on this host: a program that uses it, or an address that this host does not have.
//!
//! Opens and closes sockets, and reads `/proc`: both may block, so it runs on a thread for blocking work.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::path::Path;

use nix::sys::socket::sockopt::{Ipv6V6Only, ReuseAddr};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket};
use overlay::model::addr::IpVersion;
use overlay::model::publish::{HostPort, Protocol};
use overlay::operations::publish_port::{Obstacles, PortError};

/// What is in the way of these ports.
pub async fn obstacles(ports: Vec<HostPort>) -> Obstacles {
    if ports.is_empty() {
        return BTreeMap::new();
    }
    let look = move || ports.into_iter().filter_map(|port| Some((port, check_unused(port).err()?))).collect();
    tokio::task::spawn_blocking(look).await.unwrap_or_default()
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
        // The kernel keeps connections of an ended program for a minute (TIME_WAIT). They do not keep a new program from the port.
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

/// The inode of the socket in a line of the table, if the socket has the port and is not a connection.
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
