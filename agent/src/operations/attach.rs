//! Endpoints come and go: everything is checked first; then the address is durable; then the kernel; then the answer.
//! If the kernel refuses, all is as it was.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use overlay::cluster::{Cluster, NetworkView};
use overlay::kernel::netns;
use overlay::model::addr::{IfName, Mac};
use overlay::model::endpoint::{Assigned, Endpoint};
use overlay::model::host::Liveness;
use overlay::model::id::{EndpointId, HostId, NetworkId};
use overlay::model::intent::{AtPath, Attachment, Intents, NetnsRef};
use overlay::model::network::Name;
use tokio::sync::watch;

use crate::cluster::ClusterView;
use crate::operations::network::known_to;
use crate::operations::ports;
use crate::peer::Peers;
use crate::reconcile;
use crate::state::{self, AdmitError, Local};

mod allocate;
mod container;
mod error;
mod explain;
mod idempotency;
mod publish;

pub use container::{Priority, PriorityError};
pub use error::AttachError;
use explain::{in_use, not_admitted, not_assignable};
pub use idempotency::Turns;
use idempotency::Work;

/// How long an attach waits for the other hosts to find the way to the new endpoint.
const FOUND_PATIENCE: Duration = Duration::from_millis(500);
/// How long the kernel may take for one endpoint.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the kernel may take to clear a namespace that nobody is in any more, and the reconciler to see that.
const CLEARING: Duration = Duration::from_secs(2);
/// How long the view may take to show what is on disk.
const VIEW_PATIENCE: Duration = Duration::from_secs(1);
/// How many further names an endpoint may have: all that is said of it has to fit into one value of gossip.
const MAX_ALIASES: usize = 64;

/// What is wanted, parsed.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The network, as people call it.
    pub network: String,
    /// Where the container is.
    pub netns: std::path::PathBuf,
    /// What it is to be called.
    pub name: Name,
    /// Further names.
    pub aliases: BTreeSet<Name>,
    /// The addresses that it must have, one of each subnet at most.
    pub addresses: BTreeSet<IpAddr>,
    /// The MAC that it must have.
    pub mac: Option<Mac>,
    /// The interface in the container; `None` for the first of eth0, eth1, ... that it has not.
    pub ifname: Option<IfName>,
    /// Of the networks that it is in the one with the highest is its way out.
    pub priority: Priority,
    /// What it is to be known by, if the one who asks may ask again.
    pub id: Option<EndpointId>,
    /// The ports of this host that are to lead to it.
    pub ports: Vec<ports::Wanted>,
}

/// Attaches endpoints and lets them go.
#[derive(Debug, Clone)]
pub struct Attacher {
    /// The owner of ledger and intents.
    pub local: state::Handle,
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
    /// Who works on which endpoint.
    pub turns: Turns,
}

impl Attacher {
    /// Attaches an endpoint. When this returns its packets flow and the cluster shows it. One that is attached already under
    /// the wanted id, as it is wanted, is the answer as it is.
    ///
    /// It goes on to its end also when nobody waits for it any more: an endpoint is never left half attached.
    ///
    /// # Errors
    /// With the reason; then all is as it was.
    pub async fn connect(&self, wanted: &Wanted) -> Result<Attachment, AttachError> {
        let (attacher, wanted) = (self.clone(), wanted.clone());
        crate::to_its_end(async move { attacher.attach(&wanted).await }).await
    }

    async fn attach(&self, wanted: &Wanted) -> Result<Attachment, AttachError> {
        let _turn = self.turn(wanted.id).await;
        let netns = netns::identify(&wanted.netns)?;
        let _container = self.turns.take(Work::Container(netns.cookie)).await;
        self.forget_the_lost(wanted).await?;
        // Who made it on another host a moment ago may be faster than word of it.
        self.until(|seen| seen.cluster.find(&wanted.network).is_some()).await;
        let seen = self.seen.borrow().clone();
        // First: what the network is called may have changed since, and it may be deleted.
        if let Some(there) = self.attached_before(&seen.cluster, wanted, &netns)? {
            return self.again(there).await;
        }
        let view = find(&seen.cluster, &wanted.network)?;
        check(&seen, view, wanted)?;
        self.check_ports(&view.network, None, &wanted.ports)?;
        let intents = Arc::clone(&self.local.kept.borrow().intents);
        let ifname = container::check(view, &intents, wanted, &netns).await?;

        let (network, id) = (view.network.id, wanted.id.unwrap_or_else(|| EndpointId::from_bytes(crate::random())));
        let attached = match self.allocate(&seen, view, wanted, id).await {
            Ok(granted) => self.put_in_place(&seen.cluster, view, wanted, (netns, ifname), (id, granted)).await,
            Err(refused) => Err(refused),
        };
        match &attached {
            Ok(Attachment { endpoint, .. }) => {
                let addresses = shown_addresses(endpoint);
                tracing::info!(endpoint = %wanted.name, network = %view.shown_name(), addresses, "attached");
                self.be_seen(network, id).await;
            }
            // Also if it has got some of its addresses, but not all.
            Err(_) => {
                let name = wanted.name.clone();
                if let Err(error) = self.local.call(move |local| local.abandon(network, id, name)).await {
                    tracing::error!(%error, endpoint = %wanted.name, "an endpoint that failed can't be let go");
                }
            }
        }
        attached
    }

