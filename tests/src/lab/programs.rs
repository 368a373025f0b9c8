//! Where the programs are that the lab runs.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// Directories to look in, nearest first.
#[derive(Clone, Debug)]
pub struct Programs {
    directories: Vec<PathBuf>,
    labtool: PathBuf,
}

impl Programs {
    /// Looks in `OVERLAY_BIN_DIR`, next to the running program, and one directory up (tests are in `deps`).
    ///
    /// # Errors
    /// When `labtool` is in none of them.
    pub fn find() -> anyhow::Result<Self> {
        let me = env::current_exe().context("where is the running program?")?;
        let mut directories: Vec<PathBuf> = env::var_os("OVERLAY_BIN_DIR").map(PathBuf::from).into_iter().collect();
        directories.extend(me.ancestors().skip(1).take(2).map(Path::to_owned));
        let labtool = look(&directories, "labtool")?;
        Ok(Self { directories, labtool })
    }

    /// The lab's own tool.
    pub fn labtool(&self) -> &Path {
        &self.labtool
    }

    /// The agent.
    ///
    /// # Errors
    /// When it was not built.
    pub fn overlayd(&self) -> anyhow::Result<PathBuf> {
        look(&self.directories, "overlayd")
    }

    /// The agent's command line.
    ///
    /// # Errors
    /// When it was not built.
    pub fn overlayctl(&self) -> anyhow::Result<PathBuf> {
        look(&self.directories, "overlayctl")
    }
}

fn look(directories: &[PathBuf], name: &str) -> anyhow::Result<PathBuf> {
    if let Some(found) = directories.iter().map(|directory| directory.join(name)).find(|path| path.is_file()) {
        return Ok(found);
    }
    let shown: Vec<String> = directories.iter().map(|directory| directory.display().to_string()).collect();
    bail!("no {name} in {}; build it with `cargo build --workspace --bins` in the same profile", shown.join(", "))
}
