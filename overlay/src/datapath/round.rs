//! One round: look, plan, apply, report.

use crate::datapath::attention::Look;
use crate::datapath::desired::Desired;
use crate::datapath::kernel_api::{Kernel, StepError};
use crate::datapath::observed::Observed;
use crate::datapath::plan::{Knowledge, Step, plan_parts};
use crate::datapath::report::Report;

/// One round. A failed step is reported, and the other segments go on.
///
/// Only the parts in `look` are looked at and changed, and only they are in the answer.
///
/// # Errors
/// Only when the kernel can't even be looked at.
pub async fn round(
    kernel: &mut impl Kernel,
    look: &Look,
    desired: &Desired,
    knowledge: Knowledge,
) -> Result<(Observed, Report), StepError> {
    kernel.set_peers(&desired.peers);
    let observed = kernel.observe(look).await?;
    let mut report = Report::default();
    let mut batches = batches(plan_parts(look, &observed, desired, knowledge));
    if batches.is_empty() {
        // The kernel clears what no observation shows.
        batches.push(Vec::new());
    }
    for batch in batches {
        let broken: Vec<&Step> =
            report.failed.iter().map(|(step, _)| step).filter(|step| step.carries_others()).collect();
        let (skipped, batch): (Vec<Step>, Vec<Step>) =
            batch.into_iter().partition(|step| broken.iter().any(|failed| step.stands_on(failed)));
        report.skipped.extend(skipped);
        let results = kernel.apply(&batch).await;
        report.note(batch, results);
    }
    Ok((observed, report))
}

/// Cuts a plan where a step may depend on the one before it: steps that can be done together stay together, all others are alone.
fn batches(steps: Vec<Step>) -> Vec<Vec<Step>> {
    let mut batches: Vec<Vec<Step>> = Vec::new();
    for step in steps {
        match batches.last_mut() {
            Some(batch) if batch.last().is_some_and(|last| step.joins(last)) => batch.push(step),
            _ => batches.push(vec![step]),
        }
    }
    batches
}

#[cfg(test)]
mod tests;
