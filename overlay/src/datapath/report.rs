//! What became of a plan.

use crate::datapath::kernel_api::StepError;
use crate::datapath::plan::Step;

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
