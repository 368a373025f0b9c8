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
const LAST_REPORT: Duration = Duration::from_secs(40);

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
        let report: FlowReport = last_line(sender)?;
        // The tool takes a moment to start.
        let least = u128::from(RATE) * lasted.as_millis().saturating_sub(500) / 1000 * 9 / 10;
        ensure!(u128::from(report.sent) >= least, "{} packets in {lasted:?} are too few: {report:?}", report.sent);
        Ok(report)
    }
}

/// One long TCP connection between two containers.
#[derive(Debug)]
pub struct Stream {
    dialer: Proc,
    _server: Proc,
}

impl Stream {
    /// Connects and starts to talk.
    ///
    /// # Errors
    /// When the connection is not made.
    pub fn start(from: &Container, to: &Container) -> anyhow::Result<Self> {
        let server = to.tool("stream-serve.log", &format!("stream-serve {ECHO}"))?;
        let dialer = from.tool("stream-dial.log", &format!("stream-dial {}:{ECHO}", to.address()?))?;
        Ok(Self { dialer, _server: server })
    }

    /// Ends it and says how long it ever stood still.
    ///
    /// # Errors
    /// When the tool died.
    pub fn stop(mut self) -> anyhow::Result<StreamReport> {
        last_line(&mut self.dialer)
    }
}

/// Closes a tool's input, by which it ends, and reads its report.
pub(super) fn last_line<T: serde::de::DeserializeOwned>(tool: &mut Proc) -> anyhow::Result<T> {
    drop(tool.stdin());
    tool.wait(LAST_REPORT)?;
    let printed = tool.printed()?;
    let line = printed.lines().last().context("the tool printed nothing")?;
    serde_json::from_str(line).with_context(|| format!("the tool printed: {printed}"))
}
