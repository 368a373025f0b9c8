//! What this host keeps on disk: its identity, its ledger and its intents, in one redb file that is always whole.
//!
//! A commit is durable when it returns, or nothing of it has happened. The file belongs to one machine: copied to
//! another one it is put aside, because two hosts must never hold the same leases. A damaged one is refused and left as
//! it is: repaired, it would be an older ledger.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use overlay::ledger::{self, Activation, Fencing, Input, Ledger, Millis};
use overlay::model::id::{EndpointId, HostId, NetworkId};
use overlay::model::intent::{Attachment, Intents, Seat};
use overlay::model::links::Links;
use overlay::model::member::Stamp;
use overlay::model::network::{BlockId, Network};
use overlay::operations::Change;
use overlay::operations::detach::booted;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};

use crate::state::fail_points::{self, Point};
use crate::state::identity::Identity;
use crate::wire::{Wire, WireError};

mod file;
mod integrity;
mod open;
mod reserve;
mod rows;

pub use open::StartupState;
use reserve::Reserve;

type Table = TableDefinition<'static, &'static [u8], &'static [u8]>;

const META: Table = Table::new("meta");
const NETWORKS: Table = Table::new("networks");
const BLOCKS: Table = Table::new("blocks");
const ADDRESSES: Table = Table::new("addresses");
const BOUND: Table = Table::new("bound");
const RESTING: Table = Table::new("resting");
const OUTBOX: Table = Table::new("outbox");
const SEATS: Table = Table::new("seats");
const ATTACHMENTS: Table = Table::new("attachments");
const TOMBSTONES: Table = Table::new("tombstones");
const MEMBERS: Table = Table::new("members");
const FOREIGN: Table = Table::new("foreign");
const DEALT: Table = Table::new("dealt");
const SEALS: Table = Table::new("seals");
const FORGETS: Table = Table::new("forgets");
const PEERS: Table = Table::new("peers");
const LINKS: Table = Table::new("links");
/// The key of the number of the last commit, in [`META`].
const COMMIT: &str = "page";

/// All tables whose keys start with a network's id and that go with its account.
const OF_ACCOUNT: [Table; 6] = [NETWORKS, BLOCKS, ADDRESSES, BOUND, RESTING, OUTBOX];
/// All tables of the ledger that are about no network in particular.
const OF_LEDGER: [Table; 6] = [TOMBSTONES, MEMBERS, FOREIGN, DEALT, SEALS, FORGETS];
const OTHERS: [Table; 5] = [META, SEATS, ATTACHMENTS, PEERS, LINKS];

/// Why the state can't be had or kept.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory can't be made, or the file can't be opened.
    #[error("can't use the state directory {}: see that it can be written, or name another with --state-dir", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Another process has the file.
    #[error("state file {} is in use: is another overlayd running with the same --state-dir?", .0.display())]
    InUse(PathBuf),
    /// The file is damaged.
    #[error(
        "state file {} is corrupt ({what}): move it away and start again; this host then joins under a new identity, \
         and what it held stays locked until the old one is forgotten",
        path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// There is no room for a new identity.
    #[error(
        "state file {} of a new identity can't be made: see that its directory can be written and its disk has space, and start overlayd again",
        path.display()
    )]
    New {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Nothing was written.
    #[error("state file {} can't be written, so nothing was changed: see that its disk has space and works", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<redb::Error>,
    },
}

/// What was on disk.
#[derive(Debug)]
pub struct Loaded {
    /// Who this host is.
    pub identity: Identity,
    /// Its leases.
    pub ledger: Ledger,
    /// Its seats.
    pub seats: BTreeMap<NetworkId, Seat>,
    /// Its endpoints.
    pub attachments: BTreeMap<EndpointId, Arc<Attachment>>,
    /// What it knows of links.
    pub links: BTreeMap<NetworkId, Links>,
    /// Where to find the others: also what an identity knew that was given up, which is put aside.
    pub peers: BTreeMap<HostId, SocketAddr>,
    /// How many commits there were.
    pub commit: u64,
    /// Set if the file was of no use to this host: where it is now, and why.
    pub put_aside: Option<(PathBuf, OfNoUse)>,
}

/// Why a host does not go on with the state that it finds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OfNoUse {
    /// It is another machine's: two hosts must never hold the same leases.
    #[error("it is the state of another machine")]
    OtherMachine,
    /// Its identity is given up.
    #[error("{0}")]
    Fenced(Fencing),
}

