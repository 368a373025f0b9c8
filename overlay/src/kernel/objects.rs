//! The links, forwarding rows and permanent neighbours of a segment as they are now: the copy, brought up to date.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rtnetlink::{Error, Handle};

use super::listener::Listener;
use super::mirror::{Dump, Mirror};
use super::{fdb, link, neigh};

/// That many requests for single links cost as much as one for all of them: so many, and one for each eight that there are.
const FEW: usize = 16;
/// Messages that are lost again and again while all is read: what was read is used all the same, and nothing of it is kept.
const TRIES: usize = 3;

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

    /// Makes the copy what the kernel has: with all changes that were made before the call.
    pub(super) async fn refresh(&self, route: &Handle) -> Result<(), Error> {
        self.catch_up();
        for _ in 0..TRIES {
            if self.get().is_whole() {
                break;
            }
            self.read_all(route).await?;
        }
        let (touched, there) = {
            let mut mirror = self.get();
            (mirror.take_touched(), mirror.link_count())
        };
        let read = async {
            if touched.len() > FEW + there / 8 {
                let links = link::all(route).await?;
                self.get().set_links(links);
            } else {
                for index in &touched {
                    let link = link::numbered(route, *index).await?;
                    self.get().set_link(*index, link);
                }
            }
            Ok(())
        };
        let read = read.await;
        if read.is_err() {
            self.get().forget();
        }
        read
    }

    /// Hears of all changes that were made before the call; gives whether the sockets are still of use.
    fn catch_up(&self) -> bool {
        let is_listening = self.listeners.iter().all(|listener| listener.catch_up().is_ok());
        if !is_listening {
            self.get().forget();
        }
        is_listening
    }

    async fn read_all(&self, route: &Handle) -> Result<(), Error> {
        self.get().begin();
        let links = link::all(route).await?;
        let rows = fdb::all(route).await?;
        let neighbours = neigh::all_permanent(route).await?;
        // What was told of meanwhile, and not before, comes on top of it.
        let is_listening = self.catch_up();
        let mut mirror = self.get();
        mirror.finish(Dump { links, rows, neighbours });
        if !is_listening {
            mirror.forget();
        }
        Ok(())
    }
}
