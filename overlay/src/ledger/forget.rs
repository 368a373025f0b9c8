//! Forgetting a host that is off for good. Every other member seals it, so that it is never let in again and nothing
//! that it said is taken from then on; what each of them knew is put together by one of them, the heir; and when all
//! have sealed, the heir takes what is left, under the next epoch.
//!
//! Hosts that are off at the same time are forgotten together, by one statement of the operator: they need no seals of
//! each other, and none is done before all are, else the one could come back and use what it had got from the other. Two
//! statements would not do: between them the first host may have come back, and have let the second one in.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::{
    Account, Activation, Change, Denial, Evidence, Fencing, Forget, Known, Ledger, LedgerSnapshot, LedgerStep,
    Membership, Millis, Outcome, Rest, SafetyRule, SealRequest,
};
use crate::model::id::HostId;
use crate::model::lease::{AddressLease, BlockLease, Holder, Version};
use crate::model::member::{Boot, Seal, Stamp};
use crate::model::network::BlockId;
use crate::model::record::Statement;

impl Ledger {
    /// The operator says that these hosts, of these boots, are off, all at the same time, and makes this host their heir.
    pub(super) fn forget(&self, hosts: &BTreeMap<HostId, Boot>, force: bool) -> LedgerStep {
        let mine = &self.membership;
        let hosts: BTreeMap<HostId, Boot> =
            hosts.iter().filter(|(host, _)| !mine.is_forgotten(**host)).map(|(host, boot)| (*host, *boot)).collect();
        if hosts.is_empty() {
            return LedgerStep::done([]);
        }
        if let Some(denial) = self.bars_forgetting(&hosts, force) {
            return LedgerStep::denied(denial);
        }
        let before: BTreeSet<HostId> = mine.members.iter().copied().filter(|host| mine.is_forgotten(*host)).collect();
        let mut changes = Vec::new();
        for (host, boot) in hosts {
            let known = mine.forgets.get(&host);
            let forget = Forget {
                boot,
                sealed_by: known.map_or(BTreeSet::new(), |forget| forget.sealed_by.clone()),
                before: before.clone(),
                force: force || known.is_some_and(|forget| forget.force),
            };
            changes.extend([Change::Seal(host, Seal { heir: self.me, done: false }), Change::Forget(host, forget)]);
            changes.extend(mine.note(host, Stamp { boot, revision: 0 }));
        }
        changes.extend(self.with(&changes).inherit());
        LedgerStep::done(changes)
    }

    /// Why what the operator says of these hosts, all that are not forgotten yet, is not enough.
    fn bars_forgetting(&self, hosts: &BTreeMap<HostId, Boot>, force: bool) -> Option<Denial> {
        let mine = &self.membership;
        for (&host, boot) in hosts {
            // One of another cluster was taken for a member once, and may have been given something.
            let matters = || self.holds_something(host) || mine.forgets.contains_key(&host);
            let is_known = mine.members.contains(&host) || mine.foreign.contains(&host) && matters();
            if host == self.me || !is_known {
                return Some(Denial::Stranger { host });
            }
            let dealt = mine.boot_of(host);
            if self.keeps(SafetyRule::NoSealIfBack) && dealt.supersedes(*boot) {
                return Some(Denial::Readmitted { host, boot: dealt });
            }
            // One with a higher id gives way when it is asked to seal.
            let rival =
                |seal: &&Seal| seal.heir < self.me && !hosts.contains_key(&seal.heir) && !mine.is_forgotten(seal.heir);
            if let Some(seal) = mine.seals.get(&host).filter(rival) {
                return Some(Denial::Rival { host, seal: *seal });
            }
        }
        // Whoever is left out of the new statement may have come back since the last, and have let another in.
        let unnamed: BTreeSet<HostId> = mine.forgets.keys().copied().filter(|host| !hosts.contains_key(host)).collect();
        if !unnamed.is_empty() && self.keeps(SafetyRule::OffTogether) {
            return Some(Denial::Unnamed { hosts: unnamed });
        }
        // A host that a majority let join has to be known to one that is left.
        let of = mine.others().count() + 1;
        (2 * hosts.len() > of && !force).then_some(Denial::TooMany)
    }

