//! Is the file whole? redb checks the sums of what it reads only when it repairs, and then goes back to an older commit,
//! which for a ledger is worse than nothing. So all of a copy is checked first, and the file itself stays as it is.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use redb::backends::InMemoryBackend;
use redb::{Database, DatabaseError, StorageBackend};

/// Why the file is not to be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unsound {
    /// It can't be read.
    #[error(transparent)]
    Unreadable(#[from] io::Error),
    /// It is not what was written.
    #[error("{0}")]
    Damaged(String),
}

/// Checks all of a file that is not empty.
pub(super) fn check(file: &impl StorageBackend) -> Result<(), Unsound> {
    let len = usize::try_from(file.len()?).map_err(damaged)?;
    let mut bytes = vec![0; len];
    file.read(0, &mut bytes)?;
    let copy = InMemoryBackend::new();
    copy.set_len(bytes.len() as u64).and_then(|()| copy.write(0, &bytes)).map_err(damaged)?;
    // redb trusts some of its own numbers so much that a wrong one ends in a panic.
    let checked = catch_unwind(AssertUnwindSafe(|| is_whole(copy)));
    match checked {
        Ok(Ok(true)) => Ok(()),
        Ok(Ok(false)) => Err(damaged("its last commit is damaged")),
        Ok(Err(error)) => Err(damaged(error)),
        Err(_) => Err(damaged("its structure is damaged")),
    }
}

fn is_whole(copy: InMemoryBackend) -> Result<bool, DatabaseError> {
    // An unfinished commit of a killed daemon is undone here; that is no damage.
    Database::builder().create_with_backend(copy)?.check_integrity()
}

fn damaged(what: impl std::fmt::Display) -> Unsound {
    Unsound::Damaged(what.to_string())
}
