//! Agents and hosts that are killed, starved and sabotaged.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use overlay_tests::eventually::{always, eventually, eventually_in};
use overlay_tests::lab::{Container, Ending, Flow, Lab, Oracle, Stream, WORLD, WORLD6};

use super::support::leases::agree;
use super::support::{HALF_A_SECOND, SECOND, took};

/// A host's crash is known elsewhere, names and rows withdrawn, within this time.
const WITHDRAWN: Duration = Duration::from_secs(3);
/// The longest interval that is permitted.
const SLOWEST: &str = "--gossip-interval-ms 500";
/// A kernel object that somebody deleted is back within this time.
const REPAIRED: Duration = SECOND;

pub fn killing_and_restarting_every_agent_loses_no_packet() -> anyhow::Result<()> {
    let mut lab = Lab::with_agents(3)?;
    lab.network("web", "10.20.0.0/24")?;
    let ends = pair(&lab)?;
    let [left, right] = &ends;
    let idle = lab.reachable("h3", "web", "idle", "")?;
    let oracle = Oracle::watch(&[left, right, &idle])?;
    let before = [kernel(&lab, "h1", "web")?, kernel(&lab, "h2", "web")?];

    let flow = Flow::start(left, right)?;
    let stream = Stream::start(right, left)?;
    for ending in [Ending::Kill, Ending::Term] {
        for host in lab.names() {
            lab.stop(&host, ending)?;
            // Until the others have noticed; that its host is there keeps it from being gone.
            eventually(5 * SECOND, "the others to miss the agent", || {
                for other in lab.names().iter().filter(|other| **other != host) {
                    let rows = lab.rows(other, "host ls")?;
                    let row = rows.iter().find(|row| row["name"] == host.as_str()).context("it is not listed")?;
                    ensure!(row["state"] == "suspect", "{other} sees {row}");
                }
                Ok(())
            })?;
            if ending == Ending::Term {
                let log = std::fs::read_to_string(overlay_tests::lab::Host::directory(&host).join("overlayd.log"))?;
                ensure!(!log.contains("WARN") && !log.contains("ERROR"), "a stop is no reason to warn: {log}");
            }
            let start = Instant::now();
            lab.start(&host)?;
            took(&format!("overlayd on {host} ready again after {ending:?}"), start.elapsed());
            lab.wait_until_all_see_all()?;
        }
    }
    let (report, stream) = (flow.stop()?, stream.stop()?);
    println!("{} packets sent, {} lost; {stream:?}", report.sent, report.lost);
    ensure!(report.lost == 0 && report.sent > 5000, "{report:?}");
    ensure!(!stream.broken && stream.longest_stall_ms < 1000, "{stream:?}");
    let after = [kernel(&lab, "h1", "web")?, kernel(&lab, "h2", "web")?];
    ensure!(before == after, "the restarts changed the kernel: {before:#?}\n{after:#?}");
    oracle.stop()?;
    Ok(())
}

