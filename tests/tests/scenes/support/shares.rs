//! Which scenes run at the same time: each takes a share of the machine, and waits until that share is free.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// How much of the machine a scene needs to itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// Its bounds are seconds, and it waits more than it computes.
    Light,
    /// Its bounds are seconds, and it computes about as much as it waits.
    Heavy,
    /// It measures milliseconds, or fills the machine by itself.
    Alone,
}

/// The shares of a machine of two processors. A light scene keeps a processor busy for a quarter of the time and a heavy one for
/// half of it, so four light scenes or three heavy ones leave something to spare.
const WHOLE: usize = 12;

impl Load {
    fn shares(self) -> usize {
        match self {
            Self::Light => 3,
            Self::Heavy => 4,
            Self::Alone => WHOLE,
        }
    }
}

/// The shares that are free, and the scenes that wait for some.
#[derive(Debug)]
pub struct Shares {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    free: usize,
    /// The shares that each waiting scene needs, by its place in the table.
    waiting: BTreeMap<usize, usize>,
}

impl State {
    /// Whether the scene at this place is the first one that fits.
    fn is_next(&self, place: usize) -> bool {
        self.waiting.iter().find(|(_, shares)| **shares <= self.free).is_some_and(|(first, _)| *first == place)
    }
}

impl Shares {
    pub const fn new() -> Self {
        Self { state: Mutex::new(State { free: WHOLE, waiting: BTreeMap::new() }), changed: Condvar::new() }
    }

    /// Runs `work` once its share is free. A scene that fits goes before an earlier one that does not, so scenes that need
    /// the whole machine run last, and the machine is never idle because one of them waits.
    pub fn take<T>(&self, place: usize, load: Load, work: impl FnOnce() -> T) -> T {
        let shares = load.shares();
        let mut state = self.state();
        state.waiting.insert(place, shares);
        while !state.is_next(place) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting.remove(&place);
        state.free -= shares;
        drop(state);
        self.changed.notify_all();
        let _taken = Taken { of: self, shares };
        work()
    }

    /// A scene that panicked has left nothing half done here.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a scene gives back when it ends.
struct Taken<'a> {
    of: &'a Shares,
    shares: usize,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.of.state().free += self.shares;
        self.of.changed.notify_all();
    }
}
