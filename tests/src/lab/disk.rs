//! Disks: what is copied, and what is put back.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::ensure;

use super::{Host, Lab};

/// A copy of what the agent of a host keeps on disk.
#[derive(Debug)]
pub struct Image {
    host: String,
    directory: PathBuf,
}

impl Lab {
    /// Copies what the agent of a host keeps on disk. The agent must not run: what it writes meanwhile would tear the copy.
    ///
    /// # Errors
    /// When it runs, or the disk cannot be read.
    pub fn copy_disk(&self, name: &str) -> anyhow::Result<Image> {
        ensure!(!self.agents.contains_key(name), "the agent of {name} runs");
        let directory = Host::directory(name).join("image");
        copy(&self.host(name)?.state_dir(), &directory)?;
        Ok(Image { host: name.to_owned(), directory })
    }

    /// Puts a copy into a host: back into its own, as an operator does after a disk has died; into another one that
    /// becomes a clone of the machine, with its id.
    ///
    /// # Errors
    /// When the agent runs, or the disk cannot be written.
    pub fn put_disk(&self, image: &Image, name: &str) -> anyhow::Result<()> {
        ensure!(!self.agents.contains_key(name), "the agent of {name} runs");
        let id = |host: &str| Host::directory(host).join("machine-id");
        if image.host != name {
            fs::copy(id(&image.host), id(name))?;
        }
        copy(&image.directory, &self.host(name)?.state_dir())
    }

    /// Gives the agent of a host a disk of its own, of so many bytes.
    ///
    /// # Errors
    /// When it cannot be mounted.
    pub fn shrink_disk(&self, name: &str, bytes: u64) -> anyhow::Result<()> {
        let directory = self.host(name)?.state_dir();
        self.host(name)?.sh(&format!("mount -t tmpfs -o size={bytes} tmpfs {}", directory.display())).map(drop)
    }
}

/// Of a directory without directories in it; what was at the other place is gone.
fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    if to.exists() {
        fs::remove_dir_all(to)?;
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}