pub fn what_is_deleted_by_hand_is_repaired_within_a_second() -> anyhow::Result<()> {
    let lab = Lab::with_agents(2)?;
    lab.network("web", "10.20.0.0/24 --subnet fd00:20::/64")?;
    let [left, right] = &pair(&lab)?;
    let mac = lab.rows("h2", "endpoint ls web")?;
    let mac = mac.iter().find(|row| row["name"] == "right").and_then(|row| row["mac"].as_str().map(str::to_owned));
    let mac = mac.context("right has no MAC")?;
    left.ping(right.address()?, SECOND)?;
    let whole = kernel(&lab, "h1", "web")?;

    let far = right.address()?;
    for line in [
        format!("bridge fdb del {mac} dev vx0 self"),
        format!("bridge fdb del {mac} dev vx0 master"),
        "bridge fdb flush dev vx0 self".to_owned(),
        format!("ip neighbour del {far} dev br0"),
        format!("ip neighbour del {} dev br0", right.address6()?),
        "ip route flush dev br0".to_owned(),
        "ip -6 route flush dev br0".to_owned(),
        "ip route flush dev up0".to_owned(),
        "ip -6 route flush dev up0".to_owned(),
        "ip -6 address flush dev br0".to_owned(),
        "ip -6 address flush dev up0".to_owned(),
        "nft flush ruleset".to_owned(),
        "ip link set vx0 down".to_owned(),
        "bridge link set dev vx0 flood on learning on".to_owned(),
        "ip address flush dev br0".to_owned(),
        "ip link delete vx0".to_owned(),
        "ip link delete up0".to_owned(),
        "ip link delete br0".to_owned(),
    ] {
        lab.in_segment("h1", "web", &line).with_context(|| line.clone())?;
        repaired(&lab, &line, &whole)?;
        left.ping(right.address()?, SECOND).with_context(|| format!("after {line}"))?;
    }
    let uplink = lab.host("h1")?.sh("ip -br link")?;
    let uplink = uplink.split(['@', ' ', '\n']).find(|word| word.starts_with("ovu")).context("no uplink")?.to_owned();
    for line in [
        "nft flush ruleset".to_owned(),
        "nft delete table inet overlay".to_owned(),
        format!("ip route flush dev {uplink}"),
        format!("ip -6 route flush dev {uplink}"),
    ] {
        lab.host("h1")?.sh(&line)?;
        repaired(&lab, &line, &whole)?;
        for world in [IpAddr::from(WORLD), WORLD6.into()] {
            eventually_in(REPAIRED, &format!("the world after `{line}`"), || left.ping(world, HALF_A_SECOND))?;
        }
    }
    Ok(())
}

fn repaired(lab: &Lab, line: &str, whole: &BTreeSet<String>) -> anyhow::Result<()> {
    let ((), after) = eventually_in(REPAIRED, &format!("the repair of `{line}`"), || {
        let now = kernel(lab, "h1", "web")?;
        let missing: Vec<_> = whole.difference(&now).collect();
        let extra: Vec<_> = now.difference(whole).collect();
        ensure!(missing.is_empty() && extra.is_empty(), "missing {missing:#?}, too many {extra:#?}");
        Ok(())
    })?;
    took(line, after);
    Ok(())
}

pub fn a_crashed_host_is_withdrawn_within_three_seconds_and_comes_back() -> anyhow::Result<()> {
    crash_and_return(Lab::with_agents(3)?)
}

pub fn a_crashed_host_is_withdrawn_in_time_at_the_slowest_gossip_too() -> anyhow::Result<()> {
    crash_and_return(Lab::with_agents_told(3, SLOWEST)?)
}

fn crash_and_return(mut lab: Lab) -> anyhow::Result<()> {
    lab.network("web", "10.20.0.0/24")?;
    let witness = lab.reachable("h1", "web", "witness", "")?;
    let _far = lab.reachable("h3", "web", "far", "--ip 10.20.0.77")?;
    ensure!(lab.kernel_rows("h1", "web", "h3")?.len() == 1, "h1 has no row for h3");
    ensure!(witness.dig("far")?.addresses().len() == 1, "the name is not known");

    // A cable is pulled: the host is out of sight, and knows nothing of it.
    let start = Instant::now();
    lab.wire.link("h3", false)?;
    withdrawn(&lab, &witness, "link down", start)?;
    lab.wire.link("h3", true)?;
    let ((), back) = eventually_in(10 * SECOND, "the host to be back by itself", || {
        ensure!(witness.dig("far")?.addresses().len() == 1, "no name");
        ensure!(lab.kernel_rows("h1", "web", "h3")?.len() == 1, "no row");
        witness.ping("10.20.0.77", SECOND)
    })?;
    took("back after the link came up", back);

    let start = Instant::now();
    lab.crash("h3")?;
    withdrawn(&lab, &witness, "host crashed", start)?;
    lab.reboot("h3")?;
    lab.start("h3")?;
    lab.wait_until_all_see_all()?;
    // The container's runtime starts it again, under its name: it gets what it had.
    let again = eventually(5 * SECOND, "the container to be attached again", || {
        _ = lab.host("h3")?.place().try_sh("ip netns delete far")?;
        lab.reachable("h3", "web", "far", "")
    })?;
    ensure!(again.address()? == std::net::Ipv4Addr::new(10, 20, 0, 77), "another address: {:?}", again.address());
    witness.ping("far", SECOND)
}

