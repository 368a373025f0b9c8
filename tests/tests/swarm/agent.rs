//! One agent: the daemon's own parts from the ledger to the view, put together as `overlay_agent::run` does it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use overlay::ledger::{Ask, Input, MemberList, Outcome, Share};
use overlay::model::host::{HostInfo, Phase};
use overlay::model::id::{EndpointId, HostId};
use overlay::model::intent::NetnsRef;
use overlay::model::member::Stamp;
use overlay::model::network::{Name, Network};
use overlay::operations::attach::{Attach, Attached, EndpointSpec};
use overlay::operations::container::{Container, Priority};
use overlay::operations::detach::Detach;
use overlay::operations::hear::Inputs;
use overlay_agent::cluster::announce;
use overlay_agent::cluster::{self, ClusterView, Times};
use overlay_agent::state::run_marker::RunMarker;
use overlay_agent::state::store::{Machine, Store};
use overlay_agent::state::{self, DecideError};
use overlay_agent::wire::encode_record;
use overlay_gossip::{self as gossip, ClusterKey, Generations, Gossip};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The longest that an agent takes to end, or to hear what it has to wait for.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A machine that an agent runs on: it stays when the agent is killed.
#[derive(Debug, Clone)]
pub struct Home {
    /// Its number: its address follows from it.
    pub number: u16,
    pub dir: PathBuf,
}

impl Home {
    pub fn new(number: u16, root: &Path) -> Self {
        Self { number, dir: root.join(number.to_string()) }
    }

    /// Each has one of its own, as hosts have: all of 127/8 is this machine's.
    fn gossip(&self) -> SocketAddr {
        let [high, low] = self.number.to_be_bytes();
        ([127, 1, high, low], 7946).into()
    }

    fn vtep(&self) -> IpAddr {
        let [high, low] = self.number.to_be_bytes();
        [10, 1, high, low].into()
    }
}

/// What all agents of a swarm have in common.
#[derive(Debug, Clone)]
pub struct Common {
    pub key: ClusterKey,
    pub interval: Duration,
    pub remembered: Duration,
    /// The agents that are dead, and their machines with them, as if each had looked for who is silent.
    pub absent: Arc<watch::Sender<BTreeSet<HostId>>>,
}

/// What an agent is asked by others; a call to a dead one finds nobody.
#[derive(Debug, Clone)]
pub struct Door {
    pub state: state::Handle,
    pub seen: watch::Receiver<ClusterView>,
    pub gossip: gossip::Handle,
}

pub struct Agent {
    pub id: HostId,
    pub home: Home,
    /// Of its gossip.
    pub generation: u64,
    /// When it began to be heard.
    pub since: Instant,
    pub seen: watch::Receiver<ClusterView>,
    pub door: Door,
    gossip: Gossip,
    saying: JoinHandle<()>,
}

/// Numbers the lives of an agent by its disk, and tells the last one.
struct Lives(state::Handle, Arc<AtomicU64>);

impl Generations for Lives {
    fn next(&mut self) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis());
        let now = u64::try_from(now).expect("the year is before 584 million");
        let next = self.0.next_generation_blocking(now).expect("the disk takes it");
        self.1.store(next, Ordering::Relaxed);
        next
    }
}

impl Agent {
    /// Starts an agent that knows of `seeds`, and belongs to the cluster of `founder` or founds one. On a machine that had one
    /// before it is the same host in its next life.
    pub async fn start(
        home: Home,
        common: &Common,
        seeds: &[SocketAddr],
        founder: Option<HostId>,
    ) -> anyhow::Result<Self> {
        let trace = RunMarker::new(&home.dir, "boot");
        let machine = Machine {
            id: "swarm".to_owned(),
            boot: "boot".to_owned(),
            now: state::now(),
            ran: trace.find(),
            nonce: u64::from(home.number) + 1,
        };
        let dir = home.dir.clone();
        let (store, loaded) = tokio::task::spawn_blocking(move || Store::open(&dir, &machine)).await??;
        let id = loaded.identity.id();
        let info = HostInfo {
            name: name(&format!("host{}", home.number)),
            vtep: home.vtep(),
            vxlan_port: 4789,
            peer: (home.vtep(), 7946).into(),
            underlay_mtu: 1500,
            routed: std::collections::BTreeSet::new(),
            stamp: loaded.ledger.stamp(),
            phase: Phase::Joining,
            founder: None,
        };
        let state = state::spawn(store, loaded, info, trace)?;
        // How one becomes a member is none of this test's: all know that the founder has let them in, and it knows of one.
        let joins = match founder {
            None => vec![
                Input::Found,
                Input::Acknowledge { from: HostId::from_bytes([1; 16]), stamp: Stamp::default(), founder: None },
            ],
            Some(by) => {
                let member_list = MemberList { founder, members: vec![by], ..MemberList::default() };
                vec![Input::Acknowledged { by, member_list }]
            }
        };
        state.tell(Inputs(joins)).await?;

        let address = home.gossip();
        let config = gossip::Config {
            node: id.to_string(),
            listen: address,
            advertise: address,
            seeds: seeds.to_vec(),
            expected: BTreeSet::new(),
            interval: common.interval,
            remembered: common.remembered,
            key: common.key.clone(),
        };
        let record = state.record.clone();
        let first = encode_record(&record.borrow().clone());
        let (since, generation) = (Instant::now(), Arc::new(AtomicU64::new(0)));
        let gossip = gossip::spawn(config, Lives(state.clone(), Arc::clone(&generation)), first).await?;
        let saying = announce::spawn(record, gossip.announce.clone());
        let times = Times { interval: common.interval, remembered: common.remembered };
        let (seen, _) = cluster::spawn(id, gossip.view.clone(), common.absent.subscribe(), state.clone(), times);
        let door = Door { state, seen: seen.clone(), gossip: gossip.handle() };
        let generation = generation.load(Ordering::Relaxed);
        Ok(Self { id, home, generation, since, seen, door, gossip, saying })
    }

