//! The real kernel: the only code of this crate with effects. It executes and decides nothing.
//!
//! Owns what [`crate::datapath::observed::Observed`] shows: the namespaces under `RUN_DIR/netns` with all that is in them, in the
//! host's namespace the links `ovu*`, the table `inet overlay` and the switches for forwarding, and in a container's
//! namespace the one interface that an endpoint asks for. In the few chains of others that [`crate::datapath::foreign_chains`] names it puts rules of
//! its own, marked by their comments, and takes just those out again. Never touches anything else: no foreign link, route,
//! rule or interface, whatever its name.
//!
//! All goes over netlink, but for one program: `nft`, which compiles the rules. Each namespace has its own sockets,
//! made inside it ([`netns`]) and used one question at a time, since the kernel answers a second dump with EBUSY.

mod addr;
mod apply;
mod error;
mod fdb;
mod flows;
mod forwarding;
mod inside;
pub mod inspect;
mod link;
mod look;
mod neigh;
pub mod netns;
mod nft;
mod patience;
mod port;
pub mod preflight;
mod rows;
mod segment;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use self::error::OrDoing;
use self::inside::Inside;
use self::netns::NetnsError;
use self::patience::within;
use self::watch::Changes;
use crate::datapath::desired::uplink_ifname;
use crate::datapath::firewall::Family;
use crate::datapath::kernel_api::{Cause, Kernel, StepError};
use crate::datapath::observed::{Flow, Observed};
use crate::datapath::plan::Step;
use crate::model::id::NetworkId;

/// What [`RealKernel`] needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the daemon keeps what lives as long as the host is up; the segments' namespaces are in `netns` under it.
    pub run_dir: PathBuf,
    /// The VTEP's address: what the link carries that has it is followed.
    pub vtep: IpAddr,
}

/// The kernel of this host.
pub struct RealKernel {
    netns_dir: PathBuf,
    vtep: IpAddr,
    host: Inside,
    /// The segments as last seen: only their sockets, never their state.
    segments: BTreeMap<NetworkId, Inside>,
    /// Those that somebody took off their path: nobody can find them again, but their links are still in the way.
    lost: Vec<Inside>,
    /// The connections of the host, or of a segment, that were to be forgotten and could not be: nothing in the kernel shows that.
    unforgotten: BTreeMap<Option<NetworkId>, BTreeSet<Flow>>,
    /// A socket may have broken, or hold the answer to a question that was given up: the next look opens others.
    stale: bool,
    changes: Changes,
}

impl RealKernel {
    /// The kernel as seen from the namespace of the calling thread, which is the host's from now on. Must be called on
    /// a tokio runtime. What is left of an earlier boot is swept away: namespaces do not survive one, their files may.
    ///
    /// # Errors
    /// If the host's namespace can't be looked into, or the run directory can't be used.
    pub fn new(config: &Config) -> Result<Self, StepError> {
        let changes = Changes::new();
        let netns_dir = config.run_dir.join("netns");
        let doing = || format!("use the directory {}", netns_dir.display());
        fs::create_dir_all(&netns_dir).or_doing(doing)?;
        for (_, path) in kept(&netns_dir)?.into_iter().filter(|(_, path)| !netns::is_kept(path)) {
            netns::remove(&path).or_doing(doing)?;
        }
        let host = Inside::host(&changes).or_doing(|| "look into the host's network namespace")?;
        Ok(Self {
            netns_dir,
            vtep: config.vtep,
            host,
            segments: BTreeMap::new(),
            lost: Vec::new(),
            unforgotten: BTreeMap::new(),
            stale: false,
            changes,
        })
    }

    /// Counts up whenever something of ours may have changed; also by our own doing.
    pub fn changes(&self) -> tokio::sync::watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Where a network's namespace is, if this host has one.
    pub fn netns_path(&self, network: NetworkId) -> PathBuf {
        self.netns_dir.join(network.to_string())
    }

    /// Opens other sockets in all the namespaces. The host's is the one that it always was: it is kept open.
    fn renew(&mut self) -> Result<(), StepError> {
        self.host.renew_host(&self.changes).or_doing(|| "look into the host's network namespace")?;
        self.segments.clear();
        self.stale = false;
        Ok(())
    }

    /// Opens what is new, and closes what is gone.
    fn refresh(&mut self) -> Result<(), StepError> {
        let there: BTreeMap<NetworkId, PathBuf> =
            kept(&self.netns_dir)?.into_iter().filter(|(_, path)| netns::is_kept(path)).collect();
        let in_place = |id: &NetworkId, inside: &Inside| there.contains_key(id) && inside.netns.is_in_place();
        let (kept, lost): (BTreeMap<_, _>, BTreeMap<_, _>) =
            std::mem::take(&mut self.segments).into_iter().partition(|(id, inside)| in_place(id, inside));
        self.segments = kept;
        self.lost.extend(lost.into_values());
        for (id, path) in there {
            if !self.segments.contains_key(&id) {
                let doing = || format!("look into {}", path.display());
                match Inside::segment(&path, &self.changes) {
                    Ok(inside) => drop(self.segments.insert(id, inside)),
                    // Removed a moment ago.
                    Err(NetnsError::NotFound { .. } | NetnsError::NotNetns { .. }) => {}
                    Err(error) => return Err(error).or_doing(doing),
                }
            }
        }
        Ok(())
    }

    async fn look(&mut self) -> Result<Observed, StepError> {
        if self.stale {
            self.renew()?;
        }
        self.refresh()?;
        let doing = || "look at the rules of the host";
        let firewall = within(doing, async { self.host.rules.marks(Family::Inet).await.or_doing(doing) }).await?;
        let doing = || "look at the rules of others on the host";
        let others = within(doing, look::others(&mut self.host, self.vtep)).await?;
        let doing = || "look at the links of the host";
        let underlay_mtu = within(doing, look::underlay_mtu(&self.host, self.vtep)).await?;
        let forwarding = forwarding::seen(&self.host)?;
        let unforgotten = self.unforgotten.get(&None).cloned().unwrap_or_default();
        let mut observed =
            Observed { underlay_mtu, forwarding, firewall, unforgotten, others, segments: BTreeMap::new() };
        for (id, inside) in &mut self.segments {
            let doing = || format!("look into the segment {}", id.short());
            let mut segment = within(doing, look::segment(&self.host, inside, &uplink_ifname(*id))).await?;
            segment.unforgotten = self.unforgotten.get(&Some(*id)).cloned().unwrap_or_default();
            observed.segments.insert(*id, segment);
        }
        Ok(observed)
    }
}

impl Kernel for RealKernel {
    async fn observe(&mut self) -> Result<Observed, StepError> {
        let seen = self.look().await;
        self.stale |= seen.is_err();
        seen
    }

    async fn apply(&mut self, steps: &[Step]) -> Vec<Result<(), StepError>> {
        self.clear_lost().await;
        let results = self.execute_all(steps).await;
        self.stale |= results.iter().any(|result| matches!(result, Err(error) if error.cause == Cause::Busy));
        results
    }
}

/// The files that stand for namespaces: those whose names are ids.
fn kept(netns_dir: &Path) -> Result<Vec<(NetworkId, PathBuf)>, StepError> {
    let doing = || format!("read the directory {}", netns_dir.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(netns_dir).or_doing(doing)? {
        let entry = entry.or_doing(doing)?;
        if let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
            files.push((id, entry.path()));
        }
    }
    Ok(files)
}
