//! What the underlay carries, and what containers are told: on the real kernel only.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use libtest_mimic::Trial;
use overlay::datapath::announcer::Announcement;
use overlay::datapath::attention::Part;
use overlay::datapath::kernel_api::Kernel;
use overlay::datapath::plan::{SegmentStep, Step};
use overlay::kernel::preflight::preflight;
use overlay::model::addr::Mac;
use overlay_tests::eventually::eventually;

use crate::bench::{Bench, settle};
use crate::real::{self, RealBench, inside, sh};
use crate::world::{VTEP, address, host_with, mac, network, only_ipv4};

/// The cases.
pub fn trials() -> Vec<Trial> {
    let trial = |name: &str, run: fn() -> Result<(), libtest_mimic::Failed>| Trial::test(format!("real::{name}"), run);
    vec![
        trial("the_underlay_carries_what_the_ways_to_the_other_hosts_carry", || {
            real::run(the_underlay_carries_what_the_ways_to_the_other_hosts_carry)
        }),
        trial("containers_are_told_of_a_new_mac_and_none_of_its_own", || {
            real::run(containers_are_told_of_a_new_mac_and_none_of_its_own)
        }),
        trial("a_container_is_not_asked_for_the_address_of_another_one", || {
            real::run(a_container_is_not_asked_for_the_address_of_another_one)
        }),
    ]
}

/// The VTEP's address is on the loopback interface, as where a routing daemon announces it.
async fn the_underlay_carries_what_the_ways_to_the_other_hosts_carry(mut bench: RealBench) -> anyhow::Result<()> {
    ensure!(preflight(VTEP.into(), bench.run_dir()).await?.underlay_mtu == 1500, "without any way");
    sh("ip link add wan0 mtu 1400 type veth peer name far0 && ip link add wan1 mtu 1300 type veth peer name far1")?;
    sh("for link in wan0 far0 wan1 far1; do ip link set $link up; done && ip route add default dev wan0")?;
    ensure!(preflight(VTEP.into(), bench.run_dir()).await?.underlay_mtu == 1400, "the way to everywhere");

    let [near, far, nowhere] = [2, 3, 4].map(|last| IpAddr::from([192, 0, 2, last]));
    sh(&format!(
        "ip route add {near} dev wan0 mtu 1350 && ip route add {far} dev wan1 && ip route add blackhole {nowhere}"
    ))?;
    let cases: [(&str, &[IpAddr], u32); 5] = [
        ("no other host", &[], 1400),
        ("a route with an MTU of its own", &[near], 1350),
        ("the narrowest of two ways", &[near, far], 1300),
        ("a host that nothing leads to", &[nowhere], 1400),
        ("this host itself", &[IpAddr::V4(VTEP)], 1400),
    ];
    for (what, peers, carried) in cases {
        bench.kernel().set_peers(&peers.iter().copied().collect::<BTreeSet<_>>());
        let seen = bench.kernel().observe(&Part::Host.into()).await?.underlay_mtu;
        ensure!(seen == Some(carried), "{what}: {seen:?}, not {carried}");
    }
    Ok(())
}

async fn containers_are_told_of_a_new_mac_and_none_of_its_own(mut bench: RealBench) -> anyhow::Result<()> {
    let (web, db) = (bench.open_container("web")?, bench.open_container("db")?);
    let desired = host_with(&[(1, &web), (2, &db)]);
    settle(&mut bench, &desired).await?;
    let (old, new) = (mac(77), mac(2));
    // Both containers have met the address at another MAC, and `db` is the one that has it now.
    let met = |at: Mac| format!("ip neigh replace {} lladdr {at} nud reachable dev eth0", address(7));
    for container in [&web, &db] {
        inside(&container.path, &met(old))?;
    }
    let segment = desired.segments.get(&network(1)).context("the network")?;
    let ports = segment.ports.values().map(|port| (port.host_ifname.clone(), port.mac)).collect();
    let announcement = Announcement { macs: [(address(7), new)].into(), ports };
    let step = Step::Segment(network(1), SegmentStep::Announce(announcement));
    for result in bench.kernel().apply(&[step]).await {
        result?;
    }
    let known = |container: &std::path::Path| inside(container, &format!("ip neigh show {}", address(7)));
    eventually(Duration::from_secs(1), "it has heard of the new MAC", || {
        let known = known(&web.path)?;
        ensure!(known.contains(&new.to_string()), "{known}");
        Ok(())
    })?;
    ensure!(known(&db.path)?.contains(&old.to_string()), "who has the address was told of it");
    Ok(())
}

async fn a_container_is_not_asked_for_the_address_of_another_one(mut bench: RealBench) -> anyhow::Result<()> {
    let (web, db) = (bench.open_container("web")?, bench.open_container("db")?);
    let mut desired = host_with(&[(1, &web), (2, &db)]);
    let segment = desired.segments.get_mut(&network(1)).map(Arc::make_mut).context("the network")?;
    only_ipv4(segment);
    segment.neighbours.extend([(address(1), mac(1)), (address(2), mac(2))]);
    settle(&mut bench, &desired).await?;
    // `db` answers no ARP at all: whoever answers `web` is the bridge.
    inside(&db.path, "sysctl -qw net.ipv4.conf.eth0.arp_ignore=8")?;
    inside(&db.path, &format!("ip neigh replace {} lladdr {} nud permanent dev eth0", address(1), mac(1)))?;
    inside(&web.path, &format!("ping -c 1 -W 1 {}", address(2)))?;
    Ok(())
}
