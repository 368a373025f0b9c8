//! Why a host does not do what another asks of it.

use std::net::IpAddr;

use overlay::ledger::{Denial, Evidence};
use overlay::model::host::Phase;
use overlay::model::id::{EndpointId, HostId};
use overlay::model::member::Seal;
use overlay_proto::v1 as pb;

use super::members::{bytes, hosts};
use super::{Wire, WireError, boot_from_wire, boot_to_wire, id};

impl Wire<pb::Denial> for Denial {
    fn to_wire(&self) -> pb::Denial {
        use pb::denial::Kind;
        let kind = match self {
            Self::UnknownNetwork => Kind::UnknownNetwork(true),
            Self::NotAssignable(_) => Kind::NotAssignable(true),
            Self::Bound { endpoint, .. } => Kind::Bound(endpoint.as_bytes().to_vec()),
            Self::Delegated { to, .. } => Kind::Delegated(to.as_bytes().to_vec()),
            Self::NotHolder { holder } => Kind::NotHolder(holder.map_or_else(Vec::new, |h| h.as_bytes().to_vec())),
            Self::Unreachable { holder, .. } => Kind::NotHolder(holder.as_bytes().to_vec()),
            Self::Full { .. } => Kind::Full(true),
            Self::Deleted => Kind::Deleted(true),
            Self::Joining => Kind::NotReady(Phase::Joining.to_wire()),
            Self::Unchecked => Kind::NotReady(Phase::Unchecked.to_wire()),
            Self::Fenced => Kind::Fenced(true),
            Self::Stranger { host } => Kind::Stranger(host.as_bytes().to_vec()),
            Self::Sealed { host } => Kind::Sealed(host.as_bytes().to_vec()),
            Self::Stale { known } => Kind::Stale(boot_to_wire(*known)),
            Self::Restored(evidence) => Kind::Restored(evidence.to_wire()),
            Self::Readmitted { host, boot } => {
                let boot = Some(boot_to_wire(*boot));
                Kind::Readmitted(pb::Readmitted { host: host.as_bytes().to_vec(), boot })
            }
            Self::Rival { host, seal } => Kind::Rival((*host, *seal).to_wire()),
            Self::Unnamed { hosts } => Kind::Unnamed(pb::Unnamed { hosts: bytes(hosts) }),
            Self::TooMany => Kind::TooMany(true),
            Self::Apart { founder } => Kind::Apart(founder.as_bytes().to_vec()),
        };
        pb::Denial { kind: Some(kind) }
    }

    fn from_wire(wire: &pb::Denial) -> Result<Self, WireError> {
        use pb::denial::Kind;
        // The asker knows which address it asked for; on the wire there is none.
        let address = IpAddr::from([0, 0, 0, 0]);
        Ok(match wire.kind.as_ref().ok_or(WireError::Missing("kind"))? {
            Kind::UnknownNetwork(_) => Self::UnknownNetwork,
            Kind::NotAssignable(_) => Self::NotAssignable(address),
            Kind::Bound(endpoint) => Self::Bound { address, endpoint: id::<EndpointId>("bound", endpoint)? },
            Kind::Delegated(to) => Self::Delegated { address, to: id::<HostId>("delegated", to)? },
            Kind::NotHolder(holder) if holder.is_empty() => Self::NotHolder { holder: None },
            Kind::NotHolder(holder) => Self::NotHolder { holder: Some(id("not_holder", holder)?) },
            Kind::Full(_) => Self::Full { holders: [].into() },
            Kind::Deleted(_) => Self::Deleted,
            Kind::NotReady(phase) => match Phase::from_wire(phase)? {
                Phase::Joining => Self::Joining,
                Phase::Unchecked | Phase::Established => Self::Unchecked,
            },
            Kind::Fenced(_) => Self::Fenced,
            Kind::Stranger(host) => Self::Stranger { host: id("stranger", host)? },
            Kind::Sealed(host) => Self::Sealed { host: id("sealed", host)? },
            Kind::Stale(boot) => Self::Stale { known: boot_from_wire(Some(boot))? },
            Kind::Restored(evidence) => Self::Restored(Evidence::from_wire(evidence)?),
            Kind::Readmitted(readmitted) => Self::Readmitted {
                host: id("host", &readmitted.host)?,
                boot: boot_from_wire(readmitted.boot.as_ref())?,
            },
            Kind::Rival(seal) => {
                let (host, seal) = <(HostId, Seal)>::from_wire(seal)?;
                Self::Rival { host, seal }
            }
            Kind::Unnamed(unnamed) => Self::Unnamed { hosts: hosts("hosts", &unnamed.hosts)? },
            Kind::TooMany(_) => Self::TooMany,
            Kind::Apart(founder) => Self::Apart { founder: id("apart", founder)? },
        })
    }
}
