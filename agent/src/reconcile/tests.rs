//! A host with a real disk and a kernel in memory; what the others say is made by hand. The attacher's tests stand on it too.

use std::collections::BTreeMap;
use std::sync::Mutex;

use overlay::datapath::attention::Part;
use overlay::datapath::fake::FakeKernel;
use overlay::datapath::foreign_chains::{AcceptRule, ChainName, Protocols};
use overlay::datapath::kernel_api::Cause;
use overlay::datapath::plan::{HostStep, RowStep, SegmentStep, Step};
use overlay::ledger::{AddressRequest, Input, Outcome};
use overlay::model::addr::Mac;
use overlay::model::endpoint::{Assigned, Endpoint};
use overlay::model::host::{HostInfo, Phase};
use overlay::model::id::{HostId, NetworkId};
use overlay::model::intent::{Attachment, NetnsRef};
use overlay::model::network::{Name, Network, Range, Settings};

use super::*;
use crate::cluster::{self, Times};
use crate::state::identity::Identity;
use crate::state::run_marker::RunMarker;
use crate::state::store::tests::Scratch;
use overlay_gossip as gossip;

mod economy;

/// Longer than anything here takes.
const TIMEOUT: Duration = Duration::from_secs(20);

/// A kernel that several can get at.
#[derive(Clone, Default)]
pub(crate) struct Shared {
    kernel: Arc<Mutex<FakeKernel>>,
    /// How often it was looked at.
    looks: Arc<Mutex<u32>>,
    /// Who hears of its changes, also of those that steps make.
    listener: Arc<Mutex<Option<watch::Sender<News>>>>,
    /// Can it not be looked at?
    blind: Arc<Mutex<bool>>,
}

impl Shared {
    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut FakeKernel) -> T) -> T {
        work(&mut self.kernel.lock().expect("no test panicked with it"))
    }

    pub(crate) fn looks(&self) -> u32 {
        *self.looks.lock().expect("no test panicked with it")
    }

    /// Tells of the changes so far, if somebody listens.
    fn echo(&self) {
        let news = self.with(|kernel| kernel.news().clone());
        if let Some(listener) = &*self.listener.lock().expect("no test panicked with it") {
            listener.send_if_modified(|known| std::mem::replace(known, news.clone()) != news);
        }
    }

    fn blind(&self, blind: bool) {
        *self.blind.lock().expect("no test panicked with it") = blind;
    }
}

impl Kernel for Shared {
    fn set_peers(&mut self, _: &BTreeSet<std::net::IpAddr>) {}

    async fn observe(&mut self, look: &Look) -> Result<Observed, StepError> {
        *self.looks.lock().expect("no test panicked with it") += 1;
        if *self.blind.lock().expect("no test panicked with it") {
            return Err(StepError::new("look", Cause::Busy));
        }
        Ok(self.with(|kernel| kernel.look(look)))
    }

    async fn apply(&mut self, steps: &[Step]) -> Vec<Result<(), StepError>> {
        // Nothing in memory ever waits.
        let mut own = self.with(std::mem::take);
        let results = own.apply(steps).await;
        self.with(|kernel| *kernel = own);
        if !steps.is_empty() {
            self.echo();
        }
        results
    }
}

pub(crate) struct Host {
    pub(crate) identity: Arc<Identity>,
    pub(crate) state: state::Handle,
    pub(crate) seen: watch::Receiver<ClusterView>,
    pub(crate) kernel: Shared,
    pub(crate) reconciler: Handle,
    news: watch::Sender<News>,
    _gossip: watch::Sender<Arc<gossip::View>>,
    _found: watch::Sender<BTreeSet<HostId>>,
    _scratch: Scratch,
}

