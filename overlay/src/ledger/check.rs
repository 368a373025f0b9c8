//! The boot check: after its machine has booted, or with another disk, a host asks members before it acts. Whoever
//! testifies remembers that the host is back, refuses what its earlier boots said, and knows a disk that is too old.

use std::collections::{BTreeMap, BTreeSet};

use super::{Change, Claim, Denial, Evidence, Fencing, Ledger, Millis, Outcome, Rule, Standing, Step, Welcome};
use crate::model::id::{HostId, NetworkId};
use crate::model::lease::{AddressLease, Holder};
use crate::model::member::{Boot, Stamp};
use crate::model::record::Run;

impl Ledger {
    /// The machine has booted, or the disk is not the one that the host ran on: rests begin anew by the new clock. A host that
    /// has asked to join and is no member yet can't be told from one whose disk is from that time: it joins as another.
    pub(super) fn booted(&self, nonce: u64, now: Millis) -> Step {
        let generation = self.membership.boot.generation + 1;
        let mut changes = vec![Change::Boot(Boot { generation, nonce })];
        changes.extend(self.accounts.values().flat_map(|account| account.rest_from(now)));
        changes.extend(match self.membership.standing {
            Standing::Established | Standing::Unchecked { .. } => Some(self.unchecked()),
            Standing::Joining { .. } if generation > 1 && self.keeps(Rule::JoinInOneBoot) => {
                Some(Change::Standing(Standing::Fenced(Fencing::Unjoined)))
            }
            Standing::Joining { .. } | Standing::Fenced(_) => None,
        });
        Step::done(changes)
    }

    fn unchecked(&self) -> Change {
        Change::Standing(Standing::Unchecked { admitted: BTreeSet::new(), waiting: BTreeSet::new() })
    }

    /// A member that has booted asks whether its ledger still holds.
    pub(super) fn admit(
        &self,
        (from, stamp): (HostId, Stamp),
        claims: &BTreeMap<NetworkId, Claim>,
        elsewhere: bool,
    ) -> Step {
        let refused = |evidence| Step::denied(Denial::Restored(evidence));
        let dealt = self.membership.dealt.get(&from).copied().unwrap_or_default();
        if elsewhere {
            return refused(Evidence::Elsewhere);
        }
        if self.keeps(Rule::Pages) {
            if dealt.page > stamp.page {
                return refused(Evidence::LaterPage { page: stamp.page, seen: dealt.page });
            }
            if claims.iter().any(|(network, claim)| self.knows_later(*network, from, claim)) {
                return refused(Evidence::LaterLease);
            }
        }
        if !stamp.boot.follows(dealt.boot) {
            return Step::denied(Denial::Stale { known: dealt.boot });
        }
        let changes = self.membership.add(from).into_iter().chain(self.membership.note(from, stamp)).collect();
        Step { changes, outcome: Outcome::Welcome(self.membership.welcome(self.me)) }
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
    pub(super) fn admitted(&self, by: HostId, welcome: &Welcome) -> Step {
        let mut changes = self.membership.heed(self.me, welcome);
        if let Standing::Unchecked { mut admitted, mut waiting } = self.membership.standing.clone() {
            if welcome.unchecked && self.keeps(Rule::CheckedTestify) {
                waiting.insert(by);
            } else {
                waiting.remove(&by);
                admitted.insert(by);
            }
            let standing = Standing::Unchecked { admitted, waiting };
            // Who waits too is asked again and again.
            changes.extend((standing != self.membership.standing).then_some(Change::Standing(standing)));
        }
        Step::done(changes)
    }

    /// Is that enough? `reachable` are the members that could be asked; `None` if it takes all of them. Of a host that knows
    /// no others the disk may be from before it had let them in: then nobody knows who all are.
    pub(super) fn conclude(&self, reachable: Option<&BTreeSet<HostId>>) -> Step {
        let Standing::Unchecked { admitted, waiting } = &self.membership.standing else { return Step::done([]) };
        let silent: BTreeSet<HostId> =
            self.membership.others().filter(|host| !admitted.contains(host) && !waiting.contains(host)).collect();
        let all = silent.iter().all(|host| self.membership.seals.contains_key(host));
        let enough = match reachable {
            Some(reachable) => silent.is_disjoint(reachable) && (all || !admitted.is_empty()),
            None => all,
        };
        let alone = self.membership.others().next().is_none();
        if enough && (alone && reachable.is_some() || !admitted.is_empty() || !waiting.is_empty()) {
            Step::done([Change::Standing(Standing::Established)])
        } else {
            Step::denied(Denial::Unchecked)
        }
    }

    /// The operator answers for the disk.
    pub(super) fn trust(&self) -> Step {
        match self.membership.standing {
            Standing::Unchecked { .. } => Step::done([Change::Standing(Standing::Established)]),
            _ => Step::done([]),
        }
    }

    /// There was a later boot of this host.
    fn outdated(&self, by: HostId, known: Boot) -> Step {
        // Before it is checked, the disk may be one that was put back: what it missed, the check will tell.
        let later = Change::Boot(Boot { generation: known.generation + 1, ..self.membership.boot });
        match self.membership.standing {
            Standing::Unchecked { .. } => Step::done([later, self.unchecked()]),
            // A boot is on disk before anybody hears of it, so this disk is an old one, or there are two. Whoever could have
            // known that was not heard at the check.
            Standing::Established if self.keeps(Rule::Pages) => {
                Step::done([Change::Standing(Standing::Fenced(Fencing::Restored {
                    by,
                    evidence: Evidence::LaterBoot,
                }))])
            }
            Standing::Established | Standing::Joining { .. } => Step::done([later]),
            Standing::Fenced(_) => Step::done([]),
        }
    }

    /// Of two who act under one identity the one that booted first gives up. Earlier lives of this host were before.
    pub(super) fn twin(&self, boot: Boot) -> Step {
        if self.membership.boot.follows(boot) { Step::done([]) } else { self.outdated(self.me, boot) }
    }

    /// Another host refuses to deal with this one. What it says of us we can't know better.
    pub(super) fn refused(&self, by: HostId, denial: &Denial) -> Step {
        let fence = |fencing| Step::done([Change::Standing(Standing::Fenced(fencing))]);
        match denial {
            _ if self.apart_from(by, None).is_some() => Step::done([]),
            // Also from one that became a member while this host was away.
            Denial::Sealed { host, .. } if *host == self.me => fence(Fencing::Forgotten { by }),
            Denial::Apart { founder } if self.apart_from(by, Some(*founder)).is_some() => self.disown(by),
            _ if !self.membership.members.contains(&by) => Step::done([]),
            Denial::Restored(evidence) if matches!(self.membership.standing, Standing::Unchecked { .. }) => {
                fence(Fencing::Restored { by, evidence: *evidence })
            }
            Denial::Stale { known } if !self.membership.boot.follows(*known) => self.outdated(by, *known),
            // It is not off: the operator has to look again. Of what was sealed already it will hear.
            Denial::Readmitted { host, boot } => {
                let withdraw = self.membership.forgets.contains_key(host).then_some(Change::Withdraw(*host));
                Step::done(self.membership.note(*host, Stamp { boot: *boot, page: 0 }).into_iter().chain(withdraw))
            }
            Denial::Rival { host, seal } if seal.done || seal.heir == by && by < self.me => {
                Step::done(self.membership.seal(*host, *seal))
            }
            _ => Step::done([]),
        }
    }
}
