//! Endpoints come and go. Attaching one is: gather what is to know, decide, make it durable, bring it to the kernel, answer.
//! If the kernel refuses, all is as it was.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use overlay::cluster::Cluster;
use overlay::model::endpoint::Endpoint;
use overlay::model::host::Liveness;
use overlay::model::id::{EndpointId, HostId, NetworkId};
use overlay::model::intent::{AtPath, Attachment, Intents, NetnsRef};
use overlay::model::network::Name;
use overlay::operations::attach::{Attach, AttachRefusal, Attached, EndpointSpec, attached_as};
use overlay::operations::container::Container;
use overlay::operations::detach::Detach;
use tokio::sync::watch;

use crate::cluster::ClusterView;
use crate::operations::port_check::obstacles;
use crate::peer::Peers;
use crate::reconcile::{self, ReleaseError, Released};
use crate::state::{self, DecideError, Done};

mod ask;
mod error;
mod explain;
mod keyed_lock;
mod netns;
mod publish;

pub use error::AttachError;
use error::NotApplied;
pub use keyed_lock::KeyedLock;
use keyed_lock::{KeyedLockGuard, Work};

/// How long an attach waits for the other hosts to find the way to the new endpoint.
const FOUND_TIMEOUT: Duration = Duration::from_millis(500);
/// How long the kernel may take for one endpoint.
const KERNEL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the kernel may take to clear a namespace that no process is in any more, and the reconciler to see that.
const CLEARING_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the view may take to show what is on disk.
const VIEW_TIMEOUT: Duration = Duration::from_secs(1);

/// Attaches endpoints and detaches them.
#[derive(Debug, Clone)]
pub struct Attacher {
    /// The state of this host.
    pub state: state::Handle,
    /// The cluster.
    pub seen: watch::Receiver<ClusterView>,
    /// The other hosts.
    pub peers: Peers,
    /// The kernel.
    pub reconciler: reconcile::Handle,
    /// The networks in which names are answered on this host.
    pub named: watch::Receiver<BTreeSet<NetworkId>>,
    /// This host.
    pub me: HostId,
    /// Which requests work on which endpoint.
    pub lock: KeyedLock,
}

impl Attacher {
    /// Attaches an endpoint. When this returns its packets flow and the cluster shows it. One that is attached already under
    /// the id that is asked for, as it is asked for, is the answer as it is.
    ///
    /// It goes on to its end also when the caller has gone away: an endpoint is never left half attached.
    ///
    /// # Errors
    /// With the reason; then all is as it was.
    pub async fn attach(&self, spec: &EndpointSpec) -> Result<Arc<Attachment>, AttachError> {
        let (attacher, spec) = (self.clone(), spec.clone());
        crate::to_its_end(async move { attacher.attach_locked(spec).await }).await
    }

    async fn attach_locked(&self, spec: EndpointSpec) -> Result<Arc<Attachment>, AttachError> {
        let _endpoint = self.lock_endpoint(spec.id).await;
        let netns = netns::identify(&spec.netns).await?;
        let _container = self.lock.take(Work::Container(netns.cookie)).await;
        self.release_lost(&spec).await?;
        let request = self.gather(spec, netns).await?;
        let Done { commit, answer } = self.decide(request.clone()).await?;
        match answer {
            Attached::New(attachment) => self.bring_up(commit, attachment, &request).await,
            Attached::Before(attachment) => self.bring_up_again(attachment).await,
            Attached::Ask(..) => unreachable!("what had to be asked for was asked for"),
        }
    }

    async fn lock_endpoint(&self, endpoint: Option<EndpointId>) -> Option<KeyedLockGuard> {
        Some(self.lock.take(Work::Endpoint(endpoint?)).await)
    }

