//! The inner half of `run`: enters namespaces of its own, waits until it is attached, and becomes the command.

use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;
use rtnetlink::LinkUnspec;

use crate::output::Failure;

/// The subcommand that nobody types.
pub const NAME: &str = "sandbox-for-run";

/// What is said when all is set up.
pub const READY: &str = "ready";

/// What programs ask for their nameserver.
const RESOLV_CONF: &str = "/etc/resolv.conf";

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

/// Becomes the command; returns only on failure.
pub fn enter(arguments: &Arguments, run_dir: &Path) -> Result<ExitCode, Failure> {
    for fd in &arguments.close {
        drop(take(*fd));
    }
    let (mut ready, mut go) = (File::from(take(arguments.ready)), File::from(take(arguments.go)));
    if let Err(failure) = set_up() {
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
    bind_resolv_conf(&resolv_conf, run_dir)?;
    become_command(&arguments.command)
}

/// Takes an inherited file descriptor over.
#[expect(unsafe_code, reason = "inherited descriptors are numbers until somebody owns them")]
fn take(fd: RawFd) -> OwnedFd {
    // SAFETY: the other half of `run` left it open for this process, and nothing else here knows of it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn set_up() -> Result<(), String> {
    let explain = |what: &str, e: nix::errno::Errno| match e {
        nix::errno::Errno::EPERM => format!("can't {what}: CAP_SYS_ADMIN is missing; run overlayctl as root"),
        e => format!("can't {what}: {e}"),
    };
    // The endpoint goes when `run` ends, so the command must not stay.
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(|e| explain("follow overlayctl run", e))?;
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).map_err(|e| explain("make a network namespace", e))?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).map_err(|e| explain("make mounts private", e))?;
    loopback_up().map_err(|e| format!("can't set the loopback interface up: {e}"))
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

/// Puts a resolv.conf of its own over the host's, in this mount namespace only.
fn bind_resolv_conf(text: &str, run_dir: &Path) -> Result<(), Failure> {
    let failed =
        |e: &dyn std::fmt::Display| Failure::failed(format!("can't give the command a {RESOLV_CONF} of its own: {e}"));
    let path = run_dir.join(format!("resolv.conf.{}", std::process::id()));
    std::fs::write(&path, text).map_err(|e| failed(&e))?;
    let bound = mount(Some(&path), RESOLV_CONF, None::<&str>, MsFlags::MS_BIND, None::<&str>);
    // The mount keeps the file; its name is not needed any more.
    let _ = std::fs::remove_file(&path);
    bound.map_err(|e| failed(&e))
}

fn become_command(command: &[String]) -> Result<ExitCode, Failure> {
    let words: Result<Vec<CString>, _> = command.iter().map(|word| CString::new(word.as_str())).collect();
    let words = words.map_err(|e| Failure::misused(format!("the command can't be run: {e}")))?;
    let Err(error) = nix::unistd::execvp(&words[0], &words);
    eprintln!("overlayctl: can't run `{}`: {}", command[0], error.desc());
    // As shells have it: 127 for what is not there, 126 for what can't be run.
    Ok(ExitCode::from(if error == nix::errno::Errno::ENOENT { 127 } else { 126 }))
}
