//! The agents that live at the moment, and how they come and go.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use futures::future::join_all;
use futures::stream::{StreamExt, TryStreamExt, iter};
use overlay::ledger::Input;
use overlay::model::id::{EndpointId, HostId, NetworkId};
use overlay::model::network::{Network, Range, Settings};
use overlay_agent::cluster::ClusterView;
use overlay_gossip::{ClusterKey, Limit, Reason};
use tokio::sync::watch;

use crate::agent::{Agent, Common, Door, Home, name};
use crate::life::Plan;

/// Agents that start at a time.
const AT_ONCE: usize = 8;
/// What each host has in the network.
const ENDPOINTS: u16 = 3;
/// Whom an agent is told of when it starts.
const SEEDS: usize = 3;

pub struct Crowd {
    pub common: Common,
    pub network: Network,
    pub agents: BTreeMap<HostId, Agent>,
    /// It created the network and is never killed.
    first: HostId,
    root: Directory,
    rng: fastrand::Rng,
    homes: u16,
}

/// An agent that has started.
#[derive(Debug, Clone)]
pub struct Born {
    pub id: HostId,
    pub generation: u64,
    pub since: Instant,
    /// Those that it got now, and when.
    pub endpoints: Vec<(EndpointId, Instant)>,
}

/// How to reach each agent.
pub type Doors = Arc<BTreeMap<HostId, Door>>;

impl Crowd {
    /// A swarm of one.
    pub async fn new(plan: &Plan) -> anyhow::Result<Self> {
        let root = Directory::new()?;
        let key = ClusterKey::generate()?;
        let absent = Arc::new(watch::Sender::new(BTreeSet::new()));
        let common = Common { key, interval: plan.interval, remembered: plan.remembered, absent };
        let first = Agent::start(Home::new(0, &root.0), &common, &[], None).await?;
        let range = Range::new("172.16.0.0/12".parse()?, None)?;
        let id = NetworkId::from_bytes([7; 16]);
        let network = Network {
            id,
            name: name("net"),
            ranges: vec![range],
            created: 1,
            creator: first.id,
            since: 0,
            settings: Settings::default(),
        };
        let create = Input::Create(network.clone());
        first.door.state.tell(create).await?;
        let (id, rng) = (first.id, fastrand::Rng::with_seed(plan.seed));
        Ok(Self { common, network, agents: BTreeMap::from([(id, first)]), first: id, root, rng, homes: 1 })
    }

    /// Homes where nobody ever was.
    pub fn new_homes(&mut self, count: usize) -> Vec<Home> {
        let numbers = (self.homes..).take(count);
        let homes: Vec<_> = numbers.map(|number| Home::new(number, &self.root.0)).collect();
        self.homes += u16::try_from(homes.len()).expect("some thousands in all");
        homes
    }

    /// Starts agents in these homes. Those that have nothing yet get a part of the network and endpoints in it.
    pub async fn start(&mut self, homes: Vec<Home>) -> anyhow::Result<Vec<Born>> {
        let (doors, addresses) = (self.doors(), self.addresses());
        let starts: Vec<_> = homes
            .into_iter()
            .map(|home| {
                let seeds = self.rng.choose_multiple(addresses.iter().copied(), SEEDS);
                let other = self.rng.choice(doors.values()).cloned();
                let ids: Vec<_> =
                    (0..ENDPOINTS).map(|_| EndpointId::from_bytes(self.rng.u128(..).to_be_bytes())).collect();
                (home, seeds, other, ids, self.common.clone(), self.network.clone(), Arc::clone(&doors))
            })
            .collect();
        let start = |(home, seeds, other, ids, common, network, doors)| {
            // A task of its own, so that it gets a processor of its own.
            let born = tokio::spawn(bear(home, (seeds, other), ids, common, network, doors));
            async move { born.await.context("it is not aborted")? }
        };
        let born: Vec<(Agent, Born)> =
            iter(starts.into_iter().map(start)).buffer_unordered(AT_ONCE).try_collect().await?;
        let enter = |(agent, born): (Agent, Born)| {
            self.agents.insert(agent.id, agent);
            born
        };
        Ok(born.into_iter().map(enter).collect())
    }

