//! The inner half of `run`: enters namespaces of its own, waits until it is attached, and runs the command there.
//!
//! ```text
//! overlayctl run                  connects and disconnects the endpoint
//! └─ the sandbox                  in the namespaces of the endpoint; its /proc/PID/ns/net is what is attached
//!    └─ pid 1 of the command's    reaps what the command leaves behind
//!       └─ the command
//! ```
//!
//! Each is killed when the one above it ends, however it ends, and with pid 1 the kernel ends everything in there. Each
//! passes signals down and the status of the command up.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::Args;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, getsockopt, socket};
use nix::unistd::{ForkResult, fork, pipe2, read};
use nix::{getsockopt_impl, libc, sockopt_impl};
use rtnetlink::LinkUnspec;

use crate::output::Failure;
use crate::signals;

pub mod names;

sockopt_impl!(
    /// The number of the namespace that a socket is in (Linux 5.14).
    NetnsCookie,
    GetOnly,
    libc::SOL_SOCKET,
    libc::SO_NETNS_COOKIE,
    u64
);

/// The subcommand that nobody types.
pub const NAME: &str = "sandbox-for-run";

/// What is said when all is set up.
pub const READY: &str = "ready";

/// What is said instead of a resolv.conf if it is to be the host's.
pub const KEEP: &str = "keep";

#[derive(Debug, Args)]
pub struct Arguments {
    /// Where to say that all is set up, or why not
    #[arg(long)]
    ready: RawFd,
    /// Where to hear the resolv.conf
    #[arg(long)]
    go: RawFd,
    /// The other half's ends, to be closed
    #[arg(long, num_args = 1..)]
    close: Vec<RawFd>,
    /// The network namespace to be in [default: one of its own]
    #[arg(long)]
    netns: Option<PathBuf>,
    /// The kernel's number for it
    #[arg(long)]
    netns_cookie: Option<u64>,
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// The arguments that hand over the pipes.
pub fn fds(ready: &OwnedFd, go: &OwnedFd, close: [&OwnedFd; 2]) -> Vec<String> {
    let number = |fd: &OwnedFd| fd.as_raw_fd().to_string();
    let [a, b] = close.map(number);
    [
        "--ready".to_owned(),
        number(ready),
        "--go".to_owned(),
        number(go),
        "--close".to_owned(),
        a,
        "--close".to_owned(),
        b,
    ]
    .into()
}

/// Runs the command in namespaces of its own, and gives its status.
pub fn enter(arguments: &Arguments, run_dir: &Path) -> Result<ExitCode, Failure> {
    for fd in &arguments.close {
        drop(take(*fd));
    }
    let (mut ready, mut go) = (File::from(take(arguments.ready)), File::from(take(arguments.go)));
    if let Err(failure) = set_up(arguments.netns.as_deref(), arguments.netns_cookie) {
        // The other half says it; if it is gone nobody is left to.
        let _ = ready.write_all(failure.as_bytes());
        return Ok(ExitCode::FAILURE);
    }
    let told = ready.write_all(READY.as_bytes());
    told.map_err(|e| Failure::failed(format!("overlayctl run ended: {e}")))?;
    drop(ready);
    let mut resolv_conf = String::new();
    go.read_to_string(&mut resolv_conf).map_err(|e| Failure::failed(format!("overlayctl run ended: {e}")))?;
    drop(go);
    if resolv_conf.is_empty() {
        return Ok(ExitCode::FAILURE);
    }
    if resolv_conf != KEEP {
        names::give(&resolv_conf, run_dir)?;
    }
    with_pid_1(|| in_child(|| become_command(&arguments.command)))
}

/// Takes an inherited file descriptor over.
#[expect(unsafe_code, reason = "inherited descriptors are numbers until somebody owns them")]
fn take(fd: RawFd) -> OwnedFd {
    // SAFETY: the other half of `run` left it open for this process, and nothing else here knows of it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

#[cfg_attr(not(test), expect(clippy::wildcard_enum_match_arm, reason = "the system has more errors than need advice"))]
fn set_up(netns: Option<&Path>, cookie: Option<u64>) -> Result<(), String> {
    let explain = |what: &str, e: Errno| match e {
        Errno::EPERM => format!("can't {what}: CAP_SYS_ADMIN is missing; run overlayctl as root"),
        e => format!("can't {what}: {e}"),
    };
    // The endpoint goes when `run` ends, so the command must not stay.
    set_pdeathsig(Signal::SIGKILL).map_err(|e| explain("follow overlayctl run", e))?;
    match netns {
        None => {
            unshare(CloneFlags::CLONE_NEWNET).map_err(|e| explain("make a network namespace", e))?;
            loopback_up().map_err(|e| format!("can't set the loopback interface up: {e}"))?;
        }
        Some(path) => {
            let file =
                File::open(path).map_err(|e| format!("can't open the network namespace {}: {e}", path.display()))?;
            setns(file, CloneFlags::CLONE_NEWNET).map_err(|e| explain("enter the network namespace", e))?;
            let entered = own_cookie().map_err(|e| explain("tell the network namespace", e))?;
            if cookie.is_some_and(|cookie| cookie != entered) {
                let path = path.display();
                return Err(format!(
                    "the network namespace at {path} is another one by now, the container has ended: see `overlayctl endpoint ls`"
                ));
            }
        }
    }
    unshare(CloneFlags::CLONE_NEWNS).map_err(|e| explain("make a mount namespace", e))?;
    // The next child is its pid 1; this process stays where overlayctl run can name it.
    unshare(CloneFlags::CLONE_NEWPID).map_err(|e| explain("make a PID namespace", e))?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).map_err(|e| explain("make mounts private", e))
}

fn own_cookie() -> Result<u64, Errno> {
    let probe = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    getsockopt(&probe, NetnsCookie)
}

fn loopback_up() -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        handle.link().set(LinkUnspec::new_with_name("lo").up().build()).execute().await?;
        Ok(())
    })
}

