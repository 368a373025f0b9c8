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
//! hosts ask of it; `hear` is what they say. `membership` is what is known of the hosts: `join`, `check` (after a boot)
//! and `forget` are how it changes, `rules` says who may do what meanwhile, and `wants` what to ask of whom.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::model::id::{EndpointId, HostId, NetworkId};
use crate::model::lease::{BlockLease, Version};
use crate::model::member::Stamp;
use crate::model::network::{Driver, Network};
use crate::model::record::{Run, Statement};

mod account;
mod allocate;
mod change;
mod check;
mod forget;
mod hear;
mod input;
mod join;
mod membership;
mod outcome;
mod question;
mod rules;
mod serve;
mod wants;

pub use account::{Account, Share};
pub use allocate::AddressRequest;
pub use change::{Change, Rest};
pub use input::{Claim, Input, Known, LedgerSnapshot, SealRequest};
pub use membership::{Activation, Evidence, Fencing, Forget, MemberList, Membership};
pub use outcome::{Ask, Denial, LedgerStep, Outcome};
pub use question::{Answer, Asker, NoAnswer, Question};
use rules::SafetyRule;
pub use wants::Want;

/// Milliseconds since the host booted, sleep included (`CLOCK_BOOTTIME`): no decision reads a wall clock.
pub type Millis = u64;

/// How long a released address rests before another endpoint gets it without asking for it by name: stale entries and
/// answers elsewhere have gone by then.
pub const REST: Millis = 60_000;

/// The ledger of one host. A clone is cheap: its parts are shared until one of the clones changes them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Ledger {
    me: HostId,
    /// How often it has changed, boot checks aside.
    revision: u64,
    membership: Arc<Membership>,
    accounts: Arc<BTreeMap<NetworkId, Arc<Account>>>,
    tombstones: Arc<BTreeSet<NetworkId>>,
    #[cfg(test)]
    without: Option<SafetyRule>,
}

impl Ledger {
    /// The ledger of a host that belongs to no cluster yet.
    pub fn new(me: HostId) -> Self {
        Self {
            me,
            revision: 0,
            membership: Arc::new(Membership::new()),
            accounts: Arc::default(),
            tombstones: Arc::default(),
            #[cfg(test)]
            without: None,
        }
    }

    /// Whose ledger it is.
    pub fn me(&self) -> HostId {
        self.me
    }

    /// What is known of the networks.
    pub fn accounts(&self) -> &BTreeMap<NetworkId, Arc<Account>> {
        &self.accounts
    }

    /// The networks that are deleted.
    pub fn tombstones(&self) -> &BTreeSet<NetworkId> {
        &self.tombstones
    }

    /// Who belongs to the cluster, and whether this host may act.
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// The same, shared: it is another one as soon as anything of it has changed.
    pub fn shared_membership(&self) -> &Arc<Membership> {
        &self.membership
    }

    /// How far this host has come: goes with whatever it says.
    pub fn stamp(&self) -> Stamp {
        Stamp { boot: self.membership.boot, revision: self.revision }
    }

    /// May this host act?
    pub fn is_established(&self) -> bool {
        self.membership.activation == Activation::Established
    }

    /// Decides; changes nothing.
    pub fn step(&self, input: &Input, now: Millis) -> LedgerStep {
        let mut step = match self.denies(input) {
            Some(denial) => LedgerStep::denied(denial),
            None => self.decide(input, now),
        };
        if !step.changes.is_empty() && self.counts_revision(input) {
            step.changes.push(Change::Revision(self.revision + 1));
        }
        step
    }

    /// Not what a host writes because it has booted and until it is checked: by that an old disk would come up to the
    /// revision that the others have seen.
    fn counts_revision(&self, input: &Input) -> bool {
        !matches!(input, Input::Booted { .. }) && !matches!(self.membership.activation, Activation::Unchecked { .. })
    }

