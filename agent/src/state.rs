//! All that belongs to this host: its ledger and its intents. One thread owns them and the file that they are kept in.
//!
//! Decisions are made by [`overlay::operations`]. This module runs them one after the other, makes what they change durable, and only then
//! lets the answer, the record and the intents be seen. Whatever this host answers, announces or wants of the kernel is on disk
//! before.

use std::convert::Infallible;
use std::sync::Arc;

use overlay::ledger::{Activation, Membership, Millis};
use overlay::model::host::HostInfo;
use overlay::model::intent::Intents;
use overlay::model::record::Record;
use overlay::operations::{Request, State};
use tokio::sync::{mpsc, oneshot, watch};

pub mod fail_points;
pub mod identity;
mod owner;
pub mod run_marker;
pub mod store;

use owner::Owner;
use run_marker::RunMarker;
use store::{Loaded, Store, StoreError};

/// Milliseconds since boot, sleep included.
pub fn now() -> Millis {
    let clock = nix::time::ClockId::CLOCK_BOOTTIME;
    let time = nix::time::clock_gettime(clock).expect("Linux has had this clock since 2.6.39");
    let (seconds, nanos) = (time.tv_sec().unsigned_abs(), time.tv_nsec().unsigned_abs());
    seconds * 1000 + nanos / 1_000_000
}

/// The state as it is on disk.
#[derive(Debug, Clone)]
pub struct Committed {
    /// How many commits there were.
    pub commit: u64,
    /// The state after the last one.
    pub state: State,
}

/// The intents, and the commit that changed them last.
#[derive(Debug, Clone, Default)]
pub struct CommittedIntents {
    /// Number of the commit.
    pub commit: u64,
    /// The intents.
    pub intents: Arc<Intents>,
}

/// A request that was decided, and whose changes are durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done<A> {
    /// The commit of the intents that hold what was decided. A round of the reconciler that has carried it out shows it, or a later one,
    /// in its status.
    pub commit: u64,
    /// The answer.
    pub answer: A,
}

/// Why a request came to nothing.
#[derive(Debug)]
pub enum DecideError<R> {
    /// It was refused.
    Refused(R),
    /// Its changes could not be made durable, so nothing has happened.
    Store(StoreError),
}

impl From<DecideError<Infallible>> for StoreError {
    fn from(error: DecideError<Infallible>) -> Self {
        match error {
            DecideError::Store(error) => error,
            DecideError::Refused(never) => match never {},
        }
    }
}

type Call = Box<dyn FnOnce(&mut Owner) + Send>;

/// How many requests may wait for the state's thread. A caller that finds the queue full waits until there is room.
const QUEUE: usize = 256;

/// The way to the state.
#[derive(Debug, Clone)]
pub struct Handle {
    calls: mpsc::Sender<Call>,
    /// The state as it is on disk; changes with every commit.
    pub committed: watch::Receiver<Committed>,
    /// What this host was asked for; changes only when that does.
    pub intents: watch::Receiver<CommittedIntents>,
    /// What this host says of itself. A new revision of the ledger alone is in it, but wakes no task.
    pub record: watch::Receiver<Arc<Record>>,
    /// May this host act?
    pub activation: watch::Receiver<Activation>,
    /// Who belongs to the cluster, as the ledger sees it; changes only when that does.
    pub membership: watch::Receiver<Arc<Membership>>,
}

impl Handle {
    /// Has a request decided. What it changes is durable when this returns.
    ///
    /// # Errors
    /// When it is refused, or can't be made durable; then nothing has happened.
    pub async fn decide<R>(&self, request: R) -> Result<Done<R::Answer>, DecideError<R::Refusal>>
    where
        R: Request + Send + 'static,
        R::Answer: Send,
        R::Refusal: Send,
    {
        self.call(move |owner| owner.decide(&request)).await
    }

    /// The same for a request that is never refused.
    ///
    /// # Errors
    /// When it can't be made durable; then nothing has happened.
    pub async fn tell<R>(&self, request: R) -> Result<Done<R::Answer>, StoreError>
    where
        R: Request<Refusal = Infallible> + Send + 'static,
        R::Answer: Send,
    {
        Ok(self.decide(request).await?)
    }

    /// The state as it is on disk.
    pub fn state(&self) -> State {
        self.committed.borrow().state.clone()
    }

    /// Is it on disk that this host gave its identity up?
    ///
    /// # Errors
    /// When it can't be made durable. Then the endpoints are cut off all the same.
    pub async fn write_owed(&self) -> Result<(), StoreError> {
        self.call(Owner::write_owed).await
    }

    /// A gossip generation that this host never had: `now_ms`, or one more than the last. For a thread that may block.
    ///
    /// # Errors
    /// When it can't be made durable.
    pub fn next_generation_blocking(&self, now_ms: u64) -> Result<u64, StoreError> {
        let (answer, result) = std::sync::mpsc::channel();
        let call: Call = Box::new(move |owner| drop(answer.send(owner.next_generation(now_ms))));
        // Gossip's thread is one of a runtime, where `blocking_send` panics.
        futures::executor::block_on(self.calls.send(call)).expect("the state's thread lives as long as a handle");
        result.recv().expect("the state's thread answers every call")
    }

    async fn call<T: Send + 'static>(&self, work: impl FnOnce(&mut Owner) -> T + Send + 'static) -> T {
        let (answer, result) = oneshot::channel();
        // A caller that waits no longer is no error: what was done is done.
        let call: Call = Box::new(move |owner| drop(answer.send(work(owner))));
        self.calls.send(call).await.expect("the state's thread lives as long as a handle");
        result.await.expect("the state's thread answers every call")
    }
}

/// Starts the state's thread. It ends with the last handle.
///
/// # Errors
/// When what is on disk can't be put in order.
pub fn spawn(store: Store, loaded: Loaded, info: HostInfo, marker: RunMarker) -> Result<Handle, StoreError> {
    let (mut owner, watched) = Owner::start(store, loaded, info, marker)?;
    let (calls, mut inbox) = mpsc::channel::<Call>(QUEUE);
    let run = move || {
        while let Some(call) = inbox.blocking_recv() {
            call(&mut owner);
        }
    };
    let thread = std::thread::Builder::new().name("state".to_owned());
    thread.spawn(run).expect("a thread can be started when the daemon starts");
    let owner::Watched { committed, intents, record, activation, membership } = watched;
    Ok(Handle { calls, committed, intents, record, activation, membership })
}

#[cfg(test)]
pub(crate) mod tests;
