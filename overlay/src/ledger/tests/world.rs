//! Ledgers of a few hosts, one network, and a wire on which what is sent lies until somebody delivers it: late, in another
//! order, twice, or never. After every step an oracle that sees all hosts at once checks what the protocol promises.

use super::*;
use crate::model::lease::{AddressLease, Holder};

/// What happens to a host while it takes a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Luck {
    /// Nothing.
    Good,
    /// It dies before the changes are durable.
    NothingWritten,
    /// It dies after that, before the outcome leaves.
    NothingSent,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    AskSpace(Share),
    AskAddress(IpAddr),
    Stated(Statement),
    Holding(Vec<Run>, BTreeMap<IpAddr, Version>),
    Taken(Statement),
}

#[derive(Debug, Clone)]
pub struct Letter {
    pub from: usize,
    pub to: usize,
    /// When it was written.
    pub stamp: Stamp,
    pub body: Body,
}

/// A host.
#[derive(Debug)]
struct Member {
    ledger: Ledger,
    /// All changes that were durable, ever.
    log: Vec<Change>,
    /// In the world's time.
    booted: Millis,
}

#[derive(Debug)]
pub struct World {
    pub network: Network,
    pub wire: Vec<Letter>,
    members: Vec<Member>,
    now: Millis,
    /// Under which name an address was released last, and when; not if anybody asked for it by number since.
    released: BTreeMap<IpAddr, (Name, Millis)>,
    /// How many changes of each kind there were, so that a test can show that it is about something.
    pub seen: BTreeMap<&'static str, usize>,
}

pub fn id_of(member: usize) -> HostId {
    host(u8::try_from(member).expect("a small world"))
}

impl World {
    /// The first member creates the network; the others have heard of it and of who holds it.
    pub fn new(members: usize, subnet: &str) -> Self {
        Self::of(members, network(7, subnet))
    }

    /// The same of a network that is not the usual one.
    pub fn of(members: usize, network: Network) -> Self {
        let member = |n| Member { ledger: Ledger::new(id_of(n)), log: Vec::new(), booted: 0 };
        let mut world = Self {
            network,
            wire: Vec::new(),
            members: (0..members).map(member).collect(),
            now: 1_000_000,
            released: BTreeMap::new(),
            seen: BTreeMap::new(),
        };
        world.step(0, &Input::Found, Luck::Good);
        world.step(0, &Input::Create(world.network.clone()), Luck::Good);
        for n in 1..members {
            world.join(n);
            world.step(n, &Input::Learn(world.network.clone()), Luck::Good);
        }
        world.talk();
        world
    }

    pub fn size(&self) -> usize {
        self.members.len()
    }

    pub fn ledger(&self, member: usize) -> &Ledger {
        &self.members[member].ledger
    }

    /// What the member knows of the network; `None` once it has closed it.
    pub fn account(&self, member: usize) -> Option<&Account> {
        self.members[member].ledger.accounts().get(&self.network.id).map(|account| &**account)
    }

    pub fn others(&self, member: usize) -> BTreeSet<HostId> {
        (0..self.size()).filter(|n| *n != member).map(id_of).collect()
    }

    /// What its clock shows.
    pub fn clock(&self, member: usize) -> Millis {
        self.now - self.members[member].booted
    }

    pub fn wait(&mut self, time: Millis) {
        self.now += time;
    }

    /// Decides, writes, and tells what leaves the host: nothing if it dies.
    pub fn step(&mut self, member: usize, input: &Input, luck: Luck) -> Option<Outcome> {
        let now = self.clock(member);
        let ledger = &self.members[member].ledger;
        let step = ledger.step(input, now);
        assert_eq!(step, ledger.step(input, now), "the same input on the same ledger came to something else");
        if luck == Luck::NothingWritten {
            return None;
        }
        self.check_rest(member, input, &step);
        self.write(member, &step.changes);
        (luck == Luck::Good).then_some(step.outcome)
    }

