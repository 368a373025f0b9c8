//! The links, forwarding rows and permanent neighbours of a segment as they are now: the copy, brought up to date.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rtnetlink::{Error, Handle};

use super::listener::Listener;
use super::mirror::{Dump, Mirror};
use super::{fdb, link, neigh};

/// That many requests for single links cost as much as one for all of them: so many, and one for each eight that there are.
const FEW: usize = 16;

/// The copy, and the sockets on which the kernel tells of changes of routes, links and rows, and of rules.
#[derive(Clone)]
pub(super) struct Objects {
    pub(super) mirror: Arc<Mutex<Mirror>>,
    pub(super) listeners: [Arc<Listener>; 2],
}

impl Objects {
    /// The copy as it is.
    pub(super) fn get(&self) -> MutexGuard<'_, Mirror> {
        self.mirror.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All is read again by the next refresh.
    pub(super) fn forget(&self) {
        self.get().forget();
    }

    /// Hears of all changes that were made before the call.
    ///
    /// # Errors
    /// When a socket is of no more use.
    pub(super) fn catch_up(&self) -> io::Result<()> {
        self.listeners.iter().try_for_each(|listener| listener.catch_up())
    }

    /// Makes the copy what the kernel has: with all changes that were made before the last [`catch_up`](Self::catch_up).
    pub(super) async fn refresh(&self, route: &Handle) -> Result<(), Error> {
        if !self.get().is_whole() {
            self.read_all(route).await?;
        }
        self.read_touched(route).await
    }

    /// Reads the links again that have changed.
    async fn read_touched(&self, route: &Handle) -> Result<(), Error> {
        let (mut touched, few) = {
            let mirror = self.get();
            (mirror.touched(), FEW + mirror.link_count() / 8)
        };
        if touched.len() > few {
            let links = link::all(route).await?;
            let there: BTreeSet<u32> = links.iter().map(|link| link.index).collect();
            let mut mirror = self.get();
            for link in links {
                let told = touched.remove(&link.index);
                mirror.set_link(link.index, told, Some(link));
            }
            // What a dump has not, it may have missed: each of these is asked for.
            touched.extend(mirror.links().filter(|link| !there.contains(&link.index)).map(|link| (link.index, 0)));
        }
        for (index, told) in touched {
            let link = link::numbered(route, index).await?;
            self.get().set_link(index, Some(told), link);
        }
        Ok(())
    }

    /// What was read is used also if it can't be kept.
    async fn read_all(&self, route: &Handle) -> Result<(), Error> {
        self.get().begin();
        let links = link::all(route).await?;
        let rows = fdb::all(route).await?;
        let neighbours = neigh::all_permanent(route).await?;
        // What was told of meanwhile, and not before, comes on top of it. A socket that fails fails the next look.
        if self.catch_up().is_err() {
            self.forget();
        }
        self.get().finish(Dump { links, rows, neighbours });
        Ok(())
    }
}
