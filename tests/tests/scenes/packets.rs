//! What is on the wire between two hosts, and what is not.

use anyhow::ensure;
use overlay_tests::eventually::{eventually, eventually_in};
use overlay_tests::lab::{Inner, Lab, Tally};

use super::support::{HALF_A_SECOND, SECOND, took};

fn count(tally: &Tally, kind: Inner) -> usize {
    tally.iter().filter(|((_, seen), _)| *seen == kind).map(|(_, count)| count).sum()
}

pub fn the_first_packet_crosses_and_nothing_is_broadcast() -> anyhow::Result<()> {
    let lab = Lab::with_agents(2)?;
    lab.network("web", "10.20.0.0/24")?;
    let left = lab.reachable("h1", "web", "left", "")?;
    let right = lab.reachable("h2", "web", "right", "")?;
    // `left` was there first: h2 learnt of it before it had the network, h1 of `right` when it had.
    lab.wait_until_reachable("web", &left)?;

    let (there, back) = (lab.wire.capture("h1")?, lab.wire.capture("h2")?);
    let start = std::time::Instant::now();
    left.ping(right.address()?, SECOND)?;
    took("first ping of two containers", start.elapsed());
    // An address that nobody has, and a broadcast: neither may leave the host.
    ensure!(left.ping("10.20.0.200", HALF_A_SECOND).is_err(), "an address without endpoint answers");
    _ = left.try_sh("ping -n -b -c 1 -W 0.3 10.20.0.255")?;
    for (what, tally) in [("to", there.stop()?), ("fro", back.stop()?)] {
        for kind in [Inner::Arp, Inner::NeighbourDiscovery, Inner::Group] {
            ensure!(count(&tally, kind) == 0, "{what}: {kind:?} inside the tunnel: {tally:?}");
        }
        ensure!(count(&tally, Inner::Unicast) == 1, "{what}: one echo crossed, and nothing else: {tally:?}");
    }
    Ok(())
}

pub fn two_networks_with_the_same_subnet_never_meet() -> anyhow::Result<()> {
    let lab = Lab::with_agents(2)?;
    lab.network("red", "10.30.0.0/24")?;
    lab.network("blue", "10.30.0.0/24")?;
    let red = lab.reachable("h1", "red", "red-1", "--ip 10.30.0.5")?;
    let _red_far = lab.reachable("h2", "red", "red-2", "--ip 10.30.0.6")?;
    // The same address as `red`, on the same host.
    let blue = lab.reachable("h1", "blue", "blue-1", "--ip 10.30.0.5")?;
    let _blue_far = lab.reachable("h2", "blue", "blue-2", "--ip 10.30.0.7")?;

    red.ping("10.30.0.6", SECOND)?;
    blue.ping("10.30.0.7", SECOND)?;
    ensure!(red.ping("10.30.0.7", HALF_A_SECOND).is_err(), "a packet passed from red to blue");
    ensure!(blue.ping("10.30.0.6", HALF_A_SECOND).is_err(), "a packet passed from blue to red");

    ensure!(red.dig("red-2")?.addresses() == [std::net::Ipv4Addr::new(10, 30, 0, 6)], "red does not know red");
    for name in ["blue-1", "blue-2", "blue-2.blue"] {
        let reply = red.dig(name)?;
        ensure!(reply.answers.is_empty(), "red learns {name}: {reply:?}");
    }
    let reverse = red.dig("-x 10.30.0.7")?;
    ensure!(reverse.status == "NXDOMAIN", "red learns who 10.30.0.7 is: {reverse:?}");
    Ok(())
}

pub fn containers_reach_the_world_through_the_gateway() -> anyhow::Result<()> {
    let lab = Lab::with_agents(2)?;
    lab.network("web", "10.20.0.0/24")?;
    for host in ["h1", "h2"] {
        let container = lab.connect(host, "web", &format!("on-{host}"), "")?;
        eventually(5 * SECOND, "the world to answer", || container.ping(overlay_tests::lab::WORLD, SECOND))?;
        // The host itself, by its underlay address, and the other host.
        container.ping(overlay_tests::lab::underlay("h1")?, SECOND)?;
        container.ping(overlay_tests::lab::underlay("h2")?, SECOND)?;
    }
    Ok(())
}

pub fn a_lossy_wire_slows_things_down_and_breaks_nothing() -> anyhow::Result<()> {
    let lab = Lab::with_agents(3)?;
    lab.wire.loss(20)?;
    let patient = 20 * SECOND;
    eventually(patient, "a network to be made", || lab.json("h1", "network create web --subnet 10.20.0.0/24"))?;
    let mut ends = Vec::new();
    for host in ["h1", "h2", "h3"] {
        let container = eventually(patient, &format!("a container on {host}"), || {
            _ = lab.host(host)?.place().try_sh(&format!("ip netns delete on-{host}"));
            lab.connect(host, "web", &format!("on-{host}"), "")
        })?;
        ends.push(container);
    }
    for (from, to) in ends.iter().zip(ends.iter().cycle().skip(1)) {
        let what = format!("{} to reach {}", from.name(), to.name());
        let ((), after) = eventually_in(patient, &what, || from.ping(to.address()?, HALF_A_SECOND))?;
        took(&what, after);
    }
    Ok(())
}
