//! Where the network meets what else there is: caches of containers, routes of hosts, other runtimes, small pools.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, ensure};
use overlay_tests::eventually::{eventually, eventually_in};
use overlay_tests::lab::{Lab, run, underlay};

use super::support::SECOND;

/// A script on a host may take this long.
const LONG: Duration = Duration::from_secs(60);

/// Where the two hosts' own addresses are on their loopback interfaces.
fn on_loopback(host: &str) -> anyhow::Result<Ipv4Addr> {
    let [.., last] = underlay(host)?.octets();
    Ok(Ipv4Addr::new(198, 51, 100, last))
}

pub fn an_address_that_comes_back_with_another_mac_is_reached_within_a_second() -> anyhow::Result<()> {
    let lab = Lab::with_agents(2)?;
    lab.network("web", "10.20.0.0/24 --subnet fd00:20::/64")?;
    let near = lab.reachable("h1", "web", "near", "--ip 10.20.0.21")?;
    let far = lab.reachable("h2", "web", "far", "--ip 10.20.0.22")?;
    let addresses = "--ip 10.20.0.11 --ip6 fd00:20::11";
    let before = lab.reachable("h1", "web", "before", &format!("{addresses} --mac 02:00:00:00:00:01"))?;
    for client in [&near, &far] {
        client.ping("10.20.0.11", SECOND)?;
        client.ping("fd00:20::11", SECOND)?;
    }
    lab.json("h1", "network disconnect web before")?;
    // The same IPv4 address with another MAC, and the same IPv6 address beside another IPv4 address.
    let _after = lab.connect("h1", "web", "after", &format!("{addresses} --mac 02:00:00:00:00:02"))?;
    for (client, address) in
        [(&near, "10.20.0.11"), (&far, "10.20.0.11"), (&near, "fd00:20::11"), (&far, "fd00:20::11")]
    {
        let (_, took) =
            eventually_in(SECOND, "the new one to be reached", || client.ping(address, Duration::from_millis(200)))?;
        println!("{address} from {}: {} ms", client.name(), took.as_millis());
    }
    drop(before);
    Ok(())
}

pub fn each_of_many_short_jobs_gets_an_address_of_a_small_pool() -> anyhow::Result<()> {
    let lab = Lab::with_agents(2)?;
    lab.network("jobs", "10.20.0.0/28")?;
    let directory = lab.overlayctl()?.parent().context("it is in a directory")?.display().to_string();
    let script = format!(
        "PATH={directory}:$PATH; for n in $(seq 100); do overlayctl run --network jobs --name job-$1-$n -- true || exit 1; done"
    );
    let jobs = |host: &str| {
        let place = lab.host(host)?.place();
        run(&mut place.command(&["sh", "-c", &script, "jobs", host]), LONG)?.ok()
    };
    // On both hosts at once, so that they take addresses from each other.
    std::thread::scope(|scope| {
        let running = ["h1", "h2"].map(|host| scope.spawn(move || jobs(host)));
        running.into_iter().try_for_each(|one| one.join().map_err(|_| anyhow::anyhow!("a thread died"))?.map(drop))
    })?;
    ensure!(lab.rows("h1", "endpoint ls jobs")?.is_empty(), "something is left");
    Ok(())
}

pub fn hosts_whose_address_is_on_loopback_are_a_cluster() -> anyhow::Result<()> {
    let mut lab = Lab::new(2)?;
    for (host, other) in [("h1", "h2"), ("h2", "h1")] {
        lab.host(host)?.ip(&format!("addr add {}/32 dev lo", on_loopback(host)?))?;
        lab.host(host)?.ip(&format!("route add {} via {}", on_loopback(other)?, underlay(other)?))?;
    }
    for host in lab.names() {
        let there: Vec<(String, String)> = lab
            .names()
            .iter()
            .map(|name| Ok((underlay(name)?.to_string(), on_loopback(name)?.to_string())))
            .collect::<anyhow::Result<_>>()?;
        lab.start_with(&host, |argument| {
            there.iter().fold(argument.to_owned(), |text, (from, to)| text.replace(from, to))
        })?;
    }
    lab.wait_until_all_see_all()?;
    lab.wait_until_all_are_members()?;
    lab.network("web", "10.20.0.0/24")?;
    let left = lab.reachable("h1", "web", "left", "")?;
    let right = lab.reachable("h2", "web", "right", "")?;
    let status = lab.json("h1", "status")?;
    ensure!(status["underlay_mtu"] == 1500, "the MTU of the loopback interface: {status}");
    // As long as it can be, and not cut.
    eventually(2 * SECOND, "the longest packet to pass", || {
        left.sh(&format!("ping -c 1 -W 1 -M do -s 1422 {}", right.address()?)).map(drop)
    })
}

pub fn a_network_without_a_subnet_gets_none_that_any_host_routes() -> anyhow::Result<()> {
    let lab = Lab::with_agents(2)?;
    lab.host("h2")?.ip("route add blackhole 10.128.0.0/16")?;
    // h1 hears of it.
    eventually(5 * SECOND, "what the other host routes is not taken", || {
        lab.json("h1", "network create free")?;
        let made = lab.json("h1", "network inspect free")?;
        let subnet = made[0]["IPAM"]["Config"][0]["Subnet"].as_str().unwrap_or_default().to_owned();
        lab.json("h1", "network rm free")?;
        ensure!(subnet == "10.129.0.0/16", "{subnet}");
        Ok(())
    })
}

pub fn links_of_other_runtimes_are_no_reason_to_look() -> anyhow::Result<()> {
    let lab = Lab::with_agents(2)?;
    lab.network("web", "10.20.0.0/24")?;
    let _near = lab.reachable("h1", "web", "near", "")?;
    let rounds = || -> anyhow::Result<u64> {
        lab.json("h1", "status")?["last_round"]["looks"].as_u64().context("the number of looks")
    };
    let churn =
        "for n in $(seq 100); do ip link add xa type veth peer name xb && ip link set xa up && ip link del xa; done";
    let before = rounds()?;
    run(&mut lab.host("h1")?.place().command(&["sh", "-c", churn]), LONG)?.ok()?;
    let looks = rounds()? - before;
    // An audit may fall into it, and what the cluster says.
    ensure!(looks <= 5, "the agent looked {looks} times for a hundred links of another runtime");
    Ok(())
}
