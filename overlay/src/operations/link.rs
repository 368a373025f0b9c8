//! Links are opened and closed: which containers reach each other in a network where not all do.

use std::sync::Arc;

use super::hear::{HearLinks, Learn};
use super::{Change, Decision, Draft, Request, State};
use crate::cluster::{Cluster, Located, NetworkView};
use crate::ledger::{Denial, Millis};
use crate::model::links::{self, Link, Links};
use crate::model::network::Name;

/// A link is to be opened, or closed. Connections that were open over a link that is closed end as well.
#[derive(Debug, Clone)]
pub struct DecideLink {
    /// The network, as people call it.
    pub network: String,
    /// The link.
    pub link: Link,
    /// Is it to be closed?
    pub removed: bool,
    /// The cluster as it is seen.
    pub cluster: Arc<Cluster>,
    /// Has this host heard from the others since its agent started?
    pub synced: bool,
}

impl Request for DecideLink {
    type Answer = links::LinkDecision;
    type Refusal = LinkRefusal;

    fn decide(&self, state: &State, now: Millis) -> Result<Decision<links::LinkDecision>, LinkRefusal> {
        let unknown = || LinkRefusal::UnknownNetwork(self.network.clone());
        let view = self.cluster.find(&self.network).ok_or_else(unknown)?;
        check(view, &view.links, &self.link, self.removed)?;
        let membership = state.ledger.membership();
        let founder = membership.founder.ok_or(LinkRefusal::NotReady(Denial::Joining))?;
        if !self.synced && membership.others().next().is_some() {
            return Err(LinkRefusal::Behind(view.shown_name()));
        }
        let id = view.network.id;
        let mut draft = Draft::new(state, now);
        draft.also(&Learn { networks: vec![view.network.clone()], founder: Some(founder) });
        if !draft.state().ledger.accounts().contains_key(&id) {
            return Err(LinkRefusal::UnknownNetwork(view.shown_name()));
        }
        draft.also(&HearLinks([(id, view.links.clone())].into()));
        // Another operator may have decided since the cluster was seen.
        let known = draft.state().intents.links.get(&id).cloned().unwrap_or_default();
        check(view, &known, &self.link, self.removed)?;
        let decision = links::LinkDecision { at: next(&self.cluster, &known), removed: self.removed };
        let mut links = known;
        links.decide(self.link.clone(), decision);
        draft.change(Change::Links(id, links));
        Ok(draft.answered(decision))
    }
}

/// Why a link can't be opened or closed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkRefusal {
    /// No such network.
    #[error("there is no network `{0}`: see `overlayctl network ls`")]
    UnknownNetwork(String),
    /// It is that of another cluster.
    #[error("network `{0}` belongs to another cluster, founded apart from that of this host: link its endpoints there")]
    Apart(String),
    /// Nothing has to be linked there.
    #[error(
        "in network `{0}` all containers reach each other, so there is nothing to link: links are for networks made with --icc=false"
    )]
    Icc(String),
    /// No such endpoint.
    #[error("there is no endpoint `{name}` in network `{network}`: see `overlayctl endpoint ls {network}`")]
    Nobody {
        /// A name or alias.
        name: Name,
        /// The network.
        network: String,
    },
    /// From and to are the same.
    #[error("`{0}` reaches itself without a link: say two different names, or an alias that several have")]
    Itself(Name),
    /// Others may have decided about it.
    #[error(
        "this host has not heard from the others since it started, so it can't tell what they decided of links in network `{0}`: try again when `overlayctl status` says that it is in step"
    )]
    Behind(String),
    /// It is open.
    #[error("the link from {link} is there already in network `{network}`")]
    There {
        /// The link.
        link: Link,
        /// The network.
        network: String,
    },
    /// It is not.
    #[error("there is no link from {link} in network `{network}`: see `overlayctl link ls {network}`")]
    NotThere {
        /// The link.
        link: Link,
        /// The network.
        network: String,
    },
    /// All hosts are told of all of them.
    #[error("network `{0}` has {max} links, with those that were removed: no more fit; link aliases that several share, or all ports", max = Links::MAX)]
    TooMany(String),
    /// This host may not act yet.
    #[error("nothing can be linked here yet: {0}; `overlayctl status` says what is waited for")]
    NotReady(Denial),
}

/// After all that was decided.
fn next(cluster: &Cluster, known: &Links) -> u64 {
    cluster.now.max(known.newest().unwrap_or_default()) + 1
}

fn check(view: &NetworkView, known: &Links, link: &Link, removed: bool) -> Result<(), LinkRefusal> {
    let network = view.shown_name();
    if view.apart {
        return Err(LinkRefusal::Apart(network));
    }
    let is_open = known.of(link).is_some_and(|decision| !decision.removed);
    match (removed, is_open) {
        (true, true) => return Ok(()),
        (true, false) => return Err(LinkRefusal::NotThere { link: link.clone(), network }),
        (false, true) => return Err(LinkRefusal::There { link: link.clone(), network }),
        (false, false) => {}
    }
    if view.network.settings.icc {
        return Err(LinkRefusal::Icc(network));
    }
    if link.from == link.to && called(view, &link.from).count() == 1 {
        return Err(LinkRefusal::Itself(link.from.clone()));
    }
    if let Some(name) = missing(view, link).next() {
        return Err(LinkRefusal::Nobody { name: name.clone(), network });
    }
    if known.takes(link) { Ok(()) } else { Err(LinkRefusal::TooMany(network)) }
}

/// Who has this name or alias.
fn called<'a>(view: &'a NetworkView, name: &'a Name) -> impl Iterator<Item = &'a Located> {
    view.endpoints.values().filter(move |located| located.endpoint.names().any(|n| n == name))
}

/// Of the two names of a link, those that no endpoint has.
pub fn missing<'a>(view: &NetworkView, link: &'a Link) -> impl Iterator<Item = &'a Name> {
    let there = |name: &Name| called(view, name).next().is_some();
    let (from, to) = (there(&link.from), there(&link.to));
    [(from, &link.from), (to, &link.to)].into_iter().filter(|(there, _)| !there).map(|(_, name)| name)
}

#[cfg(test)]
mod tests;
