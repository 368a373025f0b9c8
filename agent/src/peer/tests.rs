//! Agents of one process on 127.0.0.1, with real keys, TLS and disks. What they see of each other is made by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use overlay::cluster::{Cluster, derive};
use overlay::ledger::{self, Ask, Denial, Ledger};
use overlay::model::host::{HostInfo, Liveness};
use overlay::model::id::{EndpointId, NetworkId};
use overlay::model::lease::Version;
use overlay::model::network::{Network, Range, Settings};
use overlay::model::record::{Incarnation, Records};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use super::*;
use crate::cluster::ClusterView;
use crate::state;
use crate::state::identity::Identity;
use crate::state::store::tests::Scratch;
use overlay::ledger::{Input, Outcome};
use overlay::model::id::HostId;
use overlay::model::member::Stamp;
use overlay::model::record::Statement;
use overlay::operations::Change;
use overlay_gossip as gossip;
use overlay_gossip::{ClusterKey, Generations, Gossip};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Longer than anything here takes.
pub(super) const TEST_TIMEOUT: Duration = Duration::from_secs(20);

pub(crate) struct Agent {
    scratch: Scratch,
    pub(crate) id: HostId,
    pub(crate) state: state::Handle,
    pub(crate) peers: Peers,
    pub(crate) address: SocketAddr,
    pub(crate) sees: watch::Sender<ClusterView>,
    pub(super) refusals: Arc<Refusals>,
    identity: Arc<Identity>,
    gossip: Gossip,
    serving: Serving,
}

/// The running service: what stops it, and its task.
type Serving = (oneshot::Sender<()>, JoinHandle<()>);

struct One;

impl Generations for One {
    fn next(&mut self) -> u64 {
        1
    }
}

impl Agent {
    async fn start(name: &str) -> Self {
        Self::start_in(name, None).await
    }

    /// A member of the cluster that `founder` founded, or else of its own.
    pub(crate) async fn start_in(name: &str, founder: Option<HostId>) -> Self {
        let scratch = Scratch::new();
        let (mut store, mut loaded) = scratch.found().expect("a new state");
        if let Some(founder) = founder.map(ledger::Change::Founder) {
            loaded.commit = store.commit(&[Change::Ledger(founder.clone())]).expect("the disk takes it");
            loaded.ledger.apply(&[founder]);
        }
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let identity = Arc::new(loaded.identity.clone());
        let info = HostInfo {
            name: name.parse().expect("a label"),
            vtep: address.ip(),
            vxlan_port: 4789,
            peer: address,
            underlay_mtu: 1500,
            routed: std::collections::BTreeSet::new(),
            stamp: Stamp::default(),
            phase: overlay::model::host::Phase::Established,
            founder: None,
        };
        let state = state::spawn(store, loaded, info, crate::state::run_marker::RunMarker::new(&scratch.0, "boot 1"))
            .expect("nothing to put in order");
        let gossip = gossip(identity.id()).await;
        let (sees, seen) = watch::channel(ClusterView::default());
        let service = service(&state, &seen, &gossip);
        let refusals = service.refusals();
        let peers = Peers::new(&identity, seen);
        let serving = serve(service, Arc::clone(&identity), listener);
        Self { scratch, id: identity.id(), state, peers, address, sees, refusals, identity, gossip, serving }
    }

    /// Its service ends, as when the agent is stopped, and starts again at the same address.
    pub(super) async fn restart(&mut self) {
        let (stop, ended) = std::mem::replace(&mut self.serving, (oneshot::channel().0, tokio::spawn(async {})));
        drop(stop);
        tokio::time::timeout(TEST_TIMEOUT, ended).await.expect("open connections don't hold it up").expect("no panic");
        let listener = TcpListener::bind(self.address).await.expect("its port is free again");
        let service = service(&self.state, &self.sees.subscribe(), &self.gossip);
        self.serving = serve(service, Arc::clone(&self.identity), listener);
    }

