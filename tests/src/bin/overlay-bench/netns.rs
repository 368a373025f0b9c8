//! Namespaces of the lab's hosts, entered by a thread of this process: what is opened there stays there.
//!
//! A probe that is a thread answers within microseconds; one that is a program takes milliseconds to start.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::Context;
use nix::sched::{CloneFlags, setns};
use overlay_tests::lab::Host;

/// A network namespace that is mounted at `path` on a host.
#[derive(Clone, Debug)]
pub struct NetnsPath(PathBuf);

impl NetnsPath {
    pub fn of(host: &Host, path: &Path) -> anyhow::Result<Self> {
        let below = path.strip_prefix("/").with_context(|| format!("{} is not absolute", path.display()))?;
        Ok(Self(root(host).join(below)))
    }

    /// Does something in there, such as opening a socket or starting a program.
    pub fn open<T: Send>(&self, work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
        let namespace = File::open(&self.0).with_context(|| self.0.display().to_string())?;
        thread::scope(|scope| {
            let visitor = scope.spawn(|| {
                setns(namespace, CloneFlags::CLONE_NEWNET)?;
                work()
            });
            visitor.join().map_err(|_| anyhow::anyhow!("a thread died"))?
        })
    }
}

/// A host's file system, as this process sees it (proc_pid_root(5)).
pub fn root(host: &Host) -> PathBuf {
    PathBuf::from(format!("/proc/{}/root", host.pid1()))
}
