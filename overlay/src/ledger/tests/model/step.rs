//! What an action comes to. Whatever a host decides, its ledger decides.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::actions::{Action, Answer};
use super::world::{Host, Letter, Machine, Parting, Words, World, endpoint, id, name};
use super::{Breach, Check, Protocol};
use crate::ledger::{
    Activation, AddressRequest, Asker, Change, Input, Ledger, Millis, Outcome, REST, Rest, Share, Want,
};
use crate::model::record::Statement;

/// What rests has rested since then.
const EARLY: Millis = 0;
/// And is over by then.
const LATE: Millis = REST;
/// Also what began to rest in a tick.
const LATER: Millis = 2 * REST;

/// A world in which something happens.
struct Scene<'a> {
    protocol: &'a Protocol,
    world: World,
    /// The hosts to which it happens, as they are by now.
    changed: BTreeMap<usize, Host>,
}

impl Protocol {
    /// The world after an action; `None` if it comes to nothing.
    pub fn after(&self, world: &World, action: &Action) -> Option<World> {
        let mut scene = Scene { protocol: self, world: world.clone(), changed: BTreeMap::new() };
        scene.play(action)?;
        let after = scene.end();
        (after != *world).then_some(after)
    }
}

impl Scene<'_> {
    fn play(&mut self, action: &Action) -> Option<()> {
        let network = self.protocol.network.id;
        match action {
            Action::GiveSpace { by, to } => {
                self.give(*by, &Input::GiveSpace { network, range: 0, to: id(*to), share: Share::Quarter })
            }
            Action::GiveAddress { by, to, address } => {
                self.give(*by, &Input::GiveAddress { network, to: id(*to), address: *address })
            }
            Action::Tick { host } => {
                let passed = Input::tick(self.ledger(*host));
                let outcome = self.step(*host, &passed, LATE);
                (outcome == Outcome::Done).then_some(())
            }
            Action::Hear { host, letter } => self.hear(*host, letter),
            Action::Bind { host, address } => self.bind(*host, *address),
            Action::Release { host, address } => {
                self.release(*host, *address);
                self.edit(*host).live.remove(address);
                Some(())
            }
            Action::Ask { host, of, want, answer } => self.ask(*host, *of, want, *answer),
            Action::Conclude { host } => {
                let asked = match &self.ledger(*host).membership().activation {
                    Activation::Unchecked { admitted, waiting } => admitted | waiting,
                    _ => return None,
                };
                let reachable = (self.protocol.setting.check != Check::All).then_some(asked);
                self.step(*host, &Input::Conclude { reachable }, LATE);
                Some(())
            }
            Action::Trust { host } => {
                self.step(*host, &Input::Trust, LATE);
                Some(())
            }
            Action::Forget { heir, hosts } => {
                self.step(*heir, &Input::Forget { hosts: hosts.clone(), force: false }, LATE);
                Some(())
            }
            Action::HearOf { host, from } => {
                let of = self.ledger(*from).membership();
                let belongs = Input::Belongs { from: id(*from), founder: of.founder, seals: of.seals.clone() };
                self.step(*host, &belongs, LATE);
                Some(())
            }
            Action::Repeat { host, letter } => {
                let (from, stamp) = (id(*host), self.ledger(*host).stamp());
                self.say([Letter { from, stamp, words: letter.words }]);
                Some(())
            }
            _ => self.suffer(action),
        }
    }

    fn suffer(&mut self, action: &Action) -> Option<()> {
        match *action {
            Action::KillAgent { host } => {
                self.world.spent.kills += 1;
                self.kill(host);
            }
            Action::StartAgent { host } => self.edit(host).machine = Machine::Up,
            Action::PowerOff { host } => {
                self.world.spent.boots += 1;
                let host = self.edit(host);
                host.machine = Machine::Off;
                host.live.clear();
            }
            Action::PowerOn { host } => self.boot(host),
            Action::CopyDisk { host } => {
                let host = self.edit(host);
                host.image = Some(host.ledger.clone());
            }
            Action::RestoreDisk { host } => {
                self.world.spent.rolls += 1;
                let host = self.edit(host);
                host.ledger = host.image.take()?;
            }
            Action::WipeDisk { host } => {
                self.world.spent.wipes += 1;
                self.wipe(host);
            }
            Action::Flush { host } => self.edit(host).disk = None,
            _ => return None,
        }
        Some(())
    }

    /// A giver answers; not beyond the bounds of the setting.
    fn give(&mut self, by: usize, input: &Input) -> Option<()> {
        let Outcome::Given(statements) = self.step(by, input, LATER) else { return None };
        let stamp = self.ledger(by).stamp();
        let setting = &self.protocol.setting;
        let within = statements.iter().all(|statement| match statement {
            Statement::Transfer { epoch, .. } => *epoch <= setting.epochs,
            Statement::Delegate { version, .. } | Statement::Return { version, .. } => version.count <= setting.counts,
        });
        if !within {
            return None;
        }
        self.say(statements.into_iter().map(|s| Letter { from: id(by), stamp, words: Words::Wrote(s) }));
        Some(())
    }

    fn hear(&mut self, host: usize, letter: &Letter) -> Option<()> {
        let network = self.protocol.network.id;
        let Letter { from, stamp, words } = *letter;
        let (runs, borrowed) = match words {
            Words::Wrote(statement) => {
                self.step(host, &Input::Stated { network, from, stamp, statement }, EARLY);
                return Some(());
            }
            Words::Holds(run) => (vec![run], BTreeMap::new()),
            Words::Borrows(address, version) => (Vec::new(), BTreeMap::from([(address, version)])),
        };
        self.step(host, &Input::Holding { network, from, stamp, runs, borrowed }, EARLY);
        Some(())
    }

    fn bind(&mut self, host: usize, address: IpAddr) -> Option<()> {
        let request = AddressRequest {
            network: self.protocol.network.id,
            endpoint: endpoint(address),
            name: name(),
            range: 0,
            address: Some(address),
            reachable: BTreeSet::new(),
            asked: BTreeSet::new(),
        };
        let granted = self.step(host, &Input::Allocate(request), LATE);
        matches!(granted, Outcome::Granted { .. }).then(|| {
            self.edit(host).live.insert(address);
        })
    }

    fn release(&mut self, host: usize, address: IpAddr) {
        let network = self.protocol.network.id;
        let release = Input::Release { network, endpoint: endpoint(address), name: name() };
        self.step(host, &release, EARLY);
    }

    /// One question and its answer.
    fn ask(&mut self, host: usize, of: usize, want: &Want, answer: Answer) -> Option<()> {
        let ledger = self.ledger(host);
        let question = ledger.question(want)?;
        let asker = Asker { host: ledger.me(), stamp: ledger.stamp(), elsewhere: false };
        let outcome = self.step(of, &question.clone().input(asker), EARLY);
        if answer == Answer::Arrives {
            let answered = outcome.try_into().expect("a host answers what it is asked");
            for input in question.answered((id(of), self.ledger(of).stamp()), answered) {
                self.step(host, &input, EARLY);
            }
        }
        Some(())
    }

    fn kill(&mut self, host: usize) {
        let (network, breach) = (self.protocol.network.id, self.protocol.setting.breach);
        let host = self.edit(host);
        host.machine = Machine::AgentDown;
        if let Some(disk) = host.disk.take() {
            host.ledger = disk;
        }
        if breach == Some(Breach::BindingsInMemory) {
            let bound = host.ledger.accounts()[&network].bound.keys();
            let rest = |address: &IpAddr| Change::Unbind(network, *address, Rest { name: None, since: EARLY });
            let lost: Vec<Change> = bound.map(rest).collect();
            host.ledger.apply(&lost);
        }
    }

    /// The daemon tells its ledger that the machine has booted, and that no endpoint has survived that.
    fn boot(&mut self, host: usize) {
        let booting = self.edit(host);
        booting.machine = Machine::Up;
        booting.boots += 1;
        let nonce = booting.boots;
        let bound: Vec<IpAddr> = booting.ledger.accounts().values().flat_map(|a| a.bound.keys().copied()).collect();
        self.step(host, &Input::Booted { nonce }, EARLY);
        for address in bound.into_iter().filter(|a| self.protocol.addresses.contains(a)) {
            self.release(host, address);
        }
    }

    fn wipe(&mut self, host: usize) {
        let protocol = self.protocol;
        let host = self.edit(host);
        if protocol.setting.breach != Some(Breach::SameIdentity) {
            return host.part(Parting::Wiped);
        }
        let old = host.ledger.membership().clone();
        let members = old.members.into_iter().map(Change::Member);
        let relearnt =
            members.chain([Change::Activation(Activation::Established), Change::Open(protocol.network.clone())]);
        host.ledger = Ledger::new(host.ledger.me()).without(protocol.setting.without);
        host.ledger.apply(&relearnt.collect::<Vec<_>>());
        host.live.clear();
    }

    fn host(&self, number: usize) -> &Host {
        self.changed.get(&number).unwrap_or(&self.world.hosts[number])
    }

    fn ledger(&self, number: usize) -> &Ledger {
        &self.host(number).ledger
    }

    fn edit(&mut self, number: usize) -> &mut Host {
        self.changed.entry(number).or_insert_with(|| (*self.world.hosts[number]).clone())
    }

    fn say(&mut self, letters: impl IntoIterator<Item = Letter>) {
        let new: Vec<Letter> = letters.into_iter().filter(|letter| !self.world.said.contains(letter)).collect();
        if !new.is_empty() {
            let said = self.world.said.iter().copied().chain(new).collect();
            self.world.said = self.protocol.said.share(said);
        }
    }

    /// The program's own step, and what it wrote.
    fn step(&mut self, number: usize, input: &Input, now: Millis) -> Outcome {
        let ledger = self.ledger(number);
        let mut step = ledger.step(input, now);
        if !self.counts_revisions(number, &step.changes) {
            step.changes.retain(|change| !matches!(change, Change::Revision(_)));
        }
        if step.changes.is_empty() {
            return step.outcome;
        }
        let protocol = self.protocol;
        let host = self.edit(number);
        if protocol.setting.breach == Some(Breach::AnswerFirst) && host.disk.is_none() {
            host.disk = Some(host.ledger.clone());
        }
        let mut overwritten = false;
        for change in &step.changes {
            overwritten |= overwrites(&host.ledger, change);
            host.ledger.apply(std::slice::from_ref(change));
        }
        protocol.learn(&mut host.ledger);
        protocol.pass_time(host);
        host.heed_fence();
        self.world.overwritten |= overwritten;
        step.outcome
    }

    /// Revisions would make the states endless. They matter only to a host whose disk may become an old one, and a revision that
    /// an established host does not count can only make that harder to see.
    fn counts_revisions(&self, number: usize, changes: &[Change]) -> bool {
        let setting = &self.protocol.setting;
        let of_leases = || changes.iter().any(|c| matches!(c, Change::Block(..) | Change::Address(..)));
        setting.rolls > 0 && setting.rolled.contains(&number) && (!self.ledger(number).is_established() || of_leases())
    }

    /// All that has changed is said.
    fn end(mut self) -> World {
        for (number, host) in std::mem::take(&mut self.changed) {
            self.say(host.letters().collect::<Vec<_>>());
            self.world.hosts[number] = self.protocol.hosts.share(host);
        }
        self.world
    }
}