    pub(crate) fn sees(&self, others: &[&Self]) {
        let records: Records = others
            .iter()
            .map(|other| {
                let record = Arc::clone(&other.state.record.borrow());
                (other.id, vec![Incarnation { generation: 1, complete: true, liveness: Liveness::Live, record }])
            })
            .collect();
        self.sees.send_replace(ClusterView {
            cluster: Arc::new(derive(&records, None)),
            synced: true,
            ..ClusterView::default()
        });
    }

    /// Another agent is, in the eyes of this one, where a third one is.
    pub(crate) fn sees_at(&self, other: &Self, address: SocketAddr) {
        let mut cluster = Cluster::clone(&self.sees.borrow().cluster);
        Arc::make_mut(cluster.hosts.get_mut(&other.id).expect("it is seen")).info.peer = address;
        self.sees.send_replace(ClusterView { cluster: Arc::new(cluster), synced: true, ..ClusterView::default() });
    }

    pub(crate) async fn step(&self, input: Input) -> Outcome {
        self.state.tell(input).await.expect("the disk takes it").answer
    }

    pub(crate) async fn ledger(&self) -> Ledger {
        self.state.ledger()
    }
}

fn service(state: &state::Handle, seen: &watch::Receiver<ClusterView>, gossip: &Gossip) -> Service {
    Service::new(state.clone(), seen.clone(), watch::channel(Default::default()).1, gossip.handle())
}

fn serve(service: Service, identity: Arc<Identity>, listener: TcpListener) -> Serving {
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = async move { service.serve(&identity, listener, async { drop(stopped.await) }).await };
    (stop, tokio::spawn(async move { serving.await.expect("the listener works") }))
}

async fn gossip(id: HostId) -> Gossip {
    let config = gossip::Config {
        node: id.to_string(),
        listen: ([127, 0, 0, 1], 0).into(),
        advertise: ([127, 0, 0, 1], 0).into(),
        seeds: Vec::new(),
        expected: std::collections::BTreeSet::new(),
        interval: Duration::from_millis(250),
        remembered: gossip::REMEMBERED,
        key: ClusterKey::generate().expect("randomness"),
    };
    gossip::spawn(config, One, BTreeMap::new()).await.expect("gossip starts")
}

/// Two who know each other; the first one has made a network that both know.
pub(super) async fn two() -> (Agent, Agent, Network) {
    let (lender, borrower) = (Agent::start("lender").await, Agent::start("borrower").await);
    let range = Range::new("172.38.0.0/16".parse().expect("a subnet"), None).expect("a good one");
    let network = Network {
        id: NetworkId::from_bytes([1; 16]),
        name: "net".parse().expect("a label"),
        ranges: vec![range],
        created: 1,
        creator: lender.id,
        since: 0,
        settings: Settings::default(),
    };
    lender.step(Input::Create(network.clone())).await;
    borrower.step(Input::Learn(network.clone())).await;
    for (agent, other) in [(&lender, &borrower), (&borrower, &lender)] {
        agent.step(Input::Acknowledge { from: other.id, stamp: stamp(other).await, founder: None }).await;
        agent.sees(&[&lender, &borrower]);
    }
    (lender, borrower, network)
}

pub(crate) async fn stamp(agent: &Agent) -> Stamp {
    agent.ledger().await.stamp()
}

const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(172, 38, 0, 11));

#[tokio::test]
async fn space_is_given_by_the_one_who_holds_it() {
    let (lender, borrower, network) = two().await;
    let (statements, _) =
        borrower.peers.ask(network.id, Ask::Space { of: lender.id, range: 0 }).await.expect("it is given");
    let blocks = usize::from(network.ranges[0].blocks());
    assert_eq!(statements.len(), blocks / 4);
    assert_eq!(lender.ledger().await.accounts()[&network.id].held_by(lender.id).count(), blocks - blocks / 4);
    // A lost answer costs nothing: the same again.
    let (again, _) =
        borrower.peers.ask(network.id, Ask::Space { of: lender.id, range: 0 }).await.expect("it is given again");
    let as_set = |statements: Vec<Statement>| statements.into_iter().collect::<BTreeSet<_>>();
    assert_eq!(as_set(again), as_set(statements));
}

