//! The file of the state: made so that it is whole or not there, locked, checked, and only then opened.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use redb::backends::FileBackend;
use redb::{Database, DatabaseError, StorageBackend, StorageError};

use super::{StoreError, integrity};

/// Opens the file, or makes it, so that it is still there after a power failure.
pub(super) fn open(path: &Path) -> Result<Database, StoreError> {
    let directory = |source| StoreError::Directory { path: path.to_owned(), source };
    if !path.try_exists().map_err(directory)? {
        make(path)?;
    }
    let db = on(file_backend(path)?, path)?;
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all()).map_err(directory)?;
    Ok(db)
}

/// Opens the database on a backend, or creates it, as the state file `path`.
#[cfg_attr(
    not(test),
    expect(clippy::wildcard_enum_match_arm, reason = "the library has more errors, all of damaged files")
)]
pub(super) fn on(backend: impl StorageBackend, path: &Path) -> Result<Database, StoreError> {
    let directory = |source| StoreError::Directory { path: path.to_owned(), source };
    let corrupt = |what: String| StoreError::Corrupt { path: path.to_owned(), what };
    if backend.len().map_err(directory)? > 0 {
        integrity::check(&backend).map_err(|error| match error {
            integrity::Unsound::Unreadable(source) => directory(source),
            integrity::Unsound::Damaged(what) => corrupt(what),
        })?;
    }
    Database::builder().create_with_backend(backend).map_err(|error| match error {
        DatabaseError::DatabaseAlreadyOpen => StoreError::InUse(path.to_owned()),
        DatabaseError::Storage(StorageError::Io(source)) => directory(source),
        other => corrupt(other.to_string()),
    })
}

/// A file that is half made when the daemon is killed could not be told from a damaged one. So it gets its name when it
/// is whole.
fn make(path: &Path) -> Result<(), StoreError> {
    let directory = |source| StoreError::Directory { path: path.to_owned(), source };
    let new = path.with_extension("new");
    let backend = file_backend(&new)?;
    // Whatever a daemon that was killed on the way has left.
    backend.set_len(0).map_err(directory)?;
    drop(on(backend, path)?);
    match std::fs::hard_link(&new, path) {
        // Of two daemons that are started at once the other one was faster.
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(directory(error)),
        Ok(()) | Err(_) => {}
    }
    std::fs::remove_file(&new).map_err(directory)
}

/// The file, for this process and this user only.
fn file_backend(path: &Path) -> Result<FileBackend, StoreError> {
    let directory = |source| StoreError::Directory { path: path.to_owned(), source };
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    let file = file.map_err(directory)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(StoreError::InUse(path.to_owned())),
        Err(TryLockError::Error(source)) => return Err(directory(source)),
    }
    FileBackend::new(file).map_err(|error| directory(io::Error::other(error)))
}
