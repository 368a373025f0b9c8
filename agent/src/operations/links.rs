//! Links are opened and closed: which containers reach each other in a network where not all do.

use std::sync::Arc;
use std::time::Duration;

use overlay::cluster::{Cluster, Located, NetworkView};
use overlay::ledger::Denial;
use overlay::model::links::{Decision, Link, Links};
use overlay::model::network::Name;
use tokio::sync::watch;

use crate::cluster::ClusterView;
use crate::reconcile::Settled;
use crate::state::store::StoreError;
use crate::state::{self, Local};

/// How long the kernel of this host may take to follow.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why a link can't be opened or closed.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
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
    /// It could not be made durable.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Opens and closes links.
#[derive(Debug, Clone)]
pub struct Linker {
    /// The owner of intents.
    pub local: state::Handle,
    /// The cluster.
    pub seen: watch::Receiver<ClusterView>,
    /// What has become of the kernel.
    pub settled: watch::Receiver<Arc<Settled>>,
}

impl Linker {
    /// Opens a link. When this returns it is durable, and the kernel of this host follows it; those of the others do as soon as
    /// they hear of it.
    ///
    /// # Errors
    /// With the reason; nothing was changed then.
    pub async fn open(&self, network: &str, link: Link) -> Result<(), LinkError> {
        self.decide(network, link, false).await
    }

    /// Closes it, in the same way. Connections that were open over it end as well.
    ///
    /// # Errors
    /// With the reason; nothing was changed then.
    pub async fn close(&self, network: &str, link: Link) -> Result<(), LinkError> {
        self.decide(network, link, true).await
    }

    async fn decide(&self, network: &str, link: Link, removed: bool) -> Result<(), LinkError> {
        let cluster = Arc::clone(&self.seen.borrow().cluster);
        let view = cluster.find(network).ok_or_else(|| LinkError::UnknownNetwork(network.to_owned()))?;
        check(view, &view.links, &link, removed)?;
        let synced = self.seen.borrow().synced;
        let (definition, shown) = (view.network.clone(), view.shown_name());
        let id = definition.id;
        let decide = {
            let (view, link) = (view.clone(), link.clone());
            move |local: &mut Local| -> Result<Decision, LinkError> {
                let membership = local.ledger().membership();
                let Some(founder) = membership.founder else { return Err(LinkError::NotReady(Denial::Joining)) };
                if !synced && membership.others().next().is_some() {
                    return Err(LinkError::Behind(view.shown_name()));
                }
                local.learn([definition], Some(founder))?;
                if !local.ledger().accounts().contains_key(&id) {
                    return Err(LinkError::UnknownNetwork(view.shown_name()));
                }
                local.hear_links(&[(id, view.links.clone())].into())?;
                // Somebody else may have decided since the view was made.
                let known = local.intents().links.get(&id).cloned().unwrap_or_default();
                check(&view, &known, &link, removed)?;
                let decision = Decision { at: next(&cluster, &known), removed };
                local.decide(id, link, decision)?;
                Ok(decision)
            }
        };
        let decision = self.local.call(decide).await?;
        let follows = |settled: &Arc<Settled>| {
            let view = settled.cluster.networks.get(&id);
            view.is_none_or(|view| view.links.of(&link).is_some_and(|known| known >= decision))
        };
        // What stands in the way is in `status`, and tried again.
        let mut settled = self.settled.clone();
        let _ = tokio::time::timeout(PATIENCE, settled.wait_for(follows)).await;
        tracing::info!(network = %shown, %link, removed, "link decided");
        Ok(())
    }
}

/// After all that was decided.
fn next(cluster: &Cluster, known: &Links) -> u64 {
    cluster.now.max(known.newest().unwrap_or_default()) + 1
}

fn check(view: &NetworkView, known: &Links, link: &Link, removed: bool) -> Result<(), LinkError> {
    let network = view.shown_name();
    if view.apart {
        return Err(LinkError::Apart(network));
    }
    let is_open = known.of(link).is_some_and(|decision| !decision.removed);
    match (removed, is_open) {
        (true, true) => return Ok(()),
        (true, false) => return Err(LinkError::NotThere { link: link.clone(), network }),
        (false, true) => return Err(LinkError::There { link: link.clone(), network }),
        (false, false) => {}
    }
    if view.network.settings.icc {
        return Err(LinkError::Icc(network));
    }
    if link.from == link.to && called(view, &link.from).count() == 1 {
        return Err(LinkError::Itself(link.from.clone()));
    }
    if let Some(name) = missing(view, link).next() {
        return Err(LinkError::Nobody { name: name.clone(), network });
    }
    if known.takes(link) { Ok(()) } else { Err(LinkError::TooMany(network)) }
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
