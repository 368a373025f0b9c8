//! The real kernel: the only code of this crate with effects. It executes and decides nothing.
//!
//! Owns what [`crate::datapath::observed::Observed`] shows: the namespaces under `RUN_DIR/netns` with all that is in them, in the
//! host's namespace the links `ovu*`, the table `inet overlay` and the switches for forwarding, and in a container's
//! namespace the one interface that an endpoint asks for. In the few chains of others that [`crate::datapath::foreign_chains`] names it puts rules of
//! its own, marked by their comments, and takes just those out again. [`neighbour_limits`] raises the machine's limits on neighbours. Never
//! touches anything else: no foreign link, route, rule or interface, whatever its name.
//!
//! All goes over netlink, but for one program: `nft`, which compiles the rules. Each namespace has its own sockets,
//! made inside it ([`netns`]) and used one question at a time, since the kernel answers a second dump with EBUSY.

mod addr;
mod announce;
mod apply;
mod drift;
mod error;
mod fdb;
mod fixtures;
mod flows;
mod forwarding;
mod host_message;
pub mod inspect;
mod legacy;
mod link;
mod listener;
mod look;
mod mirror;
mod neigh;
pub mod neighbour_limits;
pub mod netns;
mod netns_sockets;
mod nft;
mod objects;
mod open_files;
mod port;
pub mod preflight;
mod rows;
mod segment;
mod settings;
mod settings_watch;
mod source_route;
mod strangers;
mod time_limit;
mod traits;
mod underlay;
mod uplink;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::drift::Baselines;
use self::error::OrDoing;
use self::forwarding::Switches;
use self::legacy::Lists;
use self::netns::{Netns, NetnsError, blocking};
use self::netns_sockets::{NetnsSockets, Segment};
use self::open_files::Room;
use self::settings_watch::SettingsWatch;
use self::time_limit::within;
use self::underlay::Routed;
use self::watch::Changes;
use crate::datapath::attention::{Look, News, Part};
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
    /// The VTEP's address.
    pub vtep: IpAddr,
}