    async fn turn(&self, endpoint: Option<EndpointId>) -> Option<idempotency::Turn> {
        Some(self.turns.take(Work::Endpoint(endpoint?)).await)
    }

    /// What the first request for an endpoint would have been answered. It may have ended with the agent, right after the
    /// endpoint was durable.
    async fn again(&self, there: Attachment) -> Result<Attachment, AttachError> {
        let (network, id, name) = (there.endpoint.network, there.endpoint.id, there.endpoint.name.clone());
        let page = self.local.kept.borrow().page;
        let settled = self.settle(page, network, id).await;
        let shown = || shown_name(&self.seen.borrow().cluster, network);
        settled.map_err(|why| AttachError::Kernel { name, network: shown(), why })?;
        self.be_seen(network, id).await;
        Ok(there)
    }

    /// Waits until the view shows an endpoint, it can ask for names, and the other hosts find it.
    async fn be_seen(&self, network: NetworkId, id: EndpointId) {
        // What stands in the way of DNS is in the log, and tried again.
        let mut named = self.named.clone();
        let _ = tokio::time::timeout(FOUND_PATIENCE, named.wait_for(|named| named.contains(&network))).await;
        self.until(|seen| seen.cluster.networks.values().any(|v| v.endpoints.contains_key(&id))).await;
        self.be_found(network, id).await;
    }

