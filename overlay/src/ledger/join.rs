//! Joining: a host takes no space and testifies to nothing before a majority of the members have it on their disks. So
//! whoever asks all members that it knows, and all that those know, can't miss it.

use super::{Change, Denial, Fencing, Ledger, Outcome, Rule, Standing, Step, Welcome};
use crate::model::id::HostId;
use crate::model::member::Stamp;

impl Ledger {
    /// The first host of a cluster has nobody to ask.
    pub(super) fn found(&self) -> Step {
        match &self.membership.standing {
            Standing::Joining { .. } if self.membership.members.is_empty() => {
                Step::done([Change::Founder(self.me), Change::Standing(Standing::Established)])
            }
            Standing::Joining { .. } => Step::denied(Denial::Joining),
            _ => Step::done([]),
        }
    }

    /// A host that founded a cluster of its own and has nothing there yet joins another one instead, as a new host.
    pub(super) fn seek(&self) -> Step {
        let alone = self.membership.members.is_empty() && self.accounts.is_empty();
        match &self.membership.standing {
            Standing::Established if alone => Step::done([Change::Standing(Standing::Fenced(Fencing::Moves))]),
            _ => Step::done([]),
        }
    }

    /// Another host wants to be a member.
    pub(super) fn acknowledge(&self, from: HostId, stamp: Stamp) -> Step {
        let welcome = self.membership.welcome(self.me);
        let changes = self.membership.add(from).into_iter().chain(self.membership.note(from, stamp)).collect();
        Step { changes, outcome: Outcome::Welcome(welcome) }
    }

    /// A member has it on its disk that this host is one.
    pub(super) fn acknowledged(&self, by: HostId, welcome: &Welcome) -> Step {
        let mut changes = self.membership.heed(self.me, welcome);
        let Standing::Joining { acknowledged } = &self.membership.standing else { return Step::done(changes) };
        if acknowledged.is_empty() {
            let dealt = welcome.dealt.iter().filter(|(host, _)| *host != self.me);
            changes.extend(dealt.filter_map(|(host, stamp)| self.membership.note(*host, *stamp)));
        }
        let joins = self.membership.founder.is_none().then_some(welcome.founder).flatten();
        changes.extend(joins.map(Change::Founder));
        let acknowledged = acknowledged.iter().copied().chain([by]).collect();
        changes.push(Change::Standing(Standing::Joining { acknowledged }));
        changes.extend(self.joined_with(&changes));
        Step::done(changes)
    }

    /// The host belongs to another cluster. If it was taken for a member here, it never knew: it holds nothing here, has let
    /// nobody in here, and need not be asked for anything.
    pub(super) fn disown(&self, host: HostId) -> Step {
        if self.membership.foreign.contains(&host) {
            return Step::done([]);
        }
        let mut changes = vec![Change::Foreign(host)];
        changes.extend(self.joined_with(&changes));
        Step::done(changes)
    }

    /// After these changes, has a majority of the members acknowledged this host? Also when there are fewer of them now.
    pub(super) fn joined_with(&self, changes: &[Change]) -> Option<Change> {
        let Standing::Joining { .. } = &self.membership.standing else { return None };
        let after = self.membership.with(changes);
        let Standing::Joining { acknowledged } = &after.standing else { return None };
        let of = after.others().count();
        let by = after.others().filter(|host| acknowledged.contains(host)).count();
        let enough = 2 * by > of || by > 0 && !self.keeps(Rule::JoinByMajority);
        enough.then_some(Change::Standing(Standing::Established))
    }
}
