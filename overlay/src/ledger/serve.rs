//! What other hosts ask of this one. A lease is written here before it is told, and told until it has arrived.

use std::net::IpAddr;

use super::{Account, Change, Denial, LedgerStep, Millis, Outcome, Share};
use crate::model::id::HostId;
use crate::model::lease::{AddressLease, BlockLease, Holder, Version};
use crate::model::network::BlockId;
use crate::model::record::Statement;

impl Account {
    /// Gives wholly free blocks away, the last ones first so that runs stay long; where there is none, one address.
    pub(super) fn give_space(&self, me: HostId, (to, range): (HostId, u8), share: Share, now: Millis) -> LedgerStep {
        if to == me {
            return LedgerStep { changes: Vec::new(), outcome: Outcome::Given(Vec::new()) };
        }
        let waiting: Vec<Statement> = self.outbox.iter().filter(|s| s.gives_block_to(to, range)).copied().collect();
        if !waiting.is_empty() {
            // The answer to an earlier request was lost: the same again.
            return LedgerStep { changes: Vec::new(), outcome: Outcome::Given(waiting) };
        }
        // Of both what can be had by anybody and what has to be asked for by number.
        let (offered, others): (Vec<_>, Vec<_>) = self
            .held_in(range, me)
            .rev()
            .filter(|(block, epoch)| self.is_wholly_free(*block, *epoch, now))
            .partition(|(block, _)| self.network.offers(*block));
        if offered.is_empty() {
            return self.give_any_address(me, (to, range), now);
        }
        let part = |blocks: Vec<(BlockId, u64)>| {
            let count = share.of(blocks.len());
            blocks.into_iter().take(count)
        };
        let (mut changes, mut given) = (Vec::new(), Vec::new());
        for (block, epoch) in part(offered).chain(part(others)) {
            let epoch = epoch + 1;
            let statement = Statement::Transfer { block, epoch, to };
            changes.push(Change::Block(self.network.id, block, BlockLease { epoch, holder: to }));
            changes.push(Change::Enqueue(self.network.id, statement));
            changes.extend(self.resting_in(block).map(|address| Change::Rested(self.network.id, address)));
            given.push(statement);
        }
        LedgerStep { changes, outcome: Outcome::Given(given) }
    }

    fn give_any_address(&self, me: HostId, (to, range): (HostId, u8), now: Millis) -> LedgerStep {
        let free = self.held_in(range, me).flat_map(|(block, epoch)| self.free_in(block, epoch));
        let mut rested = free.filter(|a| self.resting.get(a).is_none_or(|r| r.is_over(now)));
        match rested.next().or_else(|| self.longest_resting(me, range)) {
            Some(address) => self.give_address(me, to, address),
            None => LedgerStep::denied(Denial::Full { holders: self.holders(range) }),
        }
    }

    /// Delegates one address out of a block of this host.
    pub(super) fn give_address(&self, me: HostId, to: HostId, address: IpAddr) -> LedgerStep {
        if !self.network.assignable(address) {
            return LedgerStep::denied(Denial::NotAssignable(address));
        }
        if to == me {
            return LedgerStep { changes: Vec::new(), outcome: Outcome::Given(Vec::new()) };
        }
        let block = match self.block_lease(address) {
            Some(block) if block.holder == me => block,
            other => return LedgerStep::denied(Denial::NotHolder { holder: other.map(|l| l.holder) }),
        };
        let known = self.addresses.get(&address).filter(|l| l.version.epoch == block.epoch);
        if let Some(AddressLease { version, holder: Holder::Host(borrower) }) = known {
            return if *borrower == to {
                let again = Statement::Delegate { address, version: *version, to };
                LedgerStep { changes: Vec::new(), outcome: Outcome::Given(vec![again]) }
            } else {
                LedgerStep::denied(Denial::Delegated { address, to: *borrower })
            };
        }
        if let Some(endpoint) = self.bound.get(&address) {
            return LedgerStep::denied(Denial::Bound { address, endpoint: *endpoint });
        }
        let version = Version { epoch: block.epoch, count: known.map_or(0, |l| l.version.count) + 1 };
        let statement = Statement::Delegate { address, version, to };
        let id = self.network.id;
        let changes = vec![
            Change::Address(id, address, AddressLease { version, holder: Holder::Host(to) }),
            Change::Enqueue(id, statement),
        ];
        LedgerStep { changes, outcome: Outcome::Given(vec![statement]) }
    }
}

impl Statement {
    fn gives_block_to(&self, host: HostId, range: u8) -> bool {
        matches!(self, Self::Transfer { to, block, .. } if *to == host && block.range == range)
    }
}
