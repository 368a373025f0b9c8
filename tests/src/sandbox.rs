//! A private world for one process: own user (if needed), mount, network, PID, IPC and UTS namespaces.
//!
//! Owns what happens between the start of `main` and the first line of a test. Never touches the machine's own
//! network, mounts or `/run`: all is done after the namespaces were left, and all is gone with the last process.
//!
//! ```text
//!  the program as it was started      waits, passes signals in and the exit status out
//!   └─ pid 1 of the sandbox           mounts, reaps orphans; dies with its parent (PR_SET_PDEATHSIG)
//!       └─ the program's main         returns from `enter`; when it ends, so does the sandbox
//! ```
//!
//! The kernel kills every process of a PID namespace with its pid 1, and frees namespaces and mounts with the last
//! process in them. So `kill -9` of the outermost process leaves nothing behind, and there is no clean-up code here.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid, sethostname};

pub use crate::supervise::SystemError;

use crate::supervise::Signals;

/// Where `ip` and its kin are on Debian; an ordinary user's `PATH` lacks it.
const SYSTEM_PROGRAMS: &str = "/usr/local/sbin:/usr/sbin:/sbin";

/// What a program inside the sandbox may want to know of it.
#[derive(Clone, Copy, Debug)]
pub struct Sandbox {
    /// Pid of the sandbox's pid 1, as seen from where the program was started: what `nsenter --target` wants.
    pub outer_pid: i32,
    /// Whether it lives in a user namespace of its own, where only one uid is mapped.
    pub own_user_namespace: bool,
}

/// Why there is no sandbox. Each text names what is missing and how to get it.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// Namespaces and `fork` are for a process of one thread.
    #[error("sandbox::enter must come before any thread is started, but this process has {0}")]
    Threads(usize),
    /// An ordinary user needs a user namespace, and this machine does not give one.
    #[error("cannot make a user namespace: {hint}")]
    UserNamespace {
        /// The setting that is in the way, and how to change it.
        hint: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The other namespaces.
    #[error(
        "cannot make mount, network and PID namespaces; if this is a container, run it outside or with CAP_SYS_ADMIN"
    )]
    Namespaces(#[source] io::Error),
    /// A mount inside the sandbox.
    #[error("cannot mount {what} on {}", target.display())]
    Mount {
        /// File system or kind of mount.
        what: &'static str,
        /// Where.
        target: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// A program that the sandbox needs.
    #[error("cannot run `{program}`; on Debian it is in the package {package}")]
    Program {
        /// Its name.
        program: &'static str,
        /// The Debian package.
        package: &'static str,
        /// Why it cannot be run.
        #[source]
        source: io::Error,
    },
    /// A command of the set-up said no.
    #[error("`{command}` in the sandbox: {status}")]
    Failed {
        /// The command line.
        command: &'static str,
        /// How it ended.
        status: ExitStatus,
    },
    /// Anything else that the kernel refused.
    #[error(transparent)]
    System(#[from] SystemError),
}

/// Moves the rest of the program into a sandbox of its own, in which it is root.
///
/// To be called first thing in `main`. The process that called it does not return: it waits, and ends with the exit
/// status of the inner one (128 + n if signal n killed that). In the sandbox `lo` is up, `/proc` is fresh, `/run`
/// is an empty tmpfs with the directories `netns` and `lab`, and nothing else of the machine's network is seen.
///
/// # Errors
/// When a thread runs already, or the machine does not allow namespaces: the text says which setting is in the way.
pub fn enter() -> Result<Sandbox, SandboxError> {
    let threads = fs::read_dir("/proc/self/task").map_err(SystemError::to("read /proc/self/task"))?.count();
    if threads != 1 {
        return Err(SandboxError::Threads(threads));
    }
    let signals = Signals::block()?;
    let own_user_namespace = unshare_all()?;
    signals.fork(|_| Ok(()))?;
    let outer_pid = furnish()?;
    signals.fork(|_| Ok(()))?;
    signals.restore()?;
    Ok(Sandbox { outer_pid, own_user_namespace })
}

/// Leaves the namespaces that the process was started in; true if it took a user namespace to do so.
fn unshare_all() -> Result<bool, SandboxError> {
    let rest = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS;
    if geteuid().is_root() {
        match unshare(rest) {
            Ok(()) => return Ok(false),
            // Root of a container without CAP_SYS_ADMIN is an ordinary user in this respect.
            Err(Errno::EPERM) => {}
            Err(e) => return Err(SandboxError::Namespaces(e.into())),
        }
    }
    let (uid, gid) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER).map_err(user_namespace)?;
    // user_namespaces(7): setgroups must be given up before an unprivileged gid_map.
    fs::write("/proc/self/setgroups", "deny")
        .and_then(|()| fs::write("/proc/self/uid_map", format!("0 {uid} 1")))
        .and_then(|()| fs::write("/proc/self/gid_map", format!("0 {gid} 1")))
        .map_err(user_namespace)?;
    // Ubuntu's AppArmor lets the namespace be made and then denies every capability in it.
    unshare(rest)
        .map_err(|e| if e == Errno::EPERM { user_namespace(e) } else { SandboxError::Namespaces(e.into()) })?;
    Ok(true)
}

fn user_namespace(source: impl Into<io::Error>) -> SandboxError {
    let setting = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned()).ok();
    let hint = if setting("/proc/sys/kernel/unprivileged_userns_clone").as_deref() == Some("0") {
        "this system allows them to root only; run it as root, or `sysctl -w kernel.unprivileged_userns_clone=1`"
    } else if setting("/proc/sys/user/max_user_namespaces").as_deref() == Some("0") {
        "none are allowed on this system; run it as root, or `sysctl -w user.max_user_namespaces=10000`"
    } else if setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns").as_deref() == Some("1") {
        "AppArmor restricts them; run it as root, or `sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`"
    } else {
        "the kernel or a container engine's seccomp filter refuses it; run it as root, outside of that container"
    };
    SandboxError::UserNamespace { hint, source: source.into() }
}