    fn write(&mut self, member: usize, changes: &[Change]) {
        if changes.is_empty() {
            return;
        }
        let blocks = |world: &Self| world.account(member).map(|a| (a.blocks.clone(), a.addresses.clone()));
        let before = blocks(self);
        let host = &mut self.members[member];
        host.ledger.apply(changes);
        host.log.extend_from_slice(changes);
        if let (Some((blocks, addresses)), Some((blocks_now, addresses_now))) = (before, blocks(self)) {
            let kept = blocks.iter().all(|(b, l)| blocks_now.get(b).is_some_and(|n| n == l || n.epoch > l.epoch));
            assert!(kept, "S4: host {member} overwrote the lease of a block with one that is not newer");
            let kept =
                addresses.iter().all(|(a, l)| addresses_now.get(a).is_some_and(|n| n == l || n.version > l.version));
            assert!(kept, "S4: host {member} overwrote the lease of an address with one that is not newer");
        }
        for change in changes {
            *self.seen.entry(kind(change)).or_default() += 1;
        }
        self.check();
    }

    /// The agent is started again: what is on disk is what it knew.
    pub fn restart(&mut self, member: usize) {
        let mut replayed = Ledger::new(id_of(member));
        replayed.apply(&self.members[member].log);
        assert_eq!(replayed, self.members[member].ledger, "host {member}: the log is not the ledger");
    }

    /// All members before this one acknowledge it.
    fn join(&mut self, member: usize) {
        for by in 0..member {
            let (stamp, founder) = (self.ledger(member).stamp(), self.ledger(member).membership().founder);
            let ask = Input::Acknowledge { from: id_of(member), stamp, founder };
            let Some(Outcome::MemberList(member_list)) = self.step(by, &ask, Luck::Good) else {
                unreachable!("host {by} does not acknowledge host {member}")
            };
            self.step(member, &Input::Acknowledged { by: id_of(by), member_list }, Luck::Good);
        }
        assert!(self.ledger(member).is_established(), "host {member} has not joined");
    }

    /// The machine is started again: its clock begins at 0, and all others let it in.
    pub fn reboot(&mut self, member: usize) {
        self.restart(member);
        self.members[member].booted = self.now;
        self.step(member, &Input::Booted { nonce: self.now }, Luck::Good);
        for by in (0..self.size()).filter(|by| *by != member) {
            let (stamp, claims) = (self.ledger(member).stamp(), self.ledger(member).claims());
            let founder = self.ledger(member).membership().founder;
            let ask = Input::Admit { from: id_of(member), stamp, founder, claims, elsewhere: false };
            let answer = self.step(by, &ask, Luck::Good);
            let Some(Outcome::MemberList(member_list)) = answer else {
                unreachable!("host {by} does not let host {member} in: {answer:?}")
            };
            self.step(member, &Input::Admitted { by: id_of(by), member_list }, Luck::Good);
        }
        let reachable = (0..self.size()).filter(|by| *by != member).map(id_of).collect();
        self.step(member, &Input::Conclude { reachable: Some(reachable) }, Luck::Good);
        assert!(self.ledger(member).is_established(), "host {member} was not let in");
    }

    pub fn allocate(&mut self, member: usize, request: &AddressRequest, luck: Luck) -> Option<Outcome> {
        let outcome = self.step(member, &Input::Allocate(request.clone()), luck);
        if let Some(Outcome::Ask(ask)) = outcome {
            let (of, body) = match ask {
                Ask::Space { of, .. } => (of, Body::AskSpace(Share::Quarter)),
                Ask::Address { of, address } => (of, Body::AskAddress(address)),
            };
            self.send(member, of, body);
        }
        outcome
    }

    pub fn release(&mut self, member: usize, endpoint: EndpointId, name: &Name, luck: Luck) {
        let network = self.network.id;
        self.step(member, &Input::Release { network, endpoint, name: name.clone() }, luck);
    }

    /// The member says to all others what it holds and what it wrote for others.
    pub fn gossip(&mut self, member: usize) {
        let said = self.ledger(member).holding().find(|(id, ..)| *id == self.network.id);
        let Some((runs, borrowed, outbox)) = said.map(|(_, r, b, o)| (r, b, o.clone())) else { return };
        for to in self.others(member) {
            self.send(member, to, Body::Holding(runs.clone(), borrowed.clone()));
            for statement in &outbox {
                self.send(member, to, Body::Stated(*statement));
            }
        }
    }

    pub fn send(&mut self, from: usize, to: HostId, body: Body) {
        let to = (0..self.size()).find(|n| id_of(*n) == to).expect("hosts know of members only");
        let stamp = self.ledger(from).stamp();
        self.wire.push(Letter { from, to, stamp, body });
    }

