//! What other hosts say. A lease is believed from its writer to the host that it names, or from its holder; what is
//! said of third parties is hearsay and counts for nothing.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::{Account, Change, Denial, LedgerStep, Millis, Rest};
use crate::model::id::HostId;
use crate::model::lease::{AddressLease, BlockLease, Holder, Version};
use crate::model::network::BlockId;
use crate::model::record::{Run, Statement};

impl Account {
    /// A holder says what it holds.
    pub(super) fn hear_holding(
        &self,
        me: HostId,
        from: HostId,
        runs: &[Run],
        borrowed: &BTreeMap<IpAddr, Version>,
    ) -> Vec<Change> {
        if from == me {
            return Vec::new();
        }
        let mut held: BTreeMap<BlockId, u64> = BTreeMap::new();
        for (block, epoch) in runs.iter().flat_map(Run::blocks).filter(|(b, _)| self.network.block_subnet(*b).is_some())
        {
            let highest = held.entry(block).or_default();
            *highest = epoch.max(*highest);
        }
        let newer = held.iter().filter(|(block, epoch)| **epoch > self.epoch(**block));
        let mut changes: Vec<Change> = newer
            .map(|(block, epoch)| Change::Block(self.network.id, *block, BlockLease { epoch: *epoch, holder: from }))
            .collect();
        let confirmed = |s: &&Statement| match s {
            // Whoever holds it under this epoch or a later one: the host that it went to may have passed it on.
            Statement::Transfer { block, epoch, .. } => held.get(block).is_some_and(|e| e >= epoch),
            Statement::Delegate { address, version, to } => {
                *to == from && borrowed.get(address).is_some_and(|v| v >= version)
            }
            // A block moves on only when all of it is at home, so the return arrived.
            Statement::Return { address, version } => {
                self.network.block_of(*address).and_then(|b| held.get(&b)).is_some_and(|e| *e > version.epoch)
            }
        };
        changes.extend(self.outbox.iter().filter(confirmed).map(|s| Change::Dequeue(self.network.id, *s)));
        changes
    }

    /// A writer says what it wrote.
    pub(super) fn hear_statement(
        &self,
        me: HostId,
        from: HostId,
        statement: &Statement,
        newest_only: bool,
        now: Millis,
    ) -> LedgerStep {
        if from != me && !(newest_only && self.has(statement)) {
            return match *statement {
                Statement::Transfer { block, epoch, to } if to == me => self.take_block(me, block, epoch),
                Statement::Delegate { address, version, to } if to == me => self.borrow(me, address, version, now),
                Statement::Return { address, version } => self.take_back(me, from, address, version),
                Statement::Transfer { .. } | Statement::Delegate { .. } => self.not_for_me(statement),
            };
        }
        LedgerStep::done([])
    }

    /// Is this lease, or a later one, known here?
    fn has(&self, statement: &Statement) -> bool {
        match statement {
            Statement::Transfer { block, epoch, .. } => self.epoch(*block) >= *epoch,
            Statement::Delegate { address, version, .. } | Statement::Return { address, version } => {
                self.addresses.get(address).is_some_and(|l| l.version >= *version)
                    || self.block_lease(*address).is_some_and(|l| l.epoch > version.epoch)
            }
        }
    }

    fn take_block(&self, me: HostId, block: BlockId, epoch: u64) -> LedgerStep {
        if self.network.block_subnet(block).is_none() {
            return LedgerStep::denied(Denial::NotHolder { holder: None });
        }
        // It was this host's before, and came back: the transfer by which it went has surely arrived.
        let arrived =
            |s: &&Statement| matches!(s, Statement::Transfer { block: b, epoch: e, .. } if *b == block && *e < epoch);
        let dequeued = self.outbox.iter().filter(arrived).map(|s| Change::Dequeue(self.network.id, *s));
        let lease = Change::Block(self.network.id, block, BlockLease { epoch, holder: me });
        LedgerStep::done(std::iter::once(lease).chain(dequeued))
    }

    /// The endpoint that needs the address takes it soon; if none does, it goes home like a released one.
    fn borrow(&self, me: HostId, address: IpAddr, version: Version, now: Millis) -> LedgerStep {
        if !self.network.assignable(address) {
            return LedgerStep::denied(Denial::NotAssignable(address));
        }
        let lease = AddressLease { version, holder: Holder::Host(me) };
        // An heir confirms what its endpoint may have already.
        let idle = !self.bound.contains_key(&address) && !self.resting.contains_key(&address);
        let rest = idle.then_some(Change::Unbind(self.network.id, address, Rest { name: None, since: now }));
        LedgerStep::done(std::iter::once(Change::Address(self.network.id, address, lease)).chain(rest))
    }

    /// Only the borrower writes what follows on its lease, and only the holder of the block is told by it.
    fn take_back(&self, me: HostId, from: HostId, address: IpAddr, version: Version) -> LedgerStep {
        let id = self.network.id;
        let lent = self
            .addresses
            .get(&address)
            .is_some_and(|l| l.holder == Holder::Host(from) && l.version.epoch == version.epoch);
        if !lent || self.block_lease(address).is_none_or(|l| l.holder != me) {
            return self.not_for_me(&Statement::Return { address, version });
        }
        // The delegation that is answered by this has surely arrived.
        let answered = |s: &&Statement| matches!(s, Statement::Delegate { address: a, .. } if *a == address);
        let dequeued = self.outbox.iter().filter(answered).map(|s| Change::Dequeue(id, *s));
        let lease = AddressLease { version, holder: Holder::Home };
        LedgerStep::done(std::iter::once(Change::Address(id, address, lease)).chain(dequeued))
    }

    fn not_for_me(&self, statement: &Statement) -> LedgerStep {
        let lease = match statement {
            Statement::Transfer { block, .. } => self.blocks.get(block).copied(),
            Statement::Delegate { address, .. } | Statement::Return { address, .. } => self.block_lease(*address),
        };
        LedgerStep::denied(Denial::NotHolder { holder: lease.map(|l| l.holder) })
    }

    fn epoch(&self, block: BlockId) -> u64 {
        self.blocks.get(&block).map_or(0, |l| l.epoch)
    }
}
