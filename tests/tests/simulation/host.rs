//! A host of the simulation: the program's own ledger, records, view and plan over a fake kernel, without its tasks.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use overlay::addr::Mac;
use overlay::admission;
use overlay::cluster::{Cluster, derive};
use overlay::desired::{Place, desire};
use overlay::endpoint::{Assigned, Endpoint};
use overlay::fake::FakeKernel;
use overlay::host::{HostInfo, Liveness, Phase};
use overlay::id::{EndpointId, HostId, NetworkId};
use overlay::intent::{Attachment, Intents, NetnsRef};
use overlay::lease::Version;
use overlay::ledger::{Change, Input, Ledger, Millis, Outcome, Standing};
use overlay::network::Name;
use overlay::plan::{Knowledge, plan};
use overlay::record::{Incarnation, Records};
use overlay::report::round;
use overlay::said;

use crate::gossip::{Detector, Heard, Letter, News, Slot, put};

/// Is the machine on, and its agent?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Power {
    Off,
    /// Containers run; nobody answers.
    NoAgent,
    On,
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

/// What decides how a host looks to another.
type Sight = ((u64, u64), Liveness);

impl Host {
    pub fn new(id: HostId, slot: Slot, index: usize) -> Self {
        let own = News { id, generation: 0, version: 0, record: Arc::default() };
        Self {
            id,
            index,
            join: 0,
            is_rash: false,
            disowned: 0,
            power: Power::Off,
            ledger: Ledger::new(id),
            intents: Intents::default(),
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

    pub fn place(&self) -> Place {
        Place { me: self.id, vtep: vtep(self.index), vxlan_port: 4789, underlay_mtu: 1500 }
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
        self.step(&Input::Booted { nonce }, now);
        for attachment in std::mem::take(&mut self.intents.attachments).into_values() {
            let Endpoint { network, id, name, .. } = attachment.endpoint;
            self.step(&Input::Release { network, endpoint: id, name }, now);
        }
        self.intents.seats.clear();
    }

    /// By the clock of this boot.
    fn clock(&self, now: Millis) -> Millis {
        now - self.booted
    }

    /// Decides and writes; says it when somebody listens.
    pub fn step(&mut self, input: &Input, now: Millis) -> Outcome {
        let step = self.ledger.step(input, self.clock(now));
        if !step.changes.is_empty() {
            let members = &self.ledger.membership().members;
            let disowns = |change: &&Change| matches!(change, Change::Foreign(host) if members.contains(host));
            self.disowned += step.changes.iter().filter(disowns).count();
            self.ledger.apply(&step.changes);
            self.unsaid = true;
        }
        let about_networks = |change: &Change| {
            matches!(
                change,
                Change::Open(_) | Change::Close(_) | Change::Tombstone(_) | Change::Standing(Standing::Fenced(_))
            )
        };
        if step.changes.iter().any(about_networks) {
            self.intents.networks = self.ledger.accounts().iter().map(|(id, a)| (*id, a.network.clone())).collect();
            self.intents.tombstones = self.ledger.tombstones().clone();
        }
        step.outcome
    }

    pub fn is_fenced(&self) -> bool {
        matches!(self.ledger.membership().standing, Standing::Fenced(_))
    }

    fn say(&mut self) {
        if !std::mem::take(&mut self.unsaid) {
            return;
        }
        let phase = match self.ledger.membership().standing {
            Standing::Joining { .. } => Phase::Joining,
            Standing::Established => Phase::Established,
            Standing::Unchecked { .. } | Standing::Fenced(_) => Phase::Unchecked,
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
        self.own.record = Arc::new(said::by(&self.ledger, &self.intents, &info));
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
        self.listen(now);
        if changed || self.unsaid {
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

    /// What is new, told to the ledger.
    fn listen(&mut self, now: Millis) {
        let told = |slot: Slot| self.told.get(slot).copied().flatten();
        let new = |(slot, news, _): &(Slot, &News, Millis)| told(*slot) != Some(news.age());
        let changed: Vec<(Slot, News)> =
            self.heard.iter().filter(new).map(|(slot, news, _)| (slot, news.clone())).collect();
        let cluster = Arc::clone(&self.cluster);
        let could_act = self.ledger.is_established();
        for id in &cluster.tombstones {
            if !self.ledger.tombstones().contains(id) {
                self.step(&Input::Close(*id), now);
            }
        }
        for view in cluster.networks.values().filter(|view| !view.apart) {
            if !self.ledger.accounts().contains_key(&view.network.id) {
                self.step(&Input::Learn(view.network.clone()), now);
            }
        }
        for (slot, news) in changed {
            for input in said::heard(news.id, &news.record) {
                self.step(&input, now);
            }
            put(&mut self.told, slot, Some(news.age()));
        }
        // A ledger that may not act does not listen.
        if !could_act {
            self.told.clear();
        }
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
        admission::reachable(&self.cluster)
    }

    /// Those of them that it asks to let it in.
    pub fn asked(&self) -> BTreeSet<HostId> {
        if self.is_rash {
            return self.reachable();
        }
        admission::asked(&self.cluster, &[peer(self.join)], self.ledger.membership().founder)
    }

    /// Does it rather belong to another cluster than to the one that it has founded?
    pub fn seeks(&self) -> bool {
        self.ledger.is_established() && admission::seeks(self.id, &[peer(self.join)], &self.cluster)
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
        self.intents.attachments.insert(id, Attachment { endpoint, netns, ifname });
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
        self.step(&Input::Release { network, endpoint: id, name }, now);
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