impl Host {
    pub(crate) fn start() -> Self {
        let scratch = Scratch::new();
        let (store, loaded) = scratch.found().expect("a new state");
        let identity = Arc::new(loaded.identity.clone());
        let me = identity.id();
        let info = HostInfo {
            name: label("alpha"),
            vtep: [192, 0, 2, 1].into(),
            vxlan_port: 4789,
            peer: ([192, 0, 2, 1], 7946).into(),
            underlay_mtu: 1500,
            routed: std::collections::BTreeSet::new(),
            stamp: loaded.ledger.stamp(),
            phase: Phase::Established,
            founder: None,
        };
        let state =
            state::spawn(store, loaded, info, RunMarker::new(&scratch.0, "boot 1")).expect("nothing to put in order");
        let view = gossip::View { synced: true, ..gossip::View::default() };
        let (gossip, heard) = watch::channel(Arc::new(view));
        let (found_tx, found) = watch::channel(BTreeSet::new());
        let times = Times { interval: Duration::from_millis(250), remembered: gossip::REMEMBERED };
        let (seen, _) = cluster::spawn(me, heard, found, state.clone(), times);
        let kernel = Shared::default();
        let (news, changes) = watch::channel(News::default());
        let place = HostConfig { me, vtep: [192, 0, 2, 1].into(), vxlan_port: 4789, underlay_mtu: 1500 };
        let (reconciler, _) = start((kernel.clone(), changes), place, state.clone(), seen.clone());
        Self { identity, state, seen, kernel, reconciler, news, _gossip: gossip, _found: found_tx, _scratch: scratch }
    }

    pub(crate) async fn create(&self) -> Network {
        self.make(network(self.identity.id())).await
    }

    async fn make(&self, network: Network) -> Network {
        let input = Input::Create(network.clone());
        self.state.tell(input).await.expect("the disk takes it");
        let id = network.id;
        let mut seen = self.seen.clone();
        let shown = seen.wait_for(|seen| seen.cluster.networks.contains_key(&id));
        let _ = tokio::time::timeout(TIMEOUT, shown).await.expect("the view follows");
        network
    }

    /// An endpoint in a container; gives the commit of its intent.
    pub(crate) async fn attach(&self, network: &Network, number: u8, netns: NetnsRef) -> (Attachment, u64) {
        let (id, name) = (EndpointId::from_bytes([number; 16]), label(&format!("web{number}")));
        let request = AddressRequest {
            network: network.id,
            endpoint: id,
            name: name.clone(),
            range: 0,
            address: None,
            reachable: BTreeSet::new(),
            asked: BTreeSet::new(),
        };
        let input = Input::Allocate(request);
        let granted = self.state.tell(input).await.expect("the disk takes it").answer;
        let Outcome::Granted { address, lease } = granted else { unreachable!("there is space") };
        let endpoint = Endpoint {
            id,
            network: network.id,
            name,
            aliases: BTreeSet::new(),
            addresses: vec![Assigned { address, lease }],
            mac: Mac::of_address(address),
            created: 2,
        };
        let attachment = Attachment {
            endpoint,
            netns,
            ifname: "eth0".parse().expect("a name"),
            metric: 0,
            published: BTreeMap::new(),
        };
        let commit = self.state.put(&attachment).await.expect("the disk takes it");
        (attachment, commit)
    }

    /// The kernel tells of the changes so far, and of one on the host.
    pub(crate) fn tell_news(&self) {
        let news = self.kernel.with(|kernel| {
            kernel.note(Part::Host);
            kernel.news().clone()
        });
        self.news.send_replace(news);
    }

    /// Waits until the reconciler's state is as wanted.
    pub(crate) async fn until(&self, what: &str, wanted: impl Fn(&ReconcileStatus) -> bool) -> Arc<ReconcileStatus> {
        let mut settled = self.reconciler.settled.clone();
        let waited = tokio::time::timeout(TIMEOUT, settled.wait_for(|s| wanted(s))).await;
        waited.expect(what).expect("the reconciler runs").clone()
    }
}

pub(crate) fn label(text: &str) -> Name {
    text.parse().expect("a label")
}

