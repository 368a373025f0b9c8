//! Limits of the machine that are too low for many networks and containers, and are raised at the start.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use overlay::kernel::neighbour_limits::{self, Limit};

/// Raises what may be raised, and says so.
pub(super) fn raise() {
    raise_open_files();
    for Limit { path, before, least, refused } in neighbour_limits::raise() {
        let path = path.display();
        match refused {
            None => tracing::info!(%path, before, now = least, "the kernel may keep more neighbours now"),
            Some(error) => tracing::warn!(
                %path, before, %error,
                "the kernel keeps too few neighbours for many containers that talk to each other: set it to {least}"
            ),
        }
    }
}

/// Raises the soft limit of open files to the hard one (getrlimit(2)): a network takes about a dozen descriptors on a host, and the usual
/// soft limit of 1,024 is kept low only for programs that use select(2).
fn raise_open_files() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| match soft < hard {
        true => setrlimit(Resource::RLIMIT_NOFILE, hard, hard),
        false => Ok(()),
    });
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files can't be raised: many networks may need more than it allows");
    }
}
