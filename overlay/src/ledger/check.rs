//! The boot check: after its machine has booted, or with another disk, a host asks members before it acts. Whoever
//! testifies remembers that the host is back, refuses what its earlier boots said, and knows a disk that is too old.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Activation, Change, Claim, Denial, Evidence, Fencing, Ledger, LedgerStep, MemberList, Millis, Outcome, SafetyRule,
};
use crate::model::id::{HostId, NetworkId};
use crate::model::lease::{AddressLease, Holder};
use crate::model::member::{Boot, Stamp};
use crate::model::record::Run;

impl Ledger {
    /// The machine has booted, or the disk is not the one that the host ran on: rests begin anew by the new clock. A host that
    /// has asked to join and is no member yet can't be told from one whose disk is from that time: it joins as another.
    pub(super) fn booted(&self, nonce: u64, now: Millis) -> LedgerStep {
        let generation = self.membership.boot.generation + 1;
        let mut changes = vec![Change::Boot(Boot { generation, nonce })];
        changes.extend(self.accounts.values().flat_map(|account| account.rest_from(now)));
        changes.extend(match self.membership.activation {
            Activation::Established | Activation::Unchecked { .. } => Some(self.unchecked()),
            Activation::Joining { .. } if generation > 1 && self.keeps(SafetyRule::JoinInOneBoot) => {
                Some(Change::Activation(Activation::Fenced(Fencing::Unjoined)))
            }
            Activation::Joining { .. } | Activation::Fenced(_) => None,
        });
        LedgerStep::done(changes)
    }

    fn unchecked(&self) -> Change {
        Change::Activation(Activation::Unchecked { admitted: BTreeSet::new(), waiting: BTreeSet::new() })
    }

    /// A member that has booted asks whether its ledger still holds.
    pub(super) fn admit(
        &self,
        (from, stamp): (HostId, Stamp),
        claims: &BTreeMap<NetworkId, Claim>,
        elsewhere: bool,
    ) -> LedgerStep {
        let refused = |evidence| LedgerStep::denied(Denial::Restored(evidence));
        let dealt = self.membership.dealt.get(&from).copied().unwrap_or_default();
        if elsewhere {
            return refused(Evidence::Elsewhere);
        }
        if self.keeps(SafetyRule::Revisions) {
            if dealt.revision > stamp.revision {
                return refused(Evidence::LaterRevision { revision: stamp.revision, seen: dealt.revision });
            }
            if claims.iter().any(|(network, claim)| self.knows_later(*network, from, claim)) {
                return refused(Evidence::LaterLease);
            }
        }
        if !stamp.boot.follows(dealt.boot) {
            return LedgerStep::denied(Denial::Stale { known: dealt.boot });
        }
        let changes = self.membership.add(from).into_iter().chain(self.membership.note(from, stamp)).collect();
        LedgerStep { changes, outcome: Outcome::MemberList(self.membership.member_list(self.me)) }
    }

    /// Has something that `host` claims to hold a later lease?
    fn knows_later(&self, network: NetworkId, host: HostId, claim: &Claim) -> bool {
        let Some(account) = self.accounts.get(&network) else { return false };
        let block = |(block, epoch)| account.blocks.get(&block).is_some_and(|lease| lease.epoch > epoch);
        claim.runs.iter().flat_map(Run::blocks).any(block)
            || claim.borrowed.iter().any(|(address, version)| {
                // An heir confirms under a new epoch what the borrower does not know of yet.
                let later = |lease: &AddressLease| lease.version > *version && lease.holder != Holder::Host(host);
                let lent = |lease: &AddressLease| lease.holder == Holder::Host(host);
                // A block moves on only when all of it is at home, or with what is lent out of it confirmed.
                let moved = || {
                    let mine = account.block_lease(*address).filter(|block| block.holder == self.me);
                    mine.is_some_and(|block| block.epoch > version.epoch)
                };
                account.addresses.get(address).map_or_else(moved, |lease| later(lease) || moved() && !lent(lease))
            })
    }

    /// A member lets this host in.
    pub(super) fn admitted(&self, by: HostId, member_list: &MemberList) -> LedgerStep {
        let mut changes = self.membership.heed(self.me, member_list);
        if let Activation::Unchecked { mut admitted, mut waiting } = self.membership.activation.clone() {
            if member_list.unchecked && self.keeps(SafetyRule::CheckedTestify) {
                waiting.insert(by);
            } else {
                waiting.remove(&by);
                admitted.insert(by);
            }
            let activation = Activation::Unchecked { admitted, waiting };
            // Who waits too is asked again and again.
            changes.extend((activation != self.membership.activation).then_some(Change::Activation(activation)));
        }
        LedgerStep::done(changes)
    }

