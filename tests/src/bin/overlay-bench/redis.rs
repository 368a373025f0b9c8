//! Redis GET requests a second from one host to another, by redis-benchmark.

use std::fs;
use std::path::Path as File;
use std::time::Duration;

use anyhow::Context;
use overlay_tests::lab::{Proc, ROOT};

use crate::figure::Unit;
use crate::rounds::{Lane, Path};

/// Clients, and requests in all: enough for a second or two.
const LOADS: [(u32, u32); 2] = [(50, 100_000), (1, 30_000)];
const READY: Duration = Duration::from_secs(10);

/// A lane per path and load.
pub fn lanes(paths: &[Path]) -> anyhow::Result<Vec<Lane>> {
    let mut lanes = Vec::new();
    for (clients, requests) in LOADS {
        for path in paths {
            lanes.push(lane(path, clients, requests)?);
        }
    }
    Ok(lanes)
}

fn lane(path: &Path, clients: u32, requests: u32) -> anyhow::Result<Lane> {
    // A server per lane: one that idles costs nothing that could be seen.
    let port = 6379 + clients;
    let directory = File::new(ROOT).join(format!("redis-{}-{clients}", path.name));
    fs::create_dir_all(&directory)?;
    let configuration = directory.join("redis.conf");
    let settings = "bind 0.0.0.0\nprotected-mode no\nsave \"\"\nappendonly no\n";
    fs::write(&configuration, format!("{settings}port {port}\ndir {}\n", directory.display()))?;
    let line = format!("redis-server {}", configuration.display());
    let mut server = path.server.spawn(&line, &directory.join("log"))?;
    server.wait_for("Ready to accept connections", READY)?;

    let (client, address) = (path.client.clone(), path.address);
    // Without -r all requests are for one key: here it gets a value.
    client.sh(&format!("redis-benchmark -h {address} -p {port} -t set -c 1 -n 1 -q"))?;
    let line = format!("redis-benchmark -h {address} -p {port} -t get -c {clients} -n {requests} --csv");
    let plural = if clients == 1 { "" } else { "s" };
    let figure = path.figure(&format!("Redis GET, {clients} client{plural}"), Unit::PerSecond);
    Ok(Lane::new(figure, move || {
        let _lives_as_long: &Proc = &server;
        let report = client.sh(&line)?;
        requests_per_second(&report).with_context(|| format!("no GET in {report}"))
    }))
}

/// The second column of the line of GET.
fn requests_per_second(report: &str) -> Option<f64> {
    let line = report.lines().find_map(|line| line.strip_prefix("\"GET\",\""))?;
    line.split('"').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_read_from_the_line_of_get() {
        let report = "\"test\",\"rps\",\"avg_latency_ms\"\n\"GET\",\"98039.22\",\"0.262\"\n";
        assert_eq!(requests_per_second(report), Some(98_039.22));
        assert_eq!(requests_per_second("\"SET\",\"1.0\"\n"), None);
    }
}
