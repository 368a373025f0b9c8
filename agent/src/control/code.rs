//! Which gRPC code each refusal has: `overlayctl` tells by it what kind of refusal it is.

use overlay::operations::link::LinkRefusal;
use overlay::operations::network_refusal::NetworkRefusal;
use tonic::{Code, Status};

use super::in_one_line;
use crate::operations::attach::AttachError;
use crate::operations::links::LinkError;
use crate::operations::network::NetworkError;

impl From<AttachError> for Status {
    fn from(error: AttachError) -> Self {
        use AttachError as E;
        let code = match &error {
            E::UnknownNetwork(_) | E::UnknownEndpoint { .. } => Code::NotFound,
            E::IdInUse { .. }
            | E::NameInUse { .. }
            | E::AddressInUse { .. }
            | E::AddressOfGone { .. }
            | E::AddressTaken { .. }
            | E::MacInUse { .. }
            | E::InterfaceExists { .. }
            | E::Port(_) => Code::AlreadyExists,
            E::NotAssignable { .. }
            | E::NoNetns { .. }
            | E::Netns(_)
            | E::Overlaps { .. }
            | E::IdTooClose { .. }
            | E::TooManyAliases { .. } => Code::InvalidArgument,
            E::NotReady(_)
            | E::AddressDelegated { .. }
            | E::BorrowerAway { .. }
            | E::HolderAway { .. }
            | E::HolderRefuses { .. }
            | E::BlockMoved { .. }
            | E::Apart { .. }
            | E::Kernel { .. } => Code::FailedPrecondition,
            E::Full { .. } | E::TooManyNetworks(_) => Code::ResourceExhausted,
            E::Look { .. } | E::Ports { .. } | E::Store(_) => Code::Internal,
        };
        Self::new(code, in_one_line(&error))
    }
}

impl From<NetworkError> for Status {
    fn from(error: NetworkError) -> Self {
        use NetworkRefusal as E;
        let refusal = match &error {
            NetworkError::Refused(refusal) => refusal,
            NetworkError::Store(_) => return Self::internal(in_one_line(&error)),
        };
        let code = match refusal {
            E::Unknown(_) => Code::NotFound,
            E::NameInUse { .. } => Code::AlreadyExists,
            E::Range(_)
            | E::Settings(_)
            | E::Subnets { .. }
            | E::Mode(_)
            | E::Mtu { .. }
            | E::Nowhere { .. }
            | E::Second { .. }
            | E::Auxiliary { .. }
            | E::Underlay { .. }
            | E::Routed { .. } => Code::InvalidArgument,
            E::InUse { .. }
            | E::InUseAgain { .. }
            | E::Behind(_)
            | E::Apart { .. }
            | E::NotJoined
            | E::CatchingUp
            | E::NotReady(_)
            | E::PoolEmpty(_) => Code::FailedPrecondition,
        };
        Self::new(code, in_one_line(&error))
    }
}

impl From<LinkError> for Status {
    fn from(error: LinkError) -> Self {
        use LinkRefusal as E;
        let refusal = match &error {
            LinkError::Refused(refusal) => refusal,
            LinkError::Store(_) => return Self::internal(in_one_line(&error)),
        };
        let code = match refusal {
            E::UnknownNetwork(_) | E::Nobody { .. } | E::NotThere { .. } => Code::NotFound,
            E::There { .. } => Code::AlreadyExists,
            E::Itself(_) => Code::InvalidArgument,
            E::Apart(_) | E::Icc(_) | E::Behind(_) | E::NotReady(_) => Code::FailedPrecondition,
            E::TooMany(_) => Code::ResourceExhausted,
        };
        Self::new(code, in_one_line(&error))
    }
}
