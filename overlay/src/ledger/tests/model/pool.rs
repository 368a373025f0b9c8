//! Values that many states share: kept once, hashed once, compared by where they are.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::{Arc, Mutex};

/// A value out of a pool.
pub struct Shared<T>(Arc<(u64, T)>);

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.1
    }
}

impl<T> Hash for Shared<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.0);
    }
}

impl<T> PartialEq for Shared<T> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<T: fmt::Debug> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.deref().fmt(f)
    }
}

const SHARDS: u64 = 64;

/// All values of a kind that ever were in a state.
#[derive(Debug)]
pub struct Pool<T> {
    shards: Vec<Mutex<HashMap<u64, Shared<T>>>>,
}

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }
}

impl<T: Hash + PartialEq> Pool<T> {
    /// The value out of the pool. Two values of one hash would be taken for one, so they end the run.
    pub fn share(&self, value: T) -> Shared<T> {
        let mut hasher = DefaultHasher::new();
        value.hash(&mut hasher);
        let hash = hasher.finish();
        let shard = usize::try_from(hash % SHARDS).expect("a small number");
        let mut shard = self.shards[shard].lock().expect("nobody panics with the lock");
        if let Some(known) = shard.get(&hash) {
            assert!(**known == value, "two values have the hash {hash:016x}");
            return known.clone();
        }
        let shared = Shared(Arc::new((hash, value)));
        shard.insert(hash, shared.clone());
        shared
    }
}
