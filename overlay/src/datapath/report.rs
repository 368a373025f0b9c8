//! What became of a plan, and the round that makes it so: look, plan, apply, report.

use std::error::Error;
use std::future::Future;

use crate::datapath::desired::Desired;
use crate::datapath::observed::Observed;
use crate::datapath::plan::{HostStep, Knowledge, SegmentStep, Step, plan};
use crate::model::id::NetworkId;

/// A kernel: the real one, or the one in memory. It executes and decides nothing.
pub trait Kernel {
    /// All that is ours, as it is now.
    fn observe(&mut self) -> impl Future<Output = Result<Observed, StepError>> + Send;

    /// Executes steps that do not depend on each other, in any order or at once; the results are in their order.
    /// A step that finds its work done succeeds.
    fn apply(&mut self, steps: &[Step]) -> impl Future<Output = Vec<Result<(), StepError>>> + Send;
}

/// Why the kernel refused: errno turned into meaning where it was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Cause {
    /// Something of that name or number is there already (EEXIST, EADDRINUSE).
    #[error("something of that name or number is there already")]
    AlreadyExists,
    /// What it is about is not there (ENOENT, ENODEV, ESRCH).
    #[error(
        "what it is about is gone: see that the container runs and that nobody else removes interfaces; it is tried again"
    )]
    Gone,
    /// Somebody else is at it; try again (EBUSY, EAGAIN, EINTR).
    #[error("the kernel is busy: it is tried again")]
    Busy,
    /// A capability is missing (EPERM, EACCES).
    #[error("the kernel denied it: CAP_NET_ADMIN and CAP_SYS_ADMIN are needed")]
    Denied,
    /// This kernel can't do it (EOPNOTSUPP, EPROTONOSUPPORT).
    #[error("this kernel does not support it: use Linux 5.14 or newer with vxlan, bridge, veth and nftables")]
    Unsupported,
    /// Memory, or the disk, or a table is full (ENOMEM, ENOSPC, ENOBUFS).
    #[error("memory, or a table of the kernel, is full: it is tried again")]
    NoSpace,
    /// Anything else: our mistake (EINVAL and others).
    #[error("the kernel refused it: see `dmesg`, and report it if it stays; it is tried again")]
    Refused,
}

/// A step that failed.
#[derive(Debug, thiserror::Error)]
#[error("{doing}: {}", why(*cause, detail.as_deref()))]
pub struct StepError {
    /// What was tried, and on which object.
    pub doing: String,
    /// What the refusal means.
    pub cause: Cause,
    /// Where more is known than the number says: who is in the way, and what to do. It is told in the cause's place.
    pub detail: Option<String>,
    /// What the kernel, or the program that talks to it, said.
    #[source]
    pub source: Option<Box<dyn Error + Send + Sync>>,
}

fn why(cause: Cause, detail: Option<&str>) -> String {
    detail.map_or_else(|| cause.to_string(), str::to_owned)
}

impl StepError {
    /// Trying `doing` failed, as far as is known for this cause only.
    pub fn new(doing: impl Into<String>, cause: Cause) -> Self {
        Self { doing: doing.into(), cause, detail: None, source: None }
    }

    /// The same, as told by `source`.
    #[must_use]
    pub fn said_by(self, source: impl Error + Send + Sync + 'static) -> Self {
        Self { source: Some(Box::new(source)), ..self }
    }

    /// The same, with what a person should know instead of the bare cause.
    #[must_use]
    pub fn with_detail(self, detail: impl Into<String>) -> Self {
        Self { detail: Some(detail.into()), ..self }
    }
}

/// What became of one round.
#[derive(Debug, Default)]
pub struct Report {
    /// The steps that were done.
    pub done: Vec<Step>,
    /// The steps that failed, with the reason.
    pub failed: Vec<(Step, StepError)>,
    /// The steps that were not tried because something that they stand on had failed.
    pub skipped: Vec<Step>,
}

