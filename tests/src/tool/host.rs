//! `labtool host`: a process that is a host. Its namespaces are the host's; killing it is pulling the plug.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::sethostname;

use crate::supervise::Signals;

/// Files of a host's directory that stand in for files of the machine, where the machine has them.
const STANDS_FOR: [(&str, &str); 3] = [
    ("boot_id", "/proc/sys/kernel/random/boot_id"),
    ("machine-id", "/etc/machine-id"),
    ("resolv.conf", "/etc/resolv.conf"),
];

/// Becomes pid 1 of a new host: own mount, network, PID and UTS namespaces, own `/run`, `/proc`, `boot_id`,
/// `machine-id` and `resolv.conf`. Prints `pid` and its pid, as the caller's namespace numbers it, and
/// `ready` once it is set up; in either order.
///
/// # Errors
/// When the caller is not root in its user namespace, or `directory` lacks one of the files.
pub fn main(name: &str, directory: &Path) -> anyhow::Result<()> {
    let signals = Signals::block()?;
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWUTS)?;
    signals.fork(|pid| {
        println!("pid {pid}");
        Ok(())
    })?;
    furnish(directory)?;
    sethostname(name)?;
    let lo = Command::new("ip").args(["link", "set", "lo", "up"]).status().context("cannot run ip")?;
    ensure!(lo.success(), "ip link set lo up: {lo}");
    println!("ready");
    Ok(signals.reap()?)
}

fn furnish(directory: &Path) -> anyhow::Result<()> {
    let nothing = None::<&str>;
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)?;
    mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), nothing).context("proc")?;

    // A tmpfs of its own, in which the lab's directory stays where it is.
    let run = directory.join("run");
    fs::create_dir_all(&run)?;
    mount(Some("tmpfs"), &run, Some("tmpfs"), MsFlags::empty(), Some("mode=0755")).context("tmpfs")?;
    for inner in ["lab", "netns"] {
        fs::create_dir(run.join(inner))?;
    }
    mount(Some("/run/lab"), &run.join("lab"), nothing, MsFlags::MS_BIND, nothing)?;
    let resolv_conf = fs::canonicalize("/etc/resolv.conf").ok();
    mount(Some(&run), "/run", nothing, MsFlags::MS_MOVE, nothing)?;
    if let Some(file) = resolv_conf.filter(|file| file.starts_with("/run")) {
        fs::create_dir_all(file.parent().unwrap_or(Path::new("/run")))?;
        fs::write(file, "")?;
    }
    for (ours, theirs) in STANDS_FOR {
        bind_over(&directory.join(ours), Path::new(theirs))?;
    }
    // As systemd leaves it: what is unmounted on the host is unmounted in its containers too, so that none of
    // them keeps a network namespace alive that the host let go.
    Ok(mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_SHARED, nothing)?)
}

/// Shows `ours` where the machine has `theirs`; nothing to do where it has none.
pub(super) fn bind_over(ours: &Path, theirs: &Path) -> anyhow::Result<()> {
    let Ok(theirs) = fs::canonicalize(theirs) else { return Ok(()) };
    let show = |path: &PathBuf| path.display().to_string();
    mount(Some(ours), &theirs, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .with_context(|| format!("{} over {}", ours.display(), show(&theirs)))
}
