//! What other hosts say, what the ledger is asked for, and what was noticed of the underlay.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::SocketAddr;

use super::{Change, Decision, Draft, Request, State};
use crate::ledger::{Input, Millis, Outcome};
use crate::model::host::Ways;
use crate::model::id::{HostId, NetworkId};
use crate::model::links::Links;
use crate::model::network::Network;

/// One input to the ledger. The answer is its outcome.
impl Request for Input {
    type Answer = Outcome;
    type Refusal = Infallible;

    fn decide(&self, state: &State, now: Millis) -> Result<Decision<Outcome>, Infallible> {
        let step = state.ledger.step(self, now);
        let changes = step.changes.into_iter().map(Change::Ledger).collect();
        Ok(Decision { changes, answer: step.outcome })
    }
}

/// Several inputs to the ledger whose outcomes nobody waits for. Each sees what those before it changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inputs(pub Vec<Input>);

impl Request for Inputs {
    type Answer = ();
    type Refusal = Infallible;

    fn decide(&self, state: &State, now: Millis) -> Result<Decision<()>, Infallible> {
        if self.0.is_empty() {
            return Ok(Decision::unchanged(()));
        }
        let mut draft = Draft::new(state, now);
        for input in &self.0 {
            draft.step(input);
        }
        Ok(draft.answered(()))
    }
}

/// The networks that exist in the cluster that `founder` founded. This host learns those that it does not know, unless it belongs to
/// another cluster by now than when it received them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Learn {
    /// The definitions.
    pub networks: Vec<Network>,
    /// The host that founded their cluster.
    pub founder: Option<HostId>,
}

impl Request for Learn {
    type Answer = ();
    type Refusal = Infallible;

    fn decide(&self, state: &State, now: Millis) -> Result<Decision<()>, Infallible> {
        if state.ledger.membership().founder != self.founder {
            return Ok(Decision::unchanged(()));
        }
        let accounts = state.ledger.accounts();
        let unknown = self.networks.iter().filter(|network| !accounts.contains_key(&network.id));
        Inputs(unknown.cloned().map(Input::Learn).collect()).decide(state, now)
    }
}

/// Networks are deleted for good. Endpoints of this host that are still in one stay until they are detached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bury(pub BTreeSet<NetworkId>);

impl Request for Bury {
    type Answer = ();
    type Refusal = Infallible;

    fn decide(&self, state: &State, now: Millis) -> Result<Decision<()>, Infallible> {
        let new = self.0.difference(state.ledger.tombstones());
        Inputs(new.copied().map(Input::Close).collect()).decide(state, now)
    }
}

/// What other hosts say of the links in networks that this host knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HearLinks(pub BTreeMap<NetworkId, Links>);

impl Request for HearLinks {
    type Answer = ();
    type Refusal = Infallible;

    fn decide(&self, state: &State, _: Millis) -> Result<Decision<()>, Infallible> {
        let joined = |(network, heard): (&NetworkId, &Links)| {
            let known = state.intents.links.get(network);
            let mut links = known.cloned().unwrap_or_default();
            links.join(heard);
            let is_news = known.map_or(!links.is_empty(), |known| *known != links);
            (is_news && state.ledger.accounts().contains_key(network)).then_some(Change::Links(*network, links))
        };
        Ok(Decision { changes: self.0.iter().filter_map(joined).collect(), answer: () })
    }
}

/// Where the gossip of other hosts was received, to find them after a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RememberPeers(pub BTreeMap<HostId, SocketAddr>);

impl Request for RememberPeers {
    type Answer = ();
    type Refusal = Infallible;

    fn decide(&self, state: &State, _: Millis) -> Result<Decision<()>, Infallible> {
        let membership = state.ledger.membership();
        let is_news =
            |(id, at): &(&HostId, &SocketAddr)| state.peers.get(id) != Some(at) && !membership.is_forgotten(**id);
        let news = self.0.iter().filter(is_news).map(|(id, address)| Change::Peer(*id, Some(*address)));
        Ok(Decision { changes: news.collect(), answer: () })
    }
}

impl Request for Ways {
    type Answer = ();
    type Refusal = Infallible;

    fn decide(&self, state: &State, _: Millis) -> Result<Decision<()>, Infallible> {
        let is_news = (state.info.underlay_mtu, &state.info.routed) != (self.underlay_mtu, &self.routed);
        Ok(Decision { changes: is_news.then(|| Change::Ways(self.clone())).into_iter().collect(), answer: () })
    }
}
