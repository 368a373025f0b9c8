//! The hosts, and the network between them on virtual time: what is sent is lost, late, repeated and cut off, all by one
//! seed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use overlay::ledger::{Activation, Answer, Evidence, Fencing, Input, Millis, Outcome, Question};
use overlay::model::id::{EndpointId, HostId, NetworkId};
use overlay::model::member::Stamp;
use overlay::operations::Request;
use overlay::operations::attach::AttachRefusal;

use crate::calls::Call;
use crate::gossip::{Detector, INTERVAL, Letter, Slot};
use crate::host::{Host, Power};

/// Between two rounds of what a host does by itself.
const CHORES: Millis = 500;

pub enum Event {
    Gossip(usize),
    Chores(usize),
    Letter { to: usize, letter: Letter },
    Question { call: u64, from: HostId, caller: usize, to: HostId, stamp: Stamp, question: Question },
    Answer { call: u64, from: HostId, stamp: Stamp, answer: Answer },
    Patience(u64),
}

/// What happened, so that a run can show that it is about something.
#[derive(Debug, Default, Clone)]
pub struct Tally(pub BTreeMap<&'static str, u64>);

impl Tally {
    pub fn note(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }
}

pub struct World {
    pub rng: fastrand::Rng,
    pub now: Millis,
    pub hosts: Vec<Host>,
    /// Which part of a cut network each host is in.
    pub part: Vec<u8>,
    /// The networks, and who founded the cluster that each was made in.
    pub made: BTreeMap<NetworkId, HostId>,
    /// Of a hundred messages, how many are lost.
    pub loss: u8,
    /// Does the boot check ask all members?
    pub is_strict: bool,
    /// Does the operator insist if he is told that he forgets too many at once?
    pub insists: bool,
    /// The identities whose disk was set back.
    pub set_back: BTreeSet<HostId>,
    /// The identities that were on two machines at once.
    pub copied: BTreeSet<HostId>,
    /// The identities that the operator has said are off for good.
    pub forgotten: BTreeSet<HostId>,
    /// Addresses that are configured on running containers: what must never be doubled.
    pub live: BTreeMap<(NetworkId, IpAddr), (usize, EndpointId)>,
    pub seen: Tally,
    /// How each attach ended: when, on which host, and with which address or why not.
    pub log: Vec<(Millis, usize, EndpointId, Result<IpAddr, AttachRefusal>)>,
    /// What is to come, by when and in which order it was put there.
    queue: BTreeMap<(Millis, u64), Event>,
    numbers: u64,
    pub calls: BTreeMap<u64, Call>,
    /// Which host has which identity now.
    pub places: BTreeMap<HostId, usize>,
    identities: Slot,
    detector: Detector,
}

impl World {
    /// All machines are on, and the first host has founded the cluster that all others were told to join.
    pub fn new(seed: u64, size: usize) -> Self {
        let mut world = Self::dark(seed, size);
        for index in 0..size {
            world.power_on(index);
        }
        world.found(0);
        world
    }

    /// Two clusters that were founded apart and now hear each other. Half of the hosts ask both to let them in, should they
    /// come back as new ones.
    pub fn apart(seed: u64, size: usize) -> Self {
        let mut world = Self::dark(seed, size);
        let second = size / 2;
        for index in 0..size {
            let side = usize::from(index >= second);
            world.part[index] = [0, 1][side];
            world.hosts[index].join = [0, second][side];
            world.hosts[index].is_rash = index % 2 == 0;
            world.power_on(index);
        }
        world.found(0);
        world.found(second);
        world.run(5_000);
        world.part.fill(0);
        world
    }

    pub fn found(&mut self, index: usize) {
        let now = self.now;
        self.hosts[index].write(&Input::Found, now);
    }

    /// No machine is on yet.
    pub fn dark(seed: u64, size: usize) -> Self {
        let mut world = Self {
            rng: fastrand::Rng::with_seed(seed),
            now: 1_000,
            hosts: Vec::new(),
            part: vec![0; size],
            made: BTreeMap::new(),
            loss: 0,
            is_strict: false,
            insists: false,
            set_back: BTreeSet::new(),
            copied: BTreeSet::new(),
            forgotten: BTreeSet::new(),
            live: BTreeMap::new(),
            seen: Tally::default(),
            log: Vec::new(),
            queue: BTreeMap::new(),
            numbers: 0,
            calls: BTreeMap::new(),
            places: BTreeMap::new(),
            identities: 0,
            detector: Detector::of(size),
        };
        for index in 0..size {
            let host = world.stranger(index);
            world.places.insert(host.id, index);
            world.hosts.push(host);
            let jitter = world.rng.u64(0..INTERVAL);
            world.at(jitter, Event::Gossip(index));
            world.at(jitter, Event::Chores(index));
        }
        world
    }

    /// A host that nobody knows.
    pub fn stranger(&mut self, index: usize) -> Host {
        let id = HostId::from_bytes(self.fresh_id());
        let slot = self.identities;
        self.identities += 1;
        Host::new(id, slot, index)
    }

    /// Another disk in a machine that is off.
    pub fn replace(&mut self, index: usize, host: Host) {
        let old = std::mem::replace(&mut self.hosts[index], host);
        if self.places.get(&old.id) == Some(&index) {
            self.places.remove(&old.id);
        }
        let new = &mut self.hosts[index];
        (new.own.generation, new.join, new.is_rash, new.image) = (old.own.generation, old.join, old.is_rash, old.image);
        // A copy of a host that runs does not take its place: calls go to where that was heard first.
        self.places.entry(new.id).or_insert(index);
    }

    pub fn fresh_id(&mut self) -> [u8; 16] {
        let mut id = [0; 16];
        self.rng.fill(&mut id);
        id
    }

    pub fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    pub fn at(&mut self, delay: Millis, event: Event) {
        let number = self.number();
        self.queue.insert((self.now + delay, number), event);
    }

    /// Lets time pass.
    pub fn run(&mut self, time: Millis) {
        let end = self.now + time;
        while let Some(next) = self.queue.first_entry().filter(|next| next.key().0 <= end) {
            let ((when, _), event) = next.remove_entry();
            self.now = when;
            self.handle(event);
        }
        self.now = end;
    }

    /// Can a message pass?
    pub fn passes(&mut self, from: usize, to: usize) -> bool {
        self.part[from] == self.part[to] && self.rng.u8(0..100) >= self.loss
    }

    pub fn index(&self, id: HostId) -> Option<usize> {
        self.places.get(&id).copied()
    }

    pub fn power_on(&mut self, index: usize) {
        let (now, nonce) = (self.now, self.number());
        let host = &mut self.hosts[index];
        host.boot(now, nonce);
        host.start(now);
    }

    pub fn power_off(&mut self, index: usize) {
        self.hosts[index].power = Power::Off;
        self.live.retain(|_, (host, _)| *host != index);
        self.calls.retain(|_, call| call.from != index);
    }

    pub fn kill_agent(&mut self, index: usize) {
        (self.hosts[index].power, self.hosts[index].fuse) = (Power::NoAgent, None);
        self.calls.retain(|_, call| call.from != index);
    }

    /// No agent is killed at its next writes after all.
    pub fn spare_all(&mut self) {
        self.hosts.iter_mut().for_each(|host| host.fuse = None);
    }

    pub fn start_agent(&mut self, index: usize) {
        let now = self.now;
        let host = &mut self.hosts[index];
        host.fuse = None;
        host.tidy_up(now);
        host.start(now);
    }

    /// The identity is given up: all that it had goes, and it starts again as a new host.
    pub fn renew(&mut self, index: usize) {
        self.power_off(index);
        let mut stranger = self.stranger(index);
        stranger.known = self.hosts[index].state.peers.values().copied().collect();
        self.replace(index, stranger);
        self.power_on(index);
    }

    /// Has a host decide; `None` if its agent is killed at it.
    pub fn tell<R: Request>(&mut self, index: usize, request: &R) -> Option<Result<R::Answer, R::Refusal>> {
        let now = self.now;
        let answer = self.hosts[index].tell(request, now);
        self.mind(index);
        answer
    }

    /// Gives an input to the ledger of a host; `None` if its agent is killed at it.
    pub fn step(&mut self, index: usize, input: &Input) -> Option<Outcome> {
        let now = self.now;
        let outcome = self.hosts[index].step(input, now);
        self.mind(index);
        outcome
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Gossip(index) => {
                self.gossip(index);
                self.at(INTERVAL, Event::Gossip(index));
            }
            Event::Chores(index) => {
                self.chores(index);
                self.at(CHORES, Event::Chores(index));
            }
            Event::Letter { to, letter } => {
                if self.hosts[to].power == Power::On {
                    self.hosts[to].receive(letter);
                }
            }
            Event::Question { call, from, caller, to, stamp, question } => {
                self.asked(call, (from, caller, stamp), to, question);
            }
            Event::Answer { call, from, stamp, answer } => self.answered(call, (from, stamp), answer),
            Event::Patience(call) => self.give_up(call),
        }
    }

    fn gossip(&mut self, index: usize) {
        self.meet_twin(index);
        if self.hosts[index].power != Power::On {
            return;
        }
        for _ in 0..3 {
            let to = self.rng.usize(0..self.hosts.len());
            if to == index || self.hosts[to].power != Power::On || !self.passes(index, to) {
                continue;
            }
            // An exchange goes both ways. What a copy says is nobody's word while the host itself is heard.
            for (from, to) in [(index, to), (to, index)] {
                if self.index(self.hosts[from].id) != Some(from) {
                    continue;
                }
                let Ok([from, reader]) = self.hosts.get_disjoint_mut([from, to]) else { continue };
                let letter = from.letter_to(&reader.heard, self.now);
                let delay = self.rng.u64(1..40);
                self.at(delay, Event::Letter { to, letter });
            }
        }
    }

    /// Looks around, lets time pass for the ledger, brings what is in the outboxes, and asks what there is to ask.
    fn chores(&mut self, index: usize) {
        if self.hosts[index].power != Power::On {
            return;
        }
        self.look(index);
        let clear = self.hosts[index].clear(self.now);
        if self.hosts[index].power != Power::On || self.step(index, &Input::Tick { clear }).is_none() {
            return;
        }
        let host = &self.hosts[index];
        let (reachable, asked) = (host.reachable(), host.asked());
        let questions = host.ledger().questions(&asked, &host.introduced);
        let undelivered = host.ledger().undelivered().into_iter().filter(|(to, _)| reachable.contains(to));
        let deliveries: Vec<_> = undelivered
            .flat_map(|(to, all)| all.into_iter().take(8).map(move |(network, statement)| (to, network, statement)))
            .collect();
        for (to, questions) in questions {
            for question in questions {
                self.ask(index, to, question, None);
            }
        }
        for (to, network, statement) in deliveries {
            self.ask(index, to, Question::Deliver { network, statement }, None);
        }
        self.decide(index);
    }

    fn decide(&mut self, index: usize) {
        if let Some(input) = self.hosts[index].own_decision(self.now, self.is_strict) {
            let founds = input == Input::Found;
            if self.step(index, &input).is_some() && founds {
                self.seen.note("founded by itself");
            }
        }
    }

    pub fn look(&mut self, index: usize) {
        if self.hosts[index].power != Power::On {
            return;
        }
        let Self { hosts, places, part, .. } = self;
        let is_there = |host: &Host| host.power != Power::Off && part[host.index] == part[index];
        let answers: Vec<bool> = hosts.iter().map(is_there).collect();
        let answers = |id| places.get(&id).is_some_and(|index| answers[*index]);
        hosts[index].look(self.now, self.detector, answers);
        for _ in 0..std::mem::take(&mut self.hosts[index].agent.released) {
            self.seen.note("container ended: endpoint released");
        }
        self.mind(index);
    }

    /// An agent that was killed has asked nobody; a fenced host is torn down and starts again. None is fenced without a reason.
    pub fn mind(&mut self, index: usize) {
        let host = &mut self.hosts[index];
        if host.power == Power::NoAgent {
            if host.fuse.take().is_some() {
                self.seen.note("killed at a write");
                self.kill_agent(index);
            }
            return;
        }
        let Activation::Fenced(why) = host.ledger().membership().activation else {
            // The check with those that can be reached may have let one in that all would not have.
            host.is_copy &= !(self.is_strict && host.ledger().is_established());
            return;
        };
        let (id, is_copy) = (host.id, host.is_copy);
        self.seen.note(match why {
            Fencing::Moves => "fenced: moves",
            Fencing::Unjoined => "fenced: unjoined",
            Fencing::Forgotten { .. } => "fenced: forgotten",
            Fencing::Restored { evidence: Evidence::Elsewhere, .. } => "fenced: elsewhere",
            Fencing::Restored { .. } => "fenced: restored",
        });
        let is_right = match why {
            Fencing::Moves | Fencing::Unjoined => true,
            Fencing::Forgotten { .. } => self.forgotten.contains(&id),
            // A member that did not hear the host at the moment may have let its copy in.
            Fencing::Restored { .. } => is_copy || self.copied.contains(&id),
        };
        assert!(is_right, "host {index} is fenced, and nothing was done to it: {why}");
        self.renew(index);
    }

    pub fn detach(&mut self, index: usize, endpoint: EndpointId) {
        let now = self.now;
        self.live.retain(|_, (_, id)| *id != endpoint);
        self.hosts[index].detach(endpoint, now);
    }

    /// The container of an endpoint ends.
    pub fn end_container(&mut self, index: usize, of: EndpointId) {
        self.live.retain(|_, (_, id)| *id != of);
        self.hosts[index].end_container(of);
    }
}