pub(crate) fn network(creator: HostId) -> Network {
    let range = Range::new("172.38.0.0/16".parse().expect("a subnet"), None).expect("a good one");
    let id = NetworkId::from_bytes([1; 16]);
    Network {
        id,
        name: label("net"),
        ranges: vec![range],
        created: 1,
        creator,
        since: 0,
        settings: Settings::default(),
    }
}

/// A container that this machine has not, but the kernel in memory may have.
fn container(number: u8) -> NetnsRef {
    NetnsRef { path: format!("/nowhere/{number}").into(), cookie: number.into() }
}

#[tokio::test]
async fn a_settled_commit_has_the_endpoints_of_that_commit_in_the_kernel() {
    let host = Host::start();
    let network = host.create().await;
    for number in 1..10 {
        let netns = container(number);
        host.kernel.with(|kernel| kernel.open_container(netns.clone()));
        let (attachment, commit) = host.attach(&network, number, netns.clone()).await;
        // Commits of the ledger alone come in between.
        let give = Input::GiveAddress {
            network: network.id,
            to: HostId::from_bytes([9; 16]),
            address: [172, 38, 9, number].into(),
        };
        host.state.tell(give).await.expect("the disk takes it");
        let settled = host.until("the commit", |s| s.commit >= commit).await;
        assert!(settled.failures.is_empty(), "{:?}", settled.failures);
        assert!(host.kernel.with(|kernel| kernel.interfaces(&netns).contains(&attachment.ifname)), "{number}");
        assert!(settled.segments.contains_key(&network.id));
    }
}

#[tokio::test]
async fn an_endpoint_whose_namespace_is_gone_is_released() {
    let host = Host::start();
    let network = host.create().await;
    let netns = container(1);
    host.kernel.with(|kernel| kernel.open_container(netns.clone()));
    let (attachment, commit) = host.attach(&network, 1, netns.clone()).await;
    host.until("the commit", |s| s.commit >= commit && s.failures.is_empty()).await;

    host.kernel.with(|kernel| kernel.close_container(&netns));
    host.tell_news();
    let mut intents = host.state.intents.clone();
    let gone = intents.wait_for(|k| !k.intents.attachments.contains_key(&attachment.endpoint.id));
    let commit = tokio::time::timeout(TIMEOUT, gone).await.expect("it is released").expect("the owner runs").commit;
    let settled = host.until("the commit", |s| s.commit >= commit).await;
    assert!(settled.failures.is_empty() && settled.segments.is_empty(), "its segment goes with it: {settled:?}");
    assert!(host.kernel.with(|kernel| kernel.state().segments.is_empty()));
}

#[tokio::test]
async fn a_kernel_that_can_not_be_looked_at_for_a_moment_stops_no_dns() {
    let host = Host::start();
    let network = host.create().await;
    let netns = container(1);
    host.kernel.with(|kernel| kernel.open_container(netns.clone()));
    let (_, commit) = host.attach(&network, 1, netns).await;
    host.until("the commit", |s| s.commit >= commit && s.failures.is_empty()).await;
    host.kernel.blind(true);
    host.tell_news();
    let settled = host.until("the failure", |s| !s.failures.is_empty()).await;
    assert!(settled.segments.contains_key(&network.id));
    host.kernel.blind(false);
    host.until("it sees again", |s| s.failures.is_empty()).await;
}

/// A step that fails half-way makes news of its own.
#[tokio::test(start_paused = true)]
async fn a_failure_that_makes_news_is_not_tried_again_at_once() {
    let host = Host::start();
    let network = host.create().await;
    let netns = container(1);
    host.kernel.with(|kernel| kernel.open_container(netns.clone()));
    let news = host.news.clone();
    host.kernel.with(|kernel| {
        kernel.refuse(move |step| {
            let fails = matches!(step, Step::Segment(_, SegmentStep::CreatePort(..)));
            fails.then(|| {
                news.send_modify(|n| n.note(Part::Host));
                Cause::AlreadyExists
            })
        });
    });
    host.attach(&network, 1, netns).await;
    host.until("the failure", |s| !s.failures.is_empty()).await;
    let before = host.kernel.looks();
    tokio::time::sleep(Duration::from_secs(10)).await;
    let looks = host.kernel.looks() - before;
    assert!((3..=40).contains(&looks), "{looks} looks in ten seconds");
    // And it is repaired by itself when it can be.
    host.kernel.with(FakeKernel::refuse_nothing);
    host.until("it is made", |s| s.failures.is_empty()).await;
}

