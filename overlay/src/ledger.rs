//! The ledger: which addresses this host may use, as a machine without I/O.
//!
//! Every block of a network, and every address delegated out of a block, has one lease, `(version, holder)`. Only the
//! holder writes the next one. Everybody keeps the highest that was heard from its writer or from its holder, and uses an
//! address only if its *own durable copy* names it. So there is nothing to agree on, and nobody to ask, to use what one
//! has; and nothing that is lost, late or repeated can give an address to two hosts.
//!
//! [`Ledger::step`] decides and changes nothing: it returns [`Change`]s. The caller makes them durable, then gives them
//! to [`Ledger::apply`], and only then lets the [`Outcome`] leave the host. If the disk refuses, nothing has happened.
//!
//! The files: `account` is what is known of one network; `allocate` is for endpoints of this host; `serve` is what other
//! hosts ask of it; `hear` is what they say.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::id::{EndpointId, HostId, NetworkId};
use crate::lease::{AddressLease, BlockLease, Version};
use crate::network::{BlockId, Name, Network};
use crate::record::{Run, Statement};

mod account;
mod allocate;
mod hear;
mod serve;

pub use account::{Account, Share};
pub use allocate::Request;

/// Milliseconds since the host booted, sleep included (`CLOCK_BOOTTIME`): no decision reads a wall clock.
pub type Millis = u64;

/// How long a released address rests before another endpoint gets it without asking for it by name: stale entries and
/// answers elsewhere have gone by then.
pub const REST: Millis = 60_000;

/// The ledger of one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ledger {
    me: HostId,
    accounts: BTreeMap<NetworkId, Account>,
}

/// What happens to the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// This host creates a network: it holds all of it.
    Create(Network),
    /// This host hears of a network that somebody else created. Never of one that it knows to be deleted: with its
    /// account it forgot which old leases to refuse.
    Learn(Network),
    /// The network is deleted.
    Close(NetworkId),
    /// An endpoint of this host wants an address.
    Allocate(Request),
    /// An endpoint of this host no longer needs its addresses.
    Release {
        /// The network.
        network: NetworkId,
        /// The endpoint.
        endpoint: EndpointId,
        /// Its name: if it comes back under that name it gets the same address.
        name: Name,
    },
    /// Another host, which has just come to the network, asks for a part of what this one has.
    GiveSpace {
        /// The network.
        network: NetworkId,
        /// The host that asks.
        to: HostId,
        /// How much.
        share: Share,
    },
    /// Another host asks for one address out of a block of this one.
    GiveAddress {
        /// The network.
        network: NetworkId,
        /// The host that asks.
        to: HostId,
        /// The address.
        address: IpAddr,
    },
    /// Another host says, itself, which blocks it holds.
    Holding {
        /// The network.
        network: NetworkId,
        /// The host that says so.
        from: HostId,
        /// The blocks.
        runs: Vec<Run>,
        /// The addresses that it has borrowed.
        borrowed: BTreeMap<IpAddr, Version>,
    },
    /// Another host says, itself, that it wrote a lease. [`Outcome::Done`] means that this ledger has it, or a later one,
    /// so the writer need not tell it again.
    Stated {
        /// The network.
        network: NetworkId,
        /// The host that wrote it.
        from: HostId,
        /// The lease.
        statement: Statement,
    },
    /// The host that a statement of ours is for has it in its ledger: `Stated` came to [`Outcome::Done`] there.
    Taken {
        /// The network.
        network: NetworkId,
        /// The statement.
        statement: Statement,
    },
    /// Time has passed.
    Tick,
}

/// One durable change. Replaying all of them in order gives the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A network is known.
    Open(Network),
    /// A network is gone, with all that was known of it.
    Close(NetworkId),
    /// The highest known lease of a block.
    Block(NetworkId, BlockId, BlockLease),
    /// The highest known lease of an address.
    Address(NetworkId, IpAddr, AddressLease),
    /// An endpoint of this host has the address.
    Bind(NetworkId, IpAddr, EndpointId),
    /// No endpoint of this host has it, or not any more; the address rests.
    Unbind(NetworkId, IpAddr, Rest),
    /// The address has rested, and whose it was is forgotten.
    Rested(NetworkId, IpAddr),
    /// A lease that was written for another host and has to reach it.
    Post(NetworkId, Statement),
    /// It has reached it.
    Unpost(NetworkId, Statement),
}

