//! Membership on the wire and on disk.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use overlay::ledger::{Activation, Claim, Evidence, Fencing, Forget, Known, LedgerSnapshot, MemberList};
use overlay::model::host::Phase;
use overlay::model::id::{HostId, NetworkId};
use overlay::model::lease::{AddressLease, BlockLease};
use overlay::model::member::{Boot, Seal, Stamp};
use overlay::model::network::{BlockId, Network};
use overlay::model::record::Run;
use overlay_proto::v1 as pb;

use super::{Wire, WireError, counted, id, parse, required, wrong};

fn host(field: &'static str, bytes: &[u8]) -> Result<HostId, WireError> {
    id(field, bytes)
}

pub(super) fn hosts(field: &'static str, all: &[Vec<u8>]) -> Result<BTreeSet<HostId>, WireError> {
    all.iter().map(|bytes| host(field, bytes)).collect()
}

pub(super) fn bytes<'a>(hosts: impl IntoIterator<Item = &'a HostId>) -> Vec<Vec<u8>> {
    hosts.into_iter().map(|host| host.as_bytes().to_vec()).collect()
}

/// A boot is on the wire as a stamp without a revision.
pub fn boot_to_wire(boot: Boot) -> pb::Stamp {
    Stamp { boot, revision: 0 }.to_wire()
}

/// The boot of a stamp.
///
/// # Errors
/// When it is missing or wrong.
pub fn boot_from_wire(stamp: Option<&pb::Stamp>) -> Result<Boot, WireError> {
    required::<Stamp, _>("boot", stamp).map(|stamp| stamp.boot)
}

/// A host that belongs to no cluster yet says nothing of who founded it.
pub fn founder_to_wire(founder: Option<HostId>) -> Vec<u8> {
    founder.map_or_else(Vec::new, |founder| founder.as_bytes().to_vec())
}

/// Who founded a host's cluster.
///
/// # Errors
/// When it is no id.
pub fn founder_from_wire(bytes: &[u8]) -> Result<Option<HostId>, WireError> {
    (!bytes.is_empty()).then(|| host("founder", bytes)).transpose()
}

impl Wire<pb::Stamp> for Stamp {
    fn to_wire(&self) -> pb::Stamp {
        pb::Stamp { generation: self.boot.generation, nonce: self.boot.nonce, revision: self.revision }
    }

    fn from_wire(wire: &pb::Stamp) -> Result<Self, WireError> {
        let generation = counted("generation", wire.generation)?;
        Ok(Self { boot: Boot { generation, nonce: wire.nonce }, revision: counted("revision", wire.revision)? })
    }
}

impl Wire<i32> for Phase {
    fn to_wire(&self) -> i32 {
        let phase = match self {
            Self::Joining => pb::Phase::Joining,
            Self::Unchecked => pb::Phase::Unchecked,
            Self::Established => pb::Phase::Established,
        };
        phase.into()
    }

    fn from_wire(wire: &i32) -> Result<Self, WireError> {
        match pb::Phase::try_from(*wire) {
            Ok(pb::Phase::Joining) => Ok(Self::Joining),
            Ok(pb::Phase::Unchecked) => Ok(Self::Unchecked),
            Ok(pb::Phase::Established) => Ok(Self::Established),
            Ok(pb::Phase::Unspecified) | Err(_) => Err(WireError::Missing("phase")),
        }
    }
}

impl Wire<pb::Seal> for (HostId, Seal) {
    fn to_wire(&self) -> pb::Seal {
        let (host, Seal { heir, done }) = self;
        pb::Seal { host: host.as_bytes().to_vec(), heir: heir.as_bytes().to_vec(), done: *done }
    }

    fn from_wire(wire: &pb::Seal) -> Result<Self, WireError> {
        Ok((host("host", &wire.host)?, Seal { heir: host("heir", &wire.heir)?, done: wire.done }))
    }
}

impl Wire<pb::Evidence> for Evidence {
    fn to_wire(&self) -> pb::Evidence {
        use pb::evidence::{Kind, LaterRevision};
        let kind = match *self {
            Self::LaterRevision { revision, seen } => Kind::LaterRevision(LaterRevision { revision, seen }),
            Self::LaterLease => Kind::LaterLease(true),
            Self::LaterBoot => Kind::LaterBoot(true),
            Self::LaterMember => Kind::LaterMember(true),
            Self::Elsewhere => Kind::Elsewhere(true),
        };
        pb::Evidence { kind: Some(kind) }
    }

