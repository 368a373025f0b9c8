//! Endpoints of this host go.

use std::collections::BTreeSet;
use std::convert::Infallible;

use super::{Change, Decision, Draft, Request, State};
use crate::ledger::{Input, Ledger, Millis};
use crate::model::endpoint::Endpoint;
use crate::model::id::EndpointId;
use crate::model::intent::{Intents, NetnsRef};

/// Endpoints go, because an operator said so or because the kernel refused them. Their addresses rest, and an endpoint that comes
/// back under its name gets them again. An endpoint that is not there changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detach(pub Vec<EndpointId>);

impl Request for Detach {
    type Answer = ();
    type Refusal = Infallible;

    fn decide(&self, state: &State, now: Millis) -> Result<Decision<()>, Infallible> {
        let mut draft = Draft::new(state, now);
        self.0.iter().for_each(|id| detach(&mut draft, *id));
        Ok(draft.answered(()))
    }
}

/// Endpoints go because their network namespaces have gone. One that was attached again since, in another namespace, stays. The
/// answer has those that go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetachLost(pub Vec<(EndpointId, NetnsRef)>);

impl Request for DetachLost {
    type Answer = BTreeSet<EndpointId>;
    type Refusal = Infallible;

    fn decide(&self, state: &State, now: Millis) -> Result<Decision<Self::Answer>, Infallible> {
        let is_in =
            |id: &EndpointId, netns: &NetnsRef| state.intents.attachments.get(id).is_some_and(|a| a.netns == *netns);
        let lost = self.0.iter().filter(|(id, netns)| is_in(id, netns));
        let lost: BTreeSet<EndpointId> = lost.map(|(id, _)| *id).collect();
        let mut draft = Draft::new(state, now);
        lost.iter().for_each(|id| detach(&mut draft, *id));
        Ok(draft.answered(lost))
    }
}

impl DetachLost {
    /// Those of these endpoints that are among the intents, each in the namespace that it was attached in. For intents that were read
    /// before the namespaces were found gone.
    pub fn of(lost: impl IntoIterator<Item = EndpointId>, intents: &Intents) -> Self {
        let netns = |id| Some((id, intents.attachments.get(&id)?.netns.clone()));
        Self(lost.into_iter().filter_map(netns).collect())
    }
}

fn detach(draft: &mut Draft, id: EndpointId) {
    let Some(attachment) = draft.state().intents.attachments.get(&id) else { return };
    let Endpoint { network, name, .. } = attachment.endpoint.clone();
    draft.change(Change::Detach(id));
    draft.step(&Input::Release { network, endpoint: id, name });
    if draft.state().intents.attached(network).next().is_none() {
        draft.change(Change::Seat(network, None));
    }
}

/// What a crash, or an earlier version of this program, has left half done: addresses that no endpoint has, and deleted networks
/// that no endpoint is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TidyUp;

impl Request for TidyUp {
    type Answer = ();
    type Refusal = Infallible;

    fn decide(&self, state: &State, now: Millis) -> Result<Decision<()>, Infallible> {
        let mut draft = Draft::new(state, now);
        for change in state.ledger.release_unused(|id| state.intents.attachments.contains_key(&id), now) {
            draft.change(Change::Ledger(change));
        }
        let accounts = draft.state().ledger.accounts();
        let deleted = draft.state().ledger.tombstones().iter().filter(|id| accounts.contains_key(id));
        for network in deleted.copied().collect::<Vec<_>>() {
            draft.step(&Input::Close(network));
        }
        Ok(draft.answered(()))
    }
}

/// What a boot of the machine changes, or a disk that this host did not run on. No container of before is there, and the kernel's numbers
/// for namespaces start again, so that another namespace may be taken for one of before. All endpoints are detached; their
/// addresses rest.
pub fn booted(ledger: &Ledger, intents: &Intents, nonce: u64, now: Millis) -> Vec<Change> {
    let mut ledger = ledger.clone();
    let releases = intents.attachments.values().map(|attachment| {
        let Endpoint { network, id, name, .. } = attachment.endpoint.clone();
        Input::Release { network, endpoint: id, name }
    });
    let mut changes: Vec<Change> = intents.seats.keys().map(|network| Change::Seat(*network, None)).collect();
    // First of all: what an unchecked ledger writes does not count as progress, and an old disk must not come up to
    // the revision that the others have seen by letting go of what it had.
    for input in std::iter::once(Input::Booted { nonce }).chain(releases) {
        let step = ledger.step(&input, now).changes;
        ledger.apply(&step);
        changes.extend(step.into_iter().map(Change::Ledger));
    }
    changes.extend(intents.attachments.keys().map(|id| Change::Detach(*id)));
    changes
}