#[tokio::test]
async fn an_address_is_given_once_and_denied_with_the_reason() {
    let (lender, borrower, network) = two().await;
    let ask = |address| Ask::Address { of: lender.id, address };
    let (statements, _) = borrower.peers.ask(network.id, ask(ADDRESS)).await.expect("it is free");
    assert!(matches!(statements[..], [Statement::Delegate { address: ADDRESS, to, .. }] if to == borrower.id));

    let taken = IpAddr::from([172, 38, 0, 12]);
    let endpoint = EndpointId::from_bytes([5; 16]);
    let request = overlay::ledger::AddressRequest {
        network: network.id,
        endpoint,
        name: "web".parse().expect("a label"),
        range: 0,
        address: Some(taken),
        reachable: BTreeSet::new(),
        asked: BTreeSet::new(),
    };
    assert!(matches!(lender.step(Input::Allocate(request)).await, Outcome::Granted { .. }));
    let denied = borrower.peers.ask(network.id, ask(taken)).await.expect_err("an endpoint has it");
    assert!(matches!(denied, CallError::Denied(Denial::Bound { endpoint: e, .. }) if e == endpoint), "{denied}");
    let outside = borrower.peers.ask(network.id, ask([10, 0, 0, 1].into())).await.expect_err("it is outside");
    assert!(matches!(outside, CallError::Denied(Denial::NotAssignable(_))), "{outside}");
    let unknown = NetworkId::from_bytes([9; 16]);
    let denied = borrower.peers.ask(unknown, ask(ADDRESS)).await.expect_err("nobody knows it");
    assert!(matches!(denied, CallError::Denied(Denial::UnknownNetwork)), "{denied}");
    // The borrower holds no block of it.
    let reverse = Ask::Address { of: borrower.id, address: ADDRESS };
    let denied = lender.peers.ask(network.id, reverse).await.expect_err("it holds nothing");
    assert!(matches!(denied, CallError::Denied(Denial::NotHolder { .. })), "{denied}");
}

#[tokio::test]
async fn what_was_delivered_is_on_the_disk_of_the_other_when_it_answers() {
    let (lender, borrower, network) = two().await;
    let outcome = lender.step(Input::GiveAddress { network: network.id, to: borrower.id, address: ADDRESS }).await;
    let Outcome::Given(statements) = outcome else { unreachable!("it is free") };
    let (peers, stamp) = (&lender.peers, stamp(&lender).await);
    peers.deliver(borrower.id, network.id, &statements[0], stamp).await.expect("it takes it");
    peers.deliver(borrower.id, network.id, &statements[0], stamp).await.expect("also twice");

    // Killed right after the answer: what a copy of its disk says now is what it knows when it starts again.
    let copy = Scratch::new();
    std::fs::copy(borrower.scratch.0.join("state.redb"), copy.0.join("state.redb")).expect("it is there");
    let (_, loaded) = copy.open().expect("it is whole");
    assert!(loaded.ledger.accounts()[&network.id].borrowed(borrower.id).contains_key(&ADDRESS));
}

#[tokio::test]
async fn a_lease_is_not_taken_from_one_who_could_not_write_it() {
    let (lender, borrower, network) = two().await;
    // A return of what was never lent.
    let forged = Statement::Return { address: ADDRESS, version: Version { epoch: 1, count: 2 } };
    let before = lender.ledger().await;
    let error = borrower.peers.deliver(lender.id, network.id, &forged, stamp(&borrower).await).await;
    let error = error.expect_err("it was not lent");
    assert!(matches!(error, CallError::Denied(Denial::NotHolder { .. })), "{error}");
    assert!(error.is_answer(), "others can still be delivered");
    assert_eq!(lender.ledger().await, before);
}

