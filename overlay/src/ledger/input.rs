//! What happens to a ledger.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::{AddressRequest, Denial, MemberList, Share};
use crate::model::id::{EndpointId, HostId, NetworkId};
use crate::model::lease::{AddressLease, BlockLease, Version};
use crate::model::member::{Boot, Seal, Stamp};
use crate::model::network::{BlockId, Name, Network};
use crate::model::record::{Run, Statement};

/// What happens to the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// This host creates a network: it holds all of it.
    Create(Network),
    /// This host hears of a network that somebody else created.
    Learn(Network),
    /// The network is deleted for good. Endpoints that are in it here stay until they are released.
    Close(NetworkId),
    /// An endpoint of this host wants an address.
    Allocate(AddressRequest),
    /// An endpoint of this host no longer needs its addresses.
    Release {
        /// The network.
        network: NetworkId,
        /// The endpoint.
        endpoint: EndpointId,
        /// Its name: if it comes back under that name it gets the same address.
        name: Name,
    },
    /// Another host, which has just come to the network, asks for a part of what this one has.
    GiveSpace {
        /// The network.
        network: NetworkId,
        /// The range that it asks for.
        range: u8,
        /// The host that asks.
        to: HostId,
        /// How much.
        share: Share,
    },
    /// Another host asks for one address out of a block of this one.
    GiveAddress {
        /// The network.
        network: NetworkId,
        /// The host that asks.
        to: HostId,
        /// The address.
        address: IpAddr,
    },
    /// Another host says, itself, which blocks it holds.
    Holding {
        /// The network.
        network: NetworkId,
        /// The host that says so.
        from: HostId,
        /// When it said so.
        stamp: Stamp,
        /// The blocks.
        runs: Vec<Run>,
        /// The addresses that it has borrowed.
        borrowed: BTreeMap<IpAddr, Version>,
    },
    /// Another host says, itself, that it wrote a lease. [`Outcome::Done`](super::Outcome::Done) means that this ledger has it, or a later one,
    /// so the writer need not tell it again.
    Stated {
        /// The network.
        network: NetworkId,
        /// The host that wrote it.
        from: HostId,
        /// When it said so.
        stamp: Stamp,
        /// The lease.
        statement: Statement,
    },
    /// The host that a statement of ours is for has it in its ledger: `Stated` came to [`Outcome::Done`](super::Outcome::Done) there.
    Taken {
        /// The network.
        network: NetworkId,
        /// The statement.
        statement: Statement,
    },
    /// Time has passed.
    Tick {
        /// The networks in which the kernel has nothing any more of what was let go of and has rested: addresses that were
        /// borrowed there go home.
        clear: BTreeSet<NetworkId>,
    },
    /// There is no cluster yet: this host is its first member.
    Found,
    /// This host was told to join others: if it is the only member of a cluster where nothing is, it leaves that.
    Seek,
    /// Another host wants to be a member.
    Acknowledge {
        /// The host.
        from: HostId,
        /// When it asked.
        stamp: Stamp,
        /// Who founded the cluster that it belongs to, if it belongs to one.
        founder: Option<HostId>,
    },
    /// A member has it on its disk that this host is one.
    Acknowledged {
        /// The member.
        by: HostId,
        /// What it told.
        member_list: MemberList,
    },
    /// The machine of this host has booted, or the disk is not the one that it ran on.
    Booted {
        /// Drawn at random.
        nonce: u64,
    },
    /// Another member has booted and asks whether its ledger still holds.
    Admit {
        /// The member.
        from: HostId,
        /// When it asked.
        stamp: Stamp,
        /// Who founded the cluster that it belongs to.
        founder: Option<HostId>,
        /// What it thinks it holds.
        claims: BTreeMap<NetworkId, Claim>,
        /// Does the same identity answer elsewhere right now?
        elsewhere: bool,
    },
    /// A member lets this host in.
    Admitted {
        /// The member.
        by: HostId,
        /// What it told.
        member_list: MemberList,
    },
    /// Somebody else acts under this host's identity, or did: an earlier life of it, or a copy.
    Duplicate {
        /// In this boot.
        boot: Boot,
    },
    /// Have enough members let this host in?
    Conclude {
        /// The members that can be asked now; `None` if all have to.
        reachable: Option<BTreeSet<HostId>>,
    },
    /// The operator answers for the disk of this host: nobody has to be asked.
    Trust,
    /// A host refused what this one asked of it, or told it.
    Refused {
        /// The host.
        by: HostId,
        /// Its answer.
        denial: Denial,
    },
    /// The operator says that hosts are off for good, now, all of them; this host is to be their heir.
    Forget {
        /// The hosts, each with its newest boot that anybody has heard of.
        hosts: BTreeMap<HostId, Boot>,
        /// Is a majority of the members enough?
        force: bool,
    },
    /// An heir wants this host to deal with another no more.
    Seal {
        /// The heir.
        from: HostId,
        /// The host to forget.
        host: HostId,
        /// What the heir knows of it.
        seal_request: SealRequest,
    },
    /// A member has sealed a host for this one.
    Sealed {
        /// The member.
        by: HostId,
        /// The host to forget.
        host: HostId,
        /// All that the member knows.
        ledger_snapshot: LedgerSnapshot,
    },
    /// Another host publishes to which cluster it belongs, and whom it deals with no more.
    Belongs {
        /// The host that says so.
        from: HostId,
        /// Who founded its cluster, if it belongs to one.
        founder: Option<HostId>,
        /// Whom.
        seals: BTreeMap<HostId, Seal>,
    },
}

/// What a host thinks it holds of a network.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Claim {
    /// Blocks.
    pub runs: Vec<Run>,
    /// Addresses that it has borrowed.
    pub borrowed: BTreeMap<IpAddr, Version>,
}

/// What an heir says of a host that others are to seal.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SealRequest {
    /// Who founded the cluster that the heir belongs to.
    pub founder: Option<HostId>,
    /// The newest boot of the host that the heir knows of.
    pub boot: Boot,
    /// None of these goes on as heir of the host: they have sealed it for this one, or are forgotten with it or were
    /// before.
    pub yielded: BTreeSet<HostId>,
}

/// All that a member knows, for an heir.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LedgerSnapshot {
    /// When it said so.
    pub stamp: Stamp,
    /// Of the members.
    pub member_list: MemberList,
    /// Of the networks.
    pub networks: BTreeMap<NetworkId, Known>,
}

/// All that a host knows of the leases of a network.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Known {
    /// The network.
    pub network: Network,
    /// The highest known lease of each block.
    pub blocks: BTreeMap<BlockId, BlockLease>,
    /// The highest known lease of each address that ever was delegated.
    pub addresses: BTreeMap<IpAddr, AddressLease>,
}

#[cfg(test)]
impl Input {
    /// Time has passed, and nothing that was let go of is left in the kernel.
    pub(crate) fn tick(ledger: &super::Ledger) -> Self {
        Self::Tick { clear: ledger.accounts().keys().copied().collect() }
    }
}