    fn decide(&self, input: &Input, now: Millis) -> LedgerStep {
        match input {
            Input::Create(network) => self.create(network),
            Input::Learn(network) => self.learn(network),
            Input::Close(id) => self.close(*id),
            Input::Tick { clear } => self.tick(clear, now),
            Input::Allocate(request) => self.in_open(request.network, |a| a.allocate(self.me, request, now)),
            Input::Release { network, endpoint, name } => self.release(*network, *endpoint, name, now),
            Input::GiveSpace { network, range, to, share } => {
                self.in_open(*network, |a| a.give_space(self.me, (*to, *range), *share, now))
            }
            Input::GiveAddress { network, to, address } => {
                self.in_open(*network, |a| a.give_address(self.me, *to, *address))
            }
            Input::Holding { network, from, stamp, runs, borrowed } => {
                let step = self.in_open(*network, |a| LedgerStep::done(a.hear_holding(self.me, *from, runs, borrowed)));
                self.noting(*from, *stamp, step)
            }
            Input::Stated { network, from, stamp, statement } => {
                let newest_only = self.keeps(SafetyRule::HighestLease);
                let step = self.in_open(*network, |a| a.hear_statement(self.me, *from, statement, newest_only, now));
                self.noting(*from, *stamp, step)
            }
            Input::Taken { network, statement } => self.within(*network, |a| {
                LedgerStep::done(a.outbox.contains(statement).then_some(Change::Dequeue(*network, *statement)))
            }),
            Input::Found => self.found(),
            Input::Seek => self.seek(),
            Input::Acknowledge { from, stamp, .. } => self.acknowledge(*from, *stamp),
            Input::Acknowledged { by, member_list } => self.acknowledged(*by, member_list),
            Input::Booted { nonce } => self.booted(*nonce, now),
            Input::Admit { from, stamp, claims, elsewhere, .. } => self.admit((*from, *stamp), claims, *elsewhere),
            Input::Admitted { by, member_list } => self.admitted(*by, member_list),
            Input::Duplicate { boot } => self.duplicate(*boot),
            Input::Conclude { reachable } => self.conclude(reachable.as_ref()),
            Input::Trust => self.trust(),
            Input::Refused { by, denial } => self.refused(*by, denial),
            Input::Forget { hosts, force } => self.forget(hosts, *force),
            Input::Seal { from, host, seal_request } => self.seal(*from, *host, seal_request),
            Input::Sealed { by, host, ledger_snapshot } => self.sealed(*by, *host, ledger_snapshot, now),
            Input::Belongs { from, founder, seals } => self.hear_of(*from, *founder, seals),
        }
    }

