//! A host of the simulation: the program's own state and decisions over a fake kernel. What is made up here is the machine with its
//! disk, and what is lost when it stops.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use overlay::cluster::{Cluster, bootstrap};
use overlay::datapath::desired::{HostConfig, desire};
use overlay::datapath::fake::FakeKernel;
use overlay::datapath::plan::{Knowledge, plan};
use overlay::ledger::{self, Activation, Input, Ledger, Millis, Outcome};
use overlay::model::host::{HostInfo, Liveness, Phase};
use overlay::model::id::{EndpointId, HostId};
use overlay::model::intent::{Intents, NetnsRef};
use overlay::model::network::Name;
use overlay::operations::detach::{Detach, TidyUp, booted};
use overlay::operations::{Change, Request, State, decide};

use crate::agent::Agent;
use crate::gossip::{Heard, Letter, News, Slot};

/// Is the machine on, and its agent?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Power {
    Off,
    /// Containers run; nobody answers.
    NoAgent,
    On,
}

/// What is on a disk: also on a copy of it, made at some moment.
#[derive(Debug, Clone)]
pub struct Disk {
    pub id: HostId,
    pub slot: Slot,
    pub state: State,
}

/// The agent is going to be killed at a durable write.
#[derive(Debug, Clone, Copy)]
pub struct Fuse {
    /// How many writes come before that one.
    pub writes: u32,
    /// Is that one still made? Nobody hears of it then.
    pub is_last_made: bool,
}

pub struct Host {
    pub id: HostId,
    pub slot: Slot,
    pub index: usize,
    /// The host that it was told to join.
    pub join: usize,
    /// Where others were heard before it was started, by it or by an identity that it gave up.
    pub known: Vec<SocketAddr>,
    /// Does it ask all that it hears to let it in, also those of another cluster? Nothing may come of that.
    pub is_rash: bool,
    /// How many it took for members that belong to another cluster.
    pub disowned: usize,
    pub power: Power,
    pub fuse: Option<Fuse>,
    /// A copy of its disk that somebody made.
    pub image: Option<Disk>,
    /// Is its disk such a copy, put back or brought from another host, that has not passed its check yet?
    pub is_copy: bool,
    pub state: State,
    pub kernel: FakeKernel,
    pub heard: Heard,
    pub cluster: Arc<Cluster>,
    /// What its agent knows besides, until that ends.
    pub agent: Agent,
    /// The members that know this life of it.
    pub introduced: BTreeSet<HostId>,
    pub own: News,
    /// Has something changed since it last said what it says?
    pub unsaid: bool,
    pub booted: Millis,
    containers: u64,
}

impl Host {
    pub fn new(id: HostId, slot: Slot, index: usize) -> Self {
        let state = State::new(Ledger::new(id), Intents::default(), BTreeMap::new(), info(index));
        Self::with(Disk { id, slot, state }, index)
    }

    /// A machine with this disk in it.
    pub fn with(disk: Disk, index: usize) -> Self {
        let Disk { id, slot, mut state } = disk;
        state.info = info(index);
        let own = News { id, generation: 0, version: 0, record: Arc::default() };
        Self {
            id,
            index,
            join: 0,
            known: Vec::new(),
            is_rash: false,
            disowned: 0,
            power: Power::Off,
            fuse: None,
            image: None,
            is_copy: false,
            state,
            kernel: FakeKernel::new(),
            heard: Heard::nothing(slot),
            slot,
            cluster: Arc::default(),
            agent: Agent::started(0),
            introduced: BTreeSet::new(),
            own,
            unsaid: true,
            booted: 0,
            containers: 0,
        }
    }

    /// What is on its disk now.
    pub fn disk(&self) -> Disk {
        Disk { id: self.id, slot: self.slot, state: self.state.clone() }
    }

    pub fn place(&self) -> HostConfig {
        HostConfig { me: self.id, vtep: vtep(self.index), vxlan_port: 4789, underlay_mtu: 1500 }
    }

    /// The agent starts: what is on disk is what it knows; what it had heard is gone.
    pub fn start(&mut self, now: Millis) {
        self.power = Power::On;
        self.own.generation += 1;
        self.heard = Heard::nothing(self.slot);
        self.cluster = Arc::default();
        self.agent = Agent::started(now);
        self.introduced.clear();
        self.unsaid = true;
        if self.founder().is_none() {
            self.known.extend(self.state.peers.values());
            self.known.sort();
            self.known.dedup();
        }
    }

    /// The machine has booted: no container is there.
    pub fn boot(&mut self, now: Millis, nonce: u64) {
        self.kernel = FakeKernel::new();
        self.booted = now;
        self.fuse = None;
        let changes = booted(&self.state.ledger, &self.state.intents, nonce, self.clock(now));
        self.keep(&changes);
    }

    /// An agent that was killed on this machine starts: what it has left half done is put in order.
    pub fn tidy_up(&mut self, now: Millis) {
        self.write(&TidyUp, now);
    }

