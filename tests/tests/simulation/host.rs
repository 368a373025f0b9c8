//! A host of the simulation: the program's own ledger, records, view and plan over a fake kernel, without its tasks.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use overlay::cluster::bootstrap;
use overlay::cluster::own_record;
use overlay::cluster::{Cluster, derive};
use overlay::datapath::desired::{HostConfig, desire};
use overlay::datapath::fake::FakeKernel;
use overlay::datapath::plan::{Knowledge, plan};
use overlay::datapath::report::round;
use overlay::ledger::{Activation, Change, Input, Ledger, Millis, Outcome};
use overlay::model::addr::Mac;
use overlay::model::endpoint::{Assigned, Endpoint};
use overlay::model::host::{HostInfo, Liveness, Phase};
use overlay::model::id::{EndpointId, HostId, NetworkId};
use overlay::model::intent::{Attachment, Intents, NetnsRef};
use overlay::model::lease::Version;
use overlay::model::network::Name;
use overlay::model::record::{Incarnation, Records};

use crate::gossip::{Detector, Heard, Letter, News, Slot, put};

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
    pub ledger: Ledger,
    pub intents: Intents,
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
    pub ledger: Ledger,
    pub intents: Intents,
    pub kernel: FakeKernel,
    pub heard: Heard,
    /// What the ledger was told of whom.
    told: Vec<Option<(u64, u64)>>,
    pub cluster: Arc<Cluster>,
    /// The members that know this life of it.
    pub introduced: BTreeSet<HostId>,
    /// What the cluster is made from.
    records: Records,
    /// How each looked when its records were taken.
    seen: Vec<Option<Sight>>,
    pub own: News,
    /// Has something changed since it last said what it says?
    unsaid: bool,
    pub booted: Millis,
    started: Millis,
    containers: u64,
}

/// How long an agent that has started waits to hear of the others.
const LISTENING: Millis = 5_000;

/// What decides how a host looks to another.
type Sight = ((u64, u64), Liveness);

impl Host {
    pub fn new(id: HostId, slot: Slot, index: usize) -> Self {
        Self::with(Disk { id, slot, ledger: Ledger::new(id), intents: Intents::default() }, index)
    }

    /// A machine with this disk in it.
    pub fn with(disk: Disk, index: usize) -> Self {
        let Disk { id, slot, ledger, intents } = disk;
        let own = News { id, generation: 0, version: 0, record: Arc::default() };
        Self {
            id,
            index,
            join: 0,
            is_rash: false,
            disowned: 0,
            power: Power::Off,
            fuse: None,
            image: None,
            is_copy: false,
            ledger,
            intents,
            kernel: FakeKernel::new(),
            heard: Heard::nothing(slot),
            slot,
            told: Vec::new(),
            cluster: Arc::default(),
            introduced: BTreeSet::new(),
            records: Records::new(),
            seen: Vec::new(),
            own,
            unsaid: true,
            booted: 0,
            started: 0,
            containers: 0,
        }
    }

    /// What is on its disk now.
    pub fn disk(&self) -> Disk {
        let Self { id, slot, ledger, intents, .. } = self;
        Disk { id: *id, slot: *slot, ledger: ledger.clone(), intents: intents.clone() }
    }

    pub fn place(&self) -> HostConfig {
        HostConfig { me: self.id, vtep: vtep(self.index), vxlan_port: 4789, underlay_mtu: 1500 }
    }

    /// The agent starts: what is on disk is what it knows; what it had heard is gone.
    pub fn start(&mut self, now: Millis) {
        self.power = Power::On;
        self.started = now;
        self.own.generation += 1;
        self.heard = Heard::nothing(self.slot);
        self.told.clear();
        self.cluster = Arc::default();
        self.introduced.clear();
        self.records.clear();
        self.seen.clear();
        self.unsaid = true;
    }

    /// The machine has booted: no container is there.
    pub fn boot(&mut self, now: Millis, nonce: u64) {
        self.kernel = FakeKernel::new();
        self.booted = now;
        self.fuse = None;
        self.write(&Input::Booted { nonce }, now);
        for attachment in std::mem::take(&mut self.intents.attachments).into_values() {
            let Endpoint { network, id, name, .. } = attachment.endpoint;
            self.write(&Input::Release { network, endpoint: id, name }, now);
        }
        self.intents.seats.clear();
    }

    /// By the clock of this boot.
    fn clock(&self, now: Millis) -> Millis {
        now - self.booted
    }

