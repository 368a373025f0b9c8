//! Who belongs to the cluster, as one host knows it durably, and whether that host may act.

use std::collections::{BTreeMap, BTreeSet};

use super::Change;
use crate::model::id::HostId;
use crate::model::member::{Boot, Seal, Stamp};

/// What a host knows of the members, itself included.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Membership {
    /// May this host act?
    pub activation: Activation,
    /// Who founded the cluster that this host belongs to; none before it belongs to one.
    pub founder: Option<HostId>,
    /// The present boot of this host.
    pub boot: Boot,
    /// The other members, also those that are forgotten.
    pub members: BTreeSet<HostId>,
    /// Hosts that belong to another cluster. If this host took one for a member, by a request to which the answer was lost,
    /// it does so no more. A host belongs to one cluster for all its life, so what is written here stays true.
    pub foreign: BTreeSet<HostId>,
    /// The newest boot and the highest revision that this host has dealt with, of whom it dealt with.
    pub dealt: BTreeMap<HostId, Stamp>,
    /// The hosts that it deals with no more.
    pub seals: BTreeMap<HostId, Seal>,
    /// The hosts that it is to forget, as their heir.
    pub forgets: BTreeMap<HostId, Forget>,
}

/// May a host act on its ledger?
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Activation {
    /// It takes no space and testifies to nothing before a majority of the members have it on their disks.
    Joining {
        /// Those that have.
        acknowledged: BTreeSet<HostId>,
    },
    /// It may.
    Established,
    /// Its machine has booted, or its disk is another: it asks the members whether its ledger still holds.
    Unchecked {
        /// Those that may act and said so.
        admitted: BTreeSet<HostId>,
        /// Those that said so and wait for their own boot check. Hosts that are forgotten together could vouch for each
        /// other, so this counts only when it comes from all that are left.
        waiting: BTreeSet<HostId>,
    },
    /// Never again: the identity is given up.
    Fenced(Fencing),
}

/// Why a host gave its identity up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Fencing {
    /// It founded a cluster where nothing is, and joins another instead: under another identity, so that whoever has heard
    /// to which cluster an identity belongs need not hear it again.
    #[error("the cluster that it founded was empty, and it joins another one")]
    Moves,
    /// Its machine has booted, or its disk is another, before a cluster had let it in. The disk may be an old one, and what
    /// the others know of a host that has joined meanwhile would be taken for its own.
    #[error("no cluster had let it in before it booted, or this disk is one from before that")]
    Unjoined,
    /// It was forgotten.
    #[error("host {} says that this host was forgotten", by.short())]
    Forgotten {
        /// Who said so.
        by: HostId,
    },
    /// Its disk is older than what it once said.
    #[error("host {} knows that {evidence}", by.short())]
    Restored {
        /// Who said so.
        by: HostId,
        /// What it knows.
        evidence: Evidence,
    },
}

/// What shows that a ledger is not the newest of its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Evidence {
    /// The host has written more since.
    #[error("the ledger on this disk is an old one: its revision {revision} is less than {seen}, seen before")]
    LaterRevision {
        /// Of the ledger.
        revision: u64,
        /// Seen.
        seen: u64,
    },
    /// Something that it thinks it holds has a later lease.
    #[error("something that the ledger on this disk says is held has a later lease")]
    LaterLease,
    /// The host has booted since.
    #[error(
        "this host has booted since the ledger on this disk was written: the disk is an old copy, or a second copy runs"
    )]
    LaterBoot,
    /// A member that only this host can have let in is unknown to it.
    #[error("the ledger on this disk is from before this host had let others into its cluster")]
    LaterMember,
    /// The same identity speaks from elsewhere at the same time.
    #[error("the same identity is alive elsewhere: this disk is a copy")]
    Elsewhere,
}

/// The work of an heir.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Forget {
    /// The boot of the host that was known when the operator said that it is off. Who let in a later one refuses.
    pub boot: Boot,
    /// The members that have sealed it.
    pub sealed_by: BTreeSet<HostId>,
    /// The members that were forgotten before the operator said so, and need not be asked. One that is forgotten after
    /// it may have let the host in, so then the operator has to say it once more.
    pub before: BTreeSet<HostId>,
    /// Is a majority enough?
    pub force: bool,
}

/// What a member tells one that joins or has booted.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct MemberList {
    /// Who founded the cluster that it belongs to.
    pub founder: Option<HostId>,
    /// The members that it knows, itself included.
    pub members: Vec<HostId>,
    /// What it has dealt with.
    pub dealt: Vec<(HostId, Stamp)>,
    /// Whom it deals with no more.
    pub seals: BTreeMap<HostId, Seal>,
    /// Does it wait for its own boot check?
    pub unchecked: bool,
}

impl Membership {
    pub(super) fn new() -> Self {
        Self {
            activation: Activation::Joining { acknowledged: BTreeSet::new() },
            founder: None,
            boot: Boot::default(),
            members: BTreeSet::new(),
            foreign: BTreeSet::new(),
            dealt: BTreeMap::new(),
            seals: BTreeMap::new(),
            forgets: BTreeMap::new(),
        }
    }