#[tokio::test]
async fn a_stranger_is_refused_whatever_it_asks() {
    let (lender, _, network) = two().await;
    let stranger = Agent::start("stranger").await;
    // It knows where everybody is, but nobody has heard of it.
    stranger.sees(&[&lender, &stranger]);
    let before = lender.ledger().await;
    let statement = Statement::Return { address: ADDRESS, version: Default::default() };
    let delivered = stranger.peers.deliver(lender.id, network.id, &statement, Stamp::default()).await;
    let refused = [
        stranger.peers.ask(network.id, Ask::Space { of: lender.id, range: 0 }).await.map(drop),
        stranger.peers.ask(network.id, Ask::Address { of: lender.id, address: ADDRESS }).await.map(drop),
        delivered,
        stranger.peers.snapshot(lender.id).await.map(drop),
    ];
    for result in refused {
        let error = result.expect_err("it is a stranger");
        assert!(!error.is_answer(), "not even an answer: {error}");
    }
    assert_eq!(lender.ledger().await, before);
    // Gossip may bring it a moment later.
    lender.sees(&[&lender, &stranger]);
    stranger.peers.snapshot(lender.id).await.expect("now it is a member");
}

#[tokio::test]
async fn a_host_with_another_key_than_expected_is_told_nothing() {
    let (lender, borrower, network) = two().await;
    let impostor = Agent::start("impostor").await;
    impostor.sees(&[&lender, &borrower]);
    borrower.sees_at(&lender, impostor.address);
    let error =
        borrower.peers.ask(network.id, Ask::Space { of: lender.id, range: 0 }).await.expect_err("it is another one");
    assert!(matches!(error, CallError::Silent { host, .. } if host == lender.id), "{error}");
    assert!(!error.is_answer());
}

#[tokio::test]
async fn without_a_key_of_ones_own_nothing_works() {
    let (lender, ..) = two().await;
    let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(tls::tests::only(lender.id))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(lender.address).await.expect("it listens");
    let name = rustls::pki_types::ServerName::IpAddress(lender.address.ip().into());
    let mut stream = tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .expect("TLS 1.3: the client is done first");
    // The server's refusal comes with the first read.
    let mut said = [0; 64];
    let read = tokio::io::AsyncReadExt::read(&mut stream, &mut said);
    let read = tokio::time::timeout(TEST_TIMEOUT, read).await.expect("it is told");
    let error = read.expect_err("no certificate").to_string();
    assert!(error.contains("CertificateRequired"), "{error}");
}

#[tokio::test]
async fn who_connects_and_says_nothing_keeps_nobody_out() {
    let (lender, borrower, network) = two().await;
    let (from, to) = (SocketAddr::from(([127, 0, 0, 2], 0)), lender.address);
    let (told, mut opened) = watch::channel(0);
    // Twice as many as there is room for, and a new one for each that is thrown out.
    let stranger = tokio::spawn(async move {
        let mut silent = std::collections::VecDeque::new();
        loop {
            let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
            socket.bind(from).expect("all of 127.0.0.0/8 is ours");
            silent.push_front(socket.connect(to).await.expect("it listens"));
            silent.truncate(2 * accept::MAX_HANDSHAKES);
            told.send_modify(|count| *count += 1);
            tokio::task::yield_now().await;
        }
    });
    for round in 1..=10 {
        let wanted = round * 2 * accept::MAX_HANDSHAKES;
        let crowd = tokio::time::timeout(TEST_TIMEOUT, opened.wait_for(|count| *count >= wanted));
        crowd.await.expect("it goes on").expect("it lives");
        let asked = borrower.peers.ask(network.id, Ask::Space { of: lender.id, range: 0 }).await;
        assert!(asked.is_ok(), "in the midst of strangers, at the first try: {:?}", asked.err());
    }
    stranger.abort();
}

#[tokio::test]
async fn one_who_is_not_there_is_silent_in_bounded_time() {
    let (lender, borrower, network) = two().await;
    // Takes connections and never answers.
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    borrower.sees_at(&lender, listener.local_addr().expect("it is bound"));
    let asked = borrower.peers.ask(network.id, Ask::Space { of: lender.id, range: 0 });
    let error = tokio::time::timeout(TEST_TIMEOUT, asked).await.expect("it gives up").expect_err("nobody answers");
    assert!(matches!(error, CallError::Silent { .. }), "{error}");
    let nobody = HostId::from_bytes([7; 16]);
    let error = borrower.peers.ask(network.id, Ask::Space { of: nobody, range: 0 }).await.expect_err("nobody knows it");
    assert!(matches!(error, CallError::Unknown(host) if host == nobody), "{error}");
}
