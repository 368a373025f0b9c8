//! Blocks, leases, and what hosts tell each other of them.

use overlay::ledger::Rest;
use overlay::model::lease::{AddressLease, BlockLease, Holder, Version};
use overlay::model::network::{BlockId, Name};
use overlay::model::record::{Run, Statement};
use overlay_proto::v1 as pb;

use super::{Wire, WireError, counted, id, narrow, parse, required};

impl Wire<pb::Version> for Version {
    fn to_wire(&self) -> pb::Version {
        pb::Version { epoch: self.epoch, count: self.count }
    }

    fn from_wire(wire: &pb::Version) -> Result<Self, WireError> {
        Ok(Self { epoch: counted("epoch", wire.epoch)?, count: counted("count", wire.count)? })
    }
}

impl Wire<pb::Block> for BlockId {
    fn to_wire(&self) -> pb::Block {
        pb::Block { range: self.range.into(), index: self.index.into() }
    }

    fn from_wire(wire: &pb::Block) -> Result<Self, WireError> {
        Ok(Self { range: narrow("range", wire.range)?, index: narrow("index", wire.index)? })
    }
}

impl Wire<pb::holding::Run> for Run {
    fn to_wire(&self) -> pb::holding::Run {
        pb::holding::Run { start: Some(self.start.to_wire()), len: self.len.into(), epoch: self.epoch }
    }

    fn from_wire(wire: &pb::holding::Run) -> Result<Self, WireError> {
        Ok(Self {
            start: required("start", wire.start.as_ref())?,
            len: narrow("len", wire.len)?,
            epoch: counted("epoch", wire.epoch)?,
        })
    }
}

impl Wire<pb::Statement> for Statement {
    fn to_wire(&self) -> pb::Statement {
        use pb::statement::{Delegate, Kind, Return, Transfer};
        let kind = match self {
            Self::Transfer { block, epoch, to } => {
                Kind::Transfer(Transfer { block: Some(block.to_wire()), epoch: *epoch, to: to.as_bytes().to_vec() })
            }
            Self::Delegate { address, version, to } => Kind::Delegate(Delegate {
                address: address.to_string(),
                version: Some(version.to_wire()),
                to: to.as_bytes().to_vec(),
            }),
            Self::Return { address, version } => {
                Kind::Return(Return { address: address.to_string(), version: Some(version.to_wire()) })
            }
        };
        pb::Statement { kind: Some(kind) }
    }

    fn from_wire(wire: &pb::Statement) -> Result<Self, WireError> {
        use pb::statement::Kind;
        Ok(match wire.kind.as_ref().ok_or(WireError::Missing("kind"))? {
            Kind::Transfer(t) => Self::Transfer {
                block: required("block", t.block.as_ref())?,
                epoch: counted("epoch", t.epoch)?,
                to: id("to", &t.to)?,
            },
            Kind::Delegate(d) => Self::Delegate {
                address: parse("address", &d.address)?,
                version: required("version", d.version.as_ref())?,
                to: id("to", &d.to)?,
            },
            Kind::Return(r) => Self::Return {
                address: parse("address", &r.address)?,
                version: required("version", r.version.as_ref())?,
            },
        })
    }
}

impl Wire<pb::Lease> for BlockLease {
    fn to_wire(&self) -> pb::Lease {
        let version = Version { epoch: self.epoch, count: 0 };
        pb::Lease { version: Some(version.to_wire()), holder: self.holder.as_bytes().to_vec() }
    }

    fn from_wire(wire: &pb::Lease) -> Result<Self, WireError> {
        let version: Version = required("version", wire.version.as_ref())?;
        Ok(Self { epoch: version.epoch, holder: id("holder", &wire.holder)? })
    }
}

impl Wire<pb::Lease> for AddressLease {
    fn to_wire(&self) -> pb::Lease {
        let holder = match self.holder {
            Holder::Home => Vec::new(),
            Holder::Host(host) => host.as_bytes().to_vec(),
        };
        pb::Lease { version: Some(self.version.to_wire()), holder }
    }

    fn from_wire(wire: &pb::Lease) -> Result<Self, WireError> {
        let holder = if wire.holder.is_empty() { Holder::Home } else { Holder::Host(id("holder", &wire.holder)?) };
        Ok(Self { version: required("version", wire.version.as_ref())?, holder })
    }
}

impl Wire<pb::Rest> for Rest {
    fn to_wire(&self) -> pb::Rest {
        pb::Rest { name: self.name.as_ref().map_or_else(String::new, Name::to_string), since: self.since }
    }

    fn from_wire(wire: &pb::Rest) -> Result<Self, WireError> {
        let name = if wire.name.is_empty() { None } else { Some(parse("name", &wire.name)?) };
        Ok(Self { name, since: wire.since })
    }
}
