//! Networks are created and removed.

use std::sync::Arc;

use super::hear::Bury;
use super::network_refusal::{NetworkRefusal, SHOWN, known_to, listed, name_in_use};
use super::{Decision, Draft, Request, State};
use crate::cluster::bootstrap::partners;
use crate::cluster::{Cluster, Located, NetworkView};
use crate::ledger::{Activation, Denial, Input, Millis, Outcome, Share};
use crate::model::id::{HostId, NetworkId};
use crate::model::network::{Driver, Network};

mod definition;

pub use definition::NetworkSpec;
use definition::define;

/// A network is to be created. This host then holds all of it, but for the half that another member gets, so that the death of one host
/// does not lock all of the network's space.
#[derive(Debug, Clone)]
pub struct CreateNetwork {
    /// What was asked for.
    pub spec: NetworkSpec,
    /// The id that it gets, drawn at random.
    pub id: NetworkId,
    /// The time, in seconds since 1970: only shown.
    pub since: u64,
    /// The cluster as it is seen.
    pub cluster: Arc<Cluster>,
    /// Has this host heard from the others since its agent started?
    pub synced: bool,
    /// Was this host told to join others?
    pub told_to_join: bool,
}

impl Request for CreateNetwork {
    type Answer = Network;
    type Refusal = NetworkRefusal;

    fn decide(&self, state: &State, now: Millis) -> Result<Decision<Network>, NetworkRefusal> {
        self.check_joined(state)?;
        let me = state.ledger.me();
        let network = define(&self.cluster, (me, self.id), self.spec.clone(), self.since)?;
        // The cluster may not show yet what this host created a moment ago.
        let intents = &state.intents;
        let mut own = intents.networks.values().filter(|n| n.creator == me && !intents.tombstones.contains(&n.id));
        if let Some(other) = own.find(|other| other.name == network.name) {
            return Err(name_in_use(other));
        }
        let mut draft = Draft::new(state, now);
        if let Outcome::Denied(denial) = draft.step(&Input::Create(network.clone())) {
            return Err(NetworkRefusal::NotReady(denial));
        }
        if network.settings.driver == Driver::Vxlan {
            self.give_half(&mut draft, &network);
        }
        Ok(draft.answered(network))
    }
}

impl CreateNetwork {
    /// The other members may have networks of the same name that this host does not know of.
    fn check_joined(&self, state: &State) -> Result<(), NetworkRefusal> {
        if !self.told_to_join || self.synced || is_sole(state) {
            return Ok(());
        }
        let alone = self.cluster.hosts.len() < 2;
        Err(match state.ledger.membership().activation {
            Activation::Joining { .. } if !alone => NetworkRefusal::NotReady(Denial::Joining),
            Activation::Unchecked { .. } => NetworkRefusal::NotReady(Denial::Unchecked),
            Activation::Established if !alone => NetworkRefusal::CatchingUp,
            Activation::Joining { .. } | Activation::Established | Activation::Fenced(_) => NetworkRefusal::NotJoined,
        })
    }

    /// To a member that acts; which one, its id decides. Where there is none, all of the space stays here.
    fn give_half(&self, draft: &mut Draft, network: &Network) {
        let membership = draft.state().ledger.shared_membership().clone();
        let is_member = |id: &HostId| membership.members.contains(id);
        let peers: Vec<HostId> = partners(&self.cluster, membership.founder).into_iter().filter(is_member).collect();
        let drawn = usize::from(u16::from_be_bytes([network.id.as_bytes()[0], network.id.as_bytes()[1]]));
        let Some(to) = peers.get(drawn % peers.len().max(1)).copied() else { return };
        for (range, _) in (0_u8..).zip(&network.ranges) {
            draft.step(&Input::GiveSpace { network: network.id, range, to, share: Share::Half });
        }
    }
}

/// A host that is the only member has no other host to hear of networks and endpoints from.
fn is_sole(state: &State) -> bool {
    state.ledger.is_established() && state.ledger.membership().others().next().is_none()
}

/// Which endpoints keep a network from being removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hindered {
    /// Any that the cluster shows.
    ByAll,
    /// Those of this host only: the others drain.
    ByOwn,
}

/// A network is to be removed for good, everywhere.
#[derive(Debug, Clone)]
pub struct RemoveNetwork {
    /// The network.
    pub network: NetworkId,
    /// Which endpoints keep it.
    pub hindered: Hindered,
    /// The cluster as it is seen.
    pub cluster: Arc<Cluster>,
    /// Has this host heard from the others since its agent started?
    pub synced: bool,
}

impl Request for RemoveNetwork {
    type Answer = ();
    type Refusal = NetworkRefusal;

    fn decide(&self, state: &State, now: Millis) -> Result<Decision<()>, NetworkRefusal> {
        let unknown = || NetworkRefusal::Unknown(self.network.short());
        let view = self.cluster.networks.get(&self.network).ok_or_else(unknown)?;
        // Networks that hosts have left behind which are gone may be removed by any host.
        if view.apart
            && let Some(hosts) = known_to(&self.cluster, self.network)
        {
            return Err(NetworkRefusal::Apart { network: view.shown_name(), hosts });
        }
        if self.hindered == Hindered::ByAll {
            self.check_unused(state, view)?;
        }
        if state.ledger.membership().founder.is_none() {
            return Err(NetworkRefusal::NotReady(Denial::Joining));
        }
        // The cluster may not show yet what was attached here a moment ago.
        let left: Vec<String> =
            state.intents.attached(self.network).map(|a| format!("`{}` on this host", a.endpoint.name)).collect();
        if !left.is_empty() {
            let endpoints = listed(left.iter().take(SHOWN).cloned().collect(), left.len());
            return Err(NetworkRefusal::InUseAgain { network: view.shown_name(), endpoints });
        }
        let Ok(decision) = Bury([self.network].into()).decide(state, now);
        Ok(decision)
    }
}

impl RemoveNetwork {
    fn check_unused(&self, state: &State, view: &NetworkView) -> Result<(), NetworkRefusal> {
        if !self.synced && !is_sole(state) {
            return Err(NetworkRefusal::Behind(view.shown_name()));
        }
        if view.endpoints.is_empty() {
            return Ok(());
        }
        let hosts = &self.cluster.hosts;
        let host = |id: &HostId| hosts.get(id).map_or_else(|| id.short(), |h| h.info.name.to_string());
        let row = |l: &Located| format!("`{}` on host `{}`", l.endpoint.name, host(&l.host));
        let endpoints: Vec<String> = view.endpoints.values().take(SHOWN).map(row).collect();
        let endpoints = listed(endpoints, view.endpoints.len());
        Err(NetworkRefusal::InUse { network: view.shown_name(), endpoints })
    }
}

#[cfg(test)]
mod tests;