    /// Decides and writes; says it when somebody listens. `None` if the agent is killed at it.
    pub fn step(&mut self, input: &Input, now: Millis) -> Option<Outcome> {
        let step = self.ledger.step(input, self.clock(now));
        let fuse = self.fuse.as_mut().filter(|_| !step.changes.is_empty());
        match fuse {
            Some(Fuse { writes: 0, is_last_made }) => {
                if *is_last_made {
                    self.keep(&step.changes);
                }
                self.power = Power::NoAgent;
                return None;
            }
            Some(fuse) => fuse.writes -= 1,
            None => {}
        }
        self.keep(&step.changes);
        Some(step.outcome)
    }

    /// The same of an agent that nobody kills.
    pub fn write(&mut self, input: &Input, now: Millis) -> Outcome {
        let step = self.ledger.step(input, self.clock(now));
        self.keep(&step.changes);
        step.outcome
    }

    fn keep(&mut self, changes: &[Change]) {
        if !changes.is_empty() {
            let members = &self.ledger.membership().members;
            let disowns = |change: &&Change| matches!(change, Change::Foreign(host) if members.contains(host));
            self.disowned += changes.iter().filter(disowns).count();
            self.ledger.apply(changes);
            self.unsaid = true;
        }
        let about_networks = |change: &Change| {
            matches!(
                change,
                Change::Open(_) | Change::Close(_) | Change::Tombstone(_) | Change::Activation(Activation::Fenced(_))
            )
        };
        if changes.iter().any(about_networks) {
            self.intents.networks = self.ledger.accounts().iter().map(|(id, a)| (*id, a.network.clone())).collect();
            self.intents.tombstones = self.ledger.tombstones().clone();
        }
    }

    /// Who founded its cluster.
    pub fn founder(&self) -> Option<HostId> {
        self.ledger.membership().founder
    }

    /// Is another host alive, as far as this one sees?
    pub fn hears(&self, id: HostId) -> bool {
        self.cluster.hosts.get(&id).is_some_and(|host| host.liveness == Liveness::Live)
    }

    pub fn is_fenced(&self) -> bool {
        matches!(self.ledger.membership().activation, Activation::Fenced(_))
    }

    fn say(&mut self) {
        if !std::mem::take(&mut self.unsaid) {
            return;
        }
        let phase = match self.ledger.membership().activation {
            Activation::Joining { .. } => Phase::Joining,
            Activation::Established => Phase::Established,
            Activation::Unchecked { .. } | Activation::Fenced(_) => Phase::Unchecked,
        };
        let info = HostInfo {
            name: name(&format!("h{}", self.index)),
            vtep: vtep(self.index),
            vxlan_port: 4789,
            peer: peer(self.index),
            underlay_mtu: 1500,
            stamp: self.ledger.stamp(),
            phase,
            founder: self.ledger.membership().founder,
        };
        self.own.version += 1;
        self.own.record = Arc::new(own_record::by(&self.ledger, &self.intents, &info));
    }

    /// What another host does not have yet.
    pub fn letter_to(&mut self, known: &Heard, now: Millis) -> Letter {
        self.say();
        self.heard.letter(&self.own, known, now)
    }

    /// What there is to see, told to the ledger and done to the kernel. `answers` says which machines answer a call.
    pub fn look(&mut self, now: Millis, detector: Detector, answers: impl Fn(HostId) -> bool) {
        self.say();
        let changed = self.notice(now, detector, answers);
        if changed {
            self.cluster = Arc::new(derive(&self.records, self.ledger.membership().founder));
        }
        let lives = self.listen(now).is_some();
        if lives && (changed || self.unsaid) {
            self.reconcile();
        }
    }

    /// Takes the records of those that look other than before; false if none does.
    fn notice(&mut self, now: Millis, detector: Detector, answers: impl Fn(HostId) -> bool) -> bool {
        let Self { heard, own, records, seen, .. } = self;
        let others = heard.iter().map(|(slot, news, beat)| {
            let liveness = detector.judge((beat, self.started), now, || answers(news.id));
            (slot, news, news.generation, liveness)
        });
        let mut changed = false;
        for (slot, news, generation, liveness) in others.chain([(self.slot, &*own, u64::MAX, Liveness::Live)]) {
            let sight = Some((news.age(), liveness));
            if seen.get(slot) != Some(&sight) {
                put(seen, slot, sight);
                let lives = records.entry(news.id).or_default();
                lives.clear();
                lives.push(Incarnation { generation, complete: true, liveness, record: Arc::clone(&news.record) });
                changed = true;
            }
        }
        changed
    }