    /// The letter arrives and is answered.
    pub fn deliver(&mut self, letter: Letter, luck: Luck) {
        let Letter { from, to, stamp, body } = letter;
        let (network, author) = (self.network.id, id_of(from));
        let input = match body.clone() {
            Body::AskSpace(share) => Input::GiveSpace { network, range: 0, to: author, share },
            Body::AskAddress(address) => Input::GiveAddress { network, to: author, address },
            Body::Stated(statement) => Input::Stated { network, from: author, stamp, statement },
            Body::Holding(runs, borrowed) => Input::Holding { network, from: author, stamp, runs, borrowed },
            Body::Taken(statement) => Input::Taken { network, statement },
        };
        match (body, self.step(to, &input, luck)) {
            (_, Some(Outcome::Given(statements))) => {
                statements.into_iter().for_each(|s| self.send(to, author, Body::Stated(s)));
            }
            (Body::Stated(statement), Some(Outcome::Done)) => self.send(to, author, Body::Taken(statement)),
            _ => {}
        }
    }

    /// All letters arrive in order, and the answers to them.
    pub fn deliver_all(&mut self) {
        while !self.wire.is_empty() {
            let letter = self.wire.remove(0);
            self.deliver(letter, Luck::Good);
        }
    }

    /// Everybody gossips until there is nothing new.
    pub fn talk(&mut self) {
        for _ in 0..10 {
            let before: Vec<Ledger> = self.members.iter().map(|m| m.ledger.clone()).collect();
            (0..self.size()).for_each(|n| self.gossip(n));
            self.deliver_all();
            if self.members.iter().map(|m| &m.ledger).eq(&before) {
                return;
            }
        }
        unreachable!("ten rounds of gossip did not come to an end");
    }

    pub fn tick(&mut self) {
        for n in 0..self.size() {
            let passed = Input::tick(self.ledger(n));
            self.step(n, &passed, Luck::Good);
        }
    }

    /// What an agent does for a container while gossip flows and all hosts answer: asks whom the ledger says until it has
    /// an address.
    pub fn attach(&mut self, member: usize, endpoint: EndpointId, name: &str, address: Option<IpAddr>) -> Outcome {
        self.talk();
        let reachable = self.others(member);
        let name = super::name(name);
        let mut request = AddressRequest {
            network: self.network.id,
            endpoint,
            name,
            range: 0,
            address,
            reachable,
            asked: BTreeSet::new(),
        };
        loop {
            match self.allocate(member, &request, Luck::Good).expect("nobody dies here") {
                Outcome::Ask(ask) => assert!(request.asked.insert(ask), "{ask:?} is asked for the second time"),
                outcome => return outcome,
            }
            self.deliver_all();
        }
    }

    /// Everything is released and has rested, all hosts have talked: nothing may be underway or lost.
    pub fn settle(&mut self) {
        for n in 0..self.size() {
            let bound: Vec<EndpointId> = self.account(n).map_or(Vec::new(), |a| a.bound.values().copied().collect());
            bound.into_iter().for_each(|e| self.release(n, e, &name("old"), Luck::Good));
        }
        self.talk();
        self.wait(REST);
        self.tick();
        self.talk();
        let first = self.account(0).expect("the network is open").blocks.clone();
        assert_eq!(first.len(), self.network.blocks().count());
        for n in 0..self.size() {
            let account = self.account(n).expect("the network is open");
            assert_eq!(account.blocks, first, "hosts 0 and {n} differ on who holds what");
            assert_eq!(account.outbox, BTreeSet::new(), "host {n} waits for answers");
            assert_eq!(account.borrowed(id_of(n)), BTreeMap::new(), "host {n} keeps what it borrowed");
        }
    }

