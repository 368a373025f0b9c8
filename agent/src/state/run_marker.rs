//! The mark of the ledger in the run directory, which does not outlive the boot of the machine: a ledger that has not
//! come as far as the one that ran here before is an old disk, and no crash of the agent explains it.

use std::path::{Path, PathBuf};

use overlay::model::id::HostId;
use overlay::model::member::{Boot, Stamp};

/// Where the trace is.
#[derive(Debug)]
pub struct RunMarker {
    path: PathBuf,
    boot: String,
}

impl RunMarker {
    /// The trace in a run directory, of the boot with this id.
    pub fn new(run_dir: &Path, boot: &str) -> Self {
        Self { path: run_dir.join("ledger"), boot: boot.to_owned() }
    }

    /// Whose ledger ran here since the machine booted, and how far it had come.
    pub fn find(&self) -> Option<(HostId, Stamp)> {
        let text = std::fs::read_to_string(&self.path).ok()?;
        let [boot, host, generation, nonce, revision] = <[&str; 5]>::try_from(text.lines().collect::<Vec<_>>()).ok()?;
        let lived = Boot { generation: generation.parse().ok()?, nonce: nonce.parse().ok()? };
        (boot == self.boot).then_some((host.parse().ok()?, Stamp { boot: lived, revision: revision.parse().ok()? }))
    }

    /// Says how far the ledger has come. One that can't be left is none: when the agent starts again, it does so as after a
    /// boot of the machine, and lets go of all endpoints.
    pub fn leave(&self, host: HostId, Stamp { boot: Boot { generation, nonce }, revision }: Stamp) {
        let new = self.path.with_extension("new");
        let written = std::fs::write(&new, format!("{}\n{host}\n{generation}\n{nonce}\n{revision}\n", self.boot));
        if let Err(error) = written.and_then(|()| std::fs::rename(&new, &self.path)) {
            // An older one would let an older disk pass.
            _ = std::fs::remove_file(&self.path);
            tracing::warn!(path = %self.path.display(), %error, "no trace of the ledger is left in the run directory");
        }
    }
}
