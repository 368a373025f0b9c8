//! Who may do what: for what reasons an input is denied before it is looked at.

use super::{Activation, Denial, Input, Ledger};
use crate::model::id::HostId;
use crate::model::member::Stamp;

/// The safety rules of the ledger. The model checker, in the test build only, switches them off one at a time, to show
/// that each is needed and that it would see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum SafetyRule {
    /// A lease that is not newer than the known one is not taken.
    HighestLease,
    /// What an earlier boot of a host said is not believed.
    NewestBoot,
    /// An old disk is known by its revision, by later leases, by members that it does not know, and by a later boot.
    Revisions,
    /// A host that was let in since it was heard last is not sealed.
    NoSealIfBack,
    /// Nothing is taken from a host that is sealed.
    SealedIsSilent,
    /// An heir asks all members that any member knows.
    AskAllThatAreKnown,
    /// An heir takes nothing before all have sealed.
    ForgetByAll,
    /// An heir confirms to the living also what they have borrowed in an earlier epoch of its block.
    ConfirmEarlier,
    /// A host is a member only when a majority has acknowledged it.
    JoinByMajority,
    /// Hosts that are forgotten together are said to be off at the same time.
    OffTogether,
    /// Only an established member testifies.
    EstablishedTestify,
    /// One that waits for its own boot check is a witness only together with all others.
    CheckedTestify,
    /// A host that boots before it is a member joins as another.
    JoinInOneBoot,
    /// A host of a cluster that was founded apart takes no part in this one.
    OneCluster,
}

impl Ledger {
    /// Is the rule kept? Always, but in the model checker.
    pub(super) fn keeps(&self, rule: SafetyRule) -> bool {
        #[cfg(test)]
        let kept = self.without != Some(rule);
        #[cfg(not(test))]
        let kept = {
            let _ = rule;
            true
        };
        kept
    }

    /// The ledger with a rule switched off.
    #[cfg(test)]
    pub(crate) fn without(self, rule: Option<SafetyRule>) -> Self {
        Self { without: rule, ..self }
    }

    /// Why this host does not look at the input at all.
    pub(super) fn denies(&self, input: &Input) -> Option<Denial> {
        if let Some(denial) = self.denies_sender(input) {
            return Some(denial);
        }
        match (&self.membership.activation, input) {
            (Activation::Established, _) => None,
            (Activation::Fenced(_), _) => Some(Denial::Fenced),
            // A network learned before the host has joined is unsafe. If the host joins another cluster after all, it could be
            // given addresses of that network, or carry the word there that the network is deleted.
            (Activation::Joining { .. }, Input::Learn(_) | Input::Close(_)) if self.membership.founder.is_none() => {
                Some(Denial::Joining)
            }
            (_, Input::Learn(_) | Input::Close(_) | Input::Release { .. } | Input::Refused { .. }) => None,
            (_, Input::Booted { .. } | Input::Belongs { .. }) => None,
            (
                Activation::Joining { .. },
                Input::Found | Input::Seek | Input::Acknowledged { .. } | Input::Seal { .. } | Input::Trust,
            ) => None,
            // Hosts that join together acknowledge each other, or none would ever have a majority. What they know of the
            // members comes from one: before that their word is worth nothing.
            (Activation::Joining { .. }, Input::Acknowledge { .. }) if !self.membership.members.is_empty() => None,
            (Activation::Joining { .. }, Input::Admit { .. }) if !self.keeps(SafetyRule::EstablishedTestify) => None,
            (Activation::Joining { .. }, _) => Some(Denial::Joining),
            (
                Activation::Unchecked { .. },
                Input::Admit { .. }
                | Input::Admitted { .. }
                | Input::Duplicate { .. }
                | Input::Conclude { .. }
                | Input::Trust,
            ) => None,
            (Activation::Unchecked { .. }, _) => Some(Denial::Unchecked),
        }
    }

    /// The founder of this host's cluster, if the other host belongs to another.
    pub(super) fn apart_from(&self, host: HostId, founder: Option<HostId>) -> Option<HostId> {
        self.membership.apart_from(host, founder).filter(|_| self.keeps(SafetyRule::OneCluster))
    }

    /// Does this host take nothing from, and give nothing to, the one that the input comes from?
    fn denies_sender(&self, input: &Input) -> Option<Denial> {
        let Sender { host, stamp, founder } = sender(input)?;
        if let Some(founder) = self.apart_from(host, founder) {
            return Some(Denial::Apart { founder });
        }
        if self.membership.seals.contains_key(&host) && self.keeps(SafetyRule::SealedIsSilent) {
            return Some(Denial::Sealed { host });
        }
        let known = self.membership.boot_of(host);
        if stamp.is_some_and(|stamp| !stamp.boot.follows(known)) && self.keeps(SafetyRule::NewestBoot) {
            return Some(Denial::Stale { known });
        }
        let asks_for_space = matches!(input, Input::GiveSpace { .. } | Input::GiveAddress { .. });
        let stranger = asks_for_space && host != self.me && !self.membership.members.contains(&host);
        stranger.then_some(Denial::Stranger { host })
    }
}

/// The other host that an input comes from.
struct Sender {
    host: HostId,
    /// When it said so, where old news hurt.
    stamp: Option<Stamp>,
    /// Who founded its cluster, where it says so with it.
    founder: Option<HostId>,
}

fn sender(input: &Input) -> Option<Sender> {
    let of = |host: &HostId| Sender { host: *host, stamp: None, founder: None };
    Some(match input {
        Input::GiveSpace { to, .. } | Input::GiveAddress { to, .. } => of(to),
        Input::Holding { from, stamp, .. } | Input::Stated { from, stamp, .. } => {
            Sender { stamp: Some(*stamp), ..of(from) }
        }
        Input::Acknowledge { from, founder, .. } | Input::Admit { from, founder, .. } => {
            Sender { founder: *founder, ..of(from) }
        }
        Input::Seal { from, seal_request, .. } => Sender { founder: seal_request.founder, ..of(from) },
        Input::Acknowledged { by, member_list } | Input::Admitted { by, member_list } => {
            Sender { founder: member_list.founder, ..of(by) }
        }
        Input::Sealed { by, ledger_snapshot, .. } => Sender { founder: ledger_snapshot.member_list.founder, ..of(by) },
        Input::Belongs { from, .. } => of(from),
        Input::Create(_)
        | Input::Learn(_)
        | Input::Close(_)
        | Input::Allocate(_)
        | Input::Release { .. }
        | Input::Taken { .. }
        | Input::Tick { .. }
        | Input::Found
        | Input::Seek
        | Input::Booted { .. }
        | Input::Duplicate { .. }
        | Input::Conclude { .. }
        | Input::Trust
        | Input::Refused { .. }
        | Input::Forget { .. } => return None,
    })
}
