//! Requests that are made again under the same id: a runtime that heard no answer asks once more, and gets the one that
//! it would have had.

use std::collections::BTreeSet;
use std::sync::Arc;

use overlay::cluster::Cluster;
use overlay::model::id::EndpointId;
use overlay::model::intent::{Attachment, NetnsRef};
use overlay::model::network::{Name, Network};
use tokio::sync::watch;

use super::{AttachError, Attacher, Wanted, host_name, shown_name};
use crate::operations::ports;

/// Who works on what: of two requests for one endpoint, or for one container, the second waits for the first.
#[derive(Debug, Clone, Default)]
pub struct Turns(watch::Sender<BTreeSet<Work>>);

/// What one at a time works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Work {
    /// An endpoint.
    Endpoint(EndpointId),
    /// A container, by the kernel's number for its namespace: it gets interfaces one after the other.
    Container(u64),
}

/// As long as it lives it is nobody else's turn.
#[derive(Debug)]
pub(super) struct Turn {
    turns: Turns,
    work: Work,
}

impl Turns {
    pub(super) async fn take(&self, work: Work) -> Turn {
        let mut others = self.0.subscribe();
        while !self.0.send_if_modified(|taken| taken.insert(work)) {
            // Whose turn comes next is for the line above to say. The sender lives as long as `self`.
            let _ = others.wait_for(|taken| !taken.contains(&work)).await;
        }
        Turn { turns: self.clone(), work }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.turns.0.send_if_modified(|taken| taken.remove(&self.work));
    }
}

impl Attacher {
    /// The endpoint that was attached under the id of this request before, if there is one.
    pub(super) fn attached_before(
        &self,
        cluster: &Cluster,
        wanted: &Wanted,
        netns: &NetnsRef,
    ) -> Result<Option<Attachment>, AttachError> {
        let Some(id) = wanted.id else { return Ok(None) };
        let intents = Arc::clone(&self.local.kept.borrow().intents);
        let there = intents.attachments.get(&id).cloned();
        let Some(there) = there else { return self.not_elsewhere(cluster, id).map(|()| None) };
        match difference(&there, intents.networks.get(&there.endpoint.network), wanted, netns) {
            None => Ok(Some(there)),
            Some(differs) => Err(self.id_in_use(cluster, &there, differs)),
        }
    }

    /// The attachment that a request to let go of `id` means; `None` if it is gone already.
    pub(super) fn attached_as(
        &self,
        cluster: &Cluster,
        (network, wanted): (&str, &Name),
        id: EndpointId,
    ) -> Result<Option<Attachment>, AttachError> {
        let intents = Arc::clone(&self.local.kept.borrow().intents);
        let there = intents.attachments.get(&id).cloned();
        let Some(there) = there else { return self.not_elsewhere(cluster, id).map(|()| None) };
        let endpoint = &there.endpoint;
        match () {
            () if !is_called(intents.networks.get(&endpoint.network), network) => {
                Err(self.id_in_use(cluster, &there, "network"))
            }
            () if endpoint.name != *wanted => Err(self.id_in_use(cluster, &there, "name")),
            () => Ok(Some(there)),
        }
    }

    fn not_elsewhere(&self, cluster: &Cluster, id: EndpointId) -> Result<(), AttachError> {
        // What this host itself says may be a moment older than what it does. Of the others also what is in no view: an
        // endpoint in a deleted network is there until it is let go.
        let others = cluster.hosts.iter().filter(|(host, _)| **host != self.me);
        let mut there = others.filter_map(|(host, says)| Some((*host, says.record.endpoints.get(&id)?)));
        match there.next() {
            None => Ok(()),
            Some((host, endpoint)) => Err(AttachError::IdInUse {
                id,
                name: endpoint.name.clone(),
                network: shown_name(cluster, endpoint.network),
                host: host_name(cluster, host),
                differs: "host",
            }),
        }
    }

    fn id_in_use(&self, cluster: &Cluster, there: &Attachment, differs: &'static str) -> AttachError {
        let endpoint = &there.endpoint;
        AttachError::IdInUse {
            id: endpoint.id,
            name: endpoint.name.clone(),
            network: shown_name(cluster, endpoint.network),
            host: host_name(cluster, self.me),
            differs,
        }
    }
}

/// Is it the endpoint's network that people call so, or called so when they asked first? A name may mean another network by
/// now: since the parts of a cluster have found each other, or since it was given to a new one.
fn is_called(network: Option<&Network>, text: &str) -> bool {
    network.is_some_and(|network| network.may_be_called(text))
}

/// Does the port lead to it already, as it is wanted?
fn leads(there: &Attachment, wanted: &ports::Wanted) -> bool {
    let target = there.published.get(&wanted.host);
    target.is_some_and(|target| (target.port, &target.allowed) == (wanted.port, &wanted.allowed))
}

/// What a request wants otherwise than it is. An address or a MAC that it does not name may be any.
pub(super) fn difference(
    there: &Attachment,
    network: Option<&Network>,
    wanted: &Wanted,
    netns: &NetnsRef,
) -> Option<&'static str> {
    let endpoint = &there.endpoint;
    let differs = [
        ("network", !is_called(network, &wanted.network)),
        ("name", endpoint.name != wanted.name),
        ("set of aliases", endpoint.aliases != wanted.aliases),
        // By number: a namespace has many paths.
        ("network namespace", there.netns.cookie != netns.cookie),
        ("interface", wanted.ifname.as_ref().is_some_and(|ifname| there.ifname != *ifname)),
        ("gateway priority", !wanted.priority.is_that_of(there.metric)),
        ("address", !wanted.addresses.iter().all(|address| endpoint.has(*address))),
        ("MAC", wanted.mac.is_some_and(|mac| endpoint.mac != mac)),
        ("set of published ports", !wanted.ports.iter().all(|port| leads(there, port))),
    ];
    differs.into_iter().find_map(|(what, differs)| differs.then_some(what))
}