    /// Makes changes that are durable.
    pub fn apply(&mut self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Open(network) => {
                    let account = Arc::new(Account::new(network.clone()));
                    Arc::make_mut(&mut self.accounts).insert(network.id, account);
                }
                Change::Close(id) => drop(Arc::make_mut(&mut self.accounts).remove(id)),
                Change::Tombstone(id) => drop(Arc::make_mut(&mut self.tombstones).insert(*id)),
                Change::Revision(revision) => self.revision = *revision,
                Change::Activation(Activation::Fenced(_)) => {
                    Arc::make_mut(&mut self.membership).apply(change);
                    self.accounts = Arc::default();
                }
                Change::Block(id, ..)
                | Change::Address(id, ..)
                | Change::Bind(id, ..)
                | Change::Unbind(id, ..)
                | Change::Rested(id, ..)
                | Change::Enqueue(id, ..)
                | Change::Dequeue(id, ..) => {
                    if let Some(account) = Arc::make_mut(&mut self.accounts).get_mut(id) {
                        Arc::make_mut(account).apply(change);
                    }
                }
                Change::Activation(_)
                | Change::Founder(_)
                | Change::Boot(_)
                | Change::Member(_)
                | Change::Foreign(_)
                | Change::Dealt(..)
                | Change::Seal(..)
                | Change::Forget(..)
                | Change::Withdraw(_) => Arc::make_mut(&mut self.membership).apply(change),
            }
        }
    }

    /// The ledger after these changes.
    fn with(&self, changes: &[Change]) -> Self {
        let mut after = self.clone();
        after.apply(changes);
        after
    }

    /// Endpoints of this host that are not in use came to nothing before anybody heard of them: their addresses rest, for
    /// no name. To be made durable, and applied.
    #[must_use = "the addresses are taken until this is written"]
    pub fn release_unused(&self, is_used: impl Fn(EndpointId) -> bool, now: Millis) -> Vec<Change> {
        let bound = self.accounts.iter().flat_map(|(id, a)| a.bound.iter().map(|(address, e)| (*id, *address, *e)));
        let unused = bound.filter(|(.., endpoint)| !is_used(*endpoint));
        unused.map(|(id, address, _)| Change::Unbind(id, address, Rest { name: None, since: now })).collect()
    }

    /// What this host says of its leases to the others: nothing while it may not act.
    pub fn holding(
        &self,
    ) -> impl Iterator<Item = (NetworkId, Vec<Run>, BTreeMap<IpAddr, Version>, &BTreeSet<Statement>)> {
        let accounts = self.accounts.iter().filter(|_| self.is_established());
        accounts.map(|(id, a)| (*id, a.runs(self.me), a.borrowed(self.me), &a.outbox))
    }

    /// What this host thinks it holds, to be confirmed by members when it has booted.
    pub fn claims(&self) -> BTreeMap<NetworkId, Claim> {
        let claim = |a: &Account| Claim { runs: a.runs(self.me), borrowed: a.borrowed(self.me) };
        let shared = self.accounts.iter().filter(|(_, account)| account.network.settings.driver == Driver::Vxlan);
        shared.map(|(id, account)| (*id, claim(account))).collect()
    }

    fn create(&self, network: &Network) -> LedgerStep {
        if self.accounts.contains_key(&network.id) || self.tombstones.contains(&network.id) {
            return LedgerStep::done([]);
        }
        let mine = BlockLease { epoch: 1, holder: self.me };
        let blocks = network.blocks().map(|block| Change::Block(network.id, block, mine));
        LedgerStep::done(std::iter::once(Change::Open(network.clone())).chain(blocks))
    }

    /// Not of a network that is known to be deleted: with its account went which old leases to refuse.
    fn learn(&self, network: &Network) -> LedgerStep {
        let known = self.accounts.contains_key(&network.id) || self.tombstones.contains(&network.id);
        LedgerStep::done((!known).then(|| Change::Open(network.clone())))
    }

    fn close(&self, id: NetworkId) -> LedgerStep {
        let tombstone = (!self.tombstones.contains(&id)).then_some(Change::Tombstone(id));
        let account = self.accounts.get(&id);
        // What is in it here stays; of its leases nobody wants to know any more.
        let owed = account.into_iter().flat_map(|a| a.outbox.iter().map(|s| Change::Dequeue(id, *s)));
        let unused = account.is_some_and(|account| account.bound.is_empty());
        LedgerStep::done(tombstone.into_iter().chain(owed).chain(unused.then_some(Change::Close(id))))
    }

    /// With the last endpoint that was in it, a deleted network is forgotten.
    fn release(
        &self,
        id: NetworkId,
        endpoint: EndpointId,
        name: &crate::model::network::Name,
        now: Millis,
    ) -> LedgerStep {
        self.within(id, |account| {
            let mut changes = account.release(endpoint, name, now);
            let drained = self.tombstones.contains(&id) && account.bound.values().all(|e| *e == endpoint);
            changes.extend(drained.then_some(Change::Close(id)));
            LedgerStep::done(changes)
        })
    }

    fn tick(&self, clear: &BTreeSet<NetworkId>, now: Millis) -> LedgerStep {
        let gone = |host: &HostId| self.membership.is_forgotten(*host) || self.membership.foreign.contains(host);
        let home = self.open().filter(|a| clear.contains(&a.network.id)).flat_map(|a| a.tick(self.me, now));
        let some = !self.membership.foreign.is_empty() || self.membership.seals.values().any(|seal| seal.done);
        let back = self.open().filter(|_| some).flat_map(|a| a.take_back_from(self.me, gone, now));
        let changes: Vec<Change> = home.chain(back).collect();
        // Whom this host waited for to forget another may be forgotten itself meanwhile.
        LedgerStep::done(if changes.is_empty() { self.inherit() } else { changes })
    }

    /// The accounts of networks that are not deleted.
    fn open(&self) -> impl Iterator<Item = &Account> {
        self.accounts.iter().filter(|(id, _)| !self.tombstones.contains(id)).map(|(_, account)| &**account)
    }

    /// Of a deleted network nobody gets anything any more.
    fn in_open(&self, network: NetworkId, decide: impl FnOnce(&Account) -> LedgerStep) -> LedgerStep {
        if self.tombstones.contains(&network) {
            LedgerStep::denied(Denial::Deleted)
        } else {
            self.within(network, decide)
        }
    }

    fn within(&self, network: NetworkId, decide: impl FnOnce(&Account) -> LedgerStep) -> LedgerStep {
        match self.accounts.get(&network) {
            Some(account) => decide(account),
            None => LedgerStep::denied(Denial::UnknownNetwork),
        }
    }

    /// What is taken from another host is remembered with how far that host had come.
    fn noting(&self, from: HostId, stamp: Stamp, mut step: LedgerStep) -> LedgerStep {
        if !step.changes.is_empty() {
            step.changes.extend(self.membership.note(from, stamp));
        }
        step
    }
}

#[cfg(test)]
mod tests;
