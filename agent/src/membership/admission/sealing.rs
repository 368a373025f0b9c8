//! The tasks that ask hosts for seals, one for each host. They end with the admission.

use std::collections::HashMap;

use overlay::model::id::HostId;
use tokio::task::{Id, JoinSet};

#[derive(Debug, Default)]
pub(super) struct Sealing {
    tasks: JoinSet<()>,
    hosts: HashMap<Id, HostId>,
}

impl Sealing {
    /// Is the host being asked?
    pub(super) fn is_asking(&self, host: HostId) -> bool {
        self.hosts.values().any(|asked| *asked == host)
    }

    /// Starts to ask a host.
    pub(super) fn start(&mut self, host: HostId, asking: impl Future<Output = ()> + Send + 'static) {
        let id = self.tasks.spawn(asking).id();
        self.hosts.insert(id, host);
    }

    /// Parts with the tasks that have ended. One that has panicked is told of, and its host may be asked again.
    pub(super) fn part_with_ended(&mut self) {
        while let Some(ended) = self.tasks.try_join_next_with_id() {
            let id = ended.as_ref().map_or_else(tokio::task::JoinError::id, |(id, ())| *id);
            let host = self.hosts.remove(&id);
            if let (Err(error), Some(host)) = (ended, host) {
                tracing::error!(host = %host.short(), %error, "the task that asks this host for seals has failed");
            }
        }
    }
}
