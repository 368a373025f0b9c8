//! What has to be true before the daemon starts, checked by trying it in a namespace that nobody sees.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use rtnetlink::LinkVxlan;

use super::error::Meaning;
use super::netns::{self, Netns, NetnsError};
use super::{addr, nft, underlay};
use crate::datapath::kernel_api::Cause;
use crate::datapath::names::TUNNEL;

/// What the daemon learns of its host on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Host {
    /// MTU in bytes of the interface that has the VTEP's address; if that is the loopback's, of the way to everywhere.
    pub underlay_mtu: u32,
}

/// Why the daemon can't work here; each says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum PreflightError {
    /// A capability is missing.
    #[error("{capability} is missing: run overlayd as root, or give it this capability (it was needed to {needed_to})")]
    Capability {
        /// Its name.
        capability: &'static str,
        /// What was tried.
        needed_to: &'static str,
    },
    /// No VXLAN.
    #[error(
        "this kernel has no VXLAN devices: load the module with `modprobe vxlan`, or use a kernel built with CONFIG_VXLAN"
    )]
    NoVxlan,
    /// No `nft`.
    #[error("the program `nft` is not here: install the package nftables")]
    NoNft,
    /// `nft` does not start.
    #[error("the program `nft` does not start: see what `nft --version` says")]
    BrokenNft(#[source] io::Error),
    /// The VTEP's address is nobody's.
    #[error("no interface of this host has the address {vtep}: give --address one of {}", list(there))]
    NoSuchAddress {
        /// What was given.
        vtep: IpAddr,
        /// What there is.
        there: BTreeSet<IpAddr>,
    },
    /// Namespaces can't be kept in the run directory.
    #[error("can't keep network namespaces in {}: use a --run-dir on a local file system where mounting is allowed", path.display())]
    RunDir {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: NetnsError,
    },
    /// Something else.
    #[error("this host's kernel does not let overlayd {needed_to}")]
    Refused {
        /// What was tried.
        needed_to: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

fn list(addresses: &BTreeSet<IpAddr>) -> String {
    let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    if texts.is_empty() { "the addresses that it has (there is none)".to_owned() } else { texts.join(", ") }
}

/// Tries all that the daemon will need. Must be called in the host's namespace, on a tokio runtime.
///
/// # Errors
/// The first thing that is missing.
pub async fn preflight(vtep: IpAddr, run_dir: &Path) -> Result<Host, PreflightError> {
    let host = Netns::current().map_err(not_entered)?;
    may_administer(&host).await?;
    has_vxlan().await?;
    match nft::find_program().await {
        Ok(()) => {}
        Err(nft::NftError::Run(source)) => return Err(PreflightError::BrokenNft(source)),
        Err(nft::NftError::Slow) => return Err(PreflightError::BrokenNft(io::ErrorKind::TimedOut.into())),
        Err(_) => return Err(PreflightError::NoNft),
    }
    let underlay_mtu = underlay_mtu(&host, vtep).await?;
    may_keep(run_dir)?;
    Ok(Host { underlay_mtu })
}

/// What is assumed of a way that is not known yet.
const ETHERNET_MTU: u32 = 1500;

const ENTER: &str = "make and enter network namespaces";
const CHANGE: &str = "change the links of the host";
const LOOK: &str = "look at the links of the host";

fn not_entered(error: NetnsError) -> PreflightError {
    match error.meaning() {
        Cause::Denied => PreflightError::Capability { capability: "CAP_SYS_ADMIN", needed_to: ENTER },
        _ => PreflightError::Refused { needed_to: ENTER, source: io::Error::other(error) },
    }
}

fn refused(needed_to: &'static str, error: rtnetlink::Error) -> PreflightError {
    match error.meaning() {
        Cause::Denied => PreflightError::Capability { capability: "CAP_NET_ADMIN", needed_to },
        _ => PreflightError::Refused { needed_to, source: io::Error::other(error) },
    }
}

/// The kernel checks the right to change links before it looks which link is meant: so a link that can't exist is asked
/// to be removed (index 0 and no name would be an error of ours, hence the largest index).
async fn may_administer(host: &Netns) -> Result<(), PreflightError> {
    let route = netns::connect(host).map_err(not_entered)?;
    match route.link().del(i32::MAX.unsigned_abs()).execute().await {
        Err(error) if error.meaning() != Cause::Gone => Err(refused(CHANGE, error)),
        _ => Ok(()),
    }
}

async fn has_vxlan() -> Result<(), PreflightError> {
    let nowhere = netns::create(Path::new("/proc/thread-self/ns/net"), || Ok(())).map_err(not_entered)?;
    let route = netns::connect(&nowhere).map_err(not_entered)?;
    let device = LinkVxlan::new(TUNNEL, 1).port(4789).local(Ipv4Addr::LOCALHOST).learning(false).build();
    route.link().add(device).execute().await.map_err(no_device)
}

/// A kernel without a kind of device says that the operation is not supported (`rtnl_newlink`: EOPNOTSUPP).
fn no_device(error: rtnetlink::Error) -> PreflightError {
    match error.meaning() {
        Cause::Unsupported => PreflightError::NoVxlan,
        _ => refused("make a VXLAN device", error),
    }
}

async fn underlay_mtu(host: &Netns, vtep: IpAddr) -> Result<u32, PreflightError> {
    let route = netns::connect(host).map_err(not_entered)?;
    let addresses = addr::all(&route).await.map_err(|error| refused(LOOK, error))?;
    if addr::link_of(&addresses, vtep).is_none() {
        let useful = |ip: &IpAddr| !ip.is_loopback() && !is_link_local(*ip);
        let there = addresses.values().flatten().map(|a| a.address).filter(useful).collect();
        return Err(PreflightError::NoSuchAddress { vtep, there });
    }
    let underlay = underlay::look(&route, vtep, &BTreeSet::new()).await.map_err(|error| refused(LOOK, error))?;
    Ok(underlay.mtu.unwrap_or(ETHERNET_MTU))
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

/// Keeps a namespace for a moment where those of the segments will be.
fn may_keep(run_dir: &Path) -> Result<(), PreflightError> {
    let path = run_dir.join("netns").join(".try");
    let tried =
        netns::create(&path, || Ok(())).and_then(|netns| netns::keep(&netns)).and_then(|()| netns::remove(&path));
    tried.map_err(|source| PreflightError::RunDir { path: run_dir.to_owned(), source })
}

#[cfg(test)]
mod tests;