impl OfNoUse {
    fn suffix(&self) -> &'static str {
        match self {
            Self::OtherMachine => "other-machine",
            Self::Fenced(_) => "fenced",
        }
    }
}

/// What tells one machine and one boot from another.
#[derive(Debug, Clone)]
pub struct Machine {
    /// `/etc/machine-id`, empty where there is none.
    pub id: String,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot: String,
    /// Milliseconds since boot.
    pub now: Millis,
    /// Whose ledger it ran on since it booted, and how far that had come; `None` if it ran on none.
    pub ran: Option<(HostId, Stamp)>,
    /// Drawn at random.
    pub nonce: u64,
}

/// The open file.
#[derive(Debug)]
pub struct Store {
    /// `None` after the disk failed: redb does not go on after that, so the file is opened again.
    db: Option<Database>,
    path: PathBuf,
    /// How many there were.
    commits: u64,
    reserve: Reserve,
}

/// Does the change let go of something, so that it must be possible on a full disk?
fn gives_back(change: &Change) -> bool {
    match change {
        Change::Detach(_) | Change::Seat(_, None) | Change::Peer(_, None) | Change::Ways(_) => true,
        Change::Ledger(change) => matches!(
            change,
            ledger::Change::Tombstone(_)
                | ledger::Change::Close(_)
                | ledger::Change::Unbind(..)
                | ledger::Change::Rested(..)
                | ledger::Change::Dequeue(..)
                | ledger::Change::Revision(_)
        ),
        Change::Seat(_, Some(_)) | Change::Attach(_) | Change::Peer(_, Some(_)) | Change::Links(..) => false,
    }
}

impl Store {
    /// Opens the state of a host, or makes it with a new identity. The directory and the file are for their owner only:
    /// the host's key is in there.
    ///
    /// # Errors
    /// When the directory can't be used, or the file is another process's or damaged. Nothing is changed then.
    pub fn open(dir: &Path, machine: &Machine) -> Result<(Self, Loaded), StoreError> {
        StartupState::look(dir, machine)?.take_up()
    }

    /// Loads what is there, as the state of this machine. If there is no identity yet it is a new one, which knows where
    /// these `peers` are.
    fn take_up(&mut self, machine: &Machine, peers: &BTreeMap<HostId, SocketAddr>) -> Result<Loaded, StoreError> {
        let loaded = match self.meta("key")? {
            Some(key) => {
                let identity = Identity::from_der(&key).map_err(|e| self.corrupt(&e))?;
                let mut loaded = self.load(identity)?;
                let same_boot = self.meta("boot")?.as_deref() == Some(machine.boot.as_bytes());
                if !same_boot || !is_what_ran(&loaded.ledger, machine.ran) {
                    self.take_note_of_boot(&mut loaded, machine)?;
                }
                loaded
            }
            None => self.begin(machine, peers)?,
        };
        self.commits = loaded.commit;
        self.reserve.refill();
        Ok(loaded)
    }

    /// A new identity, with all that it knows from the start.
    fn begin(&mut self, machine: &Machine, peers: &BTreeMap<HostId, SocketAddr>) -> Result<Loaded, StoreError> {
        let identity = Identity::generate();
        let booted = Ledger::new(identity.id()).step(&Input::Booted { nonce: machine.nonce }, machine.now).changes;
        let peers = peers.iter().map(|(id, address)| Change::Peer(*id, Some(*address)));
        let writes: Vec<Change> = booted.into_iter().map(Change::Ledger).chain(peers).collect();
        self.transact(|txn| {
            put(txn, META, b"key", &identity.to_der())?;
            put(txn, META, b"machine", machine.id.as_bytes())?;
            put(txn, META, b"boot", machine.boot.as_bytes())?;
            writes.iter().try_for_each(|write| rows::write(txn, write))
        })?;
        self.load(identity)
    }

