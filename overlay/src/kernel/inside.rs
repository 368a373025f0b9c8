//! What is kept open of one namespace: sockets that were made inside it and are used from here.

use std::path::PathBuf;
use std::sync::Arc;

use rtnetlink::Handle;

use super::netns::{self, Netns, NetnsError, blocking};
use super::nft::Reader;
use super::watch::{Answered, Changes, Watcher};
use crate::model::id::NetworkId;

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

    /// The way into the namespace of the host once more, with other sockets, wherever the calling thread is.
    pub(super) async fn renewed(netns: Arc<Netns>, changes: &Changes) -> Result<Self, NetnsError> {
        let changes = changes.clone();
        blocking(move || {
            let watcher = Watcher::of_host(&netns, &changes)?;
            Self::new(netns, watcher, Answered::default())
        })
        .await
    }

    /// The segment of a network whose namespace is kept at `path`.
    pub(super) async fn segment(path: PathBuf, network: NetworkId, changes: &Changes) -> Result<Self, NetnsError> {
        let changes = changes.clone();
        blocking(move || Self::open(Netns::open(&path)?, network, &changes)).await
    }

    /// A segment that was just made.
    pub(super) async fn made(netns: Netns, network: NetworkId, changes: &Changes) -> Result<Self, NetnsError> {
        let changes = changes.clone();
        blocking(move || Self::open(netns, network, &changes)).await
    }

    fn open(netns: Netns, network: NetworkId, changes: &Changes) -> Result<Self, NetnsError> {
        let answered = Answered::default();
        let watcher = Watcher::of_segment(&netns, network, changes, &answered)?;
        Self::new(Arc::new(netns), watcher, answered)
    }

    fn new(netns: Arc<Netns>, watcher: Watcher, answered: Answered) -> Result<Self, NetnsError> {
        let route = netns::connect(&netns)?;
        let rules = Reader::open(&netns)?;
        Ok(Self { netns, route, rules, answered, _watcher: watcher })
    }
}
