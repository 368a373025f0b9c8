//! The owner of the state: decides one request after the other. Disk first, then memory, then the watch channels.

use std::sync::Arc;

use overlay::ledger::{self, Activation, Membership};
use overlay::model::host::HostInfo;
use overlay::model::intent::Intents;
use overlay::model::member::Stamp;
use overlay::model::record::Record;
use overlay::operations::detach::TidyUp;
use overlay::operations::{Change, Decision, Request, State, decide};
use tokio::sync::watch;

use super::fail_points::{self, Point};
use super::run_marker::RunMarker;
use super::store::{Loaded, Store, StoreError};
use super::{Committed, CommittedIntents, DecideError, Done, now};

/// Owns the state and its file.
#[derive(Debug)]
pub(super) struct Owner {
    store: Store,
    state: State,
    commit: u64,
    marker: RunMarker,
    /// How far the ledger had come when the marker was written.
    marked: Option<Stamp>,
    /// That this host gives its identity up, as long as the disk does not take it.
    owed: Vec<Change>,
    committed: watch::Sender<Committed>,
    intents: watch::Sender<CommittedIntents>,
    record: watch::Sender<Arc<Record>>,
    activation: watch::Sender<Activation>,
    membership: watch::Sender<Arc<Membership>>,
}

/// What others see of the state.
pub(super) struct Watched {
    pub committed: watch::Receiver<Committed>,
    pub intents: watch::Receiver<CommittedIntents>,
    pub record: watch::Receiver<Arc<Record>>,
    pub activation: watch::Receiver<Activation>,
    pub membership: watch::Receiver<Arc<Membership>>,
}

impl Owner {
    /// Takes the state up, and puts in order what a crash has left.
    pub(super) fn start(
        store: Store,
        loaded: Loaded,
        info: HostInfo,
        marker: RunMarker,
    ) -> Result<(Self, Watched), StoreError> {
        let Loaded { ledger, seats, attachments, links, peers, commit, .. } = loaded;
        let intents = Intents { seats, attachments, links, ..Intents::default() };
        let state = State::new(ledger, intents, peers, info);
        let activation = state.ledger.membership().activation.clone();
        let (committed, committed_rx) = watch::channel(Committed { commit, state: state.clone() });
        let (intents, intents_rx) = watch::channel(CommittedIntents { commit, intents: Arc::clone(&state.intents) });
        let (record, record_rx) = watch::channel(Arc::new(state.record()));
        let (activation, activation_rx) = watch::channel(activation);
        let (membership, membership_rx) = watch::channel(Arc::clone(state.ledger.shared_membership()));
        let mut owner = Self {
            store,
            state,
            commit,
            marker,
            marked: None,
            owed: Vec::new(),
            committed,
            intents,
            record,
            activation,
            membership,
        };
        owner.decide(&TidyUp)?;
        owner.mark();
        let watched = Watched {
            committed: committed_rx,
            intents: intents_rx,
            record: record_rx,
            activation: activation_rx,
            membership: membership_rx,
        };
        Ok((owner, watched))
    }

    /// Decides about a request. What it changes is durable when this returns.
    pub(super) fn decide<R: Request>(&mut self, request: &R) -> Result<Done<R::Answer>, DecideError<R::Refusal>> {
        let Decision { changes, answer } = decide(&self.state, request, now()).map_err(DecideError::Refused)?;
        self.make(&changes).map_err(DecideError::Store)?;
        let commit = self.intents.borrow().commit;
        Ok(Done { commit, answer })
    }

    /// Writes that this host gave its identity up, if that is still to be written.
    pub(super) fn write_owed(&mut self) -> Result<(), StoreError> {
        if !self.owed.is_empty() {
            self.store.commit(&self.owed)?;
            self.owed.clear();
        }
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn store(&mut self) -> &mut Store {
        &mut self.store
    }

    pub(super) fn next_generation(&mut self, now_ms: u64) -> Result<u64, StoreError> {
        self.store.next_generation(now_ms)
    }

    /// Only an identity is given up whatever the disk says: other hosts use what it had. Killed before the disk takes it, the host finds
    /// a ledger that is behind what it ran on, and asks before it acts.
    fn make(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        if changes.is_empty() {
            return Ok(());
        }
        self.write_owed()?;
        let fenced = changes.iter().any(Change::fences);
        if changes.iter().any(Change::is_durable) {
            self.commit = match self.store.commit(changes) {
                Err(_) if fenced => {
                    self.owed = changes.to_vec();
                    self.commit + 1
                }
                committed => committed?,
            };
        }
        self.state.apply(changes);
        self.warn_of_withdrawn(changes);
        if fenced {
            // The kernel is to know before this host starts again under another identity.
            fail_points::reach(Point::Fenced);
        }
        self.show();
        fail_points::reach(Point::BeforeAnswer);
        Ok(())
    }

    /// Lets all that watch the state see what has changed, and wakes only those whom that concerns.
    fn show(&mut self) {
        self.mark();
        let (commit, state) = (self.commit, &self.state);
        self.committed.send_replace(Committed { commit, state: state.clone() });
        self.intents.send_if_modified(|known| {
            let changed = !Arc::ptr_eq(&known.intents, &state.intents);
            if changed {
                *known = CommittedIntents { commit, intents: Arc::clone(&state.intents) };
            }
            changed
        });
        self.record.send_if_modified(|known| {
            let record = state.record();
            let changed = !known.says_the_same(&record);
            *known = Arc::new(record);
            changed
        });
        self.membership.send_if_modified(|known| {
            let before = std::mem::replace(known, Arc::clone(state.ledger.shared_membership()));
            !Arc::ptr_eq(&before, known)
        });
        // Last: a task that waits for it finds the rest as it is under that activation.
        self.activation.send_if_modified(|known| {
            let now = &state.ledger.membership().activation;
            known != now && {
                *known = now.clone();
                true
            }
        });
    }

    /// Notes in the run directory how far the ledger has come.
    fn mark(&mut self) {
        let stamp = self.state.ledger.stamp();
        if self.marked != Some(stamp) {
            self.marker.leave(self.state.ledger.me(), stamp);
            self.marked = Some(stamp);
        }
    }

    /// An operator who said that a host is off may wait for an answer no longer.
    fn warn_of_withdrawn(&self, changes: &[Change]) {
        let (me, seals) = (self.state.ledger.me(), &self.state.ledger.membership().seals);
        for change in changes {
            if let Change::Ledger(ledger::Change::Withdraw(host)) = change
                && seals.get(host).is_some_and(|seal| seal.heir == me && !seal.done)
            {
                tracing::warn!(
                    host = %host.short(),
                    "the host is not forgotten: a member has heard from it since; if it is off now, run `overlayctl host \
                     forget` again"
                );
            }
        }
    }
}
