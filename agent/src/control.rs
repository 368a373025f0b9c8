//! The control service: what overlayctl asks of the daemon over a Unix socket. It hands requests to `operations` and reads what
//! the other tasks publish; it changes nothing in the kernel itself.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use futures::stream::BoxStream;
use overlay::cluster::{Cluster, NetworkView};
use overlay::ledger::{Activation, Input};
use overlay::model::host::Liveness;
use overlay::model::id::HostId;
use overlay::model::network::Name;
use overlay::operations::attach::EndpointSpec;
use overlay::operations::define_network::Hindered;
use overlay_dns::server::Resolver;
use overlay_proto::v1 as pb;
use overlay_proto::v1::control_server::Control;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use crate::cluster::ClusterView;
use crate::operations::attach::Attacher;
use crate::operations::links::Linker;
use crate::operations::network::Networks;
use crate::peer::Refusals;
use crate::reconcile::Inspector;

mod code;
mod forget;
pub(crate) mod input;
mod inspect;
mod show;

use show::Shown;

/// What does not change while the daemon runs.
#[derive(Debug, Clone)]
pub struct About {
    /// Where gossip is.
    pub gossip: std::net::SocketAddr,
    /// After a boot, does it take all members to let this host in?
    pub strict_boot_check: bool,
}

/// The service.
pub struct Service {
    /// Endpoints.
    pub attacher: Attacher,
    /// Networks.
    pub networks: Networks,
    /// Links.
    pub linker: Linker,
    /// What people are shown of the kernel.
    pub inspector: Inspector,
    /// DNS.
    pub resolver: Resolver,
    /// The cluster.
    pub seen: watch::Receiver<ClusterView>,
    /// Gossip.
    pub gossip: overlay_gossip::Handle,
    /// Counts of connections of other agents that were refused.
    pub refusals: Arc<Refusals>,
    /// This daemon.
    pub about: About,
}

/// What an id looks like.
const ENDPOINT_ID: &str = "32 lower-case hexadecimal digits";

type Answer<T> = Result<Response<T>, Status>;

impl Service {
    fn cluster(&self) -> Arc<Cluster> {
        Arc::clone(&self.seen.borrow().cluster)
    }

    /// A member that was not heard since the agent started has no name here, but an address.
    fn waiting(cluster: &Cluster, peers: &BTreeMap<HostId, SocketAddr>, id: HostId) -> pb::Waiting {
        let waiting = show::waiting(cluster, id);
        match peers.get(&id) {
            Some(address) if waiting.host == id.short() => pb::Waiting { host: address.to_string(), ..waiting },
            _ => waiting,
        }
    }

    fn shown<'a>(&self, cluster: &'a Cluster) -> Shown<'a> {
        let intents = Arc::clone(&self.attacher.state.intents.borrow().intents);
        Shown { cluster, intents, me: self.attacher.me }
    }
}

fn parse<T: std::str::FromStr>(text: &str) -> Result<T, Status>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|e: T::Err| Status::invalid_argument(e.to_string()))
}

fn parse_some<T: std::str::FromStr>(what: &str, text: &str, expected: &str) -> Result<Option<T>, Status> {
    let wrong = |_| Status::invalid_argument(format!("{what} `{text}`: expected {expected}"));
    if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(wrong) }
}

/// An error with its causes, but for those that its own text names already.
fn in_one_line(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    for cause in std::iter::successors(error.source(), |cause| cause.source()).map(ToString::to_string) {
        if !line.ends_with(&cause) {
            line = format!("{line}: {cause}");
        }
    }
    line
}