    /// All that the decision needs to know.
    async fn gather(&self, spec: EndpointSpec, netns: NetnsRef) -> Result<Attach, AttachError> {
        // A host that made the network a moment ago may be faster than gossip.
        self.until(|seen| seen.cluster.find(&spec.network).is_some()).await;
        let interfaces = overlay::kernel::netns::interfaces(&netns).await?;
        let obstacles = obstacles(spec.ports.iter().map(|wanted| wanted.host).collect()).await;
        Ok(Attach {
            id: spec.id.unwrap_or_else(|| EndpointId::from_bytes(crate::random())),
            cluster: Arc::clone(&self.seen.borrow().cluster),
            container: Container { netns, interfaces },
            obstacles,
            asked: BTreeSet::new(),
            spec,
        })
    }

    /// Decides, and asks other hosts first as often as that has to be.
    async fn decide(&self, mut request: Attach) -> Result<Done<Attached>, AttachError> {
        loop {
            match self.state.decide(request.clone()).await {
                Ok(Done { answer: Attached::Ask(network, ask), .. }) => {
                    // Nothing is asked for twice, so this ends.
                    request.asked.insert(ask);
                    self.ask(&request, network, ask).await?;
                }
                Ok(done) => return Ok(done),
                Err(DecideError::Refused(refusal)) => return Err(self.refused(&request, refusal).await),
                Err(DecideError::Store(error)) => return Err(error.into()),
            }
        }
    }

    /// The refusal in the words of an operator, with the name of the endpoint that has the address: one that was given it a moment
    /// ago is in no view yet.
    async fn refused(&self, request: &Attach, refusal: AttachRefusal) -> AttachError {
        let view = request.cluster.find(&request.spec.network);
        if let (Some(address), Some(network)) = (refusal.taken_address(), view.map(|view| view.network.id)) {
            self.until(|seen| seen.cluster.networks.get(&network).is_none_or(|v| v.at(address).is_some())).await;
        }
        explain::refused(&self.seen.borrow().clone(), self.me, request, refusal)
    }

    /// What is durable comes to the kernel; what the kernel refuses is taken back.
    async fn bring_up(
        &self,
        commit: u64,
        attachment: Arc<Attachment>,
        request: &Attach,
    ) -> Result<Arc<Attachment>, AttachError> {
        let (network, id) = (attachment.endpoint.network, attachment.endpoint.id);
        let name = &attachment.endpoint.name;
        let shown = shown_name(&request.cluster, network);
        if let Err(why) = self.settle(commit, network, id).await {
            if let Err(error) = self.state.tell(Detach(vec![id])).await {
                tracing::error!(%error, endpoint = %name, "an endpoint that failed can't be detached");
            }
            // The view may show the endpoint already. An operator who tries again at once would get the answer that the name is in use.
            self.until_gone(network, id).await;
            return Err(AttachError::Kernel { name: name.clone(), network: shown, why });
        }
        let addresses = shown_addresses(&attachment.endpoint);
        tracing::info!(endpoint = %name, network = %shown, addresses, "attached");
        self.be_seen(network, id).await;
        Ok(attachment)
    }

    /// What the first request for an endpoint would have been answered. It may have ended with the agent, right after the
    /// endpoint was durable.
    async fn bring_up_again(&self, attachment: Arc<Attachment>) -> Result<Arc<Attachment>, AttachError> {
        let Endpoint { network, id, name, .. } = attachment.endpoint.clone();
        let commit = self.state.intents.borrow().commit;
        let settled = self.settle(commit, network, id).await;
        let shown = || shown_name(&self.seen.borrow().cluster, network);
        settled.map_err(|why| AttachError::Kernel { name, network: shown(), why })?;
        self.be_seen(network, id).await;
        Ok(attachment)
    }

    /// Waits until the view shows an endpoint, it can ask for names, and the other hosts find it.
    async fn be_seen(&self, network: NetworkId, id: EndpointId) {
        // What stands in the way of DNS is in the log, and tried again.
        let mut named = self.named.clone();
        let _ = tokio::time::timeout(FOUND_TIMEOUT, named.wait_for(|named| named.contains(&network))).await;
        self.until(|seen| seen.cluster.networks.get(&network).is_some_and(|v| v.endpoints.contains_key(&id))).await;
        self.be_found(network, id).await;
    }