/// Goes on as pid 1 of the new PID namespace, which ends with this process, and with it all that is in there.
fn with_pid_1(work: impl FnOnce() -> Result<ExitCode, Failure>) -> Result<ExitCode, Failure> {
    let failed = |errno: Errno| Failure::failed(format!("can't make the first process of the sandbox: {errno}"));
    // The reading end tells the child whether its parent lives still, which holds the other until the child has ended:
    // across PID namespaces getppid() is 0.
    let (alive, held) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).map_err(failed)?;
    in_child(|| {
        drop(held);
        set_pdeathsig(Signal::SIGKILL).map_err(failed)?;
        // The parent may have ended before the line above.
        if read(&alive, &mut [0]) != Err(Errno::EAGAIN) {
            return Ok(ExitCode::FAILURE);
        }
        // Programs look themselves and each other up there, by the pids of this namespace.
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(Some("proc"), "/proc", Some("proc"), flags, None::<&str>)
            .map_err(|e| Failure::failed(format!("can't give the command a /proc of its own: {e}")))?;
        work()
    })
}

/// Does the work in a child, and gives its status.
#[expect(unsafe_code, reason = "fork")]
fn in_child(work: impl FnOnce() -> Result<ExitCode, Failure>) -> Result<ExitCode, Failure> {
    // SAFETY: the sandbox has one thread only: the runtime that set the loopback interface up had no other, and is gone.
    match unsafe { fork() }.map_err(|e| Failure::failed(format!("can't start a process: {e}")))? {
        ForkResult::Child => work(),
        ForkResult::Parent { child } => {
            let status =
                signals::supervise(child).map_err(|e| Failure::failed(format!("can't wait for the command: {e}")))?;
            Ok(ExitCode::from(status))
        }
    }
}

/// Returns only on failure.
fn become_command(words: &[String]) -> Result<ExitCode, Failure> {
    let [program, arguments @ ..] = words else { return Err(Failure::misused("there is no command")) };
    signals::unblock().map_err(|e| Failure::failed(format!("can't let signals through: {e}")))?;
    let error = Command::new(program).args(arguments).exec();
    let errno = error.raw_os_error().map(Errno::from_raw);
    let why = errno.map_or_else(|| error.to_string(), |errno| errno.desc().to_owned());
    eprintln!("overlayctl: can't run `{program}`: {why}");
    // As shells have it: 127 for what is not there, 126 for what can't be run.
    Ok(ExitCode::from(if errno == Some(Errno::ENOENT) { 127 } else { 126 }))
}