    /// What holds at any time, whatever happened.
    fn check(&self) {
        let accounts: Vec<(usize, &Account)> = (0..self.size()).filter_map(|n| Some((n, self.account(n)?))).collect();
        let all = |is: &dyn Fn(usize, &Account) -> bool| -> Vec<usize> {
            accounts.iter().filter(|(n, a)| is(*n, a)).map(|(n, _)| *n).collect()
        };
        for block in self.network.blocks() {
            let holders = all(&|n, a| a.blocks.get(&block).is_some_and(|l| l.holder == id_of(n)));
            assert!(holders.len() <= 1, "S1: hosts {holders:?} all hold {block:?}");
        }
        for address in assignable(&self.network) {
            let users = all(&|n, a| a.may_use(id_of(n), address).is_some());
            assert!(users.len() <= 1, "S2: hosts {users:?} may all use {address}");
            let bound = all(&|_, a| a.bound.contains_key(&address));
            assert!(
                bound.iter().all(|n| users.contains(n)),
                "S3: {address} is used on {bound:?}, {users:?} may use it"
            );
            let both = all(&|_, a| a.bound.contains_key(&address) && a.resting.contains_key(&address));
            assert!(both.is_empty(), "{address} is in use and rests, on {both:?}");
        }
        for (n, account) in accounts {
            let kept = |a: &IpAddr| account.bound.contains_key(a) || account.resting.contains_key(a);
            let lost: Vec<IpAddr> = account.borrowed(id_of(n)).into_keys().filter(|a| !kept(a)).collect();
            assert!(lost.is_empty(), "host {n} has borrowed {lost:?} and will never return it");
        }
    }

    /// A released address is not given to another name too early, unless somebody asked for it by number or its host has no other.
    fn check_rest(&mut self, member: usize, input: &Input, step: &LedgerStep) {
        match input {
            Input::GiveAddress { address, .. } => drop(self.released.remove(address)),
            Input::GiveSpace { range, .. } => {
                for change in &step.changes {
                    let Change::Enqueue(_, Statement::Delegate { address, .. }) = change else { continue };
                    if let Some((name, since)) = self.released.remove(address) {
                        let rested = self.now - since >= REST || !self.has_rested(member, *range);
                        assert!(rested, "{address} was {name}'s until {since}, at {} another host has it", self.now);
                    }
                }
            }
            Input::Release { name, .. } => {
                let addresses =
                    step.changes.iter().filter_map(|c| if let Change::Unbind(_, a, _) = c { Some(*a) } else { None });
                self.released.extend(addresses.map(|a| (a, (name.clone(), self.now))));
            }
            Input::Allocate(request) => {
                let bound =
                    step.changes.iter().find_map(|c| if let Change::Bind(_, a, _) = c { Some(*a) } else { None });
                if let Some((address, (name, since))) = bound.and_then(|a| Some((a, self.released.remove(&a)?))) {
                    let rested = self.now - since >= REST || !self.has_rested(member, request.range);
                    let asked = request.address.is_some() || request.name == name;
                    assert!(
                        rested || asked,
                        "{address} was {name}'s until {since}, at {} it is {}'s",
                        self.now,
                        request.name
                    );
                }
            }
            _ => {}
        }
    }

    /// Has the member an address for anybody that nobody had lately?
    fn has_rested(&self, member: usize, range: u8) -> bool {
        let now = self.clock(member);
        let Some(account) = self.account(member) else { return false };
        let held = account.held_by(id_of(member)).filter(|(block, _)| block.range == range);
        let mut free = held.flat_map(|(block, epoch)| account.free_in(block, epoch));
        free.any(|address| account.resting.get(&address).is_none_or(|rest| rest.is_over(now)))
    }
}

fn kind(change: &Change) -> &'static str {
    match change {
        Change::Open(_) => "open",
        Change::Close(_) => "close",
        Change::Block(..) => "block",
        Change::Address(_, _, AddressLease { holder: Holder::Home, .. }) => "address comes home",
        Change::Address(..) => "address is lent",
        Change::Bind(..) => "bind",
        Change::Unbind(..) => "unbind",
        Change::Rested(..) => "rested",
        Change::Enqueue(_, Statement::Transfer { .. }) => "transfer",
        Change::Enqueue(_, Statement::Delegate { .. }) => "delegate",
        Change::Enqueue(_, Statement::Return { .. }) => "return",
        Change::Dequeue(_, Statement::Transfer { .. }) => "transfer arrived",
        Change::Dequeue(_, Statement::Delegate { .. }) => "delegate arrived",
        Change::Dequeue(_, Statement::Return { .. }) => "return arrived",
        Change::Tombstone(_) => "tombstone",
        _ => "membership",
    }
}