/// For whom an address is kept, and since when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rest {
    /// The name of the endpoint that had it; `None` for a borrowed address that no endpoint here has had yet.
    pub name: Option<Name>,
    /// When it was released or borrowed.
    pub since: Millis,
}

/// What a step decided: what to write, and what comes of it once that is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// To be made durable first, together.
    pub changes: Vec<Change>,
    /// Then this is true.
    pub outcome: Outcome,
}

/// What comes of an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing to tell.
    Done,
    /// The endpoint has this address under this lease.
    Granted {
        /// The address.
        address: IpAddr,
        /// The version of the lease that allows it.
        lease: Version,
    },
    /// Another host has to be asked; then try again.
    Ask(Ask),
    /// These leases go to the host that asked.
    Given(Vec<Statement>),
    /// It can't be had.
    Denied(Denial),
}

/// What to ask of another host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ask {
    /// A part of its blocks.
    Space {
        /// The host that holds most.
        of: HostId,
    },
    /// One address out of a block of its.
    Address {
        /// The holder of the address's block.
        of: HostId,
        /// The address.
        address: IpAddr,
    },
}

/// Why an address can't be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// Nobody told this host of the network.
    #[error("the network is not known here")]
    UnknownNetwork,
    /// Not an address that an endpoint of the network can have.
    #[error("{0} is not an address that an endpoint can have in this network")]
    NotAssignable(IpAddr),
    /// An endpoint of this host has it.
    #[error("{address} is in use by another endpoint of the same host")]
    Bound {
        /// The address.
        address: IpAddr,
        /// The endpoint.
        endpoint: EndpointId,
    },
    /// Another host has it.
    #[error("{address} is delegated to another host")]
    Delegated {
        /// The address.
        address: IpAddr,
        /// The borrower.
        to: HostId,
    },
    /// The host that holds the address's block can't be asked.
    #[error("{address} is in a block held by a host that does not answer")]
    Unreachable {
        /// The address.
        address: IpAddr,
        /// The holder.
        holder: HostId,
    },
    /// No free address is held here, and nobody who holds one can be asked.
    #[error("no free address: {} hosts hold the rest", holders.len())]
    Full {
        /// Who holds how many blocks, this host included.
        holders: BTreeMap<HostId, usize>,
    },
    /// This host does not hold the block.
    #[error("the block is not held by the host that was asked")]
    NotHolder {
        /// The holder as far as the host that was asked knows.
        holder: Option<HostId>,
    },
}

impl Denial {
    /// The same of this address: a denial that came over the wire does not name one.
    pub fn about(self, wanted: Option<IpAddr>) -> Self {
        match (self, wanted) {
            (Self::NotAssignable(_), Some(address)) => Self::NotAssignable(address),
            (Self::Bound { endpoint, .. }, Some(address)) => Self::Bound { address, endpoint },
            (Self::Delegated { to, .. }, Some(address)) => Self::Delegated { address, to },
            (denial, _) => denial,
        }
    }
}

impl Ledger {
    /// The ledger of a host that holds nothing.
    pub fn new(me: HostId) -> Self {
        Self { me, accounts: BTreeMap::new() }
    }

    /// Whose ledger it is.
    pub fn me(&self) -> HostId {
        self.me
    }

    /// What is known of the networks.
    pub fn accounts(&self) -> &BTreeMap<NetworkId, Account> {
        &self.accounts
    }

