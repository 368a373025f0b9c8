//! How many files this process has open: none is opened for one network more that the others, and those who ask, would lack.

use std::fs;

use nix::sys::resource::{Resource, getrlimit};

use crate::datapath::kernel_api::{Cause, StepError};

/// What a segment takes: its namespace, four netlink sockets, and those of DNS.
const OF_SEGMENT: u64 = 16;
/// Kept free for connections of other agents and of `overlayctl`, and for looks at what is there.
const RESERVE: u64 = 64;

/// For how many files there is room, beside the reserve.
#[derive(Debug)]
pub(super) struct Room(u64);

impl Room {
    /// Counts them.
    pub(super) fn left() -> Self {
        let open = fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64);
        let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(limit, _)| limit);
        Self(limit.saturating_sub(open + RESERVE))
    }

    /// Takes the room for another segment, if there is so much.
    pub(super) fn take(&mut self) -> bool {
        match self.0.checked_sub(OF_SEGMENT) {
            Some(left) => {
                self.0 = left;
                true
            }
            None => false,
        }
    }
}

/// Is there room for another segment?
///
/// # Errors
/// [`Cause::TooManyFiles`] if not.
pub(super) fn check_room(doing: impl FnOnce() -> String) -> Result<(), StepError> {
    if Room::left().take() { Ok(()) } else { Err(StepError::new(doing(), Cause::TooManyFiles)) }
}
