//! Endpoints and the space that they take: attaching, being refused, and agreement of all hosts about leases.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, ensure};
use overlay_tests::eventually::{eventually, eventually_in};
use overlay_tests::lab::{Container, Lab};
use serde_json::Value;

/// What members have to tell each other takes no longer than this, once they can; less than half a second, if no call has to be
/// repeated.
pub const AGREED: Duration = Duration::from_secs(15);

/// `left` on h1 and `right` on h2, that reach each other.
pub fn ends(lab: &Lab) -> anyhow::Result<[Container; 2]> {
    let left = lab.reachable("h1", "web", "left", "")?;
    let right = lab.reachable("h2", "web", "right", "")?;
    lab.wait_until_reachable("web", &left)?;
    Ok([left, right])
}

/// Connects a container to `web` as its runtime does that starts it again; what is left of an earlier try goes.
pub fn anew(lab: &Lab, host: &str, name: &str) -> anyhow::Result<Container> {
    anew_with(lab, host, name, "")
}

/// The same with this on the line, as soon as the host has heard that it may.
pub fn once_heard(lab: &Lab, host: &str, name: &str, line: &str) -> anyhow::Result<Container> {
    eventually(AGREED, "the host to hear who has the address now", || anew_with(lab, host, name, line))
}

fn anew_with(lab: &Lab, host: &str, name: &str, line: &str) -> anyhow::Result<Container> {
    _ = lab.host(host)?.place().try_sh(&format!("ip netns delete {name}"))?;
    lab.connect(host, "web", name, line)
}

/// What is said when an endpoint can't be had: one line.
pub fn refusal(lab: &Lab, host: &str, network: &str, name: &str, more: &str) -> anyhow::Result<String> {
    _ = lab.host(host)?.place().try_sh(&format!("ip netns add {name}"))?;
    let done = lab.ctl(host, &format!("network connect {network} --netns /run/netns/{name} --name {name} {more}"))?;
    _ = lab.host(host)?.place().try_sh(&format!("ip netns delete {name}"))?;
    ensure!(done.code == 1 && done.stderr.lines().count() == 1, "it was not refused: {done:?}");
    Ok(done.stderr)
}

/// Waits until the holders of a network's space are as they should be, in the eyes of a host.
pub fn holders(lab: &Lab, host: &str, network: &str, right: impl Fn(&BTreeSet<String>) -> bool) -> anyhow::Result<()> {
    eventually(AGREED, &format!("{host} to know who holds {network}"), || {
        let rows = lab.rows(host, &format!("lease ls {network}"))?;
        let holders = rows.iter().filter_map(|row| row["holder"].as_str().map(str::to_owned)).collect();
        ensure!(right(&holders), "{rows:?}");
        Ok(())
    })
}

/// An address in a block of a holder that no endpoint has.
pub fn free_of(lab: &Lab, seen_from: &str, network: &str, holder: &str) -> anyhow::Result<Ipv4Addr> {
    let used = lab.rows(seen_from, &format!("endpoint ls {network}"))?;
    let used: BTreeSet<_> = used.iter().filter_map(|row| row["addresses"][0].as_str()?.split('/').next()).collect();
    let rows = lab.rows(seen_from, &format!("lease ls {network}"))?;
    let row = rows.iter().rfind(|row| row["holder"] == holder && row["kind"] == "block");
    let row = row.with_context(|| format!("{holder} holds nothing: {rows:?}"))?;
    let end = |key: &str| Ok::<Ipv4Addr, anyhow::Error>(row[key].as_str().context("no address")?.parse()?);
    let mut range = (u32::from(end("first")?) + 1..u32::from(end("last")?)).rev().map(Ipv4Addr::from);
    range.find(|address| !used.contains(address.to_string().as_str())).context("all in use")
}

/// Waits until all hosts see the same leases and endpoints of a network, and their kernels are as they should be.
pub fn agree(lab: &Lab, network: &str) -> anyhow::Result<()> {
    agree_within(lab, network, AGREED).map(|_| ())
}

/// [`agree`] within another time, and how long it took.
pub fn agree_within(lab: &Lab, network: &str, within: Duration) -> anyhow::Result<Duration> {
    let agreed = eventually_in(within, "all hosts to agree, and their kernels with them", || {
        lab.endpoints_are_alike(network)?;
        lab.kernels_are_as_they_should_be()?;
        let mut seen = BTreeMap::new();
        for host in lab.names().into_iter().filter(|host| lab.agent(host).is_ok()) {
            let rows =
                lab.rows(&host, &format!("lease ls {network}"))?.into_iter().filter(|row| row["kind"] == "block");
            let lease = |row: Value| {
                [row["first"].clone(), row["last"].clone(), row["holder"].clone(), row["epoch"].clone()]
                    .map(|part| part.to_string())
            };
            seen.entry(rows.map(lease).collect::<BTreeSet<_>>()).or_insert(host);
        }
        ensure!(seen.len() == 1, "they differ: {seen:#?}");
        Ok(())
    })?;
    Ok(agreed.1)
}