    pub fn ledger(&self) -> &Ledger {
        &self.state.ledger
    }

    pub fn intents(&self) -> &Intents {
        &self.state.intents
    }

    /// By the clock of this boot.
    fn clock(&self, now: Millis) -> Millis {
        now - self.booted
    }

    /// Decides and writes; says it when it is asked. `None` if the agent is killed at it.
    pub fn tell<R: Request>(&mut self, request: &R, now: Millis) -> Option<Result<R::Answer, R::Refusal>> {
        let decision = match decide(&self.state, request, self.clock(now)) {
            Ok(decision) => decision,
            Err(refusal) => return Some(Err(refusal)),
        };
        let fuse = self.fuse.as_mut().filter(|_| !decision.changes.is_empty());
        match fuse {
            Some(Fuse { writes: 0, is_last_made }) => {
                if *is_last_made {
                    self.keep(&decision.changes);
                }
                self.power = Power::NoAgent;
                return None;
            }
            Some(fuse) => fuse.writes -= 1,
            None => {}
        }
        self.keep(&decision.changes);
        Some(Ok(decision.answer))
    }

    /// The same for an input to the ledger.
    pub fn step(&mut self, input: &Input, now: Millis) -> Option<Outcome> {
        self.tell(input, now).map(|Ok(outcome)| outcome)
    }

    /// The same of an agent that nobody kills.
    pub fn write<R: Request<Refusal = std::convert::Infallible>>(&mut self, request: &R, now: Millis) -> R::Answer {
        let Ok(decision) = decide(&self.state, request, self.clock(now));
        self.keep(&decision.changes);
        decision.answer
    }

    fn keep(&mut self, changes: &[Change]) {
        if changes.is_empty() {
            return;
        }
        let members = &self.ledger().membership().members;
        let disowns = |change: &&Change| matches!(change, Change::Ledger(ledger::Change::Foreign(host)) if members.contains(host));
        self.disowned += changes.iter().filter(disowns).count();
        self.state.apply(changes);
        self.unsaid = true;
    }

    /// Who founded its cluster.
    pub fn founder(&self) -> Option<HostId> {
        self.ledger().membership().founder
    }

    /// Is another host alive, as far as this one sees?
    pub fn hears(&self, id: HostId) -> bool {
        self.cluster.hosts.get(&id).is_some_and(|host| host.liveness == Liveness::Live)
    }

    pub fn is_fenced(&self) -> bool {
        matches!(self.ledger().membership().activation, Activation::Fenced(_))
    }

    pub fn say(&mut self) {
        if !std::mem::take(&mut self.unsaid) {
            return;
        }
        self.own.version += 1;
        self.own.record = Arc::new(self.state.record());
    }

    /// What another host does not have yet.
    pub fn letter_to(&mut self, known: &Heard, now: Millis) -> Letter {
        self.say();
        self.heard.letter(&self.own, known, now)
    }

    /// Is the kernel as the cluster calls for?
    pub fn is_settled(&self) -> bool {
        plan(self.kernel.state(), &desire(&self.cluster, self.intents(), &self.place()), Knowledge::Whole).is_empty()
    }

    /// The hosts that can be asked, as far as this one sees.
    pub fn reachable(&self) -> BTreeSet<HostId> {
        bootstrap::reachable(&self.cluster)
    }

    /// Those of them that it asks to let it in.
    pub fn asked(&self) -> BTreeSet<HostId> {
        if self.is_rash {
            return self.reachable();
        }
        bootstrap::asked(&self.cluster, &[peer(self.join)], self.ledger().membership().founder)
    }

    /// A container on this machine.
    pub fn open_container(&mut self) -> NetnsRef {
        self.containers += 1;
        let path = format!("/run/netns/h{}-{}", self.index, self.containers).into();
        let netns = NetnsRef { path, cookie: self.containers };
        self.kernel.open_container(netns.clone());
        netns
    }

    pub fn detach(&mut self, id: EndpointId, now: Millis) {
        self.end_container(id);
        self.write(&Detach(vec![id]), now);
    }

    /// The container of an endpoint ends, and nobody says so to the agent.
    pub fn end_container(&mut self, of: EndpointId) {
        let Some(attachment) = self.intents().attachments.get(&of).cloned() else { return };
        self.kernel.close_container(&attachment.netns);
    }
}

fn info(index: usize) -> HostInfo {
    HostInfo {
        name: name(&format!("h{index}")),
        vtep: vtep(index),
        vxlan_port: 4789,
        peer: peer(index),
        underlay_mtu: 1500,
        routed: std::collections::BTreeSet::new(),
        stamp: overlay::model::member::Stamp::default(),
        phase: Phase::Joining,
        founder: None,
    }
}

pub fn name(text: &str) -> Name {
    text.parse().expect("a label")
}

pub fn peer(index: usize) -> SocketAddr {
    (vtep(index), 7946).into()
}

pub fn vtep(index: usize) -> IpAddr {
    let [.., high, low] = index.to_be_bytes();
    [192, 168, high, low].into()
}