#[tonic::async_trait]
impl Control for Service {
    async fn status(&self, _: Request<pb::StatusRequest>) -> Answer<pb::StatusReply> {
        let cluster = self.cluster();
        let shown = self.shown(&cluster);
        let settled = Arc::clone(&self.attacher.reconciler.settled.borrow());
        let me = cluster
            .hosts
            .get(&self.attacher.me)
            .ok_or_else(|| Status::unavailable("overlayd is starting: try again in a moment"))?;
        let state = self.attacher.state.state();
        let (silent, peers) = (show::silent(state.ledger.membership()), &state.peers);
        Ok(Response::new(pb::StatusReply {
            host_id: self.attacher.me.to_string(),
            host: me.info.name.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            vtep: me.info.vtep.to_string(),
            vxlan_port: me.info.vxlan_port.into(),
            gossip: self.about.gossip.to_string(),
            underlay_mtu: me.info.underlay_mtu,
            synced: self.seen.borrow().synced,
            hosts_live: show::count(cluster.hosts.values().filter(|h| h.liveness == Liveness::Live)),
            hosts: show::count(cluster.hosts.values()),
            networks: show::count(cluster.networks.values()),
            endpoints: show::count(shown.intents.attachments.values()),
            settled: settled.failures.is_empty(),
            failures: settled
                .failures
                .iter()
                .map(|failure| shown.failure(failure))
                .chain(show::unannounced(&self.attacher.state.record.borrow()))
                .collect(),
            dropped: show::dropped(self.gossip.counters(), &self.refusals),
            queries: show::queries(self.resolver.counts()),
            unopened: show::unopened(&self.gossip.counters().unknown_senders().recent(Instant::now())),
            phase: show::phase(me.info.phase).to_owned(),
            waits_for: silent.iter().map(|id| Self::waiting(&cluster, peers, *id)).collect(),
            strict_boot_check: self.about.strict_boot_check,
            dns: overlay::datapath::desired::SERVICE_ADDRESS.to_string(),
            draining: shown.draining(),
            apart: shown.apart(me.info.founder),
            blocking_chains: show::blocking_chains(&settled.blocking_chains),
            contested: shown.contested(&settled),
            gossip_limits: self.gossip.counters().usage().map(show::gossip_limit).collect(),
            last_round: Some(show::last_round(settled.last)),
        }))
    }

    async fn list_hosts(&self, _: Request<pb::ListHostsRequest>) -> Answer<pb::ListHostsReply> {
        let cluster = self.cluster();
        let ledger = self.attacher.state.state().ledger;
        let membership = ledger.membership();
        let waits: BTreeMap<_, _> = membership.forgets.keys().map(|host| (*host, ledger.missing(*host))).collect();
        let members: BTreeSet<_> = membership.others().collect();
        let silent = Arc::clone(&self.seen.borrow().silent);
        Ok(Response::new(pb::ListHostsReply { hosts: self.shown(&cluster).hosts(&members, &waits, &silent) }))
    }

    type ForgetHostStream = BoxStream<'static, Result<pb::ForgetProgress, Status>>;

    async fn forget_host(&self, request: Request<pb::ForgetHostRequest>) -> Answer<Self::ForgetHostStream> {
        let pb::ForgetHostRequest { hosts, force } = request.into_inner();
        let progress = forget::start(self, &hosts, force).await?;
        Ok(Response::new(progress))
    }

    async fn trust_disk(&self, _: Request<pb::TrustDiskRequest>) -> Answer<pb::TrustDiskReply> {
        let was_unchecked = matches!(*self.attacher.state.activation.borrow(), Activation::Unchecked { .. });
        let trusted = self.attacher.state.tell(Input::Trust).await;
        trusted.map_err(|error| Status::internal(in_one_line(&error)))?;
        Ok(Response::new(pb::TrustDiskReply { was_unchecked }))
    }

    async fn create_network(&self, request: Request<pb::CreateNetworkRequest>) -> Answer<pb::NetworkInfo> {
        let id = self.networks.create(input::network(request.into_inner())?).await?;
        let cluster = self.cluster();
        let view = cluster.networks.get(&id).ok_or_else(|| {
            Status::internal("the network is made, but overlayd does not show it yet: see `overlayctl network ls`")
        })?;
        Ok(Response::new(self.shown(&cluster).network(view)))
    }

