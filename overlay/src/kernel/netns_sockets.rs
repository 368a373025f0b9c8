//! What is kept open of one namespace: sockets that were made inside it and are used from here.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rtnetlink::Handle;

use super::drift::Baselines;
use super::fixtures::Fixtures;
use super::netns::{self, Netns, NetnsError, blocking};
use super::nft::Reader;
use super::objects::Objects;
use super::watch::{Changes, Watcher};
use crate::model::id::NetworkId;

/// The way into a namespace.
pub(super) struct NetnsSockets {
    pub netns: Arc<Netns>,
    pub route: Handle,
    pub rules: Reader,
    watcher: Watcher,
}

impl NetnsSockets {
    /// The host's namespace: the one of the calling thread.
    pub(super) fn host(changes: &Changes) -> Result<Self, NetnsError> {
        let netns = Netns::current()?;
        let watcher = Watcher::of_host(&netns, changes)?;
        Self::new(Arc::new(netns), watcher)
    }

    /// The way into the namespace of the host once more, with other sockets, wherever the calling thread is.
    pub(super) async fn renewed(netns: Arc<Netns>, changes: &Changes) -> Result<Self, NetnsError> {
        let changes = changes.clone();
        blocking(move || {
            let watcher = Watcher::of_host(&netns, &changes)?;
            Self::new(netns, watcher)
        })
        .await
    }

    /// Tells of all changes that were made until now.
    ///
    /// # Errors
    /// When the kernel tells of changes no longer: other sockets are needed.
    pub(super) fn catch_up(&self) -> io::Result<()> {
        self.watcher.catch_up()
    }

    fn new(netns: Arc<Netns>, watcher: Watcher) -> Result<Self, NetnsError> {
        let route = netns::connect(&netns)?;
        let rules = Reader::open(&netns)?;
        Ok(Self { netns, route, rules, watcher })
    }
}

/// A segment: the way into its namespace, and what is in there.
pub(super) struct Segment {
    pub sockets: NetnsSockets,
    pub objects: Objects,
    /// As far as nothing of them has changed since.
    pub fixtures: Option<Fixtures>,
    /// What its links were like at first.
    pub baselines: Baselines,
}

impl Segment {
    /// That of a network whose namespace is kept at `path`.
    pub(super) async fn kept(path: PathBuf, network: NetworkId, changes: &Changes) -> Result<Self, NetnsError> {
        let changes = changes.clone();
        blocking(move || Self::open(Netns::open(&path)?, network, &changes)).await
    }

    /// One that was just made.
    pub(super) async fn made(netns: Netns, network: NetworkId, changes: &Changes) -> Result<Self, NetnsError> {
        let changes = changes.clone();
        blocking(move || Self::open(netns, network, &changes)).await
    }

    fn open(netns: Netns, network: NetworkId, changes: &Changes) -> Result<Self, NetnsError> {
        let (watcher, objects) = Watcher::of_segment(&netns, network, changes)?;
        Ok(Self {
            sockets: NetnsSockets::new(Arc::new(netns), watcher)?,
            objects,
            fixtures: None,
            baselines: Baselines::default(),
        })
    }
}
