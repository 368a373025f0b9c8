//! Agents that stay away, or come back all at once: their hosts' packets go on.

use std::time::Duration;

use anyhow::ensure;
use overlay_tests::eventually::{always, eventually, pass};
use overlay_tests::lab::{Ending, Flow, Lab, Oracle, Stream};

use super::support::leases::agree;
use super::support::{HALF_A_SECOND, SECOND};

/// Much longer than what a dead host is given.
const LONG: Duration = Duration::from_secs(6);
/// What a host may take to learn again what it knew, the others' patience with those that do not come included.
const SYNCED: Duration = Duration::from_secs(15);

pub fn an_agent_that_stays_down_takes_nothing_from_its_hosts_traffic() -> anyhow::Result<()> {
    let mut lab = Lab::with_agents(3)?;
    lab.network("web", "10.20.0.0/24")?;
    let left = lab.reachable("h1", "web", "left", "")?;
    let right = lab.reachable("h2", "web", "right", "")?;
    lab.wait_until_reachable("web", &left)?;
    let rows = lab.kernel_rows("h1", "web", "h2")?;
    ensure!(!rows.is_empty(), "h1 has no rows for h2 to begin with");

    let oracle = Oracle::watch(&[&left, &right])?;
    let (flow, stream) = (Flow::start(&left, &right)?, Stream::start(&right, &left)?);
    for ending in [Ending::Kill, Ending::Term] {
        lab.stop("h2", ending)?;
        eventually(LONG, "h1 notices that h2's agent is silent", || {
            let hosts = lab.rows("h1", "host ls")?;
            ensure!(hosts.iter().any(|row| row["name"] == "h2" && row["state"] == "suspect"), "{hosts:?}");
            Ok(())
        })?;
        ensure!(
            left.dig("right")?.addresses().is_empty(),
            "the name of an endpoint whose agent is silent is given out"
        );
        always(LONG, "h1 keeps the rows of a host that is there", || {
            ensure!(lab.kernel_rows("h1", "web", "h2")? == rows, "they were withdrawn");
            Ok(())
        })?;
        lab.start("h2")?;
        lab.wait_until_all_see_all()?;
    }
    let (report, stream) = (flow.stop()?, stream.stop()?);
    ensure!(report.lost == 0 && report.sent > 12_000, "{report:?}");
    ensure!(!stream.broken && stream.longest_stall_ms < 1000, "{stream:?}");
    agree(&lab, "web")?;
    oracle.stop().map(drop)
}

pub fn agents_that_come_back_one_after_another_lose_no_packet() -> anyhow::Result<()> {
    let mut lab = Lab::with_agents(3)?;
    lab.network("web", "10.20.0.0/24")?;
    let left = lab.reachable("h1", "web", "left", "")?;
    let right = lab.reachable("h3", "web", "right", "")?;
    let other = lab.reachable("h2", "web", "other", "")?;
    lab.wait_until_reachable("web", &left)?;

    let oracle = Oracle::watch(&[&left, &right, &other])?;
    let (flow, stream) = (Flow::start(&left, &right)?, Stream::start(&right, &left)?);
    for host in lab.names() {
        lab.stop(&host, Ending::Kill)?;
    }
    // The first two know each other, and nothing of the third, for longer than they need to agree with each other.
    for host in ["h1", "h2"] {
        lab.start(host)?;
    }
    pass(SECOND * 2);
    lab.start("h3")?;
    for host in lab.names() {
        eventually(SYNCED, &format!("{host} has caught up"), || {
            let status = lab.json(&host, "status")?;
            ensure!(status["synced"] == true, "{status}");
            Ok(())
        })?;
    }
    lab.wait_until_all_see_all()?;
    let (report, stream) = (flow.stop()?, stream.stop()?);
    ensure!(report.lost == 0 && report.sent > 2_000, "{report:?}");
    ensure!(!stream.broken && stream.longest_stall_ms < 1000, "{stream:?}");
    agree(&lab, "web")?;
    oracle.stop().map(drop)
}

pub fn a_container_is_reached_as_soon_as_it_is_attached() -> anyhow::Result<()> {
    let lab = Lab::with_agents(2)?;
    lab.network("web", "10.20.0.0/24")?;
    let far = lab.reachable("h2", "web", "far", "")?;
    for round in 0..6 {
        // One packet each way, and the answer: ARP asks again only after a second.
        let new = lab.connect("h1", "web", &format!("new-{round}"), "")?;
        new.ping(far.address()?, HALF_A_SECOND)?;
        let newer = lab.connect("h1", "web", &format!("newer-{round}"), "")?;
        far.ping(newer.address()?, HALF_A_SECOND)?;
    }
    Ok(())
}