    /// Kills so many, all at the same moment; these are their ids and their homes.
    pub async fn kill(&mut self, count: usize) -> anyhow::Result<Vec<(HostId, Home)>> {
        let mortal = self.agents.keys().copied().filter(|id| *id != self.first);
        let doomed = self.rng.choose_multiple(mortal, count);
        let kill = doomed.iter().filter_map(|id| self.agents.remove(id)).map(|agent| async {
            let id = agent.id;
            Ok((id, agent.kill().await?))
        });
        let killed: anyhow::Result<Vec<(HostId, Home)>> = join_all(kill).await.into_iter().collect();
        // Once in a wave: all look at all again then. Who has started since is heard, and that counts.
        self.common.absent.send_modify(|absent| {
            absent.extend(doomed);
            absent.retain(|id| !self.agents.contains_key(id));
        });
        killed
    }

    /// A source of random numbers that this one decides.
    pub fn numbers(&mut self) -> fastrand::Rng {
        fastrand::Rng::with_seed(self.rng.u64(..))
    }

    pub fn observers(&self) -> Vec<watch::Receiver<ClusterView>> {
        self.agents.values().map(|agent| agent.seen.clone()).collect()
    }

    pub fn doors(&self) -> Doors {
        Arc::new(self.agents.iter().map(|(id, agent)| (*id, agent.door.clone())).collect())
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        self.agents.values().map(|agent| agent.door.gossip.addr()).collect()
    }

    /// Of all pairs of living agents, the share of which one does not hold the other alive.
    pub fn suspected(&self) -> f64 {
        let suspects = |agent: &Agent| {
            let cluster = Arc::clone(&agent.seen.borrow().cluster);
            self.agents.keys().filter(|id| !is_live(&cluster, **id)).count()
        };
        let all: usize = self.agents.values().map(suspects).sum();
        all as f64 / (self.agents.len() * self.agents.len()) as f64
    }

    /// Bytes of the largest digest.
    pub fn digest(&self) -> usize {
        self.agents.values().map(|agent| agent.door.gossip.counters().used(Limit::Digest)).max().unwrap_or(0)
    }

    /// What the living ones have dropped.
    pub fn dropped(&self) -> BTreeMap<Reason, u64> {
        let mut dropped = BTreeMap::new();
        for (reason, count) in self.agents.values().flat_map(|agent| agent.door.gossip.counters().all()) {
            if count > 0 {
                *dropped.entry(reason).or_default() += count;
            }
        }
        dropped
    }
}

pub fn is_live(cluster: &overlay::cluster::Cluster, id: HostId) -> bool {
    cluster.hosts.get(&id).is_some_and(|host| host.liveness == overlay::model::host::Liveness::Live)
}

async fn bear(
    home: Home,
    (seeds, other): (Vec<SocketAddr>, Option<Door>),
    ids: Vec<EndpointId>,
    common: Common,
    network: Network,
    doors: Doors,
) -> anyhow::Result<(Agent, Born)> {
    let agent = Agent::start(home, &common, &seeds, Some(network.creator)).await?;
    if let Some(other) = other {
        agent.catch_up(&other).await;
    }
    let mut endpoints = Vec::new();
    let is_new = agent.door.state.state().intents.attachments.is_empty();
    if is_new {
        agent.door.knows(&network).await?;
        for (number, id) in ids.into_iter().enumerate() {
            let reach = |host| doors.get(&host).cloned();
            let attached = agent.door.attach(&network, (id, name(&format!("web{number}"))), reach).await?;
            endpoints.extend(attached.map(|id| (id, Instant::now())));
        }
    }
    let born = Born { id: agent.id, generation: agent.generation, since: agent.since, endpoints };
    Ok((agent, born))
}

/// A directory that goes with the test, in memory if it can be: one disk does not write for 500 hosts.
struct Directory(PathBuf);

impl Directory {
    fn new() -> std::io::Result<Self> {
        let nanos = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or(Duration::ZERO).as_nanos();
        let memory = std::path::Path::new("/dev/shm");
        let root = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let path = root.join(format!("overlay-swarm-{}-{nanos}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // What can't be removed is in the directory for such things.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
