//! What a host finds on its disk when it starts: its state, none, or one that it must not go on with.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use overlay::model::id::HostId;

use super::{Loaded, Machine, OfNoUse, Store, StoreError};

/// What is on the disk. Nothing is changed yet, so that whatever hangs on an identity that is given up can be undone before
/// there has to be room for a new one.
#[derive(Debug)]
pub struct StartupState {
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

impl StartupState {
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
        let (why, peers) = match state {
            State::Own(mut store) => {
                let loaded = store.take_up(&machine, &BTreeMap::new())?;
                return Ok((store, loaded));
            }
            State::None => (None, BTreeMap::new()),
            State::OfNoUse(why, peers) => (Some(why), peers),
        };
        begin(&path, &machine, why, &peers).map_err(|error| match error {
            StoreError::Directory { source, .. } => no_room(path, source),
            StoreError::Write { source, .. } => no_room(path, source),
            error @ (StoreError::InUse(_) | StoreError::Corrupt { .. } | StoreError::New { .. }) => error,
        })
    }
}

/// Makes a new state, and puts it in the place of the one there if that is of no use. Until it is whole the old one is found
/// again, and with it where the others are: a host that knows nobody may found a cluster of its own.
fn begin(
    path: &Path,
    machine: &Machine,
    why: Option<OfNoUse>,
    peers: &BTreeMap<HostId, SocketAddr>,
) -> Result<(Store, Loaded), StoreError> {
    let directory = |source| StoreError::Directory { path: path.to_owned(), source };
    let fresh = path.with_extension("fresh");
    match fs::remove_file(&fresh) {
        // What a daemon that was killed on the way has left.
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(directory(error)),
        Ok(()) | Err(_) => {}
    }
    let mut store = Store::open_file(&fresh)?;
    let mut loaded = store.take_up(machine, peers)?;
    if let Some(why) = why {
        let aside = path.with_extension(format!("redb.{}-{}", why.suffix(), machine.now));
        fs::hard_link(path, &aside).map_err(directory)?;
        loaded.put_aside = Some((aside, why));
    }
    fs::rename(&fresh, path).map_err(directory)?;
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all()).map_err(directory)?;
    store.path = path.to_owned();
    Ok((store, loaded))
}

fn no_room(path: PathBuf, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
    StoreError::New { path, source: source.into() }
}
