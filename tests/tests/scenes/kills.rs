//! Agents that are killed while they attach, again and again: all or nothing, and nobody else notices.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use overlay_tests::eventually::{eventually, pass};
use overlay_tests::lab::{Container, Flow, Host, Lab, Oracle, Stream};

use super::support::leases::{AGREED, agree, ends};
use super::support::{SECOND, took};

/// How often agents are killed, in turn on each of the hosts.
const KILLS: usize = 100;
/// How many containers come and go on a host: the oldest one ends before the next one begins.
const FULL: usize = 6;
/// An attach takes about as long as this.
const FIRST_SPAN: Duration = Duration::from_millis(40);
/// An agent that was killed takes requests again within this time.
const AGAIN: Duration = Duration::from_secs(3);

pub fn an_agent_killed_while_it_attaches_leaves_all_or_nothing() -> anyhow::Result<()> {
    let seed = std::env::var("OVERLAY_SEED").map_or_else(|_| Ok(fastrand::u64(..)), |seed| seed.parse())?;
    println!("OVERLAY_SEED={seed} throws the same dice");
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut lab = Lab::with_agents(3)?;
    lab.network("web", "10.20.0.0/23")?;
    let [left, right] = &ends(&lab)?;
    let third = lab.reachable("h3", "web", "third", "")?;
    let oracle = Oracle::watch(&[left, right, &third])?;
    let (flow, stream) = (Flow::start(left, right)?, Stream::start(right, left)?);
    let segment = lab.segment("h1", "web")?;
    let monitor = format!("nsenter --net={} -- bridge monitor fdb", segment.display());
    let monitor = lab.host("h1")?.place().spawn(&monitor, &Host::directory("h1").join("fdb"))?;

    let began = Instant::now();
    let mut span = FIRST_SPAN;
    let mut living: BTreeMap<String, Vec<Container>> = BTreeMap::new();
    let (mut seen, mut told, mut kept, mut slowest) = (BTreeSet::new(), 0, 0, Duration::ZERO);
    for (round, host) in lab.names().into_iter().cycle().take(KILLS).enumerate() {
        let own = living.entry(host.clone()).or_default();
        if own.len() == FULL {
            own.remove(0).remove()?;
        }
        let mut container = lab.container(&host, &format!("app-{round}"))?;
        let (name, id) = (container.name().to_owned(), rng.u128(..));
        let netns = container.netns().display();
        let line = format!("-o json network connect web --netns {netns} --name {name} --endpoint-id {id:032x}");
        // From before it begins to after its end.
        let moment = span.mul_f64(rng.f64());
        let pid = Pid::from_raw(lab.agent(&host)?.pid()?);
        let answer = std::thread::scope(|scope| {
            let connect = scope.spawn(|| lab.ctl(&host, &line));
            pass(moment);
            kill(pid, Signal::SIGKILL)?;
            connect.join().map_err(|_| anyhow::anyhow!("overlayctl could not be run"))?
        })?;
        lab.reap(&host)?;
        let start = Instant::now();
        lab.start(&host)?;
        let there = lab.rows(&host, "endpoint ls web")?.into_iter().find(|row| row["name"] == name.as_str());
        kept += usize::from(there.is_some());
        // The same request again: whoever was told that it is done, or could see it, gets just that.
        let endpoint = eventually(AGAIN, "the same request to be answered", || lab.ctl(&host, &line)?.json())?;
        slowest = slowest.max(start.elapsed());
        // So that a third of them is answered, and most are killed in between, however fast the machine is.
        span = span.mul_f64(if answer.code == 0 { 0.9 } else { 1.05 });
        if answer.code == 0 {
            told += 1;
            ensure!(there.is_some(), "{name} on {host} was done, and is not there after the restart");
            ensure!(answer.json()?["addresses"] == endpoint["addresses"], "another address than before: {endpoint}");
        }
        if let Some(there) = there {
            ensure!(there["addresses"] == endpoint["addresses"], "it had {there}, and got {endpoint}");
        }
        container.attached(&endpoint)?;
        ensure!(seen.insert(container.address()?), "{name} got the address of one before it: {endpoint}");
        oracle.also(&container)?;
        own.push(container);
    }
    took(&format!("{KILLS} kills"), began.elapsed());
    took("from a start to the answer, at most", slowest);
    println!("{told} were answered before, {} more were there all the same, the others on a second try", kept - told);
    ensure!(told > 0 && kept > told && kept < KILLS, "all were killed at one side of the attach");
    lab.wait_until_all_see_all()?;
    for container in living.values().flatten() {
        eventually(AGREED, &format!("{} to be reached", container.name()), || {
            left.ping(container.address()?, SECOND)?;
            right.ping(container.address()?, SECOND)
        })?;
    }
    agree(&lab, "web")?;
    for host in lab.names() {
        eventually(2 * AGREED, "no port to be left behind", || {
            let links = lab.in_segment(&host, "web", "ip -br link")?;
            let ports = links.lines().filter(|line| line.starts_with("ovp")).count();
            let containers = living[&host].len() + 1;
            ensure!(ports == containers, "{ports} ports for {containers} containers on {host}");
            Ok(())
        })?;
    }
    let changes = monitor.printed()?;
    for end in [right, &third] {
        let link = end.sh("ip -br link show eth0")?;
        let mac = link.split_whitespace().nth(2).context("no MAC")?;
        ensure!(lab.kernel_rows("h1", "web", end.host())?.contains(mac), "h1 has no row of {}: {mac}", end.name());
        let lost = changes.lines().find(|line| line.starts_with("Deleted") && line.contains(mac));
        ensure!(lost.is_none(), "a row of {} was taken away: {lost:?}", end.name());
    }
    let gone = changes.lines().filter(|line| line.starts_with("Deleted") && line.contains("vx0")).count();
    ensure!(gone > 0, "no row went with the containers that ended: nothing was recorded: {changes}");
    let (report, stream) = (flow.stop()?, stream.stop()?);
    println!("{} packets sent, {} lost; {stream:?}", report.sent, report.lost);
    ensure!(report.lost == 0, "{report:?}");
    // The machine plays another scene as well.
    ensure!(!stream.broken && stream.longest_stall_ms < 3000, "{stream:?}");
    println!("the oracle looked {} times", oracle.stop()?);
    Ok(())
}