    fn from_wire(wire: &pb::Evidence) -> Result<Self, WireError> {
        use pb::evidence::Kind;
        Ok(match wire.kind.as_ref().ok_or(WireError::Missing("evidence"))? {
            Kind::LaterRevision(seen) => Self::LaterRevision { revision: seen.revision, seen: seen.seen },
            Kind::LaterLease(_) => Self::LaterLease,
            Kind::LaterBoot(_) => Self::LaterBoot,
            Kind::LaterMember(_) => Self::LaterMember,
            Kind::Elsewhere(_) => Self::Elsewhere,
        })
    }
}

impl Wire<pb::Fencing> for Fencing {
    fn to_wire(&self) -> pb::Fencing {
        use pb::fencing::{Kind, Restored};
        let kind = match self {
            Self::Moves => Kind::Moves(true),
            Self::Unjoined => Kind::Unjoined(true),
            Self::Forgotten { by } => Kind::ForgottenBy(by.as_bytes().to_vec()),
            Self::Restored { by, evidence } => {
                Kind::Restored(Restored { by: by.as_bytes().to_vec(), evidence: Some(evidence.to_wire()) })
            }
        };
        pb::Fencing { kind: Some(kind) }
    }

    fn from_wire(wire: &pb::Fencing) -> Result<Self, WireError> {
        use pb::fencing::Kind;
        Ok(match wire.kind.as_ref().ok_or(WireError::Missing("fencing"))? {
            Kind::Moves(_) => Self::Moves,
            Kind::Unjoined(_) => Self::Unjoined,
            Kind::ForgottenBy(by) => Self::Forgotten { by: host("forgotten_by", by)? },
            Kind::Restored(restored) => Self::Restored {
                by: host("by", &restored.by)?,
                evidence: required("evidence", restored.evidence.as_ref())?,
            },
        })
    }
}

impl Wire<pb::Activation> for Activation {
    fn to_wire(&self) -> pb::Activation {
        use pb::activation::{Joining, Kind, Unchecked};
        let kind = match self {
            Self::Joining { acknowledged } => Kind::Joining(Joining { acknowledged: bytes(acknowledged) }),
            Self::Established => Kind::Established(true),
            Self::Unchecked { admitted, waiting } => {
                Kind::Unchecked(Unchecked { admitted: bytes(admitted), waiting: bytes(waiting) })
            }
            Self::Fenced(fencing) => Kind::Fenced(fencing.to_wire()),
        };
        pb::Activation { kind: Some(kind) }
    }

    fn from_wire(wire: &pb::Activation) -> Result<Self, WireError> {
        use pb::activation::Kind;
        Ok(match wire.kind.as_ref().ok_or(WireError::Missing("standing"))? {
            Kind::Joining(joining) => Self::Joining { acknowledged: hosts("acknowledged", &joining.acknowledged)? },
            Kind::Established(_) => Self::Established,
            Kind::Unchecked(unchecked) => Self::Unchecked {
                admitted: hosts("admitted", &unchecked.admitted)?,
                waiting: hosts("waiting", &unchecked.waiting)?,
            },
            Kind::Fenced(fencing) => Self::Fenced(Fencing::from_wire(fencing)?),
        })
    }
}

impl Wire<pb::Forget> for Forget {
    fn to_wire(&self) -> pb::Forget {
        pb::Forget {
            boot: Some(boot_to_wire(self.boot)),
            sealed_by: bytes(&self.sealed_by),
            before: bytes(&self.before),
            force: self.force,
        }
    }

    fn from_wire(wire: &pb::Forget) -> Result<Self, WireError> {
        Ok(Self {
            boot: boot_from_wire(wire.boot.as_ref())?,
            sealed_by: hosts("sealed_by", &wire.sealed_by)?,
            before: hosts("before", &wire.before)?,
            force: wire.force,
        })
    }
}

impl Wire<pb::MemberList> for MemberList {
    fn to_wire(&self) -> pb::MemberList {
        let dealt = self.dealt.iter().map(|(host, stamp)| pb::member_list::Dealt {
            host: host.as_bytes().to_vec(),
            stamp: Some(stamp.to_wire()),
        });
        let seals = self.seals.iter().map(|(host, seal)| (*host, *seal).to_wire());
        pb::MemberList {
            members: bytes(&self.members),
            dealt: dealt.collect(),
            seals: seals.collect(),
            unchecked: self.unchecked,
            founder: founder_to_wire(self.founder),
        }
    }

    fn from_wire(wire: &pb::MemberList) -> Result<Self, WireError> {
        let dealt = |d: &pb::member_list::Dealt| Ok((host("host", &d.host)?, required("stamp", d.stamp.as_ref())?));
        Ok(Self {
            members: hosts("members", &wire.members)?.into_iter().collect(),
            dealt: wire.dealt.iter().map(dealt).collect::<Result<_, WireError>>()?,
            seals: wire.seals.iter().map(<(HostId, Seal)>::from_wire).collect::<Result<_, _>>()?,
            unchecked: wire.unchecked,
            founder: founder_from_wire(&wire.founder)?,
        })
    }
}

