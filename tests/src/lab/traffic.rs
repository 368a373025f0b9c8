//! Traffic between containers that counts what it loses.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use super::container::Container;
use super::exec::Proc;
use crate::tool::flow::FlowReport;
use crate::tool::stream::StreamReport;

/// The echo's port (RFC 862); for both protocols.
const ECHO: u16 = 7;
/// Packets a second.
const RATE: u32 = 1000;
/// What a tool may take for its last report, beside what it waits for the network.
pub(super) const LAST_REPORT: Duration = Duration::from_secs(10);
/// A connection that stands still for longer counts as dead.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Numbered UDP packets from one container to an echo in another, 1,000 a second.
#[derive(Debug)]
pub struct Flow {
    started: Instant,
    sender: Proc,
    _echo: Proc,
}

impl Flow {
    /// Starts to send.
    ///
    /// # Errors
    /// When the tools do not start.
    pub fn start(from: &Container, to: &Container) -> anyhow::Result<Self> {
        let echo = to.tool("echo.log", &format!("echo {ECHO}"))?;
        let sender = from.tool("flow.log", &format!("flow {}:{ECHO}", to.address()?))?;
        Ok(Self { started: Instant::now(), sender, _echo: echo })
    }

    /// Ends it and says what became of the packets.
    ///
    /// # Errors
    /// When the tool died, or did not send as much as it should have.
    pub fn stop(mut self) -> anyhow::Result<FlowReport> {
        let (lasted, sender) = (self.started.elapsed(), &mut self.sender);
        let report: FlowReport = last_line(sender, TIMEOUT + LAST_REPORT)?;
        // The tool takes a moment to start, and sends no more than it can.
        let least = u128::from(RATE) * lasted.as_millis().saturating_sub(500) / 1000 / 2;
        ensure!(u128::from(report.sent) >= least, "{} packets in {lasted:?} are too few: {report:?}", report.sent);
        Ok(report)
    }
}

/// One long TCP connection between two containers.
#[derive(Debug)]
pub struct Stream {
    patience: Duration,
    dialer: Proc,
    _server: Proc,
}

impl Stream {
    /// Connects and starts to talk.
    ///
    /// # Errors
    /// When the connection is not made.
    pub fn start(from: &Container, to: &Container) -> anyhow::Result<Self> {
        Self::dial(from, to, TIMEOUT)
    }

    /// [`Stream::start`] of a connection that outlasts an outage of any length up to `patience`, and goes on within a
    /// second of its end.
    ///
    /// # Errors
    /// As there, or when the kernel is older than 6.15.
    pub fn start_patient(from: &Container, to: &Container, patience: Duration) -> anyhow::Result<Self> {
        for end in [from, to] {
            // Else TCP doubles its pause each time, and after a minute asks again only after nearly another one; and it
            // counts the retries, not the time, before it gives up (Documentation/networking/ip-sysctl.rst).
            end.sh("sysctl -qw net.ipv4.tcp_rto_max_ms=1000 net.ipv4.tcp_retries2=255")?;
        }
        Self::dial(from, to, patience)
    }

    fn dial(from: &Container, to: &Container, patience: Duration) -> anyhow::Result<Self> {
        let server = to.tool("stream-serve.log", &format!("stream-serve {ECHO}"))?;
        let line = format!("stream-dial {}:{ECHO} --patience {}", to.address()?, patience.as_secs());
        let dialer = from.tool("stream-dial.log", &line)?;
        Ok(Self { patience, dialer, _server: server })
    }

    /// Ends it and says how long it ever stood still.
    ///
    /// # Errors
    /// When the tool died.
    pub fn stop(mut self) -> anyhow::Result<StreamReport> {
        last_line(&mut self.dialer, self.patience + LAST_REPORT)
    }
}

/// Closes a tool's input, by which it ends, and reads its report.
pub(super) fn last_line<T: serde::de::DeserializeOwned>(tool: &mut Proc, within: Duration) -> anyhow::Result<T> {
    drop(tool.stdin());
    tool.wait(within)?;
    let printed = tool.printed()?;
    let line = printed.lines().last().context("the tool printed nothing")?;
    serde_json::from_str(line).with_context(|| format!("the tool printed: {printed}"))
}