    pub(super) fn apply(&mut self, change: &Change) {
        match change {
            Change::Activation(activation) => self.activation = activation.clone(),
            Change::Founder(founder) => self.founder = Some(*founder),
            Change::Boot(boot) => self.boot = *boot,
            Change::Member(host) => drop(self.members.insert(*host)),
            Change::Foreign(host) => {
                self.members.remove(host);
                self.foreign.insert(*host);
            }
            Change::Dealt(host, stamp) => drop(self.dealt.insert(*host, *stamp)),
            Change::Seal(host, seal) => drop(self.seals.insert(*host, *seal)),
            Change::Forget(host, forget) => drop(self.forgets.insert(*host, forget.clone())),
            Change::Withdraw(host) => drop(self.forgets.remove(host)),
            // Of the ledger, and of its accounts.
            Change::Open(_)
            | Change::Tombstone(_)
            | Change::Close(_)
            | Change::Revision(_)
            | Change::Block(..)
            | Change::Address(..)
            | Change::Bind(..)
            | Change::Unbind(..)
            | Change::Rested(..)
            | Change::Enqueue(..)
            | Change::Dequeue(..) => {}
        }
    }

    /// What is known of the members after these changes.
    pub(super) fn with(&self, changes: &[Change]) -> Self {
        let mut after = self.clone();
        changes.iter().for_each(|change| after.apply(change));
        after
    }

    /// The founder of this host's cluster, if `host` belongs to another: the one that `founder` founded, by what it says now,
    /// or by what it said before. Members of the one are never members of the other: an heir could not know which hosts the members of
    /// the other cluster have admitted.
    pub(super) fn apart_from(&self, host: HostId, founder: Option<HostId>) -> Option<HostId> {
        self.founder.filter(|mine| founder.is_some_and(|theirs| theirs != *mine) || self.foreign.contains(&host))
    }

    /// To be written when this host hears that another is a member.
    pub(super) fn add(&self, host: HostId) -> Option<Change> {
        (!self.members.contains(&host) && !self.foreign.contains(&host)).then_some(Change::Member(host))
    }

    /// The other members that are not forgotten.
    pub fn others(&self) -> impl Iterator<Item = HostId> + '_ {
        self.members.iter().copied().filter(|host| !self.is_forgotten(*host))
    }

    /// Has the host's space gone to its heir?
    pub fn is_forgotten(&self, host: HostId) -> bool {
        self.seals.get(&host).is_some_and(|seal| seal.done)
    }

    /// The host to which the space of a forgotten one has gone: its heir, or that one's if it is forgotten as well.
    pub(super) fn last_heir(&self, host: HostId) -> Option<HostId> {
        let heirs = std::iter::successors(self.heir_of(host), |heir| self.heir_of(*heir));
        // No longer than there are seals, should two have been made heirs of each other.
        heirs.take(self.seals.len()).last()
    }

    fn heir_of(&self, host: HostId) -> Option<HostId> {
        self.seals.get(&host).filter(|seal| seal.done).map(|seal| seal.heir)
    }

    /// The newest boot of the host that this one has dealt with.
    pub fn boot_of(&self, host: HostId) -> Boot {
        self.dealt.get(&host).map_or(Boot::default(), |stamp| stamp.boot)
    }

    /// The newest boot of a host that anybody has heard of, where `heard` is what it says itself. Two boots of one
    /// generation are those of a disk and of its copy: the one that was dealt with counts.
    pub fn newest_boot(&self, host: HostId, heard: Option<Boot>) -> Boot {
        let dealt = self.boot_of(host);
        heard.filter(|boot| boot.supersedes(dealt)).unwrap_or(dealt)
    }

    /// To be written when something that another host said is taken in.
    pub(super) fn note(&self, host: HostId, stamp: Stamp) -> Option<Change> {
        let known = self.dealt.get(&host).copied().unwrap_or_default();
        let boot = if stamp.boot.supersedes(known.boot) { stamp.boot } else { known.boot };
        let noted = Stamp { boot, revision: known.revision.max(stamp.revision) };
        (noted != known).then_some(Change::Dealt(host, noted))
    }

    /// What a member tells others of the members.
    pub(super) fn member_list(&self, me: HostId) -> MemberList {
        let members = self.members.iter().copied().chain([me]).collect();
        let dealt = self.dealt.iter().map(|(host, stamp)| (*host, *stamp)).collect();
        let unchecked = matches!(self.activation, Activation::Unchecked { .. });
        MemberList { founder: self.founder, members, dealt, seals: self.seals.clone(), unchecked }
    }

    /// Takes in what a member told: more members, and seals that this host does not have or has lost.
    pub(super) fn heed(&self, me: HostId, member_list: &MemberList) -> Vec<Change> {
        let members = member_list.members.iter().filter(|host| **host != me).filter_map(|host| self.add(*host));
        let seals = member_list
            .seals
            .iter()
            .filter(|(host, seal)| **host != me && self.seals.get(host).is_none_or(|mine| seal.done && !mine.done));
        let seals = seals.flat_map(|(host, seal)| self.seal(*host, *seal));
        members.chain(seals).collect()
    }

    /// Another's seal takes the place of one's own. A seal that is done stays: what says otherwise was said before.
    pub(super) fn seal(&self, host: HostId, seal: Seal) -> Vec<Change> {
        let withdraw = self.forgets.contains_key(&host).then_some(Change::Withdraw(host));
        let seal = Some(seal).filter(|seal| seal.done || !self.is_forgotten(host));
        seal.map(|seal| Change::Seal(host, seal)).into_iter().chain(withdraw).collect()
    }
}