    /// Takes in what another knows, as a daemon does that has just started.
    pub async fn catch_up(&self, other: &Door) {
        // Either may be killed meanwhile; then gossip brings it.
        if let Ok(snapshot) = other.gossip.snapshot().await {
            let _ = self.door.gossip.feed(snapshot).await;
        }
    }

    /// Ends it without a word to anybody, and waits until its state is closed.
    pub async fn kill(self) -> anyhow::Result<Home> {
        let Self { home, gossip, saying, door, seen, .. } = self;
        let mut committed = door.state.committed.clone();
        drop(gossip);
        saying.abort();
        drop((door, seen));
        let ended = async { while committed.changed().await.is_ok() {} };
        tokio::time::timeout(TIMEOUT, ended).await.context("the owner of the ledger does not end")?;
        // Its tasks end when they run next; until then the socket is in use, and the next agent of this home could not start.
        let freed = async {
            while UdpSocket::bind(home.gossip()).is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(TIMEOUT, freed).await.context("the gossip of a killed agent goes on")?;
        Ok(home)
    }
}

pub fn name(text: &str) -> Name {
    text.parse().expect("a label")
}

impl Door {
    /// Waits until this host has heard of a network.
    pub async fn knows(&self, network: &Network) -> anyhow::Result<()> {
        let mut intents = self.state.intents.clone();
        let known = intents.wait_for(|known| known.intents.networks.contains_key(&network.id));
        tokio::time::timeout(TIMEOUT, known).await.context("the network is not heard of")??;
        let mut seen = self.seen.clone();
        let shown = seen.wait_for(|seen| seen.cluster.networks.contains_key(&network.id));
        tokio::time::timeout(TIMEOUT, shown).await.context("the network is not seen")??;
        Ok(())
    }

    /// An endpoint of this host gets an address and is attached, as the daemon decides it; `None` if no one who can be asked has an
    /// address left. `reach` finds the doors of others.
    pub async fn attach(
        &self,
        network: &Network,
        (endpoint, name): (EndpointId, Name),
        reach: impl Fn(HostId) -> Option<Self>,
    ) -> anyhow::Result<Option<EndpointId>> {
        let netns = NetnsRef { path: format!("/run/netns/{endpoint}").into(), cookie: 1 };
        let spec = EndpointSpec {
            network: network.id.to_string(),
            netns: netns.path.clone(),
            name,
            aliases: BTreeSet::new(),
            addresses: BTreeSet::new(),
            mac: None,
            ifname: None,
            priority: Priority::default(),
            id: None,
            ports: Vec::new(),
        };
        let mut request = Attach {
            spec,
            id: endpoint,
            cluster: Arc::clone(&self.seen.borrow().cluster),
            container: Container { netns, interfaces: BTreeMap::new() },
            obstacles: BTreeMap::new(),
            asked: BTreeSet::new(),
        };
        let me = self.state.state().ledger.me();
        loop {
            match self.state.decide(request.clone()).await.map(|done| done.answer) {
                Ok(Attached::New(_) | Attached::Before(_)) => return Ok(Some(endpoint)),
                Ok(Attached::Ask(_, ask)) => {
                    ensure!(request.asked.insert(ask), "{ask:?} is asked for the second time");
                    let (Ask::Space { of, .. } | Ask::Address { of, .. }) = ask;
                    if let Some(other) = reach(of) {
                        self.ask(me, (of, &other), network, ask).await?;
                    }
                }
                Err(DecideError::Refused(_)) => return Ok(None),
                Err(DecideError::Store(error)) => return Err(error.into()),
            }
        }
    }

    /// The RPC: what is asked of another and what it answers, each durable before it leaves.
    async fn ask(&self, me: HostId, (of, other): (HostId, &Self), network: &Network, ask: Ask) -> anyhow::Result<()> {
        let id = network.id;
        let question = match ask {
            Ask::Space { .. } => Input::GiveSpace { network: id, range: 0, to: me, share: Share::Quarter },
            Ask::Address { address, .. } => Input::GiveAddress { network: id, to: me, address },
        };
        let stamp = self.state.state().ledger.stamp();
        // A member it is: nobody else may ask.
        other.state.tell(Input::Acknowledge { from: me, stamp, founder: None }).await?;
        let Outcome::Given(statements) = other.state.tell(question).await?.answer else { return Ok(()) };
        let stamp = other.state.state().ledger.stamp();
        for statement in statements {
            self.state.tell(Input::Stated { network: id, from: of, stamp, statement }).await?;
            other.state.tell(Input::Taken { network: id, statement }).await?;
        }
        Ok(())
    }

    /// Lets an endpoint go.
    pub async fn detach(&self, endpoint: EndpointId) -> anyhow::Result<()> {
        self.state.tell(Detach(vec![endpoint])).await?;
        Ok(())
    }
}
