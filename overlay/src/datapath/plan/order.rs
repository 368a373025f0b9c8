//! Which steps depend on each other, and which may go together.

#[cfg(feature = "kernel")]
use super::RowStep;
use super::{HostStep, SegmentStep, Step};
#[cfg(feature = "kernel")]
use crate::model::addr::IfName;
use crate::model::id::NetworkId;

impl Step {
    /// The network that the step is about; `None` for the host's own.
    pub fn network(&self) -> Option<NetworkId> {
        match self {
            Self::Host(_) => None,
            Self::Segment(id, _) => Some(*id),
        }
    }

    /// Does any other step depend on it?
    pub(crate) fn carries_others(&self) -> bool {
        self.is_foundation()
            || matches!(self, Self::Segment(_, SegmentStep::CreatePort(..)) | Self::Host(HostStep::ReplaceFirewall(_)))
    }

    /// Does it depend on `failed`? Then it would fail as well, or do harm.
    pub(crate) fn stands_on(&self, failed: &Self) -> bool {
        match (self, failed) {
            (Self::Segment(a, _), Self::Segment(b, _)) if a != b => false,
            (Self::Segment(_, SegmentStep::ConnectPort(port)), Self::Segment(_, SegmentStep::CreatePort(_, made))) => {
                port.host_ifname == made.host_ifname
            }
            // Without the host's rules nothing would filter between containers and the host.
            (
                Self::Segment(_, SegmentStep::CreateUplink(_) | SegmentStep::UpdateUplink(_)),
                Self::Host(HostStep::ReplaceFirewall(_)),
            ) => true,
            (Self::Segment(..), failed) => failed.is_foundation(),
            // Without our own rules nothing would filter what other programs' chains let pass.
            (Self::Host(HostStep::SetAcceptRules(..)), Self::Host(HostStep::ReplaceFirewall(_))) => true,
            (Self::Host(_), _) => false,
        }
    }

    /// Does the rest of the segment depend on it?
    fn is_foundation(&self) -> bool {
        match self {
            Self::Host(_) => false,
            Self::Segment(_, step) => matches!(
                step,
                SegmentStep::Create(_)
                    | SegmentStep::ReplaceFirewall(_)
                    | SegmentStep::ReplaceFilter(_)
                    | SegmentStep::UpdateFilter(_)
                    | SegmentStep::CreateBridge(_)
                    | SegmentStep::CreateTunnel(_)
                    | SegmentStep::ConnectTunnel { .. }
            ),
        }
    }

    /// The entry that it writes or removes.
    #[cfg(feature = "kernel")]
    pub(crate) fn row(&self) -> Option<RowStep> {
        match self {
            Self::Segment(_, SegmentStep::Row(row)) => Some(*row),
            Self::Segment(..) | Self::Host(_) => None,
        }
    }

    /// The port that it removes.
    #[cfg(feature = "kernel")]
    pub(crate) fn leaving_port(&self) -> Option<&IfName> {
        match self {
            Self::Segment(_, SegmentStep::DeletePort(ifname)) => Some(ifname),
            Self::Segment(..) | Self::Host(_) => None,
        }
    }

    /// Can it be done together with `earlier`, in any order? That holds for entries of one kind, of which there may be thousands, and
    /// for ports that go: each alone would wait for a grace period of the kernel.
    pub(crate) fn joins(&self, earlier: &Self) -> bool {
        match (self, earlier) {
            (Self::Segment(a, x), Self::Segment(b, y)) if a == b => match (x, y) {
                (SegmentStep::Row(x), SegmentStep::Row(y)) => std::mem::discriminant(x) == std::mem::discriminant(y),
                (SegmentStep::DeletePort(_), SegmentStep::DeletePort(_)) => true,
                _ => false,
            },
            _ => false,
        }
    }
}