    fn holds_something(&self, host: HostId) -> bool {
        self.open().any(|account| account.held_by(host).next().is_some() || !account.borrowed(host).is_empty())
    }

    /// An heir wants this host to seal another.
    pub(super) fn seal(&self, from: HostId, host: HostId, seal_request: &SealRequest) -> LedgerStep {
        let (mine, dealt) = (&self.membership, self.membership.boot_of(host));
        if host == self.me {
            return LedgerStep::denied(Denial::Readmitted { host, boot: mine.boot });
        }
        // Two boots of one generation are those of a disk and of a copy of it, of which neither is newer.
        if self.keeps(SafetyRule::NoSealIfBack) && dealt.supersedes(seal_request.boot) {
            return LedgerStep::denied(Denial::Readmitted { host, boot: dealt });
        }
        if let Some(&seal) = mine.seals.get(&host).filter(|seal| seal.heir != from) {
            // Of two heirs the lower one goes on. Of a third it has to be known that it gave way, or is off.
            let gives_way = match seal.heir {
                // Of an heir that has withdrawn only the seal is left.
                heir if heir == self.me => from < self.me || !mine.forgets.contains_key(&host),
                heir => seal_request.yielded.contains(&heir),
            };
            if seal.done || !gives_way {
                return LedgerStep::denied(Denial::Rival { host, seal });
            }
        }
        let seal = Seal { heir: from, done: mine.is_forgotten(host) };
        let mut changes = if mine.seals.get(&host) == Some(&seal) { Vec::new() } else { mine.seal(host, seal) };
        changes.extend(mine.add(from));
        // Who belongs to no cluster yet can't join another any more: there it would go on dealing with the one, or not with a
        // member.
        changes.extend(seal_request.founder.filter(|_| mine.founder.is_none()).map(Change::Founder));
        let ledger_snapshot = self.with(&changes).ledger_snapshot();
        LedgerStep { changes, outcome: Outcome::Sealed(ledger_snapshot) }
    }

    /// A member has sealed the host, and this is all that it knows.
    pub(super) fn sealed(&self, by: HostId, host: HostId, ledger_snapshot: &LedgerSnapshot, now: Millis) -> LedgerStep {
        let Some(forget) = self.membership.forgets.get(&host) else { return LedgerStep::done([]) };
        let mut forget = forget.clone();
        forget.sealed_by.insert(by);
        let mut changes: Vec<Change> = self.membership.note(by, ledger_snapshot.stamp).into_iter().collect();
        if self.keeps(SafetyRule::AskAllThatAreKnown) {
            changes.extend(self.membership.heed(self.me, &ledger_snapshot.member_list));
        }
        changes.extend(self.believe(ledger_snapshot, now));
        changes.push(Change::Forget(host, forget));
        changes.extend(self.with(&changes).inherit());
        LedgerStep::done(changes)
    }

    /// What to say to those that are to seal a host.
    pub fn seal_request(&self, host: HostId) -> Option<SealRequest> {
        let forget = self.membership.forgets.get(&host)?;
        let off = self.membership.forgets.keys().chain(&forget.before);
        let yielded = forget.sealed_by.iter().chain(off).copied().collect();
        Some(SealRequest { founder: self.membership.founder, boot: forget.boot, yielded })
    }

    /// Whom an heir waits for.
    pub fn missing(&self, host: HostId) -> BTreeSet<HostId> {
        let Some(forget) = self.membership.forgets.get(&host) else { return BTreeSet::new() };
        self.needed(forget).filter(|member| !forget.sealed_by.contains(member)).collect()
    }

    /// All members but those that the operator knew to be off when he said so of this one: as they were not let in
    /// themselves since, they have let nobody in.
    fn needed(&self, forget: &Forget) -> impl Iterator<Item = HostId> {
        let off = |host: &HostId| self.membership.forgets.contains_key(host) || forget.before.contains(host);
        self.membership.members.iter().copied().filter(move |host| !off(host))
    }

    fn is_agreed(&self, forget: &Forget) -> bool {
        let needed = self.needed(forget).count();
        let sealed = self.needed(forget).filter(|host| forget.sealed_by.contains(host)).count();
        sealed == needed || forget.force && 2 * (sealed + 1) > needed + 1 || !self.keeps(SafetyRule::ForgetByAll)
    }

