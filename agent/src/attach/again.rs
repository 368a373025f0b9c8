//! Requests that are made again under the same id: a runtime that heard no answer asks once more, and gets the one that
//! it would have had.

use std::collections::BTreeSet;

use overlay::cluster::{Cluster, NetworkView};
use overlay::id::{EndpointId, NetworkId};
use overlay::intent::{Attachment, NetnsRef};
use overlay::network::Name;
use tokio::sync::watch;

use super::{AttachError, Attacher, Wanted, host_name, shown_name};

/// Who works on which endpoint: of two requests for one, the second waits for the first.
#[derive(Debug, Clone, Default)]
pub struct Turns(watch::Sender<BTreeSet<EndpointId>>);

/// As long as it lives nobody else has the endpoint's turn.
#[derive(Debug)]
pub(super) struct Turn {
    turns: Turns,
    endpoint: EndpointId,
}

impl Turns {
    pub(super) async fn take(&self, endpoint: EndpointId) -> Turn {
        let mut others = self.0.subscribe();
        while !self.0.send_if_modified(|taken| taken.insert(endpoint)) {
            // Whose turn comes next is for the line above to say. The sender lives as long as `self`.
            let _ = others.wait_for(|taken| !taken.contains(&endpoint)).await;
        }
        Turn { turns: self.clone(), endpoint }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.turns.0.send_if_modified(|taken| taken.remove(&self.endpoint));
    }
}

impl Attacher {
    /// The endpoint that was attached under the id of this request before, if there is one.
    pub(super) fn attached_before(
        &self,
        cluster: &Cluster,
        view: &NetworkView,
        wanted: &Wanted,
        netns: &NetnsRef,
    ) -> Result<Option<Attachment>, AttachError> {
        let Some(id) = wanted.id else { return Ok(None) };
        let there = self.local.kept.borrow().intents.attachments.get(&id).cloned();
        let Some(there) = there else { return self.not_elsewhere(cluster, id).map(|()| None) };
        match difference(&there, view.network.id, wanted, netns) {
            None => Ok(Some(there)),
            Some(differs) => Err(self.id_in_use(cluster, &there, differs)),
        }
    }

    /// The attachment that a request to let go of `id` means; `None` if it is gone already.
    pub(super) fn attached_as(
        &self,
        cluster: &Cluster,
        (network, wanted): (Option<NetworkId>, &Name),
        id: EndpointId,
    ) -> Result<Option<Attachment>, AttachError> {
        let there = self.local.kept.borrow().intents.attachments.get(&id).cloned();
        let Some(there) = there else { return self.not_elsewhere(cluster, id).map(|()| None) };
        let endpoint = &there.endpoint;
        match () {
            () if network != Some(endpoint.network) => Err(self.id_in_use(cluster, &there, "network")),
            () if endpoint.name != *wanted => Err(self.id_in_use(cluster, &there, "name")),
            () => Ok(Some(there)),
        }
    }

    fn not_elsewhere(&self, cluster: &Cluster, id: EndpointId) -> Result<(), AttachError> {
        let others = cluster.networks.values().filter_map(|view| Some((view, view.endpoints.get(&id)?)));
        // What this host itself says may be a moment older than what it does.
        match others.into_iter().find(|(_, located)| located.host != self.me) {
            None => Ok(()),
            Some((view, located)) => Err(AttachError::IdInUse {
                id,
                name: located.endpoint.name.clone(),
                network: view.shown_name(),
                host: host_name(cluster, located.host),
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

/// What a request wants otherwise than it is. An address or a MAC that it does not name may be any.
pub(super) fn difference(
    there: &Attachment,
    network: NetworkId,
    wanted: &Wanted,
    netns: &NetnsRef,
) -> Option<&'static str> {
    let endpoint = &there.endpoint;
    let differs = [
        ("network", endpoint.network != network),
        ("name", endpoint.name != wanted.name),
        ("set of aliases", endpoint.aliases != wanted.aliases),
        // By number: a namespace has many paths.
        ("network namespace", there.netns.cookie != netns.cookie),
        ("interface", there.ifname != wanted.ifname),
        ("address", wanted.address.is_some_and(|address| !endpoint.has(address))),
        ("MAC", wanted.mac.is_some_and(|mac| endpoint.mac != mac)),
    ];
    differs.into_iter().find_map(|(what, differs)| differs.then_some(what))
}