    /// Waits until the other hosts of the network find the way to an endpoint. Before that the answer to its first packet
    /// would be lost, and it would ask again only after a second. Who does not answer in time hears of it by gossip.
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
        let _ = tokio::time::timeout(FOUND_PATIENCE, all).await;
    }

    /// What has addresses gets all else.
    async fn put_in_place(
        &self,
        cluster: &Cluster,
        view: &NetworkView,
        wanted: &Wanted,
        (netns, ifname): (NetnsRef, IfName),
        (id, addresses): (EndpointId, Vec<Assigned>),
    ) -> Result<Attachment, AttachError> {
        let network = view.network.id;
        // Of the address that was asked for, which may go to another host at once: those who know it know its MAC.
        let by_number = |a: &&Assigned| wanted.addresses.contains(&a.address);
        let named = addresses.iter().find(by_number).or(addresses.first());
        let mac = wanted.mac.or_else(|| named.map(|a| Mac::of_address(a.address)));
        let mac = mac.expect("a network has a range, and an endpoint an address of each");
        check_mac(cluster, view, mac)?;
        let endpoint = Endpoint {
            id,
            network,
            name: wanted.name.clone(),
            aliases: wanted.aliases.clone(),
            addresses,
            mac,
            created: cluster.now + 1,
        };
        let published = BTreeMap::new();
        let mut attachment = Attachment { endpoint, netns, ifname, metric: wanted.priority.metric(), published };
        let (intent, ports, definition) = (attachment.clone(), wanted.ports.clone(), view.network.clone());
        let attach = move |local: &mut Local| {
            let published = ports::publish(local.intents(), &definition, id, &ports)?;
            let metric = container::free_metric(local.intents(), &intent);
            let intent = Attachment { published, metric, ..intent };
            Ok((local.attach(intent.clone())?, intent))
        };
        let attached: Result<_, AdmitError> = self.local.call(attach).await;
        let (page, attached) = attached
            .map_err(|refusal| not_admitted(&host_name(cluster, self.me), view, &attachment.endpoint, refusal))?;
        attachment = attached;
        self.settle(page, network, id).await.map_err(|why| AttachError::Kernel {
            name: wanted.name.clone(),
            network: view.shown_name(),
            why,
        })?;
        Ok(attachment)
    }

    /// Lets an endpoint of this host go. When this returns it is in no record of this host any more, and nothing of it is left in the
    /// kernel but what that refused to remove: this stays in `status` and is tried again. Other hosts hear of it as by any change.
    ///
    /// # Errors
    /// When there is none of that name.
    pub async fn disconnect(&self, network: &str, name: &Name) -> Result<Attachment, AttachError> {
        let attachment = self.named(network, name)?;
        self.let_go(attachment).await
    }

    /// The same for the endpoint with this id only; `None` if it is gone already.
    ///
    /// # Errors
    /// When the id means another endpoint.
    pub async fn disconnect_as(
        &self,
        network: &str,
        name: &Name,
        id: EndpointId,
    ) -> Result<Option<Attachment>, AttachError> {
        let _turn = self.turn(Some(id)).await;
        let cluster = Arc::clone(&self.seen.borrow().cluster);
        match self.attached_as(&cluster, (network, name), id)? {
            Some(attachment) => self.let_go(attachment).await.map(Some),
            None => Ok(None),
        }
    }

    /// Lets all endpoints of this host go that are in a network, deleted or not. Which network it was, and how people call it.
    ///
    /// # Errors
    /// When there is no such network.
    pub async fn disconnect_all(&self, network: &str) -> Result<(NetworkId, String), AttachError> {
        let (id, shown) = self.network(network)?;
        let left: Vec<Attachment> = self.local.kept.borrow().intents.attached(id).cloned().collect();
        for attachment in left {
            self.let_go(attachment).await?;
        }
        Ok((id, shown))
    }

    /// The network that people mean, also if it is deleted and endpoints of this host are in it.
    fn network(&self, text: &str) -> Result<(NetworkId, String), AttachError> {
        match self.seen.borrow().cluster.find(text) {
            Some(view) => Ok((view.network.id, view.shown_name())),
            None => {
                let deleted = deleted(&self.local.kept.borrow().intents, text);
                deleted.ok_or_else(|| AttachError::UnknownNetwork(text.to_owned()))
            }
        }
    }

    /// An endpoint of this host.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn named(&self, network: &str, name: &Name) -> Result<Attachment, AttachError> {
        let cluster = Arc::clone(&self.seen.borrow().cluster);
        let kept = self.local.kept.borrow().clone();
        let (network, shown) = self.network(network)?;
        let elsewhere = || cluster.networks.get(&network)?.named(name).map(|l| host_name(&cluster, l.host));
        let unknown =
            || AttachError::UnknownEndpoint { name: name.to_string(), network: shown.clone(), elsewhere: elsewhere() };
        kept.intents.find(network, name).cloned().ok_or_else(unknown)
    }

    async fn let_go(&self, attachment: Attachment) -> Result<Attachment, AttachError> {
        let Endpoint { id, network, .. } = attachment.endpoint;
        let shown = shown_name(&self.seen.borrow().cluster, network);
        let page = self.local.call(move |local| local.detach(&[id])).await?;
        // What the kernel refuses to remove now stays in `status` and is tried again.
        let _ = self.settle(page, network, id).await;
        self.until(|seen| seen.cluster.networks.values().all(|v| !v.endpoints.contains_key(&id))).await;
        tracing::info!(endpoint = %attachment.endpoint.name, network = %shown, "disconnected");
        Ok(attachment)
    }

    /// Waits until the view shows what is already so. It follows this host's own record at once; should it not, then
    /// whatever comes next says what it sees.
    async fn until(&self, shows: impl FnMut(&ClusterView) -> bool) {
        let mut seen = self.seen.clone();
        let _ = tokio::time::timeout(VIEW_PATIENCE, seen.wait_for(shows)).await;
    }

    /// A container that was stopped and started again under its name may be here before its end was noticed. One that
    /// runs keeps its name, also if the path that it was attached by is gone.
    async fn forget_the_lost(&self, wanted: &Wanted) -> Result<(), AttachError> {
        let cluster = Arc::clone(&self.seen.borrow().cluster);
        let mut kept = self.local.kept.clone();
        let intents = Arc::clone(&kept.borrow_and_update().intents);
        let same = wanted.id.and_then(|id| intents.attachments.get(&id));
        let named = || intents.find(cluster.find(&wanted.network)?.network.id, &wanted.name);
        let old = same.or_else(named).filter(|a| netns::at_path(&a.netns) == AtPath::Gone);
        let Some(Endpoint { id, network, .. }) = old.map(|old| old.endpoint.clone()) else { return Ok(()) };
        let observed = self.reconciler.look().await;
        let observed = observed.map_err(|source| AttachError::Look { name: wanted.name.clone(), source })?;
        if observed.is_lost(network, id, AtPath::Gone) {
            self.local.call(move |local| local.detach(&[id])).await?;
        } else {
            // A namespace is cleared some time after its last process has ended, and the port goes only then.
            let released = kept.wait_for(|kept| !kept.intents.attachments.contains_key(&id));
            if tokio::time::timeout(CLEARING, released).await.is_err() {
                return Ok(());
            }
        }
        self.until(|seen| seen.cluster.networks.values().all(|v| !v.endpoints.contains_key(&id))).await;
        Ok(())
    }

    /// Waits until the kernel is as the intents of this page want it, as far as this endpoint is concerned: an entry for
    /// another endpoint that could not be made is tried again without it.
    async fn settle(&self, page: u64, network: NetworkId, endpoint: EndpointId) -> Result<(), String> {
        let mut settled = self.reconciler.settled.clone();
        let done = tokio::time::timeout(PATIENCE, settled.wait_for(|s| s.page >= page)).await;
        let Ok(Ok(settled)) = done else { return Err("the kernel took too long".to_owned()) };
        settled.failures.iter().find(|f| f.scope.breaks(network, endpoint)).map_or(Ok(()), |f| Err(f.message.clone()))
    }
}