/// Waits until names and rows of h3 are gone, in time since the `start` of what happened to it.
fn withdrawn(lab: &Lab, witness: &Container, what: &str, start: Instant) -> anyhow::Result<()> {
    let before = start.elapsed();
    let ((), gone) =
        eventually_in(WITHDRAWN.saturating_sub(before), &format!("{what}: name and rows to be withdrawn"), || {
            let reply = witness.dig("far")?;
            ensure!(reply.status == "NXDOMAIN", "the name answers: {reply:?}");
            let rows = lab.kernel_rows("h1", "web", "h3")?;
            ensure!(rows.is_empty(), "rows to h3: {rows:?}");
            Ok(())
        })?;
    took(&format!("{what}: withdrawn"), before + gone);
    Ok(())
}

pub fn busy_processors_kill_nobody() -> anyhow::Result<()> {
    nobody_falls(&Lab::with_agents(3)?)
}

pub fn busy_processors_kill_nobody_at_the_slowest_gossip_either() -> anyhow::Result<()> {
    nobody_falls(&Lab::with_agents_told(3, SLOWEST)?)
}

fn nobody_falls(lab: &Lab) -> anyhow::Result<()> {
    const LOAD: Duration = Duration::from_secs(20);
    lab.network("web", "10.20.0.0/24")?;
    let [left, _right] = &pair(lab)?;
    // Four per processor, that never rest.
    let count = 4 * std::thread::available_parallelism()?.get();
    let burners: Vec<_> = (0..count)
        .map(|number| lab.internet().place().spawn("yes", format!("/run/lab/burner-{number}").as_ref()))
        .collect::<Result<_, _>>()?;
    always(LOAD, "every host is alive in the eyes of all", || {
        for host in lab.names() {
            let rows = lab.rows(&host, "host ls")?;
            let fallen: Vec<_> = rows.iter().filter(|row| row["state"] != "alive").collect();
            ensure!(fallen.is_empty() && rows.len() == 3, "{host} sees {rows:?}");
        }
        ensure!(left.dig("right")?.addresses().len() == 1, "the name is gone");
        ensure!(lab.kernel_rows("h1", "web", "h2")?.len() == 1, "the row is gone");
        Ok(())
    })?;
    drop(burners);
    Ok(())
}

pub fn hosts_that_were_cut_find_each_other_again() -> anyhow::Result<()> {
    let lab = Lab::with_agents(3)?;
    lab.network("web", "10.20.0.0/24")?;
    let [left, right] = &pair(&lab)?;
    let oracle = Oracle::watch(&[left, right])?;
    let stream = Stream::start(left, right)?;
    lab.wire.cut(&["h1"], &["h2", "h3"])?;
    eventually(WITHDRAWN, "h1 to be taken for dead by h2", || {
        ensure!(lab.kernel_rows("h2", "web", "h1")?.is_empty(), "rows of h1 are left");
        Ok(())
    })?;
    // Both sides go on working: each allocates from the blocks that it holds.
    oracle.also(&lab.connect("h1", "web", "cut-off", "")?)?;
    oracle.also(&lab.connect("h2", "web", "others", "")?)?;
    lab.wire.heal()?;
    let ((), whole) = eventually_in(10 * SECOND, "all to be whole again", || {
        left.ping(right.address()?, SECOND)?;
        ensure!(left.dig("others")?.addresses().len() == 1, "h1 does not know `others`");
        ensure!(right.dig("cut-off")?.addresses().len() == 1, "h2 does not know `cut-off`");
        Ok(())
    })?;
    took("whole again after the cut", whole);
    let stream = stream.stop()?;
    ensure!(!stream.broken, "the connection did not outlast the cut: {stream:?}");
    agree(&lab, "web")?;
    oracle.stop().map(drop)
}

