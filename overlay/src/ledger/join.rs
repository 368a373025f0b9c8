//! Joining: a host takes no space and testifies to nothing before a majority of the members have it on their disks. So
//! whoever asks all members that it knows, and all that those know, can't miss it.

use super::{Activation, Change, Denial, Fencing, Ledger, LedgerStep, MemberList, Outcome, SafetyRule};
use crate::model::id::HostId;
use crate::model::member::Stamp;

impl Ledger {
    /// The first host of a cluster has nobody to ask.
    pub(super) fn found(&self) -> LedgerStep {
        match &self.membership.activation {
            Activation::Joining { .. } if self.membership.members.is_empty() => {
                LedgerStep::done([Change::Founder(self.me), Change::Activation(Activation::Established)])
            }
            Activation::Joining { .. } => LedgerStep::denied(Denial::Joining),
            Activation::Established | Activation::Unchecked { .. } | Activation::Fenced(_) => LedgerStep::done([]),
        }
    }

    /// A host that founded a cluster of its own and has nothing there yet joins another one instead, as a new host.
    pub(super) fn seek(&self) -> LedgerStep {
        let alone = self.membership.members.is_empty() && self.accounts.is_empty();
        match &self.membership.activation {
            Activation::Established if alone => {
                LedgerStep::done([Change::Activation(Activation::Fenced(Fencing::Moves))])
            }
            Activation::Established
            | Activation::Joining { .. }
            | Activation::Unchecked { .. }
            | Activation::Fenced(_) => LedgerStep::done([]),
        }
    }

    /// Another host wants to be a member.
    pub(super) fn acknowledge(&self, from: HostId, stamp: Stamp) -> LedgerStep {
        let member_list = self.membership.member_list(self.me);
        let changes = self.membership.add(from).into_iter().chain(self.membership.note(from, stamp)).collect();
        LedgerStep { changes, outcome: Outcome::MemberList(member_list) }
    }

    /// A member has it on its disk that this host is one.
    pub(super) fn acknowledged(&self, by: HostId, member_list: &MemberList) -> LedgerStep {
        let mut changes = self.membership.heed(self.me, member_list);
        let Activation::Joining { acknowledged } = &self.membership.activation else {
            return LedgerStep::done(changes);
        };
        if acknowledged.is_empty() {
            let dealt = member_list.dealt.iter().filter(|(host, _)| *host != self.me);
            changes.extend(dealt.filter_map(|(host, stamp)| self.membership.note(*host, *stamp)));
        }
        let joins = self.membership.founder.is_none().then_some(member_list.founder).flatten();
        changes.extend(joins.map(Change::Founder));
        let acknowledged = acknowledged.iter().copied().chain([by]).collect();
        changes.push(Change::Activation(Activation::Joining { acknowledged }));
        changes.extend(self.joined_with(&changes));
        LedgerStep::done(changes)
    }

    /// The host belongs to another cluster. If it was taken for a member here, it never knew: it holds nothing here, has let
    /// nobody in here, and need not be asked for anything.
    pub(super) fn disown(&self, host: HostId) -> LedgerStep {
        if self.membership.foreign.contains(&host) {
            return LedgerStep::done([]);
        }
        let mut changes = vec![Change::Foreign(host)];
        changes.extend(self.joined_with(&changes));
        LedgerStep::done(changes)
    }

    /// After these changes, has a majority of the members acknowledged this host? Also when there are fewer of them now.
    pub(super) fn joined_with(&self, changes: &[Change]) -> Option<Change> {
        let Activation::Joining { .. } = &self.membership.activation else { return None };
        let after = self.membership.with(changes);
        let Activation::Joining { acknowledged } = &after.activation else { return None };
        let of = after.others().count();
        let by = after.others().filter(|host| acknowledged.contains(host)).count();
        let enough = 2 * by > of || by > 0 && !self.keeps(SafetyRule::JoinByMajority);
        enough.then_some(Change::Activation(Activation::Established))
    }
}