/// The kernel of this host.
pub struct RealKernel {
    netns_dir: PathBuf,
    vtep: IpAddr,
    peers: BTreeSet<IpAddr>,
    host: NetnsSockets,
    switches: Switches,
    routed: Routed,
    settings: SettingsWatch,
    legacy: Lists,
    /// The segments as last seen: their sockets, and what grows with their endpoints.
    segments: BTreeMap<NetworkId, Segment>,
    /// What the links of segments were like whose sockets are opened anew.
    baselines: BTreeMap<NetworkId, Baselines>,
    /// Those that somebody took off their path: nobody can find them again, but their links are still in the way.
    lost: Vec<Segment>,
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
        let host = NetnsSockets::host(&changes).or_doing(|| "look into the host's network namespace")?;
        let switches = Switches::open(&host.netns)?;
        let settings = SettingsWatch::open(&changes);
        changes.set_peers([config.vtep].into());
        Ok(Self {
            netns_dir,
            vtep: config.vtep,
            peers: BTreeSet::new(),
            host,
            switches,
            routed: Routed::default(),
            settings,
            legacy: Lists::default(),
            segments: BTreeMap::new(),
            baselines: BTreeMap::new(),
            lost: Vec::new(),
            unforgotten: BTreeMap::new(),
            stale: false,
            changes,
        })
    }

    /// Tells of each part of which something of ours may have changed; also by our own doing.
    pub fn changes(&self) -> tokio::sync::watch::Receiver<News> {
        self.changes.subscribe()
    }

    /// Where a network's namespace is, if this host has one.
    pub fn netns_path(&self, network: NetworkId) -> PathBuf {
        self.netns_dir.join(network.to_string())
    }

    /// Opens other sockets in all the namespaces. The host's is the one that it always was: it is kept open.
    async fn renew(&mut self, look: &Look) -> Result<(), StepError> {
        let doing = || "look into the host's network namespace";
        self.host = NetnsSockets::renewed(Arc::clone(&self.host.netns), &self.changes).await.or_doing(doing)?;
        self.changes.note(Part::Host);
        self.part_with_lost(look).await?;
        // The namespaces are the same: what their links were like stays what is right.
        let segments = std::mem::take(&mut self.segments).into_iter();
        self.baselines.extend(segments.map(|(id, segment)| (id, segment.baselines)));
        self.stale = false;
        Ok(())
    }

    /// Opens the namespaces that are new, and parts with those that are gone. Both are news, also if they are looked at now: what is
    /// seen may be for an operator only, and no round may have heard what changed between the old sockets and the new ones.
    async fn refresh(&mut self, look: &Look) -> Result<(), StepError> {
        let mut there = self.part_with_lost(look).await?;
        there.retain(|id, _| !self.segments.contains_key(id));
        let mut room = Room::left();
        for (id, path) in there {
            let doing = || format!("look into {}", path.display());
            // That it can't be looked into is for the plan to find, and no reason not to look into the others.
            if !room.take() {
                continue;
            }
            match Segment::kept(path.clone(), id, &self.changes).await {
                Ok(mut segment) => {
                    segment.baselines = self.baselines.remove(&id).unwrap_or_default();
                    self.segments.insert(id, segment);
                    self.changes.note(Part::Segment(id));
                }
                // Removed a moment ago.
                Err(NetnsError::NotFound { .. } | NetnsError::NotNetns { .. }) => {}
                Err(error) => return Err(error).or_doing(doing),
            }
        }
        Ok(())
    }

    /// Sets the namespaces aside that somebody took off their path, until the next apply clears them; the others that are kept.
    async fn part_with_lost(&mut self, look: &Look) -> Result<BTreeMap<NetworkId, PathBuf>, StepError> {
        let NetnsFiles { there, lost } = self.find(look).await?;
        for id in lost {
            self.lost.extend(self.segments.remove(&id));
            self.changes.note(Part::Segment(id));
        }
        Ok(there)
    }

    /// The namespaces that are kept: of those that are open or looked at, or of all.
    async fn find(&self, look: &Look) -> Result<NetnsFiles, StepError> {
        let known: Vec<(NetworkId, Arc<Netns>)> =
            self.segments.iter().map(|(id, segment)| (*id, Arc::clone(&segment.sockets.netns))).collect();
        let paths = match look {
            Look::Only(parts) if !known.is_empty() => {
                let ids = parts.iter().filter_map(|part| part.segment()).chain(self.segments.keys().copied());
                Some(ids.map(|id| (id, self.netns_path(id))).collect::<BTreeMap<_, _>>())
            }
            Look::Only(_) | Look::Everything => None,
        };
        let netns_dir = self.netns_dir.clone();
        let found = blocking(move || {
            let paths = paths.map_or_else(|| kept(&netns_dir), Ok)?;
            let there: BTreeMap<_, _> = paths.into_iter().filter(|(_, path)| netns::is_kept(path)).collect();
            let is_lost = |(id, netns): &(NetworkId, Arc<Netns>)| !there.contains_key(id) || !netns.is_in_place();
            let lost = known.into_iter().filter(is_lost).map(|(id, _)| id).collect();
            Ok(NetnsFiles { there, lost })
        });
        found.await
    }

    async fn look(&mut self, look: &Look) -> Result<Observed, StepError> {
        if self.stale {
            self.renew(look).await?;
        }
        self.refresh(look).await?;
        let mut observed = if look.has(Part::Host) { self.look_at_host().await? } else { Observed::default() };
        for (id, segment) in self.segments.iter_mut().filter(|(id, _)| look.has(Part::Segment(**id))) {
            let doing = || format!("look into the segment {}", id.short());
            if *look == Look::Everything {
                segment.objects.forget();
                segment.fixtures = None;
                segment.baselines.read_again();
            }
            let watched = (&self.changes, self.settings.watched());
            let mut seen = within(doing, look::segment(&self.host, segment, *id, watched)).await?;
            seen.unforgotten = self.unforgotten.get(&Some(*id)).cloned().unwrap_or_default();
            observed.segments.insert(*id, seen);
        }
        Ok(observed)
    }

    /// The host's part.
    async fn look_at_host(&mut self) -> Result<Observed, StepError> {
        self.host.catch_up().or_doing(|| "hear of changes in the host's network namespace")?;
        let doing = || "look at the rules of the host";
        let firewall = within(doing, async { self.host.rules.table(Family::Inet).await.or_doing(doing) }).await?;
        let doing = || "look at the rules of others on the host";
        let (others, leading_out) = within(doing, look::others(&mut self.host, &mut self.legacy, self.vtep)).await?;
        let doing = || "look at the links of the host";
        let (route, vtep, peers) = (&self.host.route, self.vtep, &self.peers);
        let underlay = within(doing, async { underlay::look(route, vtep, peers).await.or_doing(doing) }).await?;
        self.changes.set_ways(underlay.links.into_iter().chain(leading_out).collect());
        let uplinks = self.changes.uplinks();
        let doing = || "look at the routes of the host";
        let (route, routed) = (&self.host.route, &mut self.routed);
        let routed = within(doing, async { routed.look(route, &uplinks).await.or_doing(doing) }).await?;
        let forwarding = self.switches.seen()?;
        let unforgotten = self.unforgotten.get(&None).cloned().unwrap_or_default();
        Ok(Observed {
            underlay_mtu: underlay.mtu,
            routed: Some(routed),
            forwarding,
            firewall,
            unforgotten,
            others,
            segments: BTreeMap::new(),
        })
    }
}

impl Kernel for RealKernel {
    fn set_peers(&mut self, peers: &BTreeSet<IpAddr>) {
        if self.peers != *peers {
            self.peers.clone_from(peers);
            self.changes.set_peers(peers.iter().copied().chain([self.vtep]).collect());
        }
    }

    async fn observe(&mut self, look: &Look) -> Result<Observed, StepError> {
        let seen = self.look(look).await;
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

/// What is found where namespaces are kept.
struct NetnsFiles {
    there: BTreeMap<NetworkId, PathBuf>,
    /// Those that were open and are no longer what stands at their paths.
    lost: Vec<NetworkId>,
}

/// The files that stand for namespaces: those whose names are ids.
fn kept(netns_dir: &Path) -> Result<BTreeMap<NetworkId, PathBuf>, StepError> {
    let doing = || format!("read the directory {}", netns_dir.display());
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(netns_dir).or_doing(doing)? {
        let entry = entry.or_doing(doing)?;
        if let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
            files.insert(id, entry.path());
        }
    }
    Ok(files)
}