impl Wire<pb::admit_request::Claim> for (NetworkId, Claim) {
    fn to_wire(&self) -> pb::admit_request::Claim {
        let (network, Claim { runs, borrowed }) = self;
        let borrowed = borrowed.iter().map(|(address, version)| pb::holding::Borrowed {
            address: address.to_string(),
            version: Some(version.to_wire()),
        });
        let holding = pb::Holding { runs: runs.iter().map(Wire::to_wire).collect(), borrowed: borrowed.collect() };
        pb::admit_request::Claim { network: network.as_bytes().to_vec(), holding: Some(holding) }
    }

    fn from_wire(wire: &pb::admit_request::Claim) -> Result<Self, WireError> {
        let holding = wire.holding.as_ref().ok_or(WireError::Missing("holding"))?;
        let borrowed =
            |b: &pb::holding::Borrowed| Ok((parse("address", &b.address)?, required("version", b.version.as_ref())?));
        let runs = holding.runs.iter().map(Run::from_wire).collect::<Result<_, _>>()?;
        let borrowed = holding.borrowed.iter().map(borrowed).collect::<Result<_, WireError>>()?;
        Ok((id("network", &wire.network)?, Claim { runs, borrowed }))
    }
}

impl Wire<pb::ledger_snapshot::Known> for Known {
    fn to_wire(&self) -> pb::ledger_snapshot::Known {
        let addresses = self.addresses.iter().map(|(address, lease)| pb::ledger_snapshot::Address {
            address: address.to_string(),
            lease: Some(lease.to_wire()),
        });
        pb::ledger_snapshot::Known {
            network: Some(self.network.to_wire()),
            blocks: block_runs(&self.blocks),
            addresses: addresses.collect(),
        }
    }

    fn from_wire(wire: &pb::ledger_snapshot::Known) -> Result<Self, WireError> {
        let network: Network = required("network", wire.network.as_ref())?;
        let mut blocks = BTreeMap::new();
        for part in &wire.blocks {
            let (run, holder): (Run, _) = (required("run", part.run.as_ref())?, host("holder", &part.holder)?);
            // Not more than the network has, whatever the length says.
            let known = run.blocks().filter(|(block, _)| network.block_subnet(*block).is_some());
            blocks.extend(known.map(|(block, epoch)| (block, BlockLease { epoch, holder })));
        }
        let address = |a: &pb::ledger_snapshot::Address| -> Result<(IpAddr, AddressLease), WireError> {
            Ok((parse("address", &a.address)?, required("lease", a.lease.as_ref())?))
        };
        let addresses = wire.addresses.iter().map(address).collect::<Result<_, _>>()?;
        Ok(Self { network, blocks, addresses })
    }
}

/// Neighbouring blocks of one holder and one epoch are one.
fn block_runs(blocks: &BTreeMap<BlockId, BlockLease>) -> Vec<pb::ledger_snapshot::BlockRun> {
    let mut runs: Vec<(Run, HostId)> = Vec::new();
    for (block, BlockLease { epoch, holder }) in blocks {
        match runs.last_mut() {
            Some((run, of)) if of == holder && run.epoch == *epoch && run.is_followed_by(*block) => run.len += 1,
            _ => runs.push((Run { start: *block, len: 1, epoch: *epoch }, *holder)),
        }
    }
    let wire = |(run, holder): (Run, HostId)| pb::ledger_snapshot::BlockRun {
        run: Some(run.to_wire()),
        holder: holder.as_bytes().to_vec(),
    };
    runs.into_iter().map(wire).collect()
}

impl Wire<pb::LedgerSnapshot> for LedgerSnapshot {
    fn to_wire(&self) -> pb::LedgerSnapshot {
        pb::LedgerSnapshot {
            stamp: Some(self.stamp.to_wire()),
            member_list: Some(self.member_list.to_wire()),
            networks: self.networks.values().map(Wire::to_wire).collect(),
        }
    }

    fn from_wire(wire: &pb::LedgerSnapshot) -> Result<Self, WireError> {
        let networks = wire.networks.iter().map(Known::from_wire);
        let networks: Vec<Known> = networks.collect::<Result<_, _>>().map_err(|e| wrong("networks")(&e))?;
        Ok(Self {
            stamp: required("stamp", wire.stamp.as_ref())?,
            member_list: required("member_list", wire.member_list.as_ref())?,
            networks: networks.into_iter().map(|known| (known.network.id, known)).collect(),
        })
    }
}
