//! How many files this process has open: none is opened for one network more that the others, and those who ask, would lack.

use std::fs;

use nix::sys::resource::{Resource, getrlimit};

use crate::datapath::kernel_api::{Cause, StepError};

/// What a segment takes: its namespace, four netlink sockets, and those of DNS.
const OF_SEGMENT: u64 = 16;
/// Kept free for connections of other agents and of `overlayctl`, and for looks at what is there.
const RESERVE: u64 = 64;

/// Is there room for another segment?
///
/// # Errors
/// [`Cause::TooManyFiles`] if not.
pub(super) fn check_room(doing: impl FnOnce() -> String) -> Result<(), StepError> {
    let open = fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64);
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((limit, _)) if limit < open + OF_SEGMENT + RESERVE => Err(StepError::new(doing(), Cause::TooManyFiles)),
        Ok(_) | Err(_) => Ok(()),
    }
}