    /// Waits until the other hosts of the network find the way to an endpoint. Before that the answer to its first packet
    /// would be lost, and it would ask again only after a second. A host that does not answer in time hears of it by gossip.
    async fn be_found(&self, network: NetworkId, endpoint: EndpointId) {
        let cluster = Arc::clone(&self.seen.borrow().cluster);
        let members = cluster.networks.get(&network).into_iter().flat_map(|view| view.vnis.keys());
        let live = |id: &&HostId| cluster.hosts.get(id).is_some_and(|h| h.liveness == Liveness::Live);
        let ask = |id: &HostId| {
            let (peers, id) = (self.peers.clone(), *id);
            async move {
                if let Err(error) = peers.await_endpoint(id, network, endpoint).await {
                    tracing::debug!(host = %id.short(), %error, "does not find the new endpoint yet");
                }
            }
        };
        let all = futures::future::join_all(members.filter(|id| **id != self.me).filter(live).map(ask));
        let _ = tokio::time::timeout(FOUND_TIMEOUT, all).await;
    }

    /// Detaches an endpoint of this host. When this returns it is in no record of this host any more, and nothing of it is left in the
    /// kernel but what that refused to remove: this stays in `status` and is tried again. Other hosts hear of it as of any change.
    ///
    /// # Errors
    /// When there is none of that name.
    pub async fn detach(&self, network: &str, name: &Name) -> Result<Arc<Attachment>, AttachError> {
        let attachment = self.named(network, name)?;
        self.take_down(attachment).await
    }

    /// The same for the endpoint with this id only; `None` if it is gone already.
    ///
    /// # Errors
    /// When the id means another endpoint.
    pub async fn detach_as(
        &self,
        network: &str,
        name: &Name,
        id: EndpointId,
    ) -> Result<Option<Arc<Attachment>>, AttachError> {
        let _endpoint = self.lock_endpoint(Some(id)).await;
        let cluster = Arc::clone(&self.seen.borrow().cluster);
        let intents = self.intents();
        let meant = attached_as((self.me, &intents), &cluster, (network, name), id);
        match meant.map_err(|in_use| explain::id_in_use(&cluster, id, in_use))? {
            Some(attachment) => self.take_down(attachment).await.map(Some),
            None => Ok(None),
        }
    }

    /// Detaches all endpoints of this host that are in a network, deleted or not. Which network it was, and how people call it.
    ///
    /// # Errors
    /// When there is no such network.
    pub async fn detach_all(&self, network: &str) -> Result<(NetworkId, String), AttachError> {
        let (id, shown) = self.network(network)?;
        let left: Vec<Arc<Attachment>> = self.intents().attached(id).cloned().collect();
        for attachment in left {
            self.take_down(attachment).await?;
        }
        Ok((id, shown))
    }

    /// The network that people mean, also if it is deleted and endpoints of this host are in it.
    fn network(&self, text: &str) -> Result<(NetworkId, String), AttachError> {
        match self.seen.borrow().cluster.find(text) {
            Some(view) => Ok((view.network.id, view.shown_name())),
            None => deleted(&self.intents(), text).ok_or_else(|| AttachError::UnknownNetwork(text.to_owned())),
        }
    }

