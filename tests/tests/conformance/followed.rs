//! A look reads what is large from the kernel's own messages. It has to see what a look sees that reads all.

use anyhow::{Context, ensure};
use fastrand::Rng;
use libtest_mimic::Trial;
use overlay::datapath::attention::{Look, Part};
use overlay::datapath::desired::Port;
use overlay::datapath::kernel_api::Kernel;

use crate::bench::{Bench, go, look, settle};
use crate::real::{self, RealBench};
use crate::world::{add_remote, address, alike, host_with, mac, network, port, unlike};

/// How many things are done by hand.
const DEEDS: usize = 300;

/// The cases.
pub fn trials() -> Vec<Trial> {
    vec![Trial::test("real::a_segment_that_is_followed_is_seen_as_it_is", || {
        real::run(a_segment_that_is_followed_is_seen_as_it_is)
    })]
}

async fn a_segment_that_is_followed_is_seen_as_it_is(mut bench: RealBench) -> anyhow::Result<()> {
    let seed = std::env::var("OVERLAY_SEED").map_or_else(|_| Ok(fastrand::u64(..)), |seed| seed.parse())?;
    println!("OVERLAY_SEED={seed} does the same");
    let mut rng = Rng::with_seed(seed);
    let (web, db) = (bench.open_container("web")?, bench.open_container("db")?);
    let mut desired = host_with(&[(1, &web), (2, &db)]);
    let near = desired.segments.get_mut(&network(1)).map(std::sync::Arc::make_mut).context("the network")?;
    add_remote(near, 21, alike(near, 2));
    add_remote(near, 22, unlike(3));
    let ports = [port(1, &web), port(2, &db)];
    let mut done = 0;
    for count in 1..=DEEDS {
        if count % 25 == 1 {
            // The rows of a tunnel that has no bridge are seen when it has one again.
            go(&mut bench, &desired).await?;
            settle(&mut bench, &desired).await?;
        }
        let deed = deed(&mut rng, &ports);
        // Much of it can't be done, since what it is about is not there any more.
        done += usize::from(bench.inside(network(1), &deed).is_ok());
        if rng.bool() {
            continue;
        }
        let followed = bench.kernel().observe(&Look::from(Part::Segment(network(1)))).await?;
        let read = look(&mut bench).await?;
        ensure!(followed.segments == read.segments, "after `{deed}`: {followed:#?}\nread: {read:#?}");
    }
    ensure!(done > DEEDS / 4, "only {done} of {DEEDS} could be done");
    Ok(())
}

/// One thing that a person may do in a segment.
fn deed(rng: &mut Rng, ports: &[Port; 2]) -> String {
    let any = |rng: &mut Rng, of: &[&str]| of[rng.usize(..of.len())].to_owned();
    let port = ports[rng.usize(..2)].host_ifname.to_string();
    let link = any(rng, &["br0", "vx0", "up0", &port, &port]);
    let mac = mac([21, 22, 23, 1, 2][rng.usize(..5)]);
    let ip = address([21, 22, 23, 9][rng.usize(..4)]);
    let vtep = any(rng, &["192.0.2.2", "192.0.2.3", "2001:db8::3"]);
    match rng.u8(..22) {
        0 => format!("ip link set {link} mtu {}", 1300 + rng.u32(..4)),
        1 => format!("ip link set {link} {}", any(rng, &["up", "down"])),
        2 => format!("ip link set {port} {}", any(rng, &["nomaster", "master br0"])),
        3 => format!("ip link set {link} alias {}", any(rng, &["something", "overlay"])),
        4 => format!(
            "bridge link set dev {port} {} {}",
            any(rng, &["learning", "flood", "isolated"]),
            any(rng, &["on", "off"])
        ),
        5 => format!(
            "ip link set br0 type bridge {} {}",
            any(rng, &["vlan_filtering", "stp_state", "mcast_snooping"]),
            rng.u8(..2)
        ),
        6 if rng.u8(..4) == 0 => format!("ip link delete {link}"),
        6 => "ip link add br9 type bridge".to_owned(),
        7 => "ip link delete br9".to_owned(),
        8 => format!("bridge fdb replace {mac} dev vx0 dst {vtep} self"),
        9 => format!("bridge fdb append {mac} dev vx0 dst {vtep} self"),
        10 => format!("bridge fdb delete {mac} dev vx0 {} self", any(rng, &["", &format!("dst {vtep}")])),
        11 => format!(
            "bridge fdb replace {mac} dev {} master {}",
            any(rng, &["vx0", &port]),
            any(rng, &["static", "dynamic", "extern_learn"])
        ),
        12 => format!("bridge fdb delete {mac} dev {} master", any(rng, &["vx0", &port])),
        13 => format!("bridge fdb append 00:00:00:00:00:00 dev vx0 dst {vtep} self"),
        14 => format!("bridge fdb flush dev {} {}", any(rng, &["br0", "vx0"]), any(rng, &["", "self", "extern_learn"])),
        15 | 16 => format!(
            "ip neigh replace {ip} lladdr {mac} dev br0 nud {}",
            any(rng, &["permanent", "permanent", "reachable", "stale"])
        ),
        17 => format!("ip neigh delete {ip} dev br0"),
        18 => "ip neigh flush dev br0 nud permanent".to_owned(),
        19 => format!("ip neigh replace {ip} lladdr {mac} dev up0 nud permanent"),
        20 => format!("ip address {} 10.9.0.254/24 dev br0", any(rng, &["add", "delete"])),
        _ => format!("bridge fdb replace {mac} dev vx0 dst {vtep} vni 99 port 4790 self"),
    }
}
