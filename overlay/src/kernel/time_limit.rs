//! No answer is waited for without end: a round that hangs would keep all networks from being repaired.
//!
//! What is given up half-way is safe to leave: a port counts only once it is marked, and all else shows in the next look.

use std::time::Duration;

use tokio::time::timeout;

use crate::datapath::kernel_api::{Cause, StepError};

/// How long the kernel may take for one step, or for one look into a namespace; it takes milliseconds, and a second
/// with tens of thousands of rows.
pub(super) const TIMEOUT: Duration = Duration::from_secs(15);

#[derive(Debug, thiserror::Error)]
#[error("no answer within {} s", TIMEOUT.as_secs())]
struct NoAnswer;

/// Does `work`, but gives it up in the end: the kernel is busy.
pub(super) async fn within<T, S: Into<String>>(
    doing: impl FnOnce() -> S,
    work: impl Future<Output = Result<T, StepError>>,
) -> Result<T, StepError> {
    timeout(TIMEOUT, work).await.unwrap_or_else(|_| Err(no_answer(doing())))
}

/// The failure of what was given up.
pub(super) fn no_answer(doing: impl Into<String>) -> StepError {
    StepError::new(doing, Cause::Busy).said_by(NoAnswer)
}
