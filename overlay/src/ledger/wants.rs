//! What a host has to ask of others, by itself: to be let in, and to forget others.

use std::collections::{BTreeMap, BTreeSet};

use super::{Activation, Ledger};
use crate::model::id::HostId;

/// What to ask of a host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Want {
    /// To acknowledge this host as a member.
    Acknowledge,
    /// To confirm that this host's ledger still holds.
    Admit,
    /// To seal a host that this one is to forget.
    Seal(HostId),
}

impl Ledger {
    /// What is to be asked of whom, again and again until it is answered. `heard` are the hosts that gossip knows.
    pub fn wants(&self, heard: &BTreeSet<HostId>) -> BTreeMap<HostId, Vec<Want>> {
        let mut wants: BTreeMap<HostId, Vec<Want>> = BTreeMap::new();
        match &self.membership.activation {
            Activation::Joining { acknowledged } => {
                for host in heard.iter().filter(|host| **host != self.me && !acknowledged.contains(host)) {
                    wants.entry(*host).or_default().push(Want::Acknowledge);
                }
            }
            Activation::Unchecked { admitted, .. } => {
                // All that this host knew may be gone, and others have come since.
                let all: BTreeSet<HostId> = self.membership.others().chain(heard.iter().copied()).collect();
                for host in all.into_iter().filter(|host| *host != self.me && !admitted.contains(host)) {
                    wants.entry(host).or_default().push(Want::Admit);
                }
            }
            Activation::Established => {
                for host in self.membership.forgets.keys() {
                    for by in self.missing(*host) {
                        wants.entry(by).or_default().push(Want::Seal(*host));
                    }
                }
            }
            Activation::Fenced(_) => {}
        }
        wants
    }

    /// The members that have not answered since this agent started whether they know this host. A majority admitted it, not all:
    /// to the others it is a stranger, and they refuse its requests. `introduced` are those that have answered.
    pub fn introductions<'a>(
        &'a self,
        heard: &'a BTreeSet<HostId>,
        introduced: &'a BTreeSet<HostId>,
    ) -> impl Iterator<Item = HostId> + 'a {
        let unasked = self.membership.members.difference(introduced).filter(|_| self.is_established());
        unasked.copied().filter(|host| heard.contains(host) && !self.membership.is_forgotten(*host))
    }
}