    /// Is that enough? `reachable` are the members that could be asked; `None` if it takes all of them. Of a host that knows
    /// no others the disk may be from before it had let them in: then nobody knows who all are.
    pub(super) fn conclude(&self, reachable: Option<&BTreeSet<HostId>>) -> LedgerStep {
        let Activation::Unchecked { admitted, waiting } = &self.membership.activation else {
            return LedgerStep::done([]);
        };
        let silent: BTreeSet<HostId> =
            self.membership.others().filter(|host| !admitted.contains(host) && !waiting.contains(host)).collect();
        let all = silent.iter().all(|host| self.membership.seals.contains_key(host));
        let enough = match reachable {
            Some(reachable) => silent.is_disjoint(reachable) && (all || !admitted.is_empty()),
            None => all,
        };
        let alone = self.membership.others().next().is_none();
        if enough && (alone && reachable.is_some() || !admitted.is_empty() || !waiting.is_empty()) {
            LedgerStep::done([Change::Activation(Activation::Established)])
        } else {
            LedgerStep::denied(Denial::Unchecked)
        }
    }

    /// The operator answers for the disk.
    pub(super) fn trust(&self) -> LedgerStep {
        match self.membership.activation {
            Activation::Unchecked { .. } => LedgerStep::done([Change::Activation(Activation::Established)]),
            Activation::Joining { .. } | Activation::Established | Activation::Fenced(_) => LedgerStep::done([]),
        }
    }

    /// There was a later boot of this host.
    fn outdated(&self, by: HostId, known: Boot) -> LedgerStep {
        // Before it is checked, the disk may be one that was put back: what it missed, the check will tell.
        let later = Change::Boot(Boot { generation: known.generation + 1, ..self.membership.boot });
        match self.membership.activation {
            Activation::Unchecked { .. } => LedgerStep::done([later, self.unchecked()]),
            // A boot is on disk before anybody hears of it, so this disk is an old one, or there are two. Whoever could have
            // known that was not heard at the check.
            Activation::Established if self.keeps(SafetyRule::Revisions) => {
                LedgerStep::done([Change::Activation(Activation::Fenced(Fencing::Restored {
                    by,
                    evidence: Evidence::LaterBoot,
                }))])
            }
            Activation::Established | Activation::Joining { .. } => LedgerStep::done([later]),
            Activation::Fenced(_) => LedgerStep::done([]),
        }
    }

    /// Of two who act under one identity the one that booted first gives up. Earlier lives of this host were before.
    pub(super) fn duplicate(&self, boot: Boot) -> LedgerStep {
        if self.membership.boot.follows(boot) { LedgerStep::done([]) } else { self.outdated(self.me, boot) }
    }

    /// Another host refuses to deal with this one. What it says of us we can't know better.
    pub(super) fn refused(&self, by: HostId, denial: &Denial) -> LedgerStep {
        let fence = |fencing| LedgerStep::done([Change::Activation(Activation::Fenced(fencing))]);
        match denial {
            _ if self.apart_from(by, None).is_some() => LedgerStep::done([]),
            // Also from one that became a member while this host was away.
            Denial::Sealed { host, .. } if *host == self.me => fence(Fencing::Forgotten { by }),
            Denial::Apart { founder } if self.apart_from(by, Some(*founder)).is_some() => self.disown(by),
            _ if !self.membership.members.contains(&by) => LedgerStep::done([]),
            Denial::Restored(evidence) if matches!(self.membership.activation, Activation::Unchecked { .. }) => {
                fence(Fencing::Restored { by, evidence: *evidence })
            }
            Denial::Stale { known } if !self.membership.boot.follows(*known) => self.outdated(by, *known),
            // It is not off: the operator has to look again. Of what was sealed already it will hear.
            Denial::Readmitted { host, boot } => {
                let withdraw = self.membership.forgets.contains_key(host).then_some(Change::Withdraw(*host));
                LedgerStep::done(
                    self.membership.note(*host, Stamp { boot: *boot, revision: 0 }).into_iter().chain(withdraw),
                )
            }
            Denial::Rival { host, seal } if seal.done || seal.heir == by && by < self.me => {
                LedgerStep::done(self.membership.seal(*host, *seal))
            }
            Denial::UnknownNetwork
            | Denial::NotAssignable(_)
            | Denial::Bound { .. }
            | Denial::Delegated { .. }
            | Denial::Unreachable { .. }
            | Denial::Full { .. }
            | Denial::NotHolder { .. }
            | Denial::Deleted
            | Denial::Joining
            | Denial::Unchecked
            | Denial::Fenced
            | Denial::Stranger { .. }
            | Denial::Apart { .. }
            | Denial::Sealed { .. }
            | Denial::Stale { .. }
            | Denial::Restored(_)
            | Denial::Unnamed { .. }
            | Denial::TooMany
            | Denial::Rival { .. } => LedgerStep::done([]),
        }
    }
}
