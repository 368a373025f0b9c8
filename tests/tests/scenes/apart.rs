//! Clusters that were founded apart, with one key, and then hear each other.

use std::fs;

use anyhow::{Context, ensure};
use overlay_tests::eventually::{always, eventually};
use overlay_tests::lab::{Container, Ending, Lab, Oracle};

use super::support::SECOND;
use super::support::leases::{AGREED, agree, anew, refusal};
use super::support::members::{id_of, new_identity, wait_for_state};

const WEST: [&str; 2] = ["h1", "h2"];
const EAST: [&str; 2] = ["h3", "h4"];

/// Makes a cluster of some hosts that hear nobody else.
fn found(lab: &mut Lab, hosts: &[&str]) -> anyhow::Result<()> {
    for (number, host) in hosts.iter().enumerate() {
        lab.tell(if number == 0 { "--bootstrap" } else { "" });
        lab.start(host)?;
    }
    lab.tell("");
    for host in hosts {
        eventually(AGREED, &format!("{host} to be a member"), || {
            let status = lab.json(host, "status")?;
            ensure!(status["phase"] == "established" && status["hosts_live"] == hosts.len(), "{status}");
            Ok(())
        })?;
    }
    Ok(())
}

/// Waits until a host names these as the hosts of other clusters.
fn sees_apart(lab: &Lab, host: &str, others: &[&[&str]]) -> anyhow::Result<()> {
    eventually(AGREED, &format!("{host} to see {others:?} apart"), || {
        let status = lab.json(host, "status")?;
        let mut seen: Vec<_> = status["apart"].as_array().context("no rows")?.iter().map(|row| &row["hosts"]).collect();
        seen.sort_by_key(|row| row.to_string());
        ensure!(serde_json::json!(seen) == serde_json::json!(others), "{status}");
        Ok(())
    })
}

