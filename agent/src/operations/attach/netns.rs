//! Network namespaces by their paths. Looking at one takes a thread of its own for a moment, so no worker of the runtime does it.

use std::path::Path;

use overlay::kernel::netns::{self, NetnsError};
use overlay::model::intent::{AtPath, NetnsRef};
use tokio::task::spawn_blocking;

/// The namespace at a path, named without doubt.
pub(super) async fn identify(path: &Path) -> Result<NetnsRef, NetnsError> {
    let path = path.to_owned();
    spawn_blocking(move || netns::identify(&path)).await.expect("looking at a namespace does not panic")
}

/// What is found now where the namespace was.
pub(super) async fn at_path(netns: &NetnsRef) -> AtPath {
    let netns = netns.clone();
    spawn_blocking(move || netns::at_path(&netns)).await.expect("looking at a namespace does not panic")
}