    /// Decides; changes nothing.
    pub fn step(&self, input: &Input, now: Millis) -> Step {
        match input {
            Input::Create(network) => self.create(network),
            Input::Learn(network) if self.accounts.contains_key(&network.id) => Step::done([]),
            Input::Learn(network) => Step::done([Change::Open(network.clone())]),
            Input::Close(id) => Step::done(self.accounts.contains_key(id).then_some(Change::Close(*id))),
            Input::Tick => Step::done(self.accounts.values().flat_map(|a| a.tick(self.me, now))),
            Input::Allocate(request) => self.within(request.network, |a| a.allocate(self.me, request, now)),
            Input::Release { network, endpoint, name } => {
                self.within(*network, |a| Step::done(a.release(*endpoint, name, now)))
            }
            Input::GiveSpace { network, to, share } => {
                self.within(*network, |a| a.give_space(self.me, *to, *share, now))
            }
            Input::GiveAddress { network, to, address } => {
                self.within(*network, |a| a.give_address(self.me, *to, *address))
            }
            Input::Holding { network, from, runs, borrowed } => {
                self.within(*network, |a| Step::done(a.hear_holding(self.me, *from, runs, borrowed)))
            }
            Input::Stated { network, from, statement } => {
                self.within(*network, |a| a.hear_statement(self.me, *from, statement, now))
            }
            Input::Taken { network, statement } => self.within(*network, |a| {
                Step::done(a.outbox.contains(statement).then_some(Change::Unpost(*network, *statement)))
            }),
        }
    }

    /// Makes changes that are durable.
    pub fn apply(&mut self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Open(network) => drop(self.accounts.insert(network.id, Account::new(network.clone()))),
                Change::Close(id) => drop(self.accounts.remove(id)),
                Change::Block(id, ..)
                | Change::Address(id, ..)
                | Change::Bind(id, ..)
                | Change::Unbind(id, ..)
                | Change::Rested(id, ..)
                | Change::Post(id, ..)
                | Change::Unpost(id, ..) => {
                    if let Some(account) = self.accounts.get_mut(id) {
                        account.apply(change);
                    }
                }
            }
        }
    }

    /// The host has booted: its clock starts again, and all addresses that rest do so from now. To be made durable with
    /// the mark of this boot, and applied.
    #[must_use = "a rest that is not written goes by the clock of an earlier boot"]
    pub fn rebooted(&self, now: Millis) -> Vec<Change> {
        let rests =
            self.accounts.iter().flat_map(|(id, a)| a.resting.iter().map(|(address, rest)| (*id, *address, rest)));
        rests.map(|(id, address, rest)| Change::Unbind(id, address, Rest { since: now, ..rest.clone() })).collect()
    }

    /// Endpoints of this host that are not in use came to nothing before anybody heard of them: their addresses rest, for
    /// no name. To be made durable, and applied.
    #[must_use = "the addresses are taken until this is written"]
    pub fn release_unused(&self, is_used: impl Fn(EndpointId) -> bool, now: Millis) -> Vec<Change> {
        let bound = self.accounts.iter().flat_map(|(id, a)| a.bound.iter().map(|(address, e)| (*id, *address, *e)));
        let unused = bound.filter(|(.., endpoint)| !is_used(*endpoint));
        unused.map(|(id, address, _)| Change::Unbind(id, address, Rest { name: None, since: now })).collect()
    }

    /// What this host says of its leases to the others.
    pub fn holding(
        &self,
    ) -> impl Iterator<Item = (NetworkId, Vec<Run>, BTreeMap<IpAddr, Version>, &BTreeSet<Statement>)> {
        self.accounts.iter().map(|(id, a)| (*id, a.runs(self.me), a.borrowed(self.me), &a.outbox))
    }

    fn create(&self, network: &Network) -> Step {
        if self.accounts.contains_key(&network.id) {
            return Step::done([]);
        }
        let mine = BlockLease { epoch: 1, holder: self.me };
        let blocks = network.blocks().map(|block| Change::Block(network.id, block, mine));
        Step::done(std::iter::once(Change::Open(network.clone())).chain(blocks))
    }

    fn within(&self, network: NetworkId, decide: impl FnOnce(&Account) -> Step) -> Step {
        match self.accounts.get(&network) {
            Some(account) => decide(account),
            None => Step::denied(Denial::UnknownNetwork),
        }
    }
}

impl Step {
    fn done(changes: impl IntoIterator<Item = Change>) -> Self {
        Self { changes: changes.into_iter().collect(), outcome: Outcome::Done }
    }

    fn denied(denial: Denial) -> Self {
        Self { changes: Vec::new(), outcome: Outcome::Denied(denial) }
    }

    fn ask(ask: Ask) -> Self {
        Self { changes: Vec::new(), outcome: Outcome::Ask(ask) }
    }
}

#[cfg(test)]
mod tests;
