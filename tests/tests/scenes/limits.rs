//! What happens at a limit: one clear error that names it, nothing half done, and everything else goes on.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use overlay_tests::eventually::eventually;
use overlay_tests::lab::{Lab, run};

use super::support::{SECOND, took};

/// A bridge has 1,023 ports, and the tunnel is one of them.
const ENDPOINTS: usize = 1022;
/// Those that are compared with the rest.
const FIRST: usize = 10;
/// Making a thousand namespaces and pairs takes a while.
const LONG: Duration = Duration::from_secs(120);

/// Connects containers of these numbers to `web`, one after the other; how many milliseconds each took, by the clock of the script.
fn connect(lab: &Lab, numbers: std::ops::RangeInclusive<usize>) -> anyhow::Result<Vec<u64>> {
    let script = format!(
        "for n in $(seq {} {}); do ip netns add c$n || exit 1; a=$(date +%s%N); \
         overlayctl network connect web --netns /run/netns/c$n --name c$n >/dev/null || exit 1; \
         echo $((($(date +%s%N)-a)/1000000)); done",
        numbers.start(),
        numbers.end()
    );
    sh(lab, &script)?.lines().map(|line| line.parse().context(line.to_owned())).collect()
}

/// Runs a script on the first host, with `overlayctl` in its path.
fn sh(lab: &Lab, script: &str) -> anyhow::Result<String> {
    let directory = lab.overlayctl()?.parent().context("it is in a directory")?.display().to_string();
    let script = format!("PATH={directory}:$PATH\n{script}");
    run(&mut lab.host("h1")?.place().command(&["sh", "-c", &script]), LONG)?.ok()
}

fn median(times: &[u64]) -> u64 {
    let mut times = times.to_vec();
    times.sort_unstable();
    times[times.len() / 2]
}

pub fn a_bridge_takes_1022_endpoints_and_the_next_is_refused() -> anyhow::Result<()> {
    let lab = Lab::with_agents(2)?;
    lab.network("web", "10.20.0.0/20")?;
    let far = lab.reachable("h2", "web", "far", "--ip 10.20.15.1")?;
    let start = Instant::now();
    let first = connect(&lab, 1..=FIRST)?;
    connect(&lab, FIRST + 1..=ENDPOINTS - FIRST)?;
    let last = connect(&lab, ENDPOINTS - FIRST + 1..=ENDPOINTS)?;
    took("a thousand endpoints are attached", start.elapsed());
    println!("an attach took {} ms beside ten endpoints and {} ms beside a thousand", median(&first), median(&last));

    sh(&lab, "ip netns add more")?;
    let refused = lab.ctl("h1", "network connect web --netns /run/netns/more --name more")?;
    ensure!(refused.code != 0, "one endpoint too many is taken");
    for word in ["1,022", "limit", "another host"] {
        ensure!(refused.stderr.contains(word), "it does not say `{word}`: {}", refused.stderr);
    }
    eventually(SECOND, "nothing of it is left", || {
        ensure!(!sh(&lab, "ip -n more link")?.contains("eth0"), "its interface is there");
        ensure!(lab.rows("h1", "endpoint ls web")?.iter().all(|row| row["name"] != "more"), "it is listed");
        Ok(())
    })?;

    // The first and the last reach each other, the gateway, DNS, and the other host.
    let address = |n: usize| -> anyhow::Result<String> {
        let line = sh(&lab, &format!("ip -n c{n} -4 -o addr show eth0"))?;
        let address = line.split_whitespace().nth(3).and_then(|text| text.split('/').next());
        address.map(str::to_owned).with_context(|| format!("no address of c{n}: {line}"))
    };
    for (from, to) in [(1, ENDPOINTS), (ENDPOINTS, 1), (ENDPOINTS / 2, ENDPOINTS)] {
        let inside = format!("nsenter --net=/run/netns/c{from} ping -qc1 -W1");
        sh(&lab, &format!("{inside} {} && {inside} 10.20.0.1", address(to)?))?;
    }
    let names = format!(
        "for n in 1 {} {ENDPOINTS}; do nsenter --net=/run/netns/c$n dig +short +time=1 +tries=1 @10.20.0.1 far; done",
        ENDPOINTS / 2
    );
    ensure!(
        sh(&lab, &names)?.lines().filter(|line| *line == "10.20.15.1").count() == 3,
        "names: {}",
        sh(&lab, &names)?
    );
    far.ping(address(ENDPOINTS)?, SECOND)?;

    // One goes, and one comes.
    lab.json("h1", "network disconnect web c1")?;
    lab.json("h1", "network connect web --netns /run/netns/more --name more")?;
    Ok(())
}

/// More than a second is what a repair, a name and a packet may take of the networks that there are.
pub fn one_network_too_many_for_the_open_files_takes_nothing_from_the_others() -> anyhow::Result<()> {
    let lab = Lab::with_agents(2)?;
    lab.network("web", "10.20.0.0/24")?;
    let near = lab.reachable("h1", "web", "near", "")?;
    let far = lab.reachable("h2", "web", "far", "")?;
    let pid = lab.agent("h1")?.pid()?;
    let open = std::fs::read_dir(format!("/proc/{pid}/fd"))?.count();
    // Room for a few networks, beside what is kept free for connections.
    run(
        std::process::Command::new("prlimit").args(["--pid", &pid.to_string(), &format!("--nofile={}", open + 110)]),
        SECOND,
    )?
    .ok()?;
    let mut refused = None;
    for n in 0..20 {
        lab.json("h2", &format!("network create n{n} --subnet 10.30.{n}.0/24"))?;
        lab.host("h1")?.sh(&format!("ip netns add x{n}"))?;
        eventually(5 * SECOND, "the other host knows it", || lab.json("h1", &format!("network inspect n{n}")))?;
        let done = lab.ctl("h1", &format!("network connect n{n} --netns /run/netns/x{n} --name x{n}"))?;
        if done.code != 0 {
            refused = Some(done.stderr);
            break;
        }
    }
    let refused = refused.context("twenty networks need no more than forty files")?;
    for word in ["LimitNOFILE", "open"] {
        ensure!(refused.contains(word), "it does not say `{word}`: {refused}");
    }
    for _ in 0..3 {
        near.ping(far.address()?, SECOND)?;
        ensure!(near.dig("far")?.addresses() == [far.address()?], "the name of far");
        lab.in_segment("h1", "web", &format!("ip neigh del {} dev br0", far.address()?))?;
        eventually(2 * SECOND, "the neighbour is back", || {
            let there = lab.in_segment("h1", "web", "ip neigh show nud permanent")?;
            ensure!(there.contains(&far.address()?.to_string()), "{there}");
            Ok(())
        })?;
    }
    Ok(())
}
