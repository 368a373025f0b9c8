//! FDB rows as they come and go in a kernel: netlink's events, which `bridge monitor` prints, with the time of each.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::netns::NetnsPath;

/// What happens to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Came,
    Went,
}

/// A look at the rows of one segment.
#[derive(Debug)]
pub struct Rows {
    monitor: Child,
    events: Receiver<(Instant, String)>,
}

impl Rows {
    /// Begins to look. What changes in the next few milliseconds may be missed.
    pub fn watch(segment: &NetnsPath) -> anyhow::Result<Self> {
        let mut monitor = segment.open(|| {
            let mut command = Command::new("bridge");
            command.args(["monitor", "fdb"]).stdin(Stdio::null()).stdout(Stdio::piped());
            command.spawn().context("cannot run bridge")
        })?;
        let lines = BufReader::new(monitor.stdout.take().context("bridge has no output")?).lines();
        let (sender, events) = channel();
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if sender.send((Instant::now(), line)).is_err() {
                    break;
                }
            }
        });
        Ok(Self { monitor, events })
    }

    /// When, not before `since`, the tunnel's row for `mac` came or went; waits for it, if need be.
    pub fn when(&self, change: Change, mac: &str, since: Instant, within: Duration) -> anyhow::Result<Instant> {
        let deadline = Instant::now() + within;
        loop {
            match self.events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok((at, line)) if at >= since && is(&line, change, mac) => return Ok(at),
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => bail!("the row of {mac} has not {change:?} within {within:?}"),
                Err(RecvTimeoutError::Disconnected) => bail!("bridge monitor has ended"),
            }
        }
    }
}

impl Drop for Rows {
    fn drop(&mut self) {
        _ = self.monitor.kill();
        _ = self.monitor.wait();
    }
}

/// Whether a line tells of that row: `[Deleted ]MAC dev vx0 dst VTEP ...`.
fn is(line: &str, change: Change, mac: &str) -> bool {
    let (happened, row) = match line.strip_prefix("Deleted ") {
        Some(row) => (Change::Went, row),
        None => (Change::Came, line),
    };
    let mut words = row.split_whitespace();
    happened == change && words.next() == Some(mac) && words.any(|word| word == "dst")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_told_from_others() {
        const MAC: &str = "02:42:0a:2a:00:02";
        let came = format!("{MAC} dev vx0 dst 192.0.2.1 vni 77 self extern_learn permanent");
        let went = format!("Deleted {came}");
        assert!(is(&came, Change::Came, MAC) && is(&went, Change::Went, MAC));
        assert!(!is(&came, Change::Went, MAC) && !is(&went, Change::Came, MAC));
        assert!(!is(&came, Change::Came, "02:42:0a:2a:00:03"));
        // The bridge's own half of the row says nothing of a host.
        assert!(!is(&format!("{MAC} dev vx0 master br0 extern_learn"), Change::Came, MAC));
    }
}