    /// What is new, told to the ledger. `None` if the agent is killed at it.
    fn listen(&mut self, now: Millis) -> Option<()> {
        let told = |slot: Slot| self.told.get(slot).copied().flatten();
        let new = |(slot, news, _): &(Slot, &News, Millis)| told(*slot) != Some(news.age());
        let changed: Vec<(Slot, News)> =
            self.heard.iter().filter(new).map(|(slot, news, _)| (slot, news.clone())).collect();
        let cluster = Arc::clone(&self.cluster);
        let could_act = self.ledger.is_established();
        for id in &cluster.tombstones {
            if !self.ledger.tombstones().contains(id) {
                self.step(&Input::Close(*id), now)?;
            }
        }
        for view in cluster.networks.values().filter(|view| !view.apart) {
            if !self.ledger.accounts().contains_key(&view.network.id) {
                self.step(&Input::Learn(view.network.clone()), now)?;
            }
        }
        for (slot, news) in changed {
            for input in own_record::heard(news.id, &news.record) {
                self.step(&input, now)?;
            }
            put(&mut self.told, slot, Some(news.age()));
        }
        // A ledger that may not act does not listen.
        if !could_act {
            self.told.clear();
        }
        Some(())
    }

    /// Has it heard of all members since it started, or listened for long enough?
    pub fn is_synced(&self, now: Millis) -> bool {
        let is_clear = |id: HostId| self.cluster.hosts.get(&id).is_some_and(|host| host.liveness != Liveness::Suspect);
        now - self.started >= LISTENING || self.ledger.membership().others().all(is_clear)
    }

    fn reconcile(&mut self) {
        let desired = desire(&self.cluster, &self.intents, &self.place());
        let done = futures::executor::block_on(round(&mut self.kernel, &desired, Knowledge::Whole));
        let (_, report) = done.expect("the fake kernel can be looked at");
        assert!(report.settled(), "h{}: {:?}", self.index, report.failed);
    }

    /// Is the kernel as the cluster calls for?
    pub fn is_settled(&self) -> bool {
        plan(self.kernel.state(), &desire(&self.cluster, &self.intents, &self.place()), Knowledge::Whole).is_empty()
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
        bootstrap::asked(&self.cluster, &[peer(self.join)], self.ledger.membership().founder)
    }

    /// Does it rather belong to another cluster than to the one that it has founded?
    pub fn seeks(&self) -> bool {
        self.ledger.is_established() && bootstrap::seeks(self.id, &self.cluster)
    }

    pub fn attach(&mut self, id: EndpointId, network: NetworkId, name: &Name, (address, lease): (IpAddr, Version)) {
        self.containers += 1;
        let path = format!("/run/netns/h{}-{}", self.index, self.containers).into();
        let netns = NetnsRef { path, cookie: self.containers };
        self.kernel.open_container(netns.clone());
        let endpoint = Endpoint {
            id,
            network,
            name: name.clone(),
            aliases: BTreeSet::new(),
            addresses: vec![Assigned { address, lease }],
            mac: Mac::of_address(address),
            created: self.cluster.now + 1,
        };
        let seat = self.intents.seat(network);
        self.intents.seats.insert(network, seat);
        let ifname = "eth0".parse().expect("a name");
        self.intents
            .attachments
            .insert(id, Attachment { endpoint, netns, ifname, metric: 0, published: BTreeMap::new() });
        self.unsaid = true;
    }

    /// The addresses that it had.
    pub fn detach(&mut self, id: EndpointId, now: Millis) {
        let Some(attachment) = self.intents.attachments.remove(&id) else { return };
        self.kernel.close_container(&attachment.netns);
        let Endpoint { network, name, .. } = attachment.endpoint;
        if self.intents.attached(network).next().is_none() {
            self.intents.seats.remove(&network);
        }
        self.write(&Input::Release { network, endpoint: id, name }, now);
        self.unsaid = true;
    }
}

pub fn name(text: &str) -> Name {
    text.parse().expect("a label")
}

fn peer(index: usize) -> SocketAddr {
    (vtep(index), 7946).into()
}

fn vtep(index: usize) -> IpAddr {
    let [.., high, low] = index.to_be_bytes();
    [192, 168, high, low].into()
}
