//! One `overlayd`: started, watched, killed.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use nix::sys::signal::Signal;

use super::exec::{Proc, tail};
use super::host::Host;
use super::programs::Programs;
use crate::eventually::eventually;

const READY: Duration = Duration::from_secs(20);
/// The status of what SIGKILL ended.
const KILLED: i32 = 137;
const END: Duration = Duration::from_secs(10);

/// How an agent is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// SIGTERM: as a service manager stops it.
    Term,
    /// SIGKILL: as the kernel stops it when memory is short.
    Kill,
}

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    host: String,
    process: Proc,
    notify: UnixDatagram,
}

impl Agent {
    pub(super) fn start(
        programs: &Programs,
        host: &Host,
        arguments: &[String],
        more: &[(&str, &Path)],
    ) -> anyhow::Result<Self> {
        let directory = Host::directory(host.name());
        let socket = directory.join("notify.sock");
        if socket.exists() {
            fs::remove_file(&socket)?;
        }
        let notify = UnixDatagram::bind(&socket)?;
        notify.set_nonblocking(true)?;
        let program = programs.overlayd()?.display().to_string();
        let words: Vec<&str> = std::iter::once(&program).chain(arguments).map(String::as_str).collect();
        let environment = [&[("NOTIFY_SOCKET", socket.as_path())], more].concat();
        let process = Proc::start(&host.place(), &words, &environment, &directory.join("overlayd.log"))?;
        Ok(Self { host: host.name().to_owned(), process, notify })
    }

    /// Waits for `READY=1` (sd_notify(3)).
    pub(super) fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let what = format!("overlayd on {} to be ready", self.host);
        eventually(READY, &what, || {
            let mut buffer = [0; 512];
            let length = self.notify.recv(&mut buffer).unwrap_or(0);
            let said = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()).into_owned();
            if said.lines().any(|line| line == "READY=1") {
                return Ok(Ok(()));
            }
            let log = || tail(&self.process.printed().unwrap_or_default(), 30);
            let log = log();
            match self.process.ended()? {
                Some(code) => Ok(Err(anyhow::anyhow!("it ended with {code}: {log}"))),
                None => bail!("its log ends: {log}"),
            }
        })?
        .context(what)
    }

    /// Its pid, in the lab's numbering.
    ///
    /// # Errors
    /// When it was not started.
    pub fn pid(&self) -> anyhow::Result<i32> {
        self.process.pid()
    }

    /// Everything it has logged, also in earlier lives.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn log(&self) -> anyhow::Result<String> {
        self.process.printed()
    }

    pub(super) fn stop(&mut self, ending: Ending) -> anyhow::Result<()> {
        let signal = match ending {
            Ending::Term => Signal::SIGTERM,
            Ending::Kill => Signal::SIGKILL,
        };
        self.process.signal(signal)?;
        let code = self.process.wait(END)?;
        match (ending, code) {
            (Ending::Term, 0) | (Ending::Kill, KILLED) => Ok(()),
            _ => bail!("overlayd on {} ended with {code} after {ending:?}", self.host),
        }
    }

    /// Whether something has killed it.
    pub(super) fn is_killed(&mut self) -> anyhow::Result<bool> {
        match self.process.ended()? {
            None => Ok(false),
            Some(KILLED) => Ok(true),
            Some(code) => bail!("overlayd on {} ended with {code}: {}", self.host, tail(&self.log()?, 30)),
        }
    }

    pub(super) fn is_running(&mut self) -> anyhow::Result<bool> {
        self.process.ended().map(|code| code.is_none())
    }

    /// Collects an agent that something else killed.
    pub(super) fn reap(&mut self) -> anyhow::Result<()> {
        self.process.wait(END).map(|_| ())
    }
}
