//! What became of a plan.

use crate::datapath::kernel_api::{Cause, StepError};
use crate::datapath::plan::{SegmentStep, Step};
use crate::model::id::{EndpointId, NetworkId};
use crate::model::intent::NetnsRef;

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
    /// Notes what became of these steps.
    pub(crate) fn note(&mut self, steps: Vec<Step>, results: Vec<Result<(), StepError>>) {
        for (step, result) in steps.into_iter().zip(results) {
            match result {
                Ok(()) => self.done.push(step),
                Err(error) => self.failed.push((step, error)),
            }
        }
    }

    /// Is the kernel now as it should be?
    pub fn settled(&self) -> bool {
        self.failed.is_empty() && self.skipped.is_empty()
    }

    /// The endpoints whose ports could not be made because their namespaces are gone. Their containers may have ended:
    /// [`Observed::is_lost`](crate::datapath::observed::Observed::is_lost) says whether they have.
    pub fn without_namespace(&self) -> impl Iterator<Item = (NetworkId, EndpointId, &NetnsRef)> {
        let gone = self.failed.iter().filter(|(_, error)| error.cause == Cause::Gone);
        gone.filter_map(|(step, _)| match step {
            Step::Segment(network, SegmentStep::CreatePort(id, port)) => Some((*network, *id, &port.netns)),
            Step::Segment(..) | Step::Host(_) => None,
        })
    }
}
