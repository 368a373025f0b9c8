//! Noticing that somebody writes a setting under `/proc/sys/net`: of most of them the kernel tells nothing by netlink.
//!
//! inotify tells of writes through the file system that is watched. Who writes through another mount of `/proc` is noticed by the next
//! audit.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::StreamExt;
use inotify::{EventMask, EventStream, Inotify, WatchDescriptor, WatchMask, Watches};
use tokio::task::JoinHandle;

use super::watch::Changes;
use crate::model::id::NetworkId;

/// Bytes of the events that are read at once.
const BUFFER: usize = 64 * 1024;

/// Watches settings for as long as it is kept.
pub(super) struct SettingsWatch {
    watched: Watched,
    task: JoinHandle<()>,
}

/// What is watched, and whose settings they are. Watches are added from a thread that is in the namespace in question.
#[derive(Clone)]
pub(super) struct Watched {
    watches: Watches,
    networks: Arc<Mutex<HashMap<WatchDescriptor, NetworkId>>>,
}

impl SettingsWatch {
    /// Watches nothing yet. Must be called on a tokio runtime.
    pub(super) fn open(changes: &Changes) -> io::Result<Self> {
        let inotify = Inotify::init()?;
        let watched = Watched { watches: inotify.watches(), networks: Arc::default() };
        let events = inotify.into_event_stream(vec![0; BUFFER])?;
        let task = tokio::spawn(follow(events, watched.clone(), changes.clone()));
        Ok(Self { watched, task })
    }

    pub(super) fn watched(&self) -> &Watched {
        &self.watched
    }
}

impl Drop for SettingsWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watched {
    /// Watches the directories of a network's settings; those that are not there are not watched. If the kernel takes no more watches
    /// (`fs.inotify.max_user_watches`), audits have to do.
    pub(super) fn add(&self, network: NetworkId, directories: impl IntoIterator<Item = PathBuf>) -> io::Result<()> {
        for directory in directories {
            match self.watches.clone().add(&directory, WatchMask::MODIFY) {
                Ok(watch) => drop(self.networks().insert(watch, network)),
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::StorageFull) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn networks(&self) -> MutexGuard<'_, HashMap<WatchDescriptor, NetworkId>> {
        self.networks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn follow(mut events: EventStream<Vec<u8>>, watched: Watched, changes: Changes) {
    while let Some(Ok(event)) = events.next().await {
        let mut networks = watched.networks();
        if event.mask.contains(EventMask::Q_OVERFLOW) {
            networks.values().for_each(|network| changes.note_settings(*network));
        } else if event.mask.contains(EventMask::IGNORED) {
            networks.remove(&event.wd);
        } else if let Some(network) = networks.get(&event.wd) {
            changes.note_settings(*network);
        }
    }
}
