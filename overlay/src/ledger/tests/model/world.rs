//! The world around the ledgers: machines that are on or off, addresses that are live on them, what was ever said, and
//! old images of disks.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::Protocol;
use super::pool::Shared;
use crate::ledger::{Activation, Change, Fencing, Input, Ledger, REST};
use crate::model::id::{EndpointId, HostId, NetworkId};
use crate::model::lease::Version;
use crate::model::member::Stamp;
use crate::model::network::{Name, Network, Range, Settings};
use crate::model::record::{Run, Statement};

/// All hosts and everything between them.
#[derive(Debug, Clone, PartialEq, Hash)]
pub struct World {
    pub hosts: Vec<Shared<Host>>,
    /// Whatever was said, ever: any of it may arrive at any time, any number of times, or never.
    pub said: Shared<BTreeSet<Letter>>,
    pub spent: Spent,
    /// A lease was overwritten by one that is not newer.
    pub overwritten: bool,
}

/// How much of the misfortune that a setting allows has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Spent {
    pub kills: u8,
    pub boots: u8,
    pub rolls: u8,
    pub wipes: u8,
}

/// A host: its ledger, which is the program's own, and its machine.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Host {
    pub ledger: Ledger,
    pub machine: Machine,
    /// The addresses on its running containers.
    pub live: BTreeSet<IpAddr>,
    /// How often its machine has booted. No boot has the nonce of another of the same host, whatever its disk says.
    pub boots: u64,
    /// An old image of its disk.
    pub image: Option<Ledger>,
    /// What is durable, where answers do not wait for that.
    pub disk: Option<Ledger>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Machine {
    /// The agent runs.
    Up,
    /// The agent was killed; containers run on.
    AgentDown,
    /// No power; containers are gone.
    Off,
    /// The identity is given up.
    Gone(Parting),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Parting {
    StartedAnew,
    Forgotten,
    Restored,
    Wiped,
}

/// Something that a host says to all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Letter {
    pub from: HostId,
    pub stamp: Stamp,
    pub words: Words,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Words {
    Wrote(Statement),
    Holds(Run),
    Borrows(IpAddr, Version),
}

impl Host {
    fn new(ledger: Ledger) -> Self {
        Self { ledger, machine: Machine::Up, live: BTreeSet::new(), boots: 0, image: None, disk: None }
    }

    pub fn is_up(&self) -> bool {
        self.machine == Machine::Up
    }

    /// Would it act on its ledger, now or as soon as its agent is back?
    pub fn acts(&self) -> bool {
        self.ledger.is_established() && matches!(self.machine, Machine::Up | Machine::AgentDown)
    }

    /// A host that gave its identity up tears its containers down, and takes no part from then on: what it knew does
    /// not matter.
    pub fn part(&mut self, parting: Parting) {
        *self = Self { machine: Machine::Gone(parting), ..Self::new(Ledger::new(self.ledger.me())) };
    }

    /// After a step: has the ledger given up?
    pub fn heed_fence(&mut self) {
        if let Activation::Fenced(why) = self.ledger.membership().activation {
            self.part(match why {
                Fencing::Moves | Fencing::Unjoined => Parting::StartedAnew,
                Fencing::Forgotten { .. } => Parting::Forgotten,
                Fencing::Restored { .. } => Parting::Restored,
            });
        }
    }

    /// All that it says now. Each part is a letter of its own, because each may come without the others.
    pub fn letters(&self) -> impl Iterator<Item = Letter> + '_ {
        let (from, stamp) = (self.ledger.me(), self.ledger.stamp());
        let holding = self.ledger.holding().filter(|_| self.is_up());
        let words = holding.flat_map(|(_, runs, borrowed, outbox)| {
            let runs = runs.into_iter().map(Words::Holds);
            let borrowed = borrowed.into_iter().map(|(address, version)| Words::Borrows(address, version));
            runs.chain(borrowed).chain(outbox.iter().copied().map(Words::Wrote))
        });
        words.map(move |words| Letter { from, stamp, words })
    }
}

pub fn id(number: usize) -> HostId {
    HostId::from_bytes([u8::try_from(number).expect("a small world"); 16])
}

