//! A process that only waits for another one: it dies with it, and lets it die with itself.
//!
//! What every layer of the lab between the program as started and the process that does the work has in common.

use std::io;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::sys::signalfd::SignalFd;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, pipe};

/// `si_code` of a signal that the terminal sent: the whole foreground group has it already (sigaction(2)).
const SI_KERNEL: i32 = 0x80;

/// A call to the kernel that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what}")]
pub struct SystemError {
    /// What was tried.
    pub what: &'static str,
    #[source]
    source: io::Error,
}

impl SystemError {
    /// For `map_err`: names what was tried.
    pub(crate) fn to<E: Into<io::Error>>(what: &'static str) -> impl Fn(E) -> Self {
        move |source| Self { what, source: source.into() }
    }
}

/// Signals that a supervisor takes from a file descriptor instead of dying of them.
pub(crate) struct Signals {
    watched: SigSet,
    before: SigSet,
}

impl Signals {
    /// Blocks the signals that a supervisor passes on. The process must have one thread only.
    pub(crate) fn block() -> Result<Self, SystemError> {
        use Signal::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
        let mut watched = SigSet::empty();
        for signal in [SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2] {
            watched.add(signal);
        }
        let mut before = SigSet::empty();
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&watched), Some(&mut before))
            .map_err(SystemError::to("block signals"))?;
        Ok(Self { watched, before })
    }

    /// Undoes [`Signals::block`], for the process that does the work.
    pub(crate) fn restore(&self) -> Result<(), SystemError> {
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.before), None).map_err(SystemError::to("restore signals"))
    }

    /// Forks. The child returns, and is killed when the parent ends, whatever ends it. The parent calls `forked` with
    /// the child's pid, waits for it and exits with its status (128 + n if signal n killed it).
    pub(crate) fn fork(&self, forked: impl FnOnce(Pid) -> io::Result<()>) -> Result<(), SystemError> {
        // The reading end tells the child whether its parent lives still: in a new PID namespace getppid() is 0.
        let (alive, held_by_parent) = pipe().map_err(SystemError::to("make a pipe"))?;
        // SAFETY: the callers of this crate have one thread only.
        match unsafe { fork() }.map_err(SystemError::to("fork"))? {
            ForkResult::Parent { child } => {
                drop(alive);
                forked(child).map_err(SystemError::to("tell the pid of a child"))?;
                let status = self.supervise(child)?;
                drop(held_by_parent);
                std::process::exit(status)
            }
            ForkResult::Child => drop(held_by_parent),
        }
        set_pdeathsig(Signal::SIGKILL).map_err(SystemError::to("set the parent death signal"))?;
        // The parent may have gone before the line above.
        let mut fds = [PollFd::new(alive.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, PollTimeout::ZERO).map_err(SystemError::to("poll the parent's pipe"))? != 0 {
            std::process::exit(1);
        }
        Ok(())
    }

    /// Reaps children for ever, as pid 1 of a PID namespace has to.
    pub(crate) fn reap(&self) -> Result<(), SystemError> {
        self.supervise(Pid::from_raw(0)).map(|_| ())
    }

    /// Waits for `child`, reaps every other child that ends meanwhile, and passes on the signals that come.
    fn supervise(&self, child: Pid) -> Result<i32, SystemError> {
        let signals = SignalFd::new(&self.watched).map_err(SystemError::to("make a signalfd"))?;
        loop {
            loop {
                match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                    Ok(WaitStatus::Exited(pid, code)) if pid == child => return Ok(code),
                    Ok(WaitStatus::Signaled(pid, signal, _)) if pid == child => return Ok(128 + signal as i32),
                    Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => break,
                    Ok(_) | Err(Errno::EINTR) => {}
                    Err(e) => return Err(SystemError::to("wait for a child")(e)),
                }
            }
            let Some(info) = signals.read_signal().map_err(SystemError::to("read a signal"))? else { continue };
            let signal = i32::try_from(info.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok());
            match signal {
                Some(Signal::SIGCHLD) | None => {}
                Some(_) if info.ssi_code == SI_KERNEL => {}
                // pid 0 would be the whole process group.
                Some(_) if child.as_raw() == 0 => return Ok(0),
                // ESRCH: it has just ended, and the next turn says how.
                Some(signal) => _ = kill(child, signal),
            }
        }
    }
}
