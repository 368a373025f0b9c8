//! Space that is kept for a full disk, so that what frees space can still be written.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Enough for many small commits: redb writes some pages of 4 KiB for each, and uses them again.
const BYTES: usize = 1 << 20;

/// A file beside the state that says nothing.
#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    there: bool,
}

impl Reserve {
    pub(super) fn beside(state: &Path) -> Self {
        let path = state.with_extension("reserve");
        let there = fs::metadata(&path).is_ok_and(|file| file.len() == BYTES as u64);
        Self { path, there }
    }

    pub(super) fn is_there(&self) -> bool {
        self.there
    }

    /// Gives the space to whoever writes next.
    pub(super) fn spend(&mut self) {
        if fs::remove_file(&self.path).is_ok() {
            self.there = false;
        }
    }

    /// Takes the space again if it is spent and the disk has some.
    pub(super) fn refill(&mut self) {
        if !self.there {
            let filled = File::create(&self.path).and_then(|mut file| {
                file.write_all(&[0; BYTES])?;
                file.sync_all()
            });
            self.there = filled.is_ok();
            if filled.is_err() {
                // A part of it is of no use. What can't be removed is overwritten next time.
                let _ = fs::remove_file(&self.path);
            }
        }
    }
}
