//! What must always be, and what must be possible.

use std::net::IpAddr;

use stateright::Property;

use super::Protocol;
use super::world::{Host, Machine, Parting, World, id};
use crate::ledger::{Account, Input, REST};
use crate::model::lease::Holder;
use crate::model::network::BlockId;

/// What a setting has to reach at least once, so that it does not hold for want of anything that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// L1.
    ThirdHostUsesBlock,
    /// L2.
    StaticIsLive,
    /// L3.
    HeirUsesSpace,
    /// L4.
    ForgottenIsFenced,
    /// L4, where two are forgotten.
    BothForgottenAreFenced,
    /// L5.
    NewcomerHolds,
    /// L3, where a host of another cluster was taken for a member.
    HeirPassesForeign,
    /// One that boots before it is a member.
    StartsAnew,
    /// S5.
    RestoredIsFenced,
    /// After all have lost power, and nobody answered for a disk.
    AllPassTheirChecks,
}

pub const NO_ADDRESS_TWICE: &str = "S3 no address is live twice";
pub const NO_BLOCK_TWICE: &str = "S1 no block has two holders";

const BLOCK: BlockId = BlockId { range: 0, index: 0 };

pub fn properties(goals: &[Goal]) -> Vec<Property<Protocol>> {
    let mut all = vec![
        Property::<Protocol>::always(NO_BLOCK_TWICE, |model, world| {
            model.network.blocks().all(|block| count(model, world, |host, a| holds(a, host, block)) <= 1)
        }),
        Property::<Protocol>::always("S2 no address has two users", |model, world| {
            let uses = |a: IpAddr| count(model, world, |host, known| known.may_use(host.ledger.me(), a).is_some());
            model.addresses.iter().all(|address| uses(*address) <= 1)
        }),
        Property::<Protocol>::always(NO_ADDRESS_TWICE, |model, world| {
            let live = |a: &IpAddr| world.hosts.iter().filter(|host| host.live.contains(a)).count();
            model.addresses.iter().all(|address| live(address) <= 1)
        }),
        Property::<Protocol>::always("S4 a lease is written once", |_, world| !world.overwritten),
        Property::<Protocol>::always("L3 an heir that waits for nobody comes to an end", |_, world| {
            world.hosts.iter().filter(|host| host.acts()).all(|host| !waits_for_nobody(host) || moves(host))
        }),
    ];
    all.extend(goals.iter().map(|goal| goal.property()));
    all
}

impl Goal {
    fn property(self) -> Property<Protocol> {
        match self {
            Self::ThirdHostUsesBlock => {
                Property::<Protocol>::sometimes("L1 a block reaches a third host and is used there", |model, world| {
                    let host = &world.hosts[model.setting.hosts.min(3) - 1];
                    let from = if model.addresses.is_empty() { 2 } else { 3 };
                    has_block(model, host, from) && is_used(model, host)
                })
            }
            Self::StaticIsLive => Property::<Protocol>::sometimes("L2 a borrowed address is live", |model, world| {
                count(model, world, |host, known| {
                    let me = host.ledger.me();
                    !holds(known, host, BLOCK)
                        && host
                            .live
                            .iter()
                            .any(|a| known.addresses.get(a).is_some_and(|l| l.holder == Holder::Host(me)))
                }) > 0
            }),
            Self::HeirUsesSpace => {
                Property::<Protocol>::sometimes("L3 the heir uses what the dead host had", |model, world| {
                    world.hosts.iter().any(|host| {
                        let seals = &host.ledger.membership().seals;
                        let is_heir = seals.values().any(|seal| seal.done && seal.heir == host.ledger.me());
                        is_heir && has_block(model, host, 2) && is_used(model, host)
                    })
                })
            }
            Self::HeirPassesForeign => Property::<Protocol>::sometimes(
                "L3 an heir goes on without one that joined another cluster",
                |_, world| {
                    world.hosts.iter().any(|host| {
                        let mine = host.ledger.membership();
                        let is_heir = mine.seals.values().any(|seal| seal.done && seal.heir == host.ledger.me());
                        is_heir && mine.foreign.contains(&id(world.hosts.len() - 1))
                    })
                },
            ),
            Self::ForgottenIsFenced => {
                Property::<Protocol>::sometimes("L4 a forgotten host comes back and is fenced", |_, world| {
                    parted(world, Parting::Forgotten) > 0
                })
            }
            Self::BothForgottenAreFenced => {
                Property::<Protocol>::sometimes("L4 both forgotten hosts come back and are fenced", |_, world| {
                    parted(world, Parting::Forgotten) > 1
                })
            }
            Self::NewcomerHolds => {
                Property::<Protocol>::sometimes("L5 the newcomer obtains the block", |model, world| {
                    let newcomer = &world.hosts[model.setting.hosts - 1];
                    has_block(model, newcomer, 2)
                })
            }
            Self::StartsAnew => {
                Property::<Protocol>::sometimes("one that booted as no member starts anew", |_, world| {
                    parted(world, Parting::StartedAnew) > 0
                })
            }
            Self::AllPassTheirChecks => Property::<Protocol>::sometimes("all hosts boot and act again", |_, world| {
                world.hosts.iter().all(|host| host.acts() && host.boots > 0)
            }),
            Self::RestoredIsFenced => Property::<Protocol>::sometimes("S5 a restored host is fenced", |_, world| {
                parted(world, Parting::Restored) > 0
            }),
        }
    }
}

/// How many hosts that act are so?
fn count(model: &Protocol, world: &World, is_so: impl Fn(&Host, &Account) -> bool) -> usize {
    let acting = world.hosts.iter().filter(|host| host.acts());
    acting.filter(|host| model.account(host).is_some_and(|account| is_so(host, account))).count()
}

fn waits_for_nobody(heir: &Host) -> bool {
    let forgets = &heir.ledger.membership().forgets;
    !forgets.is_empty() && forgets.keys().all(|host| heir.ledger.missing(*host).is_empty())
}

fn moves(heir: &Host) -> bool {
    !heir.ledger.step(&Input::tick(&heir.ledger), REST).changes.is_empty()
}

fn holds(account: &Account, host: &Host, block: BlockId) -> bool {
    account.blocks.get(&block).is_some_and(|lease| lease.holder == host.ledger.me())
}

fn has_block(model: &Protocol, host: &Host, epoch: u64) -> bool {
    let lease = model.account(host).and_then(|account| account.blocks.get(&BLOCK));
    host.acts() && lease.is_some_and(|lease| lease.holder == host.ledger.me() && lease.epoch >= epoch)
}

fn is_used(model: &Protocol, host: &Host) -> bool {
    model.addresses.is_empty() || !host.live.is_empty()
}

fn parted(world: &World, parting: Parting) -> usize {
    world.hosts.iter().filter(|host| host.machine == Machine::Gone(parting)).count()
}

impl Protocol {
    /// What a host knows of the network.
    pub fn account<'a>(&self, host: &'a Host) -> Option<&'a Account> {
        host.ledger.accounts().get(&self.network.id).map(|account| &**account)
    }
}
