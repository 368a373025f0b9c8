//! `labtool enter`: runs a program inside a host of the lab, optionally in a container's network namespace there.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

use super::host::bind_over;
use crate::supervise::Signals;

/// Where to go and what to run there.
#[derive(Debug)]
pub struct Enter {
    /// Pid 1 of the host.
    pub host: i32,
    /// Path of a network namespace inside the host; the host's own if none.
    pub netns: Option<PathBuf>,
    /// A file to be seen as `/etc/resolv.conf`; the host's own if none.
    pub resolv_conf: Option<PathBuf>,
    /// Where to write the pid of the program, as the caller's namespace numbers it.
    pub pid_file: Option<PathBuf>,
    /// Program and arguments.
    pub command: Vec<OsString>,
}

/// Runs the program, passes signals on to it and ends with its exit status. It is killed when this process is.
///
/// # Errors
/// When the host or the namespace is gone, or the program cannot be run.
pub fn main(enter: Enter) -> anyhow::Result<()> {
    let signals = Signals::block()?;
    let open = |kind: &str| {
        let path = format!("/proc/{}/ns/{kind}", enter.host);
        File::open(&path).with_context(|| format!("{path}: is the host up?"))
    };
    let [pid, net, uts, mnt] = [open("pid")?, open("net")?, open("uts")?, open("mnt")?];
    // Opened here: past the mount namespace the path would be another one.
    let pid_file = enter.pid_file.map(File::create).transpose()?;
    setns(pid, CloneFlags::CLONE_NEWPID)?;
    setns(net, CloneFlags::CLONE_NEWNET)?;
    setns(uts, CloneFlags::CLONE_NEWUTS)?;
    setns(mnt, CloneFlags::CLONE_NEWNS)?;
    if let Some(path) = enter.netns {
        let netns = File::open(&path).with_context(|| path.display().to_string())?;
        setns(netns, CloneFlags::CLONE_NEWNET)?;
    }
    if let Some(file) = enter.resolv_conf {
        unshare(CloneFlags::CLONE_NEWNS)?;
        // Slave, not private: what the host unmounts later must not live on here.
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>)?;
        bind_over(&fs::canonicalize(file)?, "/etc/resolv.conf".as_ref())?;
    }
    signals.fork(|pid| match pid_file {
        Some(mut file) => std::io::Write::write_all(&mut file, format!("{pid}\n").as_bytes()),
        None => Ok(()),
    })?;
    signals.restore()?;
    // What was built with this tool is at hand in every host.
    let mut directories: Vec<PathBuf> = std::env::current_exe()?.parent().map(PathBuf::from).into_iter().collect();
    directories.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    // SAFETY: this process has one thread.
    unsafe { std::env::set_var("PATH", std::env::join_paths(directories)?) };
    let [program, arguments @ ..] = enter.command.as_slice() else { anyhow::bail!("no program given") };
    let e = Command::new(program).args(arguments).exec();
    Err(e).with_context(|| format!("cannot run {}", program.display()))
}
