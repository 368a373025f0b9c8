//! What is known of one network: the highest leases, and what this host does with its own.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::{Change, Millis, REST, Rest};
use crate::model::id::{EndpointId, HostId};
use crate::model::lease::{AddressLease, BlockLease, Holder, Version};
use crate::model::network::{BlockId, Network};
use crate::model::record::{Run, Statement};

/// How much of its space a holder gives away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// Half: what a creator gives to its first peer.
    Half,
    /// A quarter: what a newcomer gets.
    Quarter,
}

impl Share {
    pub(super) fn of(self, blocks: usize) -> usize {
        match self {
            Self::Half => blocks / 2,
            Self::Quarter => blocks.div_ceil(4),
        }
    }
}

/// What one host knows of one network's leases.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Account {
    /// The network.
    pub network: Network,
    /// The highest known lease of each block.
    pub blocks: BTreeMap<BlockId, BlockLease>,
    /// The highest known lease of each address that ever was delegated.
    pub addresses: BTreeMap<IpAddr, AddressLease>,
    /// Which endpoints of this host have which addresses.
    pub bound: BTreeMap<IpAddr, EndpointId>,
    /// Released addresses, and for whom they are kept.
    pub resting: BTreeMap<IpAddr, Rest>,
    /// Leases written for others that they have not confirmed.
    pub outbox: BTreeSet<Statement>,
}

impl Account {
    pub(super) fn new(network: Network) -> Self {
        Self {
            network,
            blocks: BTreeMap::new(),
            addresses: BTreeMap::new(),
            bound: BTreeMap::new(),
            resting: BTreeMap::new(),
            outbox: BTreeSet::new(),
        }
    }

    pub(super) fn apply(&mut self, change: &Change) {
        match change {
            Change::Block(_, block, lease) => drop(self.blocks.insert(*block, *lease)),
            Change::Address(_, address, lease) => drop(self.addresses.insert(*address, *lease)),
            Change::Bind(_, address, endpoint) => {
                self.resting.remove(address);
                self.bound.insert(*address, *endpoint);
            }
            Change::Unbind(_, address, rest) => {
                self.bound.remove(address);
                self.resting.insert(*address, rest.clone());
            }
            Change::Rested(_, address) => drop(self.resting.remove(address)),
            Change::Enqueue(_, statement) => drop(self.outbox.insert(*statement)),
            Change::Dequeue(_, statement) => drop(self.outbox.remove(statement)),
            // Of the ledger, and of its membership.
            Change::Open(_)
            | Change::Tombstone(_)
            | Change::Close(_)
            | Change::Revision(_)
            | Change::Activation(_)
            | Change::Founder(_)
            | Change::Boot(_)
            | Change::Member(_)
            | Change::Foreign(_)
            | Change::Dealt(..)
            | Change::Seal(..)
            | Change::Forget(..)
            | Change::Withdraw(_) => {}
        }
    }

    /// The highest known lease of the block that an address is in.
    pub fn block_lease(&self, address: IpAddr) -> Option<BlockLease> {
        self.blocks.get(&self.network.block_of(address)?).copied()
    }

    /// Is the address where its block is? A lease of an older epoch than the block's no longer counts.
    pub(super) fn at_home(&self, address: IpAddr, epoch: u64) -> bool {
        self.addresses.get(&address).is_none_or(|l| l.version.epoch < epoch || l.holder == Holder::Home)
    }

    /// The version of the lease under which `me` may use an address; `None` if it may not.
    pub fn may_use(&self, me: HostId, address: IpAddr) -> Option<Version> {
        if let Some(lease) = self.addresses.get(&address).filter(|l| l.holder == Holder::Host(me)) {
            return Some(lease.version);
        }
        let block = self.block_lease(address).filter(|l| l.holder == me && self.at_home(address, l.epoch))?;
        let count =
            self.addresses.get(&address).filter(|l| l.version.epoch == block.epoch).map_or(0, |l| l.version.count);
        Some(Version { epoch: block.epoch, count })
    }