impl Report {
    /// Is the kernel now as it should be?
    pub fn settled(&self) -> bool {
        self.failed.is_empty() && self.skipped.is_empty()
    }
}

/// One round. A failed step is reported, and the other segments go on.
///
/// # Errors
/// Only when the kernel can't even be looked at.
pub async fn round(
    kernel: &mut impl Kernel,
    desired: &Desired,
    knowledge: Knowledge,
) -> Result<(Observed, Report), StepError> {
    let observed = kernel.observe().await?;
    let mut report = Report::default();
    for batch in batches(plan(&observed, desired, knowledge)) {
        let broken: Vec<&Step> =
            report.failed.iter().map(|(step, _)| step).filter(|step| step.carries_others()).collect();
        let (skipped, batch): (Vec<Step>, Vec<Step>) =
            batch.into_iter().partition(|step| broken.iter().any(|failed| step.stands_on(failed)));
        report.skipped.extend(skipped);
        let results = kernel.apply(&batch).await;
        for (step, result) in batch.into_iter().zip(results) {
            match result {
                Ok(()) => report.done.push(step),
                Err(error) => report.failed.push((step, error)),
            }
        }
    }
    Ok((observed, report))
}

/// Cuts a plan where a step may stand on the one before it: runs of entries go together, all else alone.
fn batches(steps: Vec<Step>) -> Vec<Vec<Step>> {
    let mut batches: Vec<Vec<Step>> = Vec::new();
    for step in steps {
        match batches.last_mut() {
            Some(batch) if step.is_row() && batch.last().is_some_and(|last| last.same_kind_of_row(&step)) => {
                batch.push(step);
            }
            _ => batches.push(vec![step]),
        }
    }
    batches
}

impl Step {
    /// The network that the step is about; `None` for the host's own.
    pub fn network(&self) -> Option<NetworkId> {
        match self {
            Self::Host(_) => None,
            Self::Segment(id, _) => Some(*id),
        }
    }

    /// Does any other step stand on it?
    fn carries_others(&self) -> bool {
        let carries = [
            matches!(self, Self::Segment(_, SegmentStep::CreatePort(..))),
            matches!(self, Self::Host(HostStep::ReplaceFirewall(_))),
        ];
        self.is_foundation() || carries.contains(&true)
    }

    /// Would it be in vain, or do harm, after that one has failed?
    fn stands_on(&self, failed: &Self) -> bool {
        match (self, failed) {
            (Self::Segment(a, _), Self::Segment(b, _)) if a != b => false,
            (Self::Segment(_, SegmentStep::ConnectPort(port)), Self::Segment(_, SegmentStep::CreatePort(_, made))) => {
                port.host_ifname == made.host_ifname
            }
            // A way between containers and the host that nothing filters.
            (Self::Segment(_, SegmentStep::CreateUplink(_)), Self::Host(HostStep::ReplaceFirewall(_))) => true,
            (Self::Segment(..), failed) => failed.is_foundation(),
            // What passes others then would be judged by nobody.
            (Self::Host(HostStep::SetGate(..)), Self::Host(HostStep::ReplaceFirewall(_))) => true,
            (Self::Host(_), _) => false,
        }
    }

    /// Does the rest of the segment stand on it?
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

    /// Is it a forwarding entry or a neighbour? Of those there may be thousands, and none stands on another.
    pub(crate) fn is_row(&self) -> bool {
        matches!(
            self,
            Self::Segment(
                _,
                SegmentStep::PutRemote(..)
                    | SegmentStep::DeleteRemote(_)
                    | SegmentStep::PutNeighbour(..)
                    | SegmentStep::DeleteNeighbour(_)
            )
        )
    }

    fn same_kind_of_row(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Segment(a, x), Self::Segment(b, y)) => {
                a == b && std::mem::discriminant(x) == std::mem::discriminant(y)
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests;