fn find<'a>(cluster: &'a Cluster, network: &str) -> Result<&'a NetworkView, AttachError> {
    cluster.find(network).ok_or_else(|| AttachError::UnknownNetwork(network.to_owned()))
}

fn shown_addresses(endpoint: &Endpoint) -> String {
    endpoint.addresses.iter().map(|a| a.address.to_string()).collect::<Vec<_>>().join(" ")
}

fn host_name(cluster: &Cluster, host: HostId) -> String {
    cluster.hosts.get(&host).map_or_else(|| host.short(), |h| h.info.name.to_string())
}

/// What people call a network, also one that is deleted.
fn shown_name(cluster: &Cluster, network: NetworkId) -> String {
    cluster.networks.get(&network).map_or_else(|| network.short(), NetworkView::shown_name)
}

/// What the cluster says against it.
fn check(seen: &ClusterView, view: &NetworkView, wanted: &Wanted) -> Result<(), AttachError> {
    if view.apart {
        let hosts = known_to(&seen.cluster, view.network.id).unwrap_or_else(|| "hosts that are gone".to_owned());
        return Err(AttachError::Apart { network: view.shown_name(), hosts });
    }
    if wanted.aliases.len() > MAX_ALIASES {
        return Err(AttachError::TooManyAliases { name: wanted.name.clone(), given: wanted.aliases.len() });
    }
    if let Some(other) = view.named(&wanted.name).filter(|l| l.liveness != Liveness::Dead) {
        let (network, host) = (view.shown_name(), host_name(&seen.cluster, other.host));
        return Err(AttachError::NameInUse { name: wanted.name.clone(), network, host });
    }
    for address in wanted.addresses.iter().copied() {
        view.network.admit(address).map_err(|why| not_assignable(view, address, why))?;
        if let Some(other) = view.at(address) {
            return Err(in_use(seen, view, address, other));
        }
    }
    wanted.mac.map_or(Ok(()), |mac| check_mac(&seen.cluster, view, mac))
}

/// Somebody may have been given, by hand, the MAC that goes with the address of another.
fn check_mac(cluster: &Cluster, view: &NetworkView, mac: Mac) -> Result<(), AttachError> {
    match view.endpoints.values().find(|l| l.endpoint.mac == mac) {
        None => Ok(()),
        Some(other) => Err(AttachError::MacInUse {
            mac,
            network: view.shown_name(),
            name: other.endpoint.name.clone(),
            host: host_name(cluster, other.host),
        }),
    }
}

/// A network that is deleted but has endpoints here: no view shows it, and yet they can be let go. Of several none, as of
/// several that are not deleted.
fn deleted(intents: &Intents, text: &str) -> Option<(NetworkId, String)> {
    let left = intents.networks.values().filter(|n| intents.tombstones.contains(&n.id));
    let mut meant = left.filter(|network| network.may_be_called(text));
    meant.next().filter(|_| meant.next().is_none()).map(|network| (network.id, network.name.to_string()))
}

#[cfg(test)]
mod tests;
