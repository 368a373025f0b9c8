//! All that a host keeps of itself, and the frame of every decision about it.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::cluster::own_record;
use crate::ledger::{self, Activation, Input, Ledger, Millis, Outcome};
use crate::model::host::{HostInfo, Phase, Ways};
use crate::model::id::{EndpointId, HostId, NetworkId};
use crate::model::intent::{Attachment, Intents, Seat};
use crate::model::links::Links;
use crate::model::record::Record;

/// All that a host keeps of itself. A clone is cheap: the parts are shared until one of the clones changes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Which addresses it may use.
    pub ledger: Ledger,
    /// What it was asked for.
    pub intents: Arc<Intents>,
    /// Where the gossip of the other hosts was received last, also before the agent started.
    pub peers: Arc<BTreeMap<HostId, SocketAddr>>,
    /// What it says of itself, but for how far its ledger has come.
    pub info: HostInfo,
}

/// One change of the state. All but [`Change::Ways`] are durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Of the ledger.
    Ledger(ledger::Change),
    /// This host has a seat in a network, or has one no longer.
    Seat(NetworkId, Option<Seat>),
    /// An endpoint of this host.
    Attach(Arc<Attachment>),
    /// The endpoint is gone.
    Detach(EndpointId),
    /// All that is known of a network's links. They go with the network's account.
    Links(NetworkId, Links),
    /// Where the gossip of another host was received last; `None` once that host is forgotten.
    Peer(HostId, Option<SocketAddr>),
    /// What was seen of the ways to other hosts.
    Ways(Ways),
}

/// What was decided: the changes to make durable, and the answer that is true once they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision<A> {
    /// To be made durable together, or not at all.
    pub changes: Vec<Change>,
    /// What the request is answered.
    pub answer: A,
}

/// Something that this host is asked to decide.
pub trait Request {
    /// What it is answered.
    type Answer;
    /// Why it is refused.
    type Refusal;

    /// Decides; changes nothing. `now` is in milliseconds since the host booted.
    ///
    /// # Errors
    /// With the reason why the request is refused.
    fn decide(&self, state: &State, now: Millis) -> Result<Decision<Self::Answer>, Self::Refusal>;
}

/// Decides about a request, and about what follows from it whatever it was.
///
/// # Errors
/// With the reason why the request is refused; then there is nothing to change.
pub fn decide<R: Request>(state: &State, request: &R, now: Millis) -> Result<Decision<R::Answer>, R::Refusal> {
    let mut decision = request.decide(state, now)?;
    let forgotten: Vec<Change> = decision.changes.iter().filter_map(|change| state.forgets_peer(change)).collect();
    decision.changes.extend(forgotten);
    Ok(decision)
}

impl State {
    /// The state of a host whose ledger and intents are these. The networks among the intents are those of the ledger.
    pub fn new(ledger: Ledger, intents: Intents, peers: BTreeMap<HostId, SocketAddr>, info: HostInfo) -> Self {
        let mut state = Self { ledger, intents: Arc::new(intents), peers: Arc::new(peers), info };
        state.follow_networks();
        state
    }

    /// Makes changes that are durable.
    pub fn apply(&mut self, changes: &[Change]) {
        let mut networks_changed = false;
        for change in changes {
            match change {
                Change::Ledger(change) => {
                    self.ledger.apply(std::slice::from_ref(change));
                    networks_changed |= is_about_networks(change);
                    if matches!(change, ledger::Change::Activation(Activation::Fenced(_))) {
                        // Nothing of it is this host's any more.
                        self.intents = Arc::default();
                    }
                }
                Change::Peer(host, Some(address)) => drop(Arc::make_mut(&mut self.peers).insert(*host, *address)),
                Change::Peer(host, None) => drop(Arc::make_mut(&mut self.peers).remove(host)),
                Change::Ways(ways) => {
                    self.info.underlay_mtu = ways.underlay_mtu;
                    self.info.routed.clone_from(&ways.routed);
                }
                Change::Seat(..) | Change::Attach(_) | Change::Detach(_) | Change::Links(..) => {
                    Arc::make_mut(&mut self.intents).apply(change);
                }
            }
        }
        if networks_changed {
            self.follow_networks();
        }
    }