    /// An endpoint of this host.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn named(&self, network: &str, name: &Name) -> Result<Arc<Attachment>, AttachError> {
        let cluster = Arc::clone(&self.seen.borrow().cluster);
        let (network, shown) = self.network(network)?;
        let elsewhere = || cluster.networks.get(&network)?.named(name).map(|l| host_name(&cluster, l.host));
        let unknown =
            || AttachError::UnknownEndpoint { name: name.to_string(), network: shown.clone(), elsewhere: elsewhere() };
        self.intents().find(network, name).cloned().ok_or_else(unknown)
    }

    fn intents(&self) -> Arc<Intents> {
        Arc::clone(&self.state.intents.borrow().intents)
    }

    async fn take_down(&self, attachment: Arc<Attachment>) -> Result<Arc<Attachment>, AttachError> {
        let Endpoint { id, network, .. } = attachment.endpoint;
        let shown = shown_name(&self.seen.borrow().cluster, network);
        let commit = self.state.tell(Detach(vec![id])).await?.commit;
        // What the kernel refuses to remove now stays in `status` and is tried again.
        let _ = self.settle(commit, network, id).await;
        self.until_gone(network, id).await;
        tracing::info!(endpoint = %attachment.endpoint.name, network = %shown, "detached");
        Ok(attachment)
    }

    /// Waits until the view shows what is already so. It follows this host's own record at once; should it not, then
    /// whatever comes next says what it sees.
    async fn until(&self, shows: impl FnMut(&ClusterView) -> bool) {
        let mut seen = self.seen.clone();
        let _ = tokio::time::timeout(VIEW_TIMEOUT, seen.wait_for(shows)).await;
    }

    async fn until_gone(&self, network: NetworkId, id: EndpointId) {
        self.until(|seen| seen.cluster.networks.get(&network).is_none_or(|v| !v.endpoints.contains_key(&id))).await;
    }

    /// A container that was stopped and started again under its name may be here before its end was noticed. One that
    /// runs keeps its name, also if the path that it was attached by is gone.
    async fn release_lost(&self, spec: &EndpointSpec) -> Result<(), AttachError> {
        let cluster = Arc::clone(&self.seen.borrow().cluster);
        let intents = self.intents();
        let same = spec.id.and_then(|id| intents.attachments.get(&id));
        let named = || intents.find(cluster.find(&spec.network)?.network.id, &spec.name);
        let Some(old) = same.or_else(named).cloned() else { return Ok(()) };
        if netns::at_path(&old.netns).await != AtPath::Gone {
            return Ok(());
        }
        let Endpoint { id, network, .. } = old.endpoint;
        let released = self.reconciler.release_if_lost(network, id).await;
        let released = released.map_err(|error| match error {
            ReleaseError::Look(source) => AttachError::Look { name: spec.name.clone(), source },
            ReleaseError::Store(error) => AttachError::Store(error),
        })?;
        if released == Released::StillHere {
            // A namespace is cleared some time after its last process has ended, and the port goes only then.
            let mut intents = self.state.intents.clone();
            let released = intents.wait_for(|now| !now.intents.attachments.contains_key(&id));
            if tokio::time::timeout(CLEARING_TIMEOUT, released).await.is_err() {
                return Ok(());
            }
        }
        self.until_gone(network, id).await;
        Ok(())
    }

    /// Waits until the kernel is as the intents of this commit want it, as far as this endpoint is concerned: an entry for
    /// another endpoint that could not be made is tried again without it.
    async fn settle(&self, commit: u64, network: NetworkId, endpoint: EndpointId) -> Result<(), NotApplied> {
        let mut settled = self.reconciler.settled.clone();
        let done = tokio::time::timeout(KERNEL_TIMEOUT, settled.wait_for(|s| s.commit >= commit)).await;
        let Ok(Ok(settled)) = done else { return Err(NotApplied::InTime) };
        settled
            .failures
            .iter()
            .find(|f| f.scope.breaks(network, endpoint))
            .map_or(Ok(()), |f| Err(NotApplied::Refused(Box::new(f.clone()))))
    }
}

fn shown_addresses(endpoint: &Endpoint) -> String {
    endpoint.addresses.iter().map(|a| a.address.to_string()).collect::<Vec<_>>().join(" ")
}

fn host_name(cluster: &Cluster, host: HostId) -> String {
    cluster.hosts.get(&host).map_or_else(|| host.short(), |h| h.info.name.to_string())
}

/// What people call a network, also one that is deleted.
fn shown_name(cluster: &Cluster, network: NetworkId) -> String {
    cluster.networks.get(&network).map_or_else(|| network.short(), |view| view.shown_name())
}

/// A network that is deleted but has endpoints here: no view shows it, and yet they can be detached. Of several none, as of
/// several that are not deleted.
fn deleted(intents: &Intents, text: &str) -> Option<(NetworkId, String)> {
    let left = intents.networks.values().filter(|n| intents.tombstones.contains(&n.id));
    let mut meant = left.filter(|network| network.may_be_called(text));
    meant.next().filter(|_| meant.next().is_none()).map(|network| (network.id, network.name.to_string()))
}

#[cfg(test)]
mod tests;