    /// The host has booted, or this is not the disk that it ran on.
    fn take_note_of_boot(&mut self, loaded: &mut Loaded, machine: &Machine) -> Result<(), StoreError> {
        let intents = Intents {
            seats: std::mem::take(&mut loaded.seats),
            attachments: std::mem::take(&mut loaded.attachments),
            ..Intents::default()
        };
        let changes = booted(&loaded.ledger, &intents, machine.nonce, machine.now);
        self.transact(|txn| {
            changes.iter().try_for_each(|change| rows::write(txn, change))?;
            put(txn, META, b"boot", machine.boot.as_bytes())
        })?;
        let of_ledger = changes.into_iter().filter_map(|change| match change {
            Change::Ledger(change) => Some(change),
            Change::Seat(..)
            | Change::Attach(_)
            | Change::Detach(_)
            | Change::Links(..)
            | Change::Peer(..)
            | Change::Ways(_) => None,
        });
        loaded.ledger.apply(&of_ledger.collect::<Vec<_>>());
        Ok(())
    }

    fn of_no_use(&mut self, machine: &Machine) -> Result<Option<OfNoUse>, StoreError> {
        if self.meta("machine")?.is_some_and(|id| id != machine.id.as_bytes()) {
            return Ok(Some(OfNoUse::OtherMachine));
        }
        Ok(match self.single(rows::STANDING)? {
            Some(ledger::Change::Activation(Activation::Fenced(why))) => Some(OfNoUse::Fenced(why)),
            _ => None,
        })
    }

    fn open_file(path: &Path) -> Result<Self, StoreError> {
        Self::open_on(file::open(path)?, path)
    }

    /// Takes an open database for what is in the file `path`.
    fn open_on(db: Database, path: &Path) -> Result<Self, StoreError> {
        let mut store = Self { db: Some(db), path: path.to_owned(), commits: 0, reserve: Reserve::beside(path) };
        store.transact(|txn| {
            let mut tables = OF_ACCOUNT.iter().chain(&OF_LEDGER).chain(&OTHERS);
            tables.try_for_each(|table| txn.open_table(*table).map(drop).map_err(redb::Error::from))
        })?;
        Ok(store)
    }

    /// Makes all of `changes` durable, or nothing. What only gives something back is written also when the disk is full.
    ///
    /// # Errors
    /// When the disk is full or broken; then nothing was written.
    pub fn commit(&mut self, changes: &[Change]) -> Result<u64, StoreError> {
        let commit = match self.try_commit(changes) {
            Err(_)
                if self.reserve.is_there()
                    && (changes.iter().all(gives_back) || changes.iter().any(Change::fences)) =>
            {
                self.reserve.spend();
                self.try_commit(changes)
            }
            tried => tried,
        }?;
        self.reserve.refill();
        Ok(commit)
    }

    fn try_commit(&mut self, changes: &[Change]) -> Result<u64, StoreError> {
        if self.db.is_none() && self.number(COMMIT)?.unwrap_or(0) != self.commits {
            return Err(self.corrupt(&"it has a commit that seemed to have failed"));
        }
        let commit = self.commits + 1;
        let committed = self.transact(|txn| {
            changes.iter().try_for_each(|change| rows::write(txn, change))?;
            put(txn, META, COMMIT.as_bytes(), &commit.to_be_bytes())
        });
        if let Err(error) = committed {
            // The disk may have failed after the last byte: what counts is what is there.
            if !matches!(self.number(COMMIT), Ok(Some(there)) if there == commit) {
                return Err(error);
            }
        }
        self.commits = commit;
        Ok(commit)
    }