impl Protocol {
    /// A rest that is over matters to a borrowed address only: it goes home then.
    fn pass_time(&self, host: &mut Host) {
        let network = self.network.id;
        let Some(account) = host.ledger.accounts().get(&network) else { return };
        let borrowed = account.borrowed(host.ledger.me());
        let rest = || Rest { name: None, since: EARLY };
        let change = |(address, known): (&IpAddr, &Rest)| match borrowed.contains_key(address) {
            true => (*known != rest()).then(|| Change::Unbind(network, *address, rest())),
            false => Some(Change::Rested(network, *address)),
        };
        let changes: Vec<Change> = account.resting.iter().filter_map(change).collect();
        host.ledger.apply(&changes);
    }
}

/// Does the change put a lease in the place of one that is as new?
fn overwrites(ledger: &Ledger, change: &Change) -> bool {
    match change {
        Change::Block(network, block, lease) => {
            let known = ledger.accounts().get(network).and_then(|account| account.blocks.get(block));
            known.is_some_and(|known| known != lease && known.epoch >= lease.epoch)
        }
        Change::Address(network, address, lease) => {
            let known = ledger.accounts().get(network).and_then(|account| account.addresses.get(address));
            known.is_some_and(|known| known != lease && known.version >= lease.version)
        }
        _ => false,
    }
}