#[tokio::test]
async fn an_entry_that_can_not_be_made_breaks_no_endpoint_but_what_it_stands_on_does() {
    let host = Host::start();
    let network = host.create().await;
    let netns = container(1);
    host.kernel.with(|kernel| kernel.open_container(netns.clone()));
    let (attachment, commit) = host.attach(&network, 1, netns).await;
    host.until("the commit", |s| s.commit >= commit && s.failures.is_empty()).await;
    let (id, endpoint) = (network.id, attachment.endpoint.id);
    let place =
        HostConfig { me: host.identity.id(), vtep: [192, 0, 2, 1].into(), vxlan_port: 4789, underlay_mtu: 1500 };
    let intents = Arc::clone(&host.state.intents.borrow().intents);
    let desired = desire(&host.seen.borrow().cluster, &intents, &place);
    let port = desired.segments[&id].ports[&endpoint].clone();
    let breaks = |step: &SegmentStep| Scope::of(&Step::Segment(id, step.clone()), &desired).breaks(id, endpoint);
    let (mac, address) = (Mac::of_address([172, 38, 9, 9].into()), [172, 38, 9, 9].into());
    for entry in [
        RowStep::PutNeighbour(address, mac).into(),
        RowStep::DeleteNeighbour(address).into(),
        RowStep::DeleteRemote(mac).into(),
        SegmentStep::DeletePort(port.host_ifname.clone()),
        SegmentStep::CreatePort(EndpointId::from_bytes([9; 16]), port.clone()),
    ] {
        assert!(!breaks(&entry), "{entry:?}");
    }
    for own in [
        SegmentStep::Create(BTreeSet::new()),
        SegmentStep::DeleteTunnel,
        SegmentStep::CreatePort(endpoint, port.clone()),
        SegmentStep::ConnectPort(port),
    ] {
        assert!(breaks(&own), "{own:?}");
    }
    // What others have in the way to the world is no reason to refuse a container.
    let chain = ChainName { family: Protocols::Ip, table: "filter".to_owned(), chain: "FORWARD".to_owned() };
    let chain_step = Step::Host(HostStep::SetAcceptRules(chain, [AcceptRule::In].into()));
    assert!(Scope::of(&chain_step, &desired) == Scope::ForeignChain && !Scope::ForeignChain.breaks(id, endpoint));
    assert!(Scope::Host.breaks(id, endpoint) && !Scope::Segment(NetworkId::from_bytes([9; 16])).breaks(id, endpoint));
}

#[tokio::test]
async fn what_an_identity_had_that_is_given_up_is_cut_off_at_once() {
    let host = Host::start();
    let network = host.create().await;
    host.kernel.with(|kernel| kernel.open_container(container(1)));
    let (_, commit) = host.attach(&network, 1, container(1)).await;
    host.until("the endpoint to be there", |settled| settled.commit >= commit && settled.failures.is_empty()).await;
    assert_eq!(host.kernel.with(|kernel| kernel.state().segments.len()), 1);
    // By its next life, which has a kernel and nothing else yet.
    let mut kernel = FakeKernel::default();
    host.kernel.with(|found| std::mem::swap(&mut kernel, found));
    let place =
        HostConfig { me: host.identity.id(), vtep: [192, 0, 2, 1].into(), vxlan_port: 4789, underlay_mtu: 1500 };
    cut_off(&mut kernel, &place).await.expect("the kernel does it");
    assert_eq!(kernel.state().segments.len(), 0);
}