    /// A gossip generation that this host never had: the time in milliseconds, or one more than the last.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn next_generation(&mut self, now_ms: u64) -> Result<u64, StoreError> {
        let next = self.number("generation")?.map_or(now_ms, |last| now_ms.max(last + 1));
        self.put_meta(&[("generation", &next.to_be_bytes())])?;
        Ok(next)
    }

    fn load(&mut self, identity: Identity) -> Result<Loaded, StoreError> {
        let mut ledger = Ledger::new(identity.id());
        for table in OF_ACCOUNT.into_iter().chain(OF_LEDGER) {
            let changes = self.rows(table, |key, value| rows::change(table, key, value))?;
            ledger.apply(&changes);
        }
        for key in rows::SINGLE {
            ledger.apply(self.single(key)?.as_slice());
        }
        Ok(Loaded {
            ledger,
            seats: self.rows(SEATS, |k, v| Ok((rows::id(k)?, rows::message(v)?)))?.into_iter().collect(),
            attachments: self
                .rows(ATTACHMENTS, |k, v| Ok((rows::id(k)?, Arc::new(rows::message(v)?))))?
                .into_iter()
                .collect(),
            links: self.rows(LINKS, |k, v| Ok((rows::id(k)?, rows::message(v)?)))?.into_iter().collect(),
            peers: self.peers()?,
            commit: self.number(COMMIT)?.unwrap_or(0),
            put_aside: None,
            identity,
        })
    }

    fn peers(&mut self) -> Result<BTreeMap<HostId, SocketAddr>, StoreError> {
        Ok(self.rows(PEERS, |k, v| Ok((rows::id(k)?, rows::text(v)?)))?.into_iter().collect())
    }

    fn rows<T>(
        &mut self,
        table: Table,
        read: impl Fn(&[u8], &[u8]) -> Result<T, WireError>,
    ) -> Result<Vec<T>, StoreError> {
        let table = self.read(|txn| txn.open_table(table).map_err(redb::Error::from))?;
        let rows = table.iter().map_err(|e| self.corrupt(&e))?;
        rows.map(|row| {
            let (key, value) = row.map_err(|e| self.corrupt(&e))?;
            read(key.value(), value.value()).map_err(|e| self.corrupt(&e))
        })
        .collect()
    }

    fn meta(&mut self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let table = self.read(|txn| txn.open_table(META).map_err(redb::Error::from))?;
        let value = table.get(key.as_bytes()).map_err(|e| self.corrupt(&e))?;
        Ok(value.map(|v| v.value().to_vec()))
    }

    fn single(&mut self, key: &str) -> Result<Option<ledger::Change>, StoreError> {
        let Some(value) = self.meta(key)? else { return Ok(None) };
        rows::single(key, &value).map(Some).map_err(|e| self.corrupt(&e))
    }

    fn number(&mut self, key: &str) -> Result<Option<u64>, StoreError> {
        let Some(bytes) = self.meta(key)? else { return Ok(None) };
        let bytes = bytes.try_into().map_err(|_| self.corrupt(&format!("`{key}` is not a number")))?;
        Ok(Some(u64::from_be_bytes(bytes)))
    }

    fn put_meta(&mut self, entries: &[(&str, &[u8])]) -> Result<(), StoreError> {
        self.transact(|txn| entries.iter().try_for_each(|(key, value)| put(txn, META, key.as_bytes(), value)))
    }

    fn read<T>(
        &mut self,
        read: impl FnOnce(&redb::ReadTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        let attempt = |db: &Database| read(&db.begin_read()?);
        attempt(self.db()?).map_err(|e| self.corrupt(&e))
    }

    #[cfg_attr(
        not(test),
        expect(
            clippy::wildcard_enum_match_arm,
            reason = "all other errors of the library mean that it could not write"
        )
    )]
    fn transact(&mut self, write: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error>) -> Result<(), StoreError> {
        let attempt = |db: &Database| {
            let txn = db.begin_write()?;
            write(&txn)?;
            fail_points::reach(Point::BeforeCommit);
            txn.commit()?;
            fail_points::reach(Point::AfterCommit);
            Ok(())
        };
        attempt(self.db()?).map_err(|source| match source {
            redb::Error::Corrupted(what) => self.corrupt(&what),
            source => {
                self.db = None;
                StoreError::Write { path: self.path.clone(), source: Box::new(source) }
            }
        })
    }

    fn db(&mut self) -> Result<&Database, StoreError> {
        let db = match self.db.take() {
            Some(db) => db,
            None => file::open(&self.path)?,
        };
        Ok(self.db.insert(db))
    }

    fn corrupt(&self, what: &dyn std::fmt::Display) -> StoreError {
        StoreError::Corrupt { path: self.path.clone(), what: what.to_string() }
    }
}

/// Is it the ledger that the machine ran on since it booted? A crash may have come between a commit and the note of it.
fn is_what_ran(ledger: &Ledger, ran: Option<(HostId, Stamp)>) -> bool {
    let stamp = ledger.stamp();
    ran.is_some_and(|(host, seen)| host == ledger.me() && stamp.boot == seen.boot && stamp.revision >= seen.revision)
}

fn put(txn: &WriteTransaction, table: Table, key: &[u8], value: &[u8]) -> Result<(), redb::Error> {
    txn.open_table(table)?.insert(key, value)?;
    Ok(())
}

fn delete(txn: &WriteTransaction, table: Table, key: &[u8]) -> Result<(), redb::Error> {
    txn.open_table(table)?.remove(key)?;
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests;