pub fn number(host: HostId) -> usize {
    usize::from(host.as_bytes()[0])
}

/// Each address has an endpoint of its own, on whichever host it is.
pub fn endpoint(address: IpAddr) -> EndpointId {
    let IpAddr::V4(address) = address else { unreachable!("the model's network is IPv4") };
    EndpointId::from_bytes([address.octets()[3]; 16])
}

pub fn name() -> Name {
    "web".parse().expect("a label")
}

/// One block: of one address, or of two with a second block beside it.
pub fn network(addresses: usize) -> Network {
    let subnet = if addresses < 2 { "172.38.0.0/30" } else { "172.38.0.0/29" };
    let range = Range::new(subnet.parse().expect("a subnet"), None).expect("a range");
    Network {
        id: NetworkId::from_bytes([7; 16]),
        name: "net".parse().expect("a label"),
        ranges: vec![range],
        created: 1,
        creator: id(0),
        since: 0,
        settings: Settings::default(),
    }
}

impl Protocol {
    /// Host 0 has created the network, and all of its cluster have joined and heard of it.
    pub fn beginning(&self) -> World {
        let mut ledgers: Vec<Ledger> =
            (0..self.setting.hosts).map(|n| Ledger::new(id(n)).without(self.setting.without)).collect();
        let members = self.setting.hosts - usize::from(self.setting.newcomer);
        let id_of = self.network.id;
        for ledger in &mut ledgers {
            write(ledger, &Input::Booted { nonce: 0 });
        }
        write(&mut ledgers[0], &Input::Found);
        write(&mut ledgers[0], &Input::Create(self.network.clone()));
        for n in self.setting.apart.iter().take(1) {
            write(&mut ledgers[*n], &Input::Found);
        }
        let is_apart = |n: usize| self.setting.apart.contains(&n);
        for n in (1..members).filter(|n| Some(n) != self.setting.apart.first()) {
            for by in (0..n).filter(|by| is_apart(*by) == is_apart(n)) {
                let (from, stamp, founder) = (id(n), ledgers[n].stamp(), ledgers[n].membership().founder);
                let outcome = write(&mut ledgers[by], &Input::Acknowledge { from, stamp, founder });
                let crate::ledger::Outcome::MemberList(member_list) = outcome else {
                    unreachable!("members acknowledge")
                };
                write(&mut ledgers[n], &Input::Acknowledged { by: id(by), member_list });
            }
        }
        for ledger in &mut ledgers {
            self.learn(ledger);
        }
        self.fill_second_block(&mut ledgers[0]);
        let runs = ledgers[0].accounts()[&id_of].runs(id(0));
        for ledger in ledgers[1..].iter_mut().filter(|ledger| ledger.accounts().contains_key(&id_of)) {
            let (runs, borrowed) = (runs.clone(), Default::default());
            write(ledger, &Input::Holding { network: id_of, from: id(0), stamp: Stamp::default(), runs, borrowed });
        }
        let hosts: Vec<_> = ledgers.into_iter().map(|ledger| self.hosts.share(Host::new(ledger))).collect();
        let said = hosts.iter().flat_map(|host| host.letters().collect::<Vec<_>>()).collect();
        World { hosts, said: self.said.share(said), spent: Spent::default(), overwritten: false }
    }

    /// A host hears of the network as soon as it belongs to the cluster that the network is in.
    pub fn learn(&self, ledger: &mut Ledger) {
        if ledger.membership().founder == Some(id(0)) {
            write(ledger, &Input::Learn(self.network.clone()));
        }
    }

    /// A network with a block of two addresses has a second block: it stays with host 0, where it is in use.
    fn fill_second_block(&self, ledger: &mut Ledger) {
        let assignable = self.network.blocks().skip(1).flat_map(|block| self.network.assignable_in(block));
        let binds: Vec<_> = assignable.map(|a| Change::Bind(self.network.id, a, endpoint(a))).collect();
        ledger.apply(&binds);
    }
}

fn write(ledger: &mut Ledger, input: &Input) -> crate::ledger::Outcome {
    let mut step = ledger.step(input, REST);
    step.changes.retain(|change| !matches!(change, Change::Revision(_)));
    ledger.apply(&step.changes);
    step.outcome
}
