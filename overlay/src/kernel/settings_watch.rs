//! Noticing that somebody writes a setting under `/proc/sys/net`: of most of them the kernel tells nothing by netlink.
//!
//! inotify tells of writes through the mount that is watched. A write through another mount of `/proc` is seen when all settings are read
//! again.

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
    task: Option<JoinHandle<()>>,
}

/// What is watched, and whose settings they are. Watches are added from a thread that is in the namespace in question.
#[derive(Clone, Default)]
pub(super) struct Watched {
    watches: Option<Watches>,
    directories: Arc<Mutex<HashMap<WatchDescriptor, NetworkId>>>,
}

impl SettingsWatch {
    /// Watches nothing yet. Must be called on a tokio runtime. Where the kernel has no more instances of inotify for this user
    /// (`fs.inotify.max_user_instances`), audits have to do.
    pub(super) fn open(changes: &Changes) -> Self {
        let open = || -> io::Result<(Watches, EventStream<Vec<u8>>)> {
            let inotify = Inotify::init()?;
            Ok((inotify.watches(), inotify.into_event_stream(vec![0; BUFFER])?))
        };
        let Ok((watches, events)) = open() else { return Self { watched: Watched::default(), task: None } };
        let watched = Watched { watches: Some(watches), ..Watched::default() };
        let task = tokio::spawn(follow(events, watched.clone(), changes.clone()));
        Self { watched, task: Some(task) }
    }

    pub(super) fn watched(&self) -> &Watched {
        &self.watched
    }
}

impl Drop for SettingsWatch {
    fn drop(&mut self) {
        self.task.iter().for_each(JoinHandle::abort);
    }
}

impl Watched {
    /// Watches the directories of a network's settings, and nothing else of that network any more; those that are not there are not
    /// watched. A directory that is watched already stays so, unless the kernel has made its inode anew meanwhile. If the kernel takes no
    /// more watches (`fs.inotify.max_user_watches`), audits have to do.
    pub(super) fn follow(
        &self,
        network: NetworkId,
        directories: impl IntoIterator<Item = PathBuf>,
    ) -> Vec<WatchDescriptor> {
        let Some(watches) = &self.watches else { return Vec::new() };
        let mut followed = Vec::new();
        for directory in directories {
            if let Ok(watch) = watches.clone().add(&directory, WatchMask::MODIFY) {
                self.directories().insert(watch.clone(), network);
                followed.push(watch);
            }
        }
        followed
    }

    /// Stops to watch what is not among `kept` of a network. The kernel does not do so by itself when a link or a namespace goes.
    pub(super) fn keep_only(&self, network: NetworkId, kept: &[WatchDescriptor]) {
        let is_stale = |watch: &WatchDescriptor, of: &NetworkId| *of == network && !kept.contains(watch);
        let stale: Vec<WatchDescriptor> =
            self.directories().extract_if(|watch, of| is_stale(watch, of)).map(|(watch, _)| watch).collect();
        for watch in stale {
            // One that has gone by itself needs no removal.
            let _ = self.watches.clone().map(|mut watches| watches.remove(watch));
        }
    }

    fn directories(&self) -> MutexGuard<'_, HashMap<WatchDescriptor, NetworkId>> {
        self.directories.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn follow(mut events: EventStream<Vec<u8>>, watched: Watched, changes: Changes) {
    while let Some(Ok(event)) = events.next().await {
        let mut directories = watched.directories();
        if event.mask.contains(EventMask::Q_OVERFLOW) {
            directories.values().for_each(|network| changes.note_settings(*network));
        } else if event.mask.contains(EventMask::IGNORED) {
            directories.remove(&event.wd);
        } else if let Some(network) = directories.get(&event.wd) {
            changes.note_settings(*network);
        }
    }
}
