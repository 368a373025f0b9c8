//! What a host finds on its disk when it starts: its state, none, or one that it must not go on with.

use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use overlay::id::HostId;

use super::{Loaded, Machine, OfNoUse, Store, StoreError, Write};

/// What is on the disk. Nothing is changed yet, so that whatever hangs on an identity that is given up can be undone before
/// there has to be room for a new one.
#[derive(Debug)]
pub struct Found {
    path: PathBuf,
    machine: Machine,
    state: State,
}

#[derive(Debug)]
enum State {
    None,
    Own(Store),
    /// And where the others were, for the new life of a host that gave its identity up.
    OfNoUse(OfNoUse, BTreeMap<HostId, SocketAddr>),
}

impl Found {
    /// Looks. The directory is made if it is not there; it and the file are for their owner only: the host's key is in
    /// there.
    ///
    /// # Errors
    /// When the directory can't be used, or the file is another process's or damaged. Nothing is changed then.
    pub fn look(dir: &Path, machine: &Machine) -> Result<Self, StoreError> {
        let directory = |source| StoreError::Directory { path: dir.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(directory)?;
        let (path, machine) = (dir.join("state.redb"), machine.clone());
        if !path.try_exists().map_err(directory)? {
            return Ok(Self { path, machine, state: State::None });
        }
        let mut store = Store::open_file(&path)?;
        let state = match store.of_no_use(&machine)? {
            None if store.meta("key")?.is_some() => State::Own(store),
            None => State::None,
            // It does not have to find them: it may have been told whom to join.
            Some(why @ OfNoUse::Fenced(_)) => State::OfNoUse(why, store.peers().unwrap_or_default()),
            Some(why @ OfNoUse::OtherMachine) => State::OfNoUse(why, BTreeMap::new()),
        };
        Ok(Self { path, machine, state })
    }

    /// Can this host go on as who it was? If not, nothing that is in its kernel is its own any more.
    pub fn is_own(&self) -> bool {
        matches!(self.state, State::Own(_))
    }

    /// Is there none, though this host ran on one since it booted?
    pub fn is_missing(&self) -> bool {
        matches!(self.state, State::None) && self.machine.ran.is_some()
    }

    /// Takes the state up; one that is of no use is put aside, and a new one made, with a new identity.
    ///
    /// # Errors
    /// When that can't be written.
    pub fn take_up(self) -> Result<(Store, Loaded), StoreError> {
        let Self { path, machine, state } = self;
        let (put_aside, peers) = match state {
            State::Own(mut store) => {
                let loaded = store.take_up(&machine)?;
                return Ok((store, loaded));
            }
            State::None => (None, BTreeMap::new()),
            State::OfNoUse(why, peers) => {
                let aside = path.with_extension(format!("redb.{}-{}", why.suffix(), machine.now));
                let renamed = std::fs::rename(&path, &aside);
                renamed.map_err(|source| StoreError::Directory { path: path.clone(), source })?;
                (Some((aside, why)), peers)
            }
        };
        let begun = Store::open_file(&path).and_then(|mut store| {
            let loaded = store.take_up(&machine)?;
            Ok((store, loaded))
        });
        let begun = begun.and_then(|(mut store, loaded)| {
            if peers.is_empty() {
                return Ok((store, loaded));
            }
            let page = store.commit(&peers.iter().map(|(id, at)| Write::Peer(*id, Some(*at))).collect::<Vec<_>>())?;
            Ok((store, Loaded { peers, page, ..loaded }))
        });
        match begun {
            Ok((store, loaded)) => Ok((store, Loaded { put_aside, ..loaded })),
            Err(StoreError::Directory { source, .. }) => Err(no_room(path, put_aside, source)),
            Err(StoreError::Write { source, .. }) => Err(no_room(path, put_aside, source)),
            Err(error) => Err(error),
        }
    }
}

fn no_room(
    path: PathBuf,
    put_aside: Option<(PathBuf, OfNoUse)>,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> StoreError {
    StoreError::New { path, put_aside: put_aside.map(|(aside, _)| aside), source: source.into() }
}
