//! What comes of an input.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::{Change, Evidence, LedgerSnapshot, MemberList};
use crate::model::id::{EndpointId, HostId};
use crate::model::lease::Version;
use crate::model::member::{Boot, Seal};
use crate::model::record::Statement;

/// What a step decided: what to write, and what comes of it once that is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerStep {
    /// To be made durable first, together.
    pub changes: Vec<Change>,
    /// Then this is true.
    pub outcome: Outcome,
}

/// What comes of an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing to tell.
    Done,
    /// The endpoint has this address under this lease.
    Granted {
        /// The address.
        address: IpAddr,
        /// The version of the lease that allows it.
        lease: Version,
    },
    /// Another host has to be asked; then try again.
    Ask(Ask),
    /// These leases go to the host that asked.
    Given(Vec<Statement>),
    /// What this host knows of the members, for one that joins or has booted.
    MemberList(MemberList),
    /// The host is sealed here; this is all that this host knows, for the heir.
    Sealed(LedgerSnapshot),
    /// It can't be had.
    Denied(Denial),
}

/// What to ask of another host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ask {
    /// A part of its blocks of one range.
    Space {
        /// The host that holds most.
        of: HostId,
        /// The range.
        range: u8,
    },
    /// One address out of a block of its.
    Address {
        /// The holder of the address's block.
        of: HostId,
        /// The address.
        address: IpAddr,
    },
}

/// Why an address can't be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// Nobody told this host of the network.
    #[error("the network is not known here")]
    UnknownNetwork,
    /// Not an address that an endpoint of the network can have.
    #[error("{0} is not an address that an endpoint can have in this network")]
    NotAssignable(IpAddr),
    /// An endpoint of this host has it.
    #[error("{address} is in use by another endpoint of the same host")]
    Bound {
        /// The address.
        address: IpAddr,
        /// The endpoint.
        endpoint: EndpointId,
    },
    /// Another host has it.
    #[error("{address} is delegated to another host")]
    Delegated {
        /// The address.
        address: IpAddr,
        /// The borrower.
        to: HostId,
    },
    /// The host that holds the address's block can't be asked.
    #[error("{address} is in a block held by a host that does not answer")]
    Unreachable {
        /// The address.
        address: IpAddr,
        /// The holder.
        holder: HostId,
    },
    /// No free address is held here, and nobody who holds one can be asked.
    #[error("no free address: {} hosts hold the rest", holders.len())]
    Full {
        /// Who holds how many blocks of the range, this host included.
        holders: BTreeMap<HostId, usize>,
    },
    /// This host does not hold the block.
    #[error("the block is not held by the host that was asked")]
    NotHolder {
        /// The holder as far as the host that was asked knows.
        holder: Option<HostId>,
    },
    /// The network is deleted.
    #[error("the network is deleted")]
    Deleted,
    /// The host waits to become a member.
    #[error("the host has not been acknowledged by a majority of the members yet")]
    Joining,
    /// The host waits for its boot check.
    #[error("the machine has booted, and the other members have not yet confirmed that its leases still hold")]
    Unchecked,
    /// The host has given its identity up.
    #[error("the host has given its identity up")]
    Fenced,
    /// The host is no member here.
    #[error("host {} is no member here", host.short())]
    Stranger {
        /// The host.
        host: HostId,
    },
    /// The host that was asked belongs to another cluster.
    #[error("the host that was asked belongs to another cluster, founded by host {}", founder.short())]
    Apart {
        /// Who founded that.
        founder: HostId,
    },
    /// Nobody deals with the host any more.
    #[error("host {} was forgotten", host.short())]
    Sealed {
        /// The host.
        host: HostId,
    },
    /// A later boot of the asking host is known.
    #[error("a later boot of the host is known")]
    Stale {
        /// That boot.
        known: Boot,
    },
    /// The asking host's ledger is not its newest.
    #[error("{0}")]
    Restored(Evidence),
    /// The host is not off: it has been let in since.
    #[error("host {} has come back since it was heard last", host.short())]
    Readmitted {
        /// The host.
        host: HostId,
        /// The boot that was let in.
        boot: Boot,
    },
    /// Other hosts are being forgotten from here, and it has to be said of all at the same time that they are off.
    #[error("{} other hosts are being forgotten from here", hosts.len())]
    Unnamed {
        /// Those.
        hosts: BTreeSet<HostId>,
    },
    /// Of so many hosts a majority could have let one join that nobody else has heard of.
    #[error("more than half of the members are too many to be forgotten at once")]
    TooMany,
    /// Another heir forgets the host.
    #[error("host {} is forgotten by {} already", host.short(), seal.heir.short())]
    Rival {
        /// The host.
        host: HostId,
        /// By whom, and has it been done?
        seal: Seal,
    },
}

impl Denial {
    /// The same of this address: a denial that came over the wire does not name one.
    pub fn about(self, wanted: Option<IpAddr>) -> Self {
        match (self, wanted) {
            (Self::NotAssignable(_), Some(address)) => Self::NotAssignable(address),
            (Self::Bound { endpoint, .. }, Some(address)) => Self::Bound { address, endpoint },
            (Self::Delegated { to, .. }, Some(address)) => Self::Delegated { address, to },
            (denial, _) => denial,
        }
    }
}

impl LedgerStep {
    pub(super) fn done(changes: impl IntoIterator<Item = Change>) -> Self {
        Self { changes: changes.into_iter().collect(), outcome: Outcome::Done }
    }

    pub(super) fn denied(denial: Denial) -> Self {
        Self { changes: Vec::new(), outcome: Outcome::Denied(denial) }
    }

    pub(super) fn ask(ask: Ask) -> Self {
        Self { changes: Vec::new(), outcome: Outcome::Ask(ask) }
    }
}