    /// What this host says of itself to the other hosts.
    pub fn record(&self) -> Record {
        own_record::by(&self.ledger, &self.intents, &self.info())
    }

    /// What it says of itself as a host.
    pub fn info(&self) -> HostInfo {
        let membership = self.ledger.membership();
        let phase = match membership.activation {
            Activation::Joining { .. } => Phase::Joining,
            // The agent of a fenced host ends.
            Activation::Unchecked { .. } | Activation::Fenced(_) => Phase::Unchecked,
            Activation::Established => Phase::Established,
        };
        HostInfo { stamp: self.ledger.stamp(), phase, founder: membership.founder, ..self.info.clone() }
    }

    fn follow_networks(&mut self) {
        let networks = self.ledger.accounts().iter().map(|(id, account)| (*id, account.network.clone())).collect();
        let intents = Arc::make_mut(&mut self.intents);
        intents.networks = networks;
        intents.tombstones = self.ledger.tombstones().clone();
        intents.links.retain(|id, _| intents.networks.contains_key(id));
    }

    /// A host that was sealed for good is asked for nothing any more. If its machine comes back, it is another host.
    fn forgets_peer(&self, change: &Change) -> Option<Change> {
        let Change::Ledger(ledger::Change::Seal(host, seal)) = change else { return None };
        (seal.done && self.peers.contains_key(host)).then_some(Change::Peer(*host, None))
    }
}

fn is_about_networks(change: &ledger::Change) -> bool {
    use ledger::Change::{Close, Open, Tombstone};
    matches!(change, Open(_) | Close(_) | Tombstone(_))
}

impl Intents {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Seat(network, Some(seat)) => drop(self.seats.insert(*network, *seat)),
            Change::Seat(network, None) => drop(self.seats.remove(network)),
            Change::Attach(attachment) => {
                drop(self.attachments.insert(attachment.endpoint.id, Arc::clone(attachment)));
            }
            Change::Detach(endpoint) => drop(self.attachments.remove(endpoint)),
            Change::Links(network, links) => drop(self.links.insert(*network, links.clone())),
            Change::Ledger(_) | Change::Peer(..) | Change::Ways(_) => {}
        }
    }
}

impl Change {
    /// Is it written to the disk?
    pub fn is_durable(&self) -> bool {
        !matches!(self, Self::Ways(_))
    }

    /// Does it end this host's life under its identity? Other hosts use then what it had.
    pub fn fences(&self) -> bool {
        matches!(self, Self::Ledger(ledger::Change::Activation(Activation::Fenced(_))))
    }
}

impl<A> Decision<A> {
    /// Nothing changes.
    pub fn unchanged(answer: A) -> Self {
        Self { changes: Vec::new(), answer }
    }
}

/// A decision in the making: each step sees what the steps before it have changed.
#[derive(Debug)]
pub struct Draft {
    state: State,
    changes: Vec<Change>,
    now: Millis,
}

impl Draft {
    /// Nothing is changed yet.
    pub fn new(state: &State, now: Millis) -> Self {
        Self { state: state.clone(), changes: Vec::new(), now }
    }

    /// The state with what was changed so far.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Makes a change.
    pub fn change(&mut self, change: Change) {
        self.state.apply(std::slice::from_ref(&change));
        self.changes.push(change);
    }

    /// Makes what another request comes to part of this decision.
    pub fn also<R: Request<Answer = (), Refusal = Infallible>>(&mut self, request: &R) -> Vec<Change> {
        let Ok(decision) = request.decide(&self.state, self.now);
        self.state.apply(&decision.changes);
        self.changes.extend(decision.changes.iter().cloned());
        decision.changes
    }

    /// Gives an input to the ledger.
    pub fn step(&mut self, input: &Input) -> Outcome {
        let step = self.state.ledger.step(input, self.now);
        let changes: Vec<Change> = step.changes.into_iter().map(Change::Ledger).collect();
        self.state.apply(&changes);
        self.changes.extend(changes);
        step.outcome
    }

    /// The decision.
    pub fn answered<A>(self, answer: A) -> Decision<A> {
        Decision { changes: self.changes, answer }
    }
}

#[cfg(test)]
mod tests;
