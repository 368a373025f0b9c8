//! What is measured: how long until all have seen something, and what the process takes.

use std::fmt;
use std::time::{Duration, Instant};

use futures::future::join_all;
use overlay_agent::cluster::ClusterView;
use tokio::sync::watch;

/// How long it took until all had seen something.
#[derive(Debug, Clone, Copy, Default)]
pub struct Spread {
    /// Until the last one saw it.
    pub worst: Duration,
    /// Those that did not see it in time.
    pub lacking: usize,
}

impl Spread {
    pub fn and(self, other: Self) -> Self {
        Self { worst: self.worst.max(other.worst), lacking: self.lacking + other.lacking }
    }
}

/// Waits until all `observers` have seen what is `wanted`. One that is killed meanwhile no longer counts.
pub async fn all_see(
    observers: &[watch::Receiver<ClusterView>],
    (since, within): (Instant, Duration),
    wanted: impl Fn(&ClusterView) -> bool,
) -> Spread {
    let wanted = &wanted;
    let each = observers.iter().cloned().map(|mut seen| async move {
        let waited = tokio::time::timeout_at((since + within).into(), seen.wait_for(|seen| wanted(seen))).await;
        Spread { lacking: usize::from(waited.is_err()), worst: since.elapsed() }
    });
    join_all(each).await.into_iter().fold(Spread::default(), Spread::and)
}

/// A wave of the swarm. Times are in gossip intervals.
#[derive(Debug, Clone, Default)]
pub struct Row {
    pub wave: usize,
    /// How long it was: as long as planned, or until the last had seen all.
    pub took: Duration,
    pub living: usize,
    pub killed: usize,
    pub changes: usize,
    /// From a change of a living agent's endpoints.
    pub change: f64,
    pub death: f64,
    pub birth: f64,
    pub lacking: usize,
    /// Of all pairs of living agents, those of which one suspects the other, in parts per million.
    pub suspected: f64,
    /// Bytes of the largest digest.
    pub digest: usize,
    pub resident: usize,
    /// Processors that were busy.
    pub processors: f64,
    /// Messages that were dropped, and why.
    pub dropped: String,
}

impl Row {
    pub const HEADER: &str = "wave | seconds | living | killed | changes | change | death | birth | lacking | suspected ppm | digest B | resident MB | CPUs | dropped";
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { wave, living, killed, changes, change, death, birth, lacking, suspected, .. } = self;
        write!(
            f,
            "{wave:4} | {:7.1} | {living:6} | {killed:6} | {changes:7} | {change:6.2} | {death:5.2} | {birth:5.2} | ",
            self.took.as_secs_f64()
        )?;
        write!(f, "{lacking:7} | {suspected:13.1} | {:8} | {:11} | ", self.digest, self.resident >> 20)?;
        write!(f, "{:4.2} | {}", self.processors, self.dropped)
    }
}

/// Bytes of memory that this process has.
pub fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux has it");
    let pages: usize = statm.split(' ').nth(1).and_then(|n| n.parse().ok()).expect("the second is what is resident");
    pages * constant(nix::unistd::SysconfVar::PAGE_SIZE)
}

/// Processor time that this process has used.
pub fn used() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux has it");
    let (_, after) = stat.rsplit_once(')').expect("the program's name is in brackets");
    let ticks: usize = after.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<usize>().ok()).sum();
    Duration::from_secs(ticks as u64) / u32::try_from(constant(nix::unistd::SysconfVar::CLK_TCK)).expect("100")
}

fn constant(variable: nix::unistd::SysconfVar) -> usize {
    let value = nix::unistd::sysconf(variable).expect("known").expect("limited");
    usize::try_from(value).expect("positive")
}
