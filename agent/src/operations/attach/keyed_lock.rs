//! One request at a time works on an endpoint, and one on a container.

use std::collections::BTreeSet;

use overlay::model::id::EndpointId;
use tokio::sync::watch;

/// Which requests work on what: of two requests for one endpoint, or for one container, the second waits for the first.
#[derive(Debug, Clone, Default)]
pub struct KeyedLock(watch::Sender<BTreeSet<Work>>);

/// What one request at a time works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Work {
    /// An endpoint.
    Endpoint(EndpointId),
    /// A container, by the kernel's number for its namespace: it gets interfaces one after the other.
    Container(u64),
}

/// As long as it lives, no other request works on the same.
#[derive(Debug)]
pub(super) struct KeyedLockGuard {
    lock: KeyedLock,
    work: Work,
}

impl KeyedLock {
    pub(super) async fn take(&self, work: Work) -> KeyedLockGuard {
        let mut others = self.0.subscribe();
        while !self.0.send_if_modified(|taken| taken.insert(work)) {
            // Of several that wait, the first to insert is next. The sender lives as long as `self`.
            let _ = others.wait_for(|taken| !taken.contains(&work)).await;
        }
        KeyedLockGuard { lock: self.clone(), work }
    }
}

impl Drop for KeyedLockGuard {
    fn drop(&mut self) {
        self.lock.0.send_if_modified(|taken| taken.remove(&self.work));
    }
}