    /// If all that it takes have sealed all that this host is to forget: takes what they held.
    pub(super) fn inherit(&self) -> Vec<Change> {
        let forgets = &self.membership.forgets;
        if forgets.is_empty() || !forgets.values().all(|forget| self.is_agreed(forget)) {
            return Vec::new();
        }
        let done = Seal { heir: self.me, done: true };
        let mut changes: Vec<Change> =
            forgets.keys().flat_map(|host| [Change::Seal(*host, done), Change::Withdraw(*host)]).collect();
        let after = self.membership.with(&changes);
        let earlier = self.keeps(SafetyRule::ConfirmEarlier);
        changes.extend(self.open().flat_map(|account| account.inherit(self.me, &after, earlier)));
        if forgets.keys().all(|host| self.missing(*host).is_empty()) {
            changes.extend(self.open().flat_map(|account| account.take_unknown(self.me, &after)));
        }
        changes
    }

    /// All that is known here.
    fn ledger_snapshot(&self) -> LedgerSnapshot {
        let networks = self.accounts.iter().map(|(id, account)| {
            let (network, blocks) = (account.network.clone(), account.blocks.clone());
            (*id, Known { network, blocks, addresses: account.addresses.clone() })
        });
        LedgerSnapshot {
            member_list: self.membership.member_list(self.me),
            stamp: self.stamp(),
            networks: networks.collect(),
        }
    }

    /// What a member that sealed says is believed of everything: the sealed host can't add to it any more.
    fn believe(&self, ledger_snapshot: &LedgerSnapshot, now: Millis) -> Vec<Change> {
        let mut changes = Vec::new();
        for (id, Known { network, blocks, addresses }) in &ledger_snapshot.networks {
            if self.tombstones.contains(id) {
                continue;
            }
            let unknown = Account::new(network.clone());
            if !self.accounts.contains_key(id) {
                changes.push(Change::Open(network.clone()));
            }
            let account = self.accounts.get(id).map_or(&unknown, |account| &**account);
            changes.extend(account.believe(self.me, blocks, addresses, now));
        }
        changes
    }

    /// A host publishes to which cluster it belongs, and whom it has forgotten.
    pub(super) fn hear_of(&self, from: HostId, founder: Option<HostId>, seals: &BTreeMap<HostId, Seal>) -> LedgerStep {
        if self.apart_from(from, founder).is_some() {
            return self.disown(from);
        }
        if founder == Some(self.me) && self.membership.members.is_empty() && self.keeps(SafetyRule::Revisions) {
            let restored = Fencing::Restored { by: from, evidence: Evidence::LaterMember };
            return LedgerStep::done([Change::Activation(Activation::Fenced(restored))]);
        }
        if seals.contains_key(&self.me) {
            return self.refused(from, &Denial::Sealed { host: self.me });
        }
        if !self.membership.members.contains(&from) {
            return LedgerStep::done([]);
        }
        let news = seals.iter().filter(|(host, seal)| seal.done && !self.membership.is_forgotten(**host));
        let mut changes: Vec<Change> = news.flat_map(|(host, seal)| self.membership.seal(*host, *seal)).collect();
        changes.extend(self.joined_with(&changes));
        LedgerStep::done(changes)
    }
}

impl Account {
    /// The higher leases among these.
    fn believe(
        &self,
        me: HostId,
        blocks: &BTreeMap<BlockId, BlockLease>,
        addresses: &BTreeMap<IpAddr, AddressLease>,
        now: Millis,
    ) -> Vec<Change> {
        let id = self.network.id;
        let blocks = blocks.iter().filter(|(block, lease)| {
            // What this host is said to have and does not know of, it may have had, and given on, and have lost with its disk.
            lease.holder != me
                && self.network.block_subnet(**block).is_some()
                && self.blocks.get(block).is_none_or(|known| lease.epoch > known.epoch)
        });
        let addresses = addresses.iter().filter(|(address, lease)| {
            self.network.assignable(**address)
                && self.addresses.get(address).is_none_or(|known| lease.version > known.version)
        });
        let borrowed = |address: &IpAddr, lease: &AddressLease| {
            let idle = lease.holder == Holder::Host(me) && !self.bound.contains_key(address);
            idle.then_some(Change::Unbind(id, *address, Rest { name: None, since: now }))
        };
        let blocks = blocks.map(|(block, lease)| Change::Block(id, *block, *lease));
        let addresses =
            addresses.flat_map(|(a, lease)| std::iter::once(Change::Address(id, *a, *lease)).chain(borrowed(a, lease)));
        blocks.chain(addresses).collect()
    }

