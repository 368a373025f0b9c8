//! Who founds a cluster, and who rather joins another: decided by what a host hears.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use crate::cluster::{Cluster, Host};
use crate::ledger::{Activation, Input, Ledger};
use crate::model::host::{Liveness, Phase};
use crate::model::id::HostId;

/// The hosts that can be asked.
pub fn reachable(cluster: &Cluster) -> BTreeSet<HostId> {
    live_that(cluster, |_| true)
}

/// The hosts that can be asked whether a ledger still holds: not those that join themselves.
pub fn witnesses(cluster: &Cluster) -> BTreeSet<HostId> {
    live_that(cluster, |host| host.info.phase != Phase::Joining)
}

/// The hosts that belong to other clusters than the one that `founder` founded and are there, by who founded theirs. They
/// have the same key, so they are heard; but none of them is ever a member here. Of a cluster that was given up nobody is there.
pub fn apart(cluster: &Cluster, founder: Option<HostId>) -> BTreeMap<HostId, BTreeSet<HostId>> {
    let mut apart: BTreeMap<HostId, BTreeSet<HostId>> = BTreeMap::new();
    for (id, host) in cluster.hosts.iter().filter(|(_, host)| host.liveness == Liveness::Live) {
        if let Some(theirs) = host.info.founder.filter(|_| host.info.is_apart_from(founder)) {
            apart.entry(theirs).or_default().insert(*id);
        }
    }
    apart
}

/// The hosts that a host asks to let it in. One that belongs to no cluster yet asks those of one only, of two that were
/// founded apart, and rather of one that it was told to join: the others would remember for good a member that they never
/// get.
pub fn asked(cluster: &Cluster, join: &[SocketAddr], founder: Option<HostId>) -> BTreeSet<HostId> {
    let told = |id: &&HostId| cluster.hosts.get(id).is_some_and(|host| join.contains(&host.info.peer));
    let heard = reachable(cluster);
    let first = || heard.iter().filter(told).filter_map(|id| cluster.founder_of(*id)).min();
    let chosen = founder.or_else(first).or_else(|| heard.iter().filter_map(|id| cluster.founder_of(*id)).min());
    let is_of_it = |id: &HostId| cluster.founder_of(*id).is_none_or(|theirs| chosen == Some(theirs));
    heard.iter().copied().filter(is_of_it).collect()
}

fn live(cluster: &Cluster, me: HostId) -> impl Iterator<Item = (&HostId, &Host)> {
    cluster
        .hosts
        .iter()
        .map(|(id, host)| (id, &**host))
        .filter(move |(id, host)| **id != me && host.liveness == Liveness::Live)
}

/// The members of the cluster that `founder` founded which act, and can be given something.
pub fn partners(cluster: &Cluster, founder: Option<HostId>) -> BTreeSet<HostId> {
    live_that(cluster, |host| host.info.phase == Phase::Established && host.info.founder == founder)
}

fn live_that(cluster: &Cluster, is_meant: impl Fn(&Host) -> bool) -> BTreeSet<HostId> {
    let is_meant = |host: &Host| host.liveness == Liveness::Live && is_meant(host);
    cluster.hosts.iter().filter(|(_, host)| is_meant(host)).map(|(id, _)| *id).collect()
}

/// Is this host the one to found the cluster? There must be none yet as far as it hears, it must hear all that it was told
/// to join, and of all that wait as it does it has the lowest id. Those who hear the same agree; one who was heard a moment
/// ago may have been heard by others before, or not yet: see that it was quiet for some time.
pub fn founds(me: HostId, join: &[SocketAddr], cluster: &Cluster) -> bool {
    let heard: BTreeSet<SocketAddr> = live(cluster, me).map(|(_, host)| host.info.peer).collect();
    let nobody_may_act = live(cluster, me).all(|(_, host)| host.info.phase == Phase::Joining);
    nobody_may_act && join.iter().all(|address| heard.contains(address)) && live(cluster, me).all(|(id, _)| *id > me)
}

/// Whether this host, if it is alone in an empty cluster, gives it up for another cluster. It does if that one has members or
/// networks. Of two empty ones, the host with the higher id gives way, whichever was told to join the other: otherwise both would.
pub fn seeks(me: HostId, cluster: &Cluster) -> bool {
    live(cluster, me).filter(|(_, host)| host.info.phase == Phase::Established).any(|(id, host)| {
        let has_members = host.info.founder.is_some_and(|founder| founder != *id && founder != me);
        *id < me || has_members || !host.record.networks.is_empty()
    })
}

/// A host founds a cluster when for so many rounds of gossip nobody has come and nobody has gone: whom it hears has heard it by
/// then, also if a packet was lost.
pub const QUIET_ROUNDS: u32 = 3;

/// How long a host waits to hear those that were there before, until it founds a cluster without them.
const TIME_TO_HEAR: Duration = Duration::from_secs(30);

/// What decides, with what is heard, whether a host that belongs to no cluster founds one.
#[derive(Debug, Clone, Copy)]
pub struct Founding<'a> {
    /// Where the hosts are that it was told to join, itself left out.
    pub join: &'a [SocketAddr],
    /// Does it found a cluster whatever it hears?
    pub bootstrap: bool,
    /// Where others were heard before this host was started. It founds no cluster before it has had some time to hear them.
    pub known: &'a [SocketAddr],
    /// Between two rounds of gossip.
    pub interval: Duration,
}

impl Founding<'_> {
    /// Is it for this host to found a cluster, which runs for so long, and hears these for so long?
    pub fn is_due(&self, me: HostId, (ran, quiet): (Duration, Duration), cluster: &Cluster) -> bool {
        let known = if ran < TIME_TO_HEAR { self.known } else { &[] };
        let awaited: Vec<SocketAddr> = self.join.iter().chain(known).copied().collect();
        let told = self.bootstrap && known.is_empty() && !seeks(me, cluster);
        told || quiet >= self.interval * QUIET_ROUNDS && founds(me, &awaited, cluster)
    }
}

/// How a host stands that may have to decide something by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Situation {
    /// Has it heard from the others since its agent started?
    pub synced: bool,
    /// After a boot, do all members have to let it in, and not only those that can be reached?
    pub strict: bool,
    /// Is it time to found a cluster, as far as time is concerned?
    pub may_found: bool,
}

/// What a host tells its ledger by itself: that it founds a cluster, that those who let it in after a boot are enough, or that it
/// rather belongs to another cluster.
pub fn own_decision(ledger: &Ledger, cluster: &Cluster, situation: Situation) -> Option<Input> {
    let Situation { synced, strict, may_found } = situation;
    let membership = ledger.membership();
    match membership.activation {
        Activation::Unchecked { .. } if synced || strict || membership.others().next().is_none() => {
            Some(Input::Conclude { reachable: (!strict).then(|| witnesses(cluster)) })
        }
        Activation::Joining { .. } if may_found => Some(Input::Found),
        Activation::Established if seeks(ledger.me(), cluster) => Some(Input::Seek),
        Activation::Unchecked { .. } | Activation::Joining { .. } | Activation::Established | Activation::Fenced(_) => {
            None
        }
    }
}