    /// The blocks that a host holds, in order.
    pub fn held_by(&self, host: HostId) -> impl DoubleEndedIterator<Item = (BlockId, u64)> + '_ {
        self.blocks.iter().filter(move |(_, l)| l.holder == host).map(|(block, l)| (*block, l.epoch))
    }

    /// Those of one range.
    pub(super) fn held_in(&self, range: u8, host: HostId) -> impl DoubleEndedIterator<Item = (BlockId, u64)> + '_ {
        self.held_by(host).filter(move |(block, _)| block.range == range)
    }

    /// How many blocks of a range each host holds.
    pub fn holders(&self, range: u8) -> BTreeMap<HostId, usize> {
        let mut holders = BTreeMap::new();
        for (_, lease) in self.blocks.iter().filter(|(block, _)| block.range == range) {
            *holders.entry(lease.holder).or_insert(0) += 1;
        }
        holders
    }

    /// The blocks that a host holds, as runs of neighbours of one epoch.
    pub fn runs(&self, host: HostId) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        for (block, epoch) in self.held_by(host) {
            match runs.last_mut() {
                Some(run) if run.epoch == epoch && run.is_followed_by(block) => run.len += 1,
                _ => runs.push(Run { start: block, len: 1, epoch }),
            }
        }
        runs
    }

    /// The addresses that a host has borrowed.
    pub fn borrowed(&self, host: HostId) -> BTreeMap<IpAddr, Version> {
        let borrowed = self.addresses.iter().filter(|(_, l)| l.holder == Holder::Host(host));
        borrowed.map(|(address, l)| (*address, l.version)).collect()
    }

    /// Has nothing in the block been given to anybody, here or elsewhere, and does nothing rest in it?
    pub(super) fn is_wholly_free(&self, block: BlockId, epoch: u64, now: Millis) -> bool {
        let Some(subnet) = self.network.block_subnet(block) else { return false };
        let ends = subnet.network()..=subnet.last();
        self.bound.range(ends.clone()).next().is_none()
            && self.addresses.range(ends.clone()).all(|(a, _)| self.at_home(*a, epoch))
            && self.resting.range(ends).all(|(_, rest)| rest.is_over(now))
    }

    /// Everything that rests does so from now, by the clock of a new boot.
    pub(super) fn rest_from(&self, now: Millis) -> impl Iterator<Item = Change> + '_ {
        let again = move |(address, rest): (&IpAddr, &Rest)| {
            Change::Unbind(self.network.id, *address, Rest { since: now, ..rest.clone() })
        };
        self.resting.iter().map(again)
    }

    pub(super) fn resting_in(&self, block: BlockId) -> impl Iterator<Item = IpAddr> + '_ {
        let subnet = self.network.block_subnet(block);
        subnet.into_iter().flat_map(|s| self.resting.range(s.network()..=s.last()).map(|(address, _)| *address))
    }

    /// What rests in a range.
    pub(super) fn resting_of(&self, range: u8) -> impl Iterator<Item = (&IpAddr, &Rest)> {
        let subnet = self.network.ranges.get(usize::from(range)).map(|range| range.subnet);
        subnet.into_iter().flat_map(|s| self.resting.range(s.network()..=s.last()))
    }

    /// The addresses of a held block that an endpoint could have right away that asks for none by number.
    pub fn free_in(&self, block: BlockId, epoch: u64) -> impl Iterator<Item = IpAddr> + '_ {
        self.network.offered_in(block).filter(move |a| self.is_free_at(*a, epoch))
    }

    /// How many there are.
    pub fn count_free_in(&self, block: BlockId, epoch: u64) -> u128 {
        let Some(subnet) = self.network.offered_subnet(block) else { return 0 };
        let all = subnet.network()..=subnet.last();
        let given = self.bound.range(all.clone()).map(|(a, _)| *a).chain(self.addresses.range(all).map(|(a, _)| *a));
        let given: BTreeSet<IpAddr> =
            given.filter(|a| self.network.assignable(*a) && !self.is_free_at(*a, epoch)).collect();
        self.network.count_assignable_in(&subnet).saturating_sub(u128::try_from(given.len()).unwrap_or(u128::MAX))
    }

    /// Is it such an address, in a block that `me` holds?
    pub(super) fn is_free(&self, me: HostId, address: IpAddr) -> bool {
        let block = self.block_lease(address).filter(|block| block.holder == me);
        block.is_some_and(|block| self.network.is_offered(address) && self.is_free_at(address, block.epoch))
    }

    fn is_free_at(&self, address: IpAddr, epoch: u64) -> bool {
        !self.bound.contains_key(&address) && self.at_home(address, epoch)
    }
}

impl Rest {
    /// May another endpoint have the address now, without asking for it by number?
    pub fn is_over(&self, now: Millis) -> bool {
        now.saturating_sub(self.since) >= REST
    }
}