    /// Takes the blocks of the hosts that this one is the heir of. What the living have borrowed out of them they keep,
    /// by a lease of the new epoch; also what they have by one of an `earlier` epoch: that an heir who is dead by now had
    /// confirmed it, they may not have heard.
    fn inherit(&self, me: HostId, membership: &Membership, earlier: bool) -> Vec<Change> {
        let id = self.network.id;
        let mut changes = Vec::new();
        for (block, lease) in self.blocks.iter().filter(|(_, lease)| membership.last_heir(lease.holder) == Some(me)) {
            let epoch = lease.epoch + 1;
            changes.push(Change::Block(id, *block, BlockLease { epoch, holder: me }));
            // What was owed to the one that is gone, nobody takes any more.
            let owed = self.outbox.iter().filter(|s| self.is_about(s, *block));
            changes.extend(owed.map(|s| Change::Dequeue(id, *s)));
            let Some(subnet) = self.network.block_subnet(*block) else { continue };
            let lent = self.addresses.range(subnet.network()..=subnet.last());
            let counts = |epoch: u64| epoch == lease.epoch || earlier && epoch < lease.epoch;
            for (address, known) in lent.filter(|(_, known)| counts(known.version.epoch)) {
                let version = Version { epoch, count: 1 };
                match known.holder {
                    Holder::Host(host) if host == me => {
                        changes.push(Change::Address(id, *address, AddressLease { version, holder: Holder::Home }));
                    }
                    Holder::Host(host) if !membership.is_forgotten(host) => {
                        changes.push(Change::Address(id, *address, AddressLease { version, holder: known.holder }));
                        let statement = Statement::Delegate { address: *address, version, to: host };
                        changes.push(Change::Enqueue(id, statement));
                    }
                    Holder::Host(_) | Holder::Home => {}
                }
            }
        }
        changes
    }

    /// Takes the blocks of which nobody has ever heard, if all have said what they know: the host that created the network died
    /// with them. One that it had given away is known to the host that has it.
    fn take_unknown(&self, me: HostId, membership: &Membership) -> Vec<Change> {
        if membership.last_heir(self.network.creator) != Some(me) {
            return Vec::new();
        }
        // The creator wrote the first epoch.
        let lease = BlockLease { epoch: 2, holder: me };
        let unknown = self.network.blocks().filter(|block| !self.blocks.contains_key(block));
        unknown.map(|block| Change::Block(self.network.id, block, lease)).collect()
    }

    fn is_about(&self, statement: &Statement, block: BlockId) -> bool {
        match statement {
            Statement::Transfer { block: of, .. } => *of == block,
            Statement::Delegate { address, .. } | Statement::Return { address, .. } => {
                self.network.block_of(*address) == Some(block)
            }
        }
    }

    /// What was lent to hosts that are gone is at home again, and rests.
    pub(super) fn take_back_from(&self, me: HostId, gone: impl Fn(&HostId) -> bool, now: Millis) -> Vec<Change> {
        let id = self.network.id;
        let lent = |(address, lease): (&IpAddr, &AddressLease)| {
            let Holder::Host(host) = lease.holder else { return None };
            let block = self.block_lease(*address)?;
            (gone(&host) && block.holder == me && block.epoch == lease.version.epoch).then_some((*address, *lease))
        };
        let mut changes = Vec::new();
        for (address, lease) in self.addresses.iter().filter_map(lent) {
            let version = Version { count: lease.version.count + 1, ..lease.version };
            changes.push(Change::Address(id, address, AddressLease { version, holder: Holder::Home }));
            changes.push(Change::Unbind(id, address, Rest { name: None, since: now }));
            let delegation = |s: &&Statement| matches!(s, Statement::Delegate { address: a, .. } if *a == address);
            changes.extend(self.outbox.iter().filter(delegation).map(|s| Change::Dequeue(id, *s)));
        }
        changes
    }
}
