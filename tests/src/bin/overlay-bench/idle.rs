//! What an agent costs while nothing happens: three hosts, one network, a container on each.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use overlay_tests::eventually::pass;
use overlay_tests::lab::Lab;

use crate::figure::{Figure, Unit};

const IDLE: Duration = Duration::from_secs(10);
/// What the beginning brought about has died down.
pub const SETTLED: Duration = Duration::from_secs(2);

/// CPU and memory of every agent, which are the samples of two figures.
pub fn measure(lab: &Lab) -> anyhow::Result<Vec<Figure>> {
    lab.network("idle", "10.40.0.0/16")?;
    for host in lab.names() {
        lab.reachable(&host, "idle", &format!("idle-{host}"), "")?;
    }
    pass(SETTLED);
    let mut agents = Vec::new();
    for host in lab.names() {
        let pid = lab.agent(&host)?.pid()?;
        agents.push((pid, Instant::now(), processor_time(pid)?));
    }
    pass(IDLE);
    let mut processor = Figure::new("agent at rest, processor", Unit::PercentOfCore);
    let mut memory = Figure::new("agent at rest, memory (RSS)", Unit::Mebibytes);
    for (pid, since, before) in agents {
        let spent = processor_time(pid)?.saturating_sub(before);
        processor.values.push(100.0 * spent.as_secs_f64() / since.elapsed().as_secs_f64());
        memory.values.push(resident(pid)?);
    }
    Ok(vec![processor, memory])
}

/// Of all its threads, to the nanosecond (clock_getcpuclockid(3)).
pub fn processor_time(pid: i32) -> anyhow::Result<Duration> {
    Ok(Duration::from(clock_gettime(ClockId::pid_cpu_clock_id(Pid::from_raw(pid))?)?))
}

fn resident(pid: i32) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok());
    kib.map(|kib: f64| kib / 1024.0).context("no VmRSS")
}
