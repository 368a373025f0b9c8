//! Supervision of the daemon's tasks. Each has a name. The daemon ends with an error that names a task that ends without being told to,
//! and a panic is reported with the name of its task: a daemon that goes on without a part is worse than one that ends and is
//! started again.
//!
//! A task that ends closes its channels, and other tasks end by that. So those that end within [`AFTERMATH`] are looked at together: a
//! panic is the cause, or else the task that was started first, since later ones read what earlier ones write.

use std::any::Any;
use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{Id, JoinError, JoinHandle, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::RunError;

/// All supervised tasks. Dropping it aborts them.
#[derive(Default)]
pub(super) struct Tasks {
    set: JoinSet<Result<(), RunError>>,
    tasks: HashMap<Id, Task>,
    started: usize,
    stop: CancellationToken,
    /// Cancelled when the tasks that were started elsewhere are to be aborted.
    abort: CancellationToken,
}

/// How long the others take to end that a task takes with it.
const AFTERMATH: Duration = Duration::from_millis(50);

struct Task {
    name: &'static str,
    end: End,
    /// How many were started before it.
    order: usize,
}

/// What the end of a task means.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// The daemon can't go on without the task. When the daemon stops, the task is aborted.
    Fatal,
    /// The same, but when the daemon stops, the task may finish what is under way.
    FatalUntilStopped,
    /// The same, but when the daemon stops, the task is aborted by its supervision, which waits for its end.
    FatalUntilAborted,
    /// The task has done its work.
    Expected,
}

impl Tasks {
    /// Starts a task that the daemon needs. It may be aborted at any await.
    pub fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.add(name, End::Fatal, async {
            task.await;
            Ok(())
        });
    }

    /// Starts a task that ends when its work is done. It may be aborted at any await.
    pub fn spawn_until_done(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.add(name, End::Expected, async {
            task.await;
            Ok(())
        });
    }

    /// Starts a service that the daemon needs. When the token is cancelled, it finishes what is under way and ends.
    pub fn serve<S>(&mut self, name: &'static str, service: impl FnOnce(CancellationToken) -> S)
    where
        S: Future<Output = Result<(), RunError>> + Send + 'static,
    {
        self.add(name, End::FatalUntilStopped, service(self.stop.clone()));
    }

    /// Takes over a task that was started elsewhere, and that the daemon needs.
    pub fn adopt(&mut self, name: &'static str, task: JoinHandle<()>) {
        let (mut task, abort) = (AbortOnDrop(task), self.abort.clone());
        self.add(name, End::FatalUntilAborted, async move {
            let ended = tokio::select! {
                ended = &mut task.0 => ended,
                () = abort.cancelled() => {
                    task.0.abort();
                    (&mut task.0).await
                }
            };
            match ended {
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                Ok(()) | Err(_) => Ok(()),
            }
        });
    }

    /// Watches a thread or task that the daemon needs, and whose end closes a channel.
    pub fn watch<T: Send + Sync + 'static>(&mut self, name: &'static str, mut channel: watch::Receiver<T>) {
        self.spawn(name, async move { while channel.changed().await.is_ok() {} });
    }

    fn add(&mut self, name: &'static str, end: End, task: impl Future<Output = Result<(), RunError>> + Send + 'static) {
        let id = self.set.spawn(task).id();
        self.started += 1;
        self.tasks.insert(id, Task { name, end, order: self.started });
    }

    /// Waits until a task ends that the daemon can't go on without, or panics.
    pub async fn first_failure(&mut self) -> RunError {
        let mut cause = self.next_failure().await;
        let aftermath = async {
            loop {
                let next = self.next_failure().await;
                if next.0 < cause.0 {
                    cause = next;
                }
            }
        };
        let _ = timeout(AFTERMATH, aftermath).await;
        cause.1
    }

    /// The next failure, and its rank among those that end together: the lowest is the cause.
    async fn next_failure(&mut self) -> ((bool, usize), RunError) {
        loop {
            // Without any task there is nothing to wait for.
            let Some(ended) = self.set.join_next_with_id().await else { return std::future::pending().await };
            let id = ended.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
            let Some(Task { name, end, order }) = self.tasks.remove(&id) else { continue };
            match ended {
                Ok((_, Ok(()))) if end == End::Expected => {}
                Ok((_, Ok(()))) => return ((true, order), RunError::TaskEnded(name)),
                Ok((_, Err(error))) => return ((true, order), error),
                Err(error) => {
                    let message = error.try_into_panic().map_or_else(|error| error.to_string(), |p| text(&*p));
                    return ((false, order), RunError::TaskPanicked { name, message });
                }
            }
        }
    }

    /// Tells the services to take no more calls.
    pub fn begin_stop(&self) {
        self.stop.cancel();
    }

    /// Stops all tasks: services may finish what is under way, for so long; then all are aborted, and have ended when this returns.
    pub async fn stop(mut self, limit: Duration) {
        self.begin_stop();
        if timeout(limit, self.end_of(End::FatalUntilStopped)).await.is_err() {
            tracing::info!(tasks = self.names(End::FatalUntilStopped), "calls that are under way are cut off");
        }
        self.abort.cancel();
        let aborted = async {
            self.end_of(End::FatalUntilAborted).await;
            self.set.shutdown().await;
        };
        if timeout(limit, aborted).await.is_err() {
            tracing::warn!(tasks = self.names(End::FatalUntilAborted), "tasks did not stop in time");
        }
    }

    /// Waits until all tasks of this kind have ended.
    async fn end_of(&mut self, end: End) {
        while self.tasks.values().any(|task| task.end == end) {
            let Some(ended) = self.set.join_next_with_id().await else { break };
            self.tasks.remove(&ended.map_or_else(|error| error.id(), |(id, _)| id));
        }
    }

    fn names(&self, end: End) -> String {
        let names: Vec<_> = self.tasks.values().filter(|task| task.end == end).map(|task| task.name).collect();
        names.join(", ")
    }
}

/// A task that ends with its supervision.
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What a panic said.
fn text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no text".to_owned())
}

#[cfg(test)]
mod tests;