pub fn a_stranger_without_the_key_learns_and_changes_nothing() -> anyhow::Result<()> {
    let mut lab = Lab::new(3)?;
    for host in ["h1", "h2"] {
        // Not told of the stranger: they would wait for it before there is a cluster.
        lab.start_with(host, |argument| argument.replace("192.0.2.3:", "192.0.2.1:"))?;
    }
    lab.wait_until_all_see_all()?;
    lab.network("web", "10.20.0.0/24")?;
    ensure!(lab.json("h1", "status")?["unopened"] == serde_json::json!([]), "there is no stranger yet");
    let key = lab.programs().overlayctl()?;
    let key = lab.host("h3")?.sh(&format!("{} cluster keygen", key.display()))?;
    std::fs::write("/run/lab/other.key", key)?;
    lab.start_with("h3", |argument| argument.replace("/run/lab/cluster.key", "/run/lab/other.key"))?;
    always(3 * SECOND, "the stranger stays one", || {
        for (host, hosts) in [("h1", 2), ("h3", 1)] {
            let rows = lab.rows(host, "host ls")?;
            ensure!(rows.len() == hosts, "{host} sees {rows:?}");
        }
        ensure!(lab.rows("h3", "network ls")?.is_empty(), "it learnt of a network");
        Ok(())
    })?;
    let status = lab.json("h1", "status")?;
    let dropped = status["dropped"].as_object().context("no counters")?;
    ensure!(dropped.values().any(|count| count.as_u64() > Some(0)), "nothing was counted: {status}");
    // Its operator, who mixed up the key files, finds it in the status of the others.
    let stranger = format!("{}:7946", overlay_tests::lab::underlay("h3")?);
    let row = status["unopened"].as_array().and_then(|rows| rows.iter().find(|row| row["from"] == stranger.as_str()));
    let row = row.with_context(|| format!("nobody is told of {stranger}: {status}"))?;
    ensure!(row["datagrams"].as_u64() > Some(0) && row["seconds_ago"].is_u64(), "{row}");
    let shown = lab.ctl("h1", "status")?.ok()?;
    let line = shown.lines().find(|line| line.contains(&stranger)).context(shown.clone())?;
    for words in ["could not be opened (another cluster key?)", "last", "--cluster-key-file"] {
        ensure!(line.contains(words), "nothing about {words:?} in: {line}");
    }
    Ok(())
}

/// `left` on h1 and `right` on h2, that reach each other.
fn pair(lab: &Lab) -> anyhow::Result<[Container; 2]> {
    let left = lab.reachable("h1", "web", "left", "")?;
    let right = lab.reachable("h2", "web", "right", "")?;
    lab.wait_until_reachable("web", &left)?;
    Ok([left, right])
}

/// Prints what the kernel has for a network, each line with a label: one process, because a repair is quick.
const LOOK: &str = r#"
inside() { label=$1; shift; nsenter --net="$NETNS" -- "$@" | sed "s/^/$label: /"; }
inside fdb bridge fdb show dev vx0
inside neighbour ip neighbour show dev br0 nud permanent
inside address ip -o address show
inside route ip route
inside route ip -6 route
inside link ip -o link
inside port bridge -d -o link show
inside filter nft -s list ruleset
nft -s list table inet overlay | sed "s/^/host filter: /"
ip -o address | sed "s/^/host address: /"
(ip route; ip -6 route) | sed "s/^/host route: /"
"#;

/// What the kernel of a host has for a network, as a set of lines in which nothing changes by itself.
fn kernel(lab: &Lab, host: &str, network: &str) -> anyhow::Result<BTreeSet<String>> {
    let netns = lab.segment(host, network)?;
    let script = format!("NETNS={}{LOOK}", netns.display());
    std::fs::write("/run/lab/look", script)?;
    let shown = lab.host(host)?.sh("sh /run/lab/look")?;
    // A bridge has a row for each port's own MAC; it makes them itself.
    let shown = shown.lines().filter(|line| !(line.starts_with("fdb: ") && line.ends_with(" master br0 permanent")));
    Ok(shown.map(steady).collect())
}

/// A line of `ip` or `bridge` without what is new with every new interface: its number, and the MAC of vx0 and of the
/// ends of the uplink, that nobody else sees.
fn steady(line: &str) -> String {
    let own_mac = ["vx0", "up0"].iter().any(|name| line.contains(&format!(" {name}")));
    let mut words: Vec<&str> = Vec::new();
    for word in line.split_whitespace() {
        let number = word.strip_suffix(':').is_some_and(|word| word.parse::<u32>().is_ok());
        let mac = own_mac && words.last() == Some(&"link/ether");
        if !number && !mac {
            words.push(word.split_once('@').map_or(word, |(name, _)| name));
        }
    }
    words.join(" ")
}
