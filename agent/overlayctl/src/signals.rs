//! The signals that people and supervisors end a command with. Whoever stands between them and the command takes each
//! from a file descriptor, instead of dying of it, and passes it on unless the command has it already.

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd, siginfo};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// `si_code` of a signal that the terminal sent: the whole foreground group has it (sigaction(2)).
const SI_KERNEL: i32 = 0x80;

/// From here on they wait to be taken, here and in whatever this process starts.
pub fn block() -> nix::Result<()> {
    watched().thread_block()
}

/// Undoes [`block`], for the command.
pub fn unblock() -> nix::Result<()> {
    watched().thread_unblock()
}

/// Takes all that have come; gives the first that wants an end.
pub fn end_wanted() -> nix::Result<Option<Signal>> {
    let come = SignalFd::with_flags(&watched(), SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    let mut wanted = None;
    while let Some(info) = come.read_signal()? {
        wanted = wanted.or(signal_of(&info));
    }
    Ok(wanted)
}

/// Waits for `child` and passes signals on to it. Reaps all others that end meanwhile, as pid 1 of a namespace has to.
/// Gives the child's status as shells have it: its own, or 128 and the signal that ended it.
pub fn supervise(child: Pid) -> nix::Result<u8> {
    block()?;
    let come = SignalFd::with_flags(&watched(), SfdFlags::SFD_CLOEXEC)?;
    loop {
        if let Some(status) = reap(child)? {
            return Ok(status);
        }
        // SIGCHLD is one of them, so this waits for the end of the child as well.
        let info = match come.read_signal() {
            Err(Errno::EINTR) => None,
            read => read?,
        };
        let elsewhere = info.filter(|info| info.ssi_code != SI_KERNEL);
        if let Some(signal) = elsewhere.as_ref().and_then(signal_of) {
            // It fails only if the child has ended already, and then that is seen next.
            let _ = kill(child, signal);
        }
    }
}

/// What a process exits with that a signal ended, as shells have it.
pub fn status_of(signal: Signal) -> u8 {
    status(128 + signal as i32)
}

fn watched() -> SigSet {
    use Signal::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM};
    [SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM].into_iter().collect()
}

/// The signal, unless it only says that a child has ended.
fn signal_of(info: &siginfo) -> Option<Signal> {
    let signal = Signal::try_from(i32::try_from(info.ssi_signo).ok()?).ok()?;
    Some(signal).filter(|signal| *signal != Signal::SIGCHLD)
}

/// Reaps all that have ended; gives the child's status if it is among them.
fn reap(child: Pid) -> nix::Result<Option<u8>> {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == child => return Ok(Some(status(code))),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == child => return Ok(Some(status_of(signal))),
            Ok(WaitStatus::StillAlive) => return Ok(None),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

fn status(code: i32) -> u8 {
    u8::try_from(code).unwrap_or(1)
}
