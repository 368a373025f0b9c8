//! TCP throughput from one host to another, one stream, by iperf3.

use std::path::Path as File;
use std::time::Duration;

use anyhow::Context;
use overlay_tests::lab::{Proc, ROOT};

use crate::figure::Unit;
use crate::rounds::{Lane, Path};

const SECONDS: u32 = 3;
const READY: Duration = Duration::from_secs(10);

/// One lane per path.
pub fn lanes(paths: &[Path]) -> anyhow::Result<Vec<Lane>> {
    paths.iter().map(lane).collect()
}

fn lane(path: &Path) -> anyhow::Result<Lane> {
    let log = File::new(ROOT).join(format!("iperf3-{}.log", path.name));
    let mut server = path.server.spawn("iperf3 --server --forceflush", &log)?;
    server.wait_for("listening", READY)?;
    let (client, line) = (path.client.clone(), format!("iperf3 --client {} --time {SECONDS} --json", path.address));
    Ok(Lane::new(path.figure("TCP throughput, one stream", Unit::GigabitsPerSecond), move || {
        let _lives_as_long: &Proc = &server;
        let report = client.try_sh(&line)?.json()?;
        let received = &report["end"]["sum_received"]["bits_per_second"];
        Ok(received.as_f64().with_context(|| format!("no throughput in {report}"))? / 1e9)
    }))
}
