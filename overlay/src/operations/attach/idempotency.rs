//! Requests that are made again under the same id: a runtime that heard no answer asks once more, and gets the answer that it
//! would have had.

use std::sync::Arc;

use super::{Attach, EndpointSpec, IdInUse};
use crate::cluster::Cluster;
use crate::model::id::{EndpointId, HostId};
use crate::model::intent::{Attachment, Intents, NetnsRef};
use crate::model::network::{Name, Network};
use crate::operations::State;
use crate::operations::publish_port::WantedPort;

impl Attach {
    /// The endpoint that was attached under the id of this request before, if there is one.
    pub(super) fn attached_before(&self, state: &State) -> Result<Option<Arc<Attachment>>, IdInUse> {
        if self.spec.id.is_none() {
            return Ok(None);
        }
        let me = state.ledger.me();
        let Some(there) = state.intents.attachments.get(&self.id) else {
            return not_elsewhere(&self.cluster, me, self.id).map(|()| None);
        };
        let network = state.intents.networks.get(&there.endpoint.network);
        match difference(there, network, &self.spec, &self.container.netns) {
            None => Ok(Some(Arc::clone(there))),
            Some(differs) => Err(in_use(me, there, differs)),
        }
    }
}

/// The attachment that a request to detach the endpoint `id`, of that name in that network, means; `None` if it is gone already.
///
/// # Errors
/// When the id means another endpoint.
pub fn attached_as(
    (me, intents): (HostId, &Intents),
    cluster: &Cluster,
    (network, name): (&str, &Name),
    id: EndpointId,
) -> Result<Option<Arc<Attachment>>, IdInUse> {
    let Some(there) = intents.attachments.get(&id) else { return not_elsewhere(cluster, me, id).map(|()| None) };
    let endpoint = &there.endpoint;
    if !is_called(intents.networks.get(&endpoint.network), network) {
        Err(in_use(me, there, "network"))
    } else if endpoint.name != *name {
        Err(in_use(me, there, "name"))
    } else {
        Ok(Some(Arc::clone(there)))
    }
}

/// What this host itself says may be a moment older than what it does. Of the other hosts also an endpoint counts that is in no
/// view: one in a deleted network is there until it is detached.
fn not_elsewhere(cluster: &Cluster, me: HostId, id: EndpointId) -> Result<(), IdInUse> {
    let others = cluster.hosts.iter().filter(|(host, _)| **host != me);
    let mut there = others.filter_map(|(host, says)| Some((*host, says.record.endpoints.get(&id)?)));
    match there.next() {
        None => Ok(()),
        Some((host, endpoint)) => {
            Err(IdInUse { host, network: endpoint.network, name: endpoint.name.clone(), differs: "host" })
        }
    }
}

fn in_use(host: HostId, there: &Attachment, differs: &'static str) -> IdInUse {
    IdInUse { host, network: there.endpoint.network, name: there.endpoint.name.clone(), differs }
}

/// Is it the endpoint's network that people call so, or called so when they asked first? A name may mean another network by
/// now: since the parts of a cluster have found each other, or since it was given to a new one.
fn is_called(network: Option<&Network>, text: &str) -> bool {
    network.is_some_and(|network| network.may_be_called(text))
}

/// Does the port lead to it already, as it is asked for?
fn leads(there: &Attachment, wanted: &WantedPort) -> bool {
    let target = there.published.get(&wanted.host);
    target.is_some_and(|target| (target.port, &target.allowed) == (wanted.port, &wanted.allowed))
}

/// What a request asks for otherwise than it is. An address or a MAC that the request does not name may be any.
pub fn difference(
    there: &Attachment,
    network: Option<&Network>,
    spec: &EndpointSpec,
    netns: &NetnsRef,
) -> Option<&'static str> {
    let endpoint = &there.endpoint;
    let differs = [
        ("network", !is_called(network, &spec.network)),
        ("name", endpoint.name != spec.name),
        ("set of aliases", endpoint.aliases != spec.aliases),
        // By number: a namespace has many paths.
        ("network namespace", there.netns.cookie != netns.cookie),
        ("interface", spec.ifname.as_ref().is_some_and(|ifname| there.ifname != *ifname)),
        ("gateway priority", !spec.priority.is_that_of(there.metric)),
        ("address", !spec.addresses.iter().all(|address| endpoint.has(*address))),
        ("MAC", spec.mac.is_some_and(|mac| endpoint.mac != mac)),
        ("set of published ports", !spec.ports.iter().all(|port| leads(there, port))),
    ];
    differs.into_iter().find_map(|(what, differs)| differs.then_some(what))
}
