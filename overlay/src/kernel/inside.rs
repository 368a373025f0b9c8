//! What is kept open of one namespace: sockets that were made inside it and are used from here.

use std::path::Path;
use std::sync::Arc;

use rtnetlink::Handle;

use super::netns::{self, Netns, NetnsError};
use super::nft::Reader;
use super::watch::{Answered, Changes, Watcher};

/// The way into a namespace.
pub(super) struct Inside {
    pub netns: Arc<Netns>,
    pub route: Handle,
    pub rules: Reader,
    pub answered: Answered,
    _watcher: Watcher,
}

impl Inside {
    /// The host's namespace: the one of the calling thread.
    pub(super) fn host(changes: &Changes) -> Result<Self, NetnsError> {
        let netns = Netns::current()?;
        let watcher = Watcher::of_host(&netns, changes)?;
        Self::new(Arc::new(netns), watcher, Answered::default())
    }

    /// Opens other sockets in the host's namespace, wherever the calling thread is.
    pub(super) fn renew_host(&mut self, changes: &Changes) -> Result<(), NetnsError> {
        let watcher = Watcher::of_host(&self.netns, changes)?;
        *self = Self::new(Arc::clone(&self.netns), watcher, Answered::default())?;
        Ok(())
    }

    /// The segment whose namespace is kept at `path`.
    pub(super) fn segment(path: &Path, changes: &Changes) -> Result<Self, NetnsError> {
        Self::made(Netns::open(path)?, changes)
    }

    /// A segment that was just made.
    pub(super) fn made(netns: Netns, changes: &Changes) -> Result<Self, NetnsError> {
        let answered = Answered::default();
        let watcher = Watcher::of_segment(&netns, changes, &answered)?;
        Self::new(Arc::new(netns), watcher, answered)
    }

    fn new(netns: Arc<Netns>, watcher: Watcher, answered: Answered) -> Result<Self, NetnsError> {
        let route = netns::connect(&netns)?;
        let rules = Reader::open(&netns)?;
        Ok(Self { netns, route, rules, answered, _watcher: watcher })
    }
}