pub fn clusters_that_were_founded_apart_stay_apart_until_one_is_given_up() -> anyhow::Result<()> {
    let mut lab = Lab::new(5)?;
    lab.wire.cut(&WEST, &EAST)?;
    let mut ends: Vec<Container> = Vec::new();
    for (side, network, last) in [(WEST, "west", 10), (EAST, "east", 20)] {
        found(&mut lab, &side)?;
        for (name, subnet) in [("web", "10.20.0.0/26"), (network, "10.30.0.0/26")] {
            let create = format!("network create {name} --subnet {subnet}");
            eventually(AGREED, "a network to be made", || lab.json(side[0], &create))?;
            eventually(AGREED, "the other host to know it", || lab.json(side[1], &format!("network inspect {name}")))?;
        }
        for (number, host) in side.into_iter().enumerate() {
            let (name, address) = (format!("end-{host}"), format!("--ip 10.20.0.{}", last + number));
            ends.push(lab.connect(host, "web", &name, &address)?);
        }
    }
    let oracle = Oracle::watch(&ends.iter().collect::<Vec<_>>())?;
    let old = EAST.map(|host| id_of(&lab, "h3", host));

    lab.wire.heal()?;
    for (side, others) in [(WEST, EAST), (EAST, WEST)] {
        for host in side {
            sees_apart(&lab, host, &[&others])?;
        }
    }
    let status = lab.ctl("h1", "status")?.ok()?;
    let warning = status.lines().find(|line| line.contains("another cluster")).context(status.clone())?;
    ensure!(warning.contains("h3, h4") && warning.contains("state.redb"), "{warning}");
    for more in ["", "--ip 10.30.0.40"] {
        let refused = refusal(&lab, "h1", "east", "early", more)?;
        let named = refused.contains("`h3`") || refused.contains("`h4`");
        ensure!(named && refused.contains("founded apart") && refused.contains("overlayctl status"), "{refused}");
    }
    let refused = lab.ctl("h1", "network rm east")?;
    ensure!(
        refused.code == 1 && refused.stderr.contains("founded apart") && refused.stderr.contains("remove it there"),
        "{refused:?}"
    );
    // The name is free here.
    lab.json("h1", "network create east --subnet 10.40.0.0/26")?;
    for (host, subnet) in [("h1", "10.40.0.0/26"), ("h3", "10.30.0.0/26")] {
        let east = lab.ctl(host, "network inspect east")?.ok()?;
        ensure!(east.contains(subnet), "on {host}: {east}");
    }
    always(3 * SECOND, "they stay two, and both go on", || {
        sees_apart(&lab, "h1", &[&EAST])?;
        for pair in ends.chunks(2) {
            pair[0].ping(pair[1].address()?, SECOND)?;
        }
        Ok(())
    })?;
    eventually(8 * SECOND, "the log to tell of it", || {
        ensure!(lab.agent("h1")?.log()?.contains("founded apart"));
        Ok(())
    })?;

    // Who comes now belongs to one of them, and brings them no nearer to each other.
    lab.start("h5")?;
    eventually(AGREED, "the newcomer to be a member of one", || {
        let status = lab.json("h5", "status")?;
        ensure!(
            status["phase"] == "established" && status["apart"].as_array().is_some_and(|a| a.len() == 1),
            "{status}"
        );
        Ok(())
    })?;
    always(2 * SECOND, "they stay two", || {
        let status = lab.json("h1", "status")?;
        ensure!(status["apart"].as_array().is_some_and(|a| a.len() == 1), "{status}");
        Ok(())
    })?;

    // One side is given up: all of it at once, or who is first joins those that are left of it.
    let with_east = eventually(AGREED, "the newcomer to hear all of the other side", || {
        let others = lab.json("h5", "status")?["apart"][0]["hosts"].clone();
        let (is_west, is_east) = (others == serde_json::json!(WEST), others == serde_json::json!(EAST));
        ensure!(is_west || is_east, "{others}");
        Ok(is_west)
    })?;
    let lost: Vec<&str> = EAST.into_iter().chain(with_east.then_some("h5")).collect();
    for host in &lost {
        lab.stop(host, Ending::Term)?;
        fs::remove_file(lab.host(host)?.state_dir().join("state.redb"))?;
    }
    for host in &lost {
        lab.start(host)?;
    }
    for (host, old) in EAST.iter().zip(old) {
        new_identity(&lab, host, &old?)?;
    }
    for host in lab.names() {
        sees_apart(&lab, &host, &[])?;
    }
    for (host, end) in EAST.iter().zip(&ends[2..]) {
        eventually(AGREED, "what the old identity had to be cut off", || {
            let port = end.sh("ip -json address show dev eth0").unwrap_or_default();
            ensure!(!port.contains("LOWER_UP"), "{port}");
            Ok(())
        })?;
        let back = eventually(AGREED, "the host to be a member", || anew(&lab, host, &format!("back-{host}")))?;
        oracle.also(&back)?;
        eventually(AGREED, "it to be reached", || ends[0].ping(back.address()?, SECOND))?;
    }
    agree(&lab, "web")?;
    // What is left of the other side, until gossip forgets it.
    let rows = lab.rows("h1", "network ls")?;
    let theirs = rows.iter().filter(|row| row["creator"] != "h1").filter_map(|row| row["name"].as_str());
    let theirs: Vec<&str> = theirs.collect();
    ensure!(theirs.iter().any(|name| name.starts_with("east~")), "{rows:?}");
    for name in theirs {
        // As soon as those that made it are known to be gone.
        eventually(2 * AGREED, "it to be removed", || lab.ctl("h1", &format!("network rm --force {name}"))?.ok())?;
    }
    let log = lab.agent("h4")?.log()?;
    let again = log.rsplit("overlayd is ready").next().is_some_and(|life| life.contains("founded apart"));
    ensure!(!again, "it warns of what it was itself: {log}");
    let warned = lab.agent("h1")?.log()?.matches("founded apart").count();
    ensure!(warned == 1, "it was logged {warned} times");
    oracle.stop().map(drop)
}

pub fn who_founds_alone_and_has_nothing_joins_the_others() -> anyhow::Result<()> {
    let mut lab = Lab::new(3)?;
    lab.wire.cut(&WEST, &["h3"])?;
    found(&mut lab, &WEST)?;
    found(&mut lab, &["h3"])?;
    // It hears of this before it can ask to be let in.
    eventually(AGREED, "a network to be made", || lab.json("h1", "network create web --subnet 10.20.0.0/26"))?;
    lab.wire.heal()?;
    let end = eventually(AGREED, "the lonely host to join", || anew(&lab, "h3", "end"))?;
    for host in lab.names() {
        sees_apart(&lab, &host, &[])?;
    }
    // Who it was before may still be in gossip, under the same name.
    let id = lab.json("h3", "status")?["host_id"].as_str().context("no id")?.to_owned();
    wait_for_state(&lab, "h1", &id, "alive")?;
    let first = lab.reachable("h1", "web", "first", "")?;
    eventually(AGREED, "the two to reach each other", || end.ping(first.address()?, SECOND))
}