    async fn list_networks(&self, _: Request<pb::ListNetworksRequest>) -> Answer<pb::ListNetworksReply> {
        let cluster = self.cluster();
        let shown = self.shown(&cluster);
        let mut networks: Vec<_> = cluster.networks.values().map(|view| shown.network(view)).collect();
        networks.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Response::new(pb::ListNetworksReply { networks }))
    }

    async fn inspect_network(&self, request: Request<pb::NetworkRef>) -> Answer<pb::InspectNetworkReply> {
        let cluster = self.cluster();
        let view = show::find(&cluster, &request.get_ref().network)?;
        let observed = self.attacher.reconciler.look_into(view.network.id).await;
        let observed = observed.map_err(|e| Status::internal(e.to_string()))?;
        let segment = observed.segments.get(&view.network.id);
        let netns = self.inspector.netns_dir.join(view.network.id.to_string());
        let shown = self.shown(&cluster);
        Ok(Response::new(pb::InspectNetworkReply {
            network: Some(shown.network(view)),
            members: shown.members(view),
            endpoints: shown.endpoints(view),
            netns: segment.map_or_else(String::new, |_| netns.display().to_string()),
            mtu: segment.and_then(|s| s.bridge.as_ref()).map_or(0, |bridge| bridge.bridge.mtu),
        }))
    }

    async fn remove_network(&self, request: Request<pb::RemoveNetworkRequest>) -> Answer<pb::NetworkInfo> {
        let pb::RemoveNetworkRequest { network, force } = request.into_inner();
        let cluster = self.cluster();
        if !force {
            let view = show::find(&cluster, &network)?;
            self.networks.remove(view.network.id, Hindered::ByAll).await?;
            return Ok(Response::new(self.shown(&cluster).network(view)));
        }
        // From here on by its id: what the name means may change meanwhile.
        let (id, name) = self.attacher.detach_all(&network).await?;
        let Some(view) = cluster.networks.get(&id) else {
            let (id, name) = (id.to_string(), name);
            return Ok(Response::new(pb::NetworkInfo { id, name, ..pb::NetworkInfo::default() }));
        };
        self.networks.remove(id, Hindered::ByOwn).await?;
        Ok(Response::new(self.shown(&cluster).network(view)))
    }

    async fn connect_endpoint(&self, request: Request<pb::ConnectRequest>) -> Answer<pb::EndpointInfo> {
        let request = request.into_inner();
        let spec = EndpointSpec {
            network: request.network,
            netns: request.netns.into(),
            name: parse(&request.name)?,
            aliases: request.aliases.iter().map(|alias| parse::<Name>(alias)).collect::<Result<BTreeSet<_>, _>>()?,
            addresses: input::addresses(&request.ip, &request.ip6)?,
            mac: parse_some("MAC", &request.mac, "a unicast MAC like 02:42:ac:26:00:0b")?,
            ifname: if request.ifname.is_empty() { None } else { Some(parse(&request.ifname)?) },
            priority: input::priority(request.gw_priority)?,
            id: parse_some("endpoint id", &request.endpoint_id, ENDPOINT_ID)?,
            ports: input::ports(&request.publish.unwrap_or_default())?,
        };
        let attachment = self.attacher.attach(&spec).await?;
        let cluster = self.cluster();
        Ok(Response::new(self.shown(&cluster).attachment(&attachment)))
    }

    async fn disconnect_endpoint(&self, request: Request<pb::DisconnectRequest>) -> Answer<pb::EndpointInfo> {
        let pb::DisconnectRequest { network, name, endpoint_id } = request.into_inner();
        let cluster = self.cluster();
        let label = parse(&name)?;
        let gone = match parse_some("endpoint id", &endpoint_id, ENDPOINT_ID)? {
            None => Some(self.attacher.detach(&network, &label).await?),
            Some(id) => self.attacher.detach_as(&network, &label, id).await?,
        };
        let before = || pb::EndpointInfo { id: endpoint_id, network, name, ..pb::EndpointInfo::default() };
        Ok(Response::new(gone.map_or_else(before, |attachment| self.shown(&cluster).attachment(&attachment))))
    }

    async fn publish_ports(&self, request: Request<pb::PublishRequest>) -> Answer<pb::EndpointInfo> {
        let pb::PublishRequest { network, name, publish, unpublish } = request.into_inner();
        let label = parse(&name)?;
        let (wanted, unwanted) = (input::ports(&publish.unwrap_or_default())?, input::host_ports(&unpublish)?);
        let attachment = self.attacher.publish(&network, &label, wanted, unwanted).await?;
        let cluster = self.cluster();
        Ok(Response::new(self.shown(&cluster).attachment(&attachment)))
    }

    async fn add_link(&self, request: Request<pb::LinkRequest>) -> Answer<pb::LinkRow> {
        let (network, link) = input::link(request.into_inner())?;
        self.linker.open(&network, link.clone()).await?;
        let cluster = self.cluster();
        Ok(Response::new(show::link(show::find(&cluster, &network)?, &link)))
    }

    async fn remove_link(&self, request: Request<pb::LinkRequest>) -> Answer<pb::LinkRow> {
        let (network, link) = input::link(request.into_inner())?;
        self.linker.close(&network, link.clone()).await?;
        let cluster = self.cluster();
        Ok(Response::new(show::link(show::find(&cluster, &network)?, &link)))
    }

    async fn list_links(&self, request: Request<pb::NetworkRef>) -> Answer<pb::ListLinksReply> {
        let cluster = self.cluster();
        let network = &request.get_ref().network;
        let rows = |view: &NetworkView| -> Vec<_> { view.links.open().map(|link| show::link(view, link)).collect() };
        let links = if network.is_empty() {
            cluster.networks.values().flat_map(|view| rows(view)).collect()
        } else {
            rows(show::find(&cluster, network)?)
        };
        Ok(Response::new(pb::ListLinksReply { links }))
    }

    async fn list_endpoints(&self, request: Request<pb::NetworkRef>) -> Answer<pb::ListEndpointsReply> {
        let cluster = self.cluster();
        let shown = self.shown(&cluster);
        let network = &request.get_ref().network;
        let endpoints = if network.is_empty() {
            cluster.networks.values().flat_map(|view| shown.endpoints(view)).collect()
        } else {
            shown.endpoints(show::find(&cluster, network)?)
        };
        Ok(Response::new(pb::ListEndpointsReply { endpoints }))
    }

    async fn inspect_endpoint(&self, request: Request<pb::EndpointRef>) -> Answer<pb::InspectEndpointReply> {
        let pb::EndpointRef { network, name } = request.into_inner();
        inspect::endpoint(self, &network, &parse(&name)?).await.map(Response::new)
    }

    async fn inspect_kernel(&self, request: Request<pb::NetworkRef>) -> Answer<pb::InspectKernelReply> {
        inspect::network(self, &request.get_ref().network).await.map(Response::new)
    }

    async fn list_leases(&self, request: Request<pb::NetworkRef>) -> Answer<pb::ListLeasesReply> {
        let cluster = self.cluster();
        let view = show::find(&cluster, &request.get_ref().network)?;
        let id = view.network.id;
        let account = self.attacher.state.state().ledger.accounts().get(&id).cloned();
        let leases = account.map(|account| self.shown(&cluster).leases(&account)).unwrap_or_default();
        Ok(Response::new(pb::ListLeasesReply { leases }))
    }

    async fn list_fdb(&self, request: Request<pb::NetworkRef>) -> Answer<pb::ListFdbReply> {
        let cluster = self.cluster();
        let view = show::find(&cluster, &request.get_ref().network)?;
        let observed = self.attacher.reconciler.look_into(view.network.id).await;
        let observed = observed.map_err(|e| Status::internal(e.to_string()))?;
        let rows = self.shown(&cluster).fdb(view, observed.segments.get(&view.network.id));
        Ok(Response::new(pb::ListFdbReply { rows }))
    }
}
