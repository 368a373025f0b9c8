//! What people and scripts are shown of the cluster. Pure: values in, messages out.

mod entries;
mod network;
mod status;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use overlay::cluster::{Cluster, Host, NetworkView};
use overlay::model::host::{Liveness, Phase};
use overlay::model::id::HostId;
use overlay::model::intent::Intents;
use overlay_proto::v1 as pb;
use tonic::Status;

use crate::cluster::{LastHeard, LastSeen};

pub(super) use network::link;
pub(super) use status::{blocking_chains, dropped, gossip_limit, last_round, queries, silent, unannounced, unopened};

/// What is shown, and from where it is seen.
pub(super) struct Shown<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) intents: Arc<Intents>,
    pub(super) me: HostId,
}

pub(super) fn find<'a>(cluster: &'a Cluster, network: &str) -> Result<&'a NetworkView, Status> {
    let unknown = || Status::not_found(format!("there is no network `{network}`: see `overlayctl network ls`"));
    cluster.find(network).ok_or_else(unknown)
}

pub(super) fn count<T>(items: impl Iterator<Item = T>) -> u32 {
    u32::try_from(items.count()).unwrap_or(u32::MAX)
}

/// What people call a state.
fn state(liveness: Liveness) -> &'static str {
    match liveness {
        Liveness::Live => "alive",
        Liveness::Suspect => "suspect",
        Liveness::Dead => "gone",
    }
}

const UNKNOWN: &str = "unknown";

/// The same of a host that may be unknown, or forgotten.
pub(super) fn state_of(cluster: &Cluster, id: HostId) -> &'static str {
    match cluster.hosts.get(&id) {
        Some(host) => state(host.liveness),
        None if cluster.forgotten.contains_key(&id) => "forgotten",
        None => UNKNOWN,
    }
}

/// May a host act?
pub(super) fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Joining => "joining",
        Phase::Unchecked => "unchecked",
        Phase::Established => "established",
    }
}

/// A host that is waited for.
pub(super) fn waiting(cluster: &Cluster, id: HostId) -> pb::Waiting {
    pb::Waiting { host: name(cluster, id), state: state_of(cluster, id).to_owned() }
}

/// What people call a host.
pub(super) fn name(cluster: &Cluster, id: HostId) -> String {
    let known = cluster.hosts.get(&id).or_else(|| cluster.forgotten.get(&id));
    known.map_or_else(|| id.short(), |host| host.info.name.to_string())
}

impl Shown<'_> {
    fn host_name(&self, id: HostId) -> String {
        name(self.cluster, id)
    }

    fn host_state(&self, id: HostId) -> String {
        state_of(self.cluster, id).to_owned()
    }

    /// All hosts, including forgotten ones and members no longer seen in gossip, with the members that have not sealed a host yet, and
    /// since when each host is silent.
    pub(super) fn hosts(
        &self,
        members: &BTreeSet<HostId>,
        waits: &BTreeMap<HostId, BTreeSet<HostId>>,
        silent: &LastSeen,
    ) -> Vec<pb::HostRow> {
        let waits_for = |id: &HostId| waits.get(id).into_iter().flatten().map(|host| self.host_name(*host)).collect();
        let row = |(id, host): (&HostId, &Arc<Host>)| pb::HostRow {
            id: id.to_string(),
            name: host.info.name.to_string(),
            state: self.host_state(*id),
            phase: phase(host.info.phase).to_owned(),
            heir: self.cluster.seals.get(id).map_or_else(String::new, |seal| self.host_name(seal.heir)),
            waits_for: waits_for(id),
            vtep: host.info.vtep.to_string(),
            vxlan_port: host.info.vxlan_port.into(),
            peer: host.info.peer.to_string(),
            endpoints: count(host.record.endpoints.values()),
            is_self: *id == self.me,
            silent_seconds: silent.of(*id).elapsed().as_secs(),
            silent_since_start: matches!(silent.of(*id), LastHeard::NotSinceStart(_)),
        };
        // A host of another cluster that is gone is not for the operator of this one to forget.
        let founder = self.cluster.founder_of(self.me);
        let matters = |host: &Host| host.liveness != Liveness::Dead || !host.info.is_apart_from(founder);
        let heard = self.cluster.hosts.iter().filter(|(_, host)| matters(host)).chain(&self.cluster.forgotten).map(row);
        let unheard = members.iter().filter(|id| state_of(self.cluster, **id) == UNKNOWN);
        let unheard = unheard.map(|id| pb::HostRow {
            id: id.to_string(),
            name: id.short(),
            state: state(Liveness::Dead).to_owned(),
            waits_for: waits_for(id),
            silent_seconds: silent.of(*id).elapsed().as_secs(),
            silent_since_start: matches!(silent.of(*id), LastHeard::NotSinceStart(_)),
            ..pb::HostRow::default()
        });
        let mut rows: Vec<_> = heard.chain(unheard).collect();
        rows.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        rows
    }
}

#[cfg(test)]
mod tests;