/// Mounts and settings of the sandbox, by its pid 1. Returns that process's pid as the outside sees it.
fn furnish() -> Result<i32, SandboxError> {
    let nothing = None::<&str>;
    let at = |what, target: &Path| {
        let target = target.to_owned();
        move |e: Errno| SandboxError::Mount { what, target, source: e.into() }
    };
    let (root, proc, run) = (Path::new("/"), Path::new("/proc"), Path::new("/run"));
    mount(nothing, root, nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)
        .map_err(at("private copies", root))?;

    // Through the machine's own /proc, which numbers processes as the outside does.
    let outer_pid = fs::read_link("/proc/self").map_err(SystemError::to("read /proc/self"))?;
    let outer_pid = outer_pid.to_string_lossy().parse().unwrap_or(0);
    mount(Some("proc"), proc, Some("proc"), MsFlags::empty(), nothing).map_err(at("proc", proc))?;

    let resolv_conf = fs::canonicalize("/etc/resolv.conf").ok();
    mount(Some("tmpfs"), run, Some("tmpfs"), MsFlags::empty(), Some("mode=0755")).map_err(at("tmpfs", run))?;
    for directory in ["/run/netns", "/run/lab"] {
        fs::create_dir(directory).map_err(SystemError::to("make directories in /run"))?;
    }
    // systemd-resolved keeps it in /run: a file must be there, or nothing could be bind-mounted over /etc/resolv.conf.
    if let Some(file) = resolv_conf.filter(|file| file.starts_with("/run")) {
        let directory = file.parent().unwrap_or(run);
        fs::create_dir_all(directory)
            .and_then(|()| fs::write(&file, ""))
            .map_err(SystemError::to("make a resolv.conf in /run"))?;
    }

    sethostname("lab").map_err(SystemError::to("set the host name"))?;
    let mut path = std::env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/bin:/bin"));
    path.push(":");
    path.push(SYSTEM_PROGRAMS);
    // SAFETY: no other thread reads the environment, there is none.
    unsafe { std::env::set_var("PATH", path) };
    let ip = |source| SandboxError::Program { program: "ip", package: "iproute2", source };
    let status = Command::new("ip").args(["link", "set", "lo", "up"]).status().map_err(ip)?;
    if !status.success() {
        return Err(SandboxError::Failed { command: "ip link set lo up", status });
    }
    Ok(outer_pid)
}
