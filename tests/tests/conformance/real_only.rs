//! What only the real kernel has: packets, sockets, files, and notices of change.

use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use libtest_mimic::Trial;
use overlay::datapath::attention::{News, Part};
use overlay::datapath::desired::{Desired, Port, Remote, uplink_ifname};
use overlay::datapath::fake::Fault;
use overlay::datapath::kernel_api::{Cause, Kernel};
use overlay::datapath::plan::{Knowledge, SegmentStep, Step};
use overlay::datapath::round::round;
use overlay::kernel::netns::{self, Netns, NetnsError};
use overlay::kernel::preflight::{PreflightError, preflight};
use overlay::model::addr::Mac;
use overlay::model::id::Vni;
use overlay::model::intent::AtPath;
use overlay_tests::eventually::eventually;
use tokio::time::timeout;

use crate::bench::{Bench, go, look, refused, settle};
use crate::real::{self, RealBench, inside, sh};
use crate::world::{
    PORT, VTEP, add_remote, address, alike, endpoint, host_with, mac, network, only_ipv4, port, segment, tunnel_of,
    unlike, vni,
};

/// A change has to be noticed within this time; it takes about a millisecond.
const SOON: Duration = Duration::from_secs(1);

macro_rules! trials {
    ($($case:ident),+ $(,)?) => {
        vec![$(Trial::test(concat!("real::", stringify!($case)), || real::run($case))),+]
    };
}

/// The cases.
pub fn trials() -> Vec<Trial> {
    trials![
        the_first_packet_to_another_host_gets_through_and_nothing_else_is_sent,
        whatever_is_broken_by_hand_is_noticed,
        a_change_of_the_host_s_end_of_an_uplink_is_noticed,
        a_namespace_that_lost_its_path_is_noticed_by_any_look,
        a_namespace_that_lost_its_path_is_cleared_also_if_nothing_is_desired,
        a_container_s_traffic_is_not_taken_for_a_change,
        a_container_reaches_the_tunnel_of_no_host,
        the_tunnel_s_socket_is_in_the_host_s_namespace,
        a_container_s_end_follows_the_mtu_under_whatever_name,
        a_default_route_that_is_there_is_left,
        a_port_that_fails_half_way_leaves_nothing,
        a_segment_forwards_and_has_no_ipv6_but_what_it_was_given,
        what_an_earlier_boot_left_is_swept_away,
        a_namespace_is_known_by_more_than_its_path,
        what_is_no_namespace_is_named,
        sockets_are_made_inside_a_namespace,
        the_preflight_names_what_is_wrong,
        many_ports_go_faster_together_than_one_by_one,
        ten_thousand_rows_are_written_in_seconds,
    ]
}

async fn the_first_packet_to_another_host_gets_through_and_nothing_else_is_sent(
    mut here: RealBench,
) -> anyhow::Result<()> {
    let far: IpAddr = [192, 0, 2, 2].into();
    let mut there = RealBench::with_vtep(far)?;
    let (a, b) = (here.name(), there.name());
    sh(&format!("ip link add wire netns {a} type veth peer name wire netns {b}"))?;
    sh(&format!("ip -n {a} link set wire up && ip -n {a} route add {far} dev wire src {VTEP}"))?;
    sh(&format!("ip -n {b} link set wire up && ip -n {b} route add {VTEP} dev wire src {far}"))?;

    let (web, db) = (here.open_container("web")?, there.open_container("db")?);
    let mut desired_here = host_with(&[(1, &web)]);
    let mut desired_there = host_with(&[(2, &db)]);
    let (near, distant) = (segment_of(&mut desired_here)?, segment_of(&mut desired_there)?);
    // Each receives under a VNI of its own.
    tunnel_of(distant).local = far;
    tunnel_of(distant).vni = vni(4711);
    add_remote(near, 2, alike(distant, 2));
    add_remote(distant, 1, alike(near, 1));
    settle(&mut here, &desired_here).await?;
    settle(&mut there, &desired_there).await?;

    inside(&web.path, &format!("ping -c 1 -W 1 {}", address(2)))?;
    inside(&db.path, &format!("ping -c 3 -i 0.01 -W 1 {}", address(1)))?;
    // One request and three replies, no ARP, no neighbour discovery, no broadcast.
    ensure!(sent(&here)? == 4, "{} frames went into the tunnel here", sent(&here)?);
    ensure!(sent(&there)? == 4, "{} frames went into the tunnel there", sent(&there)?);
    Ok(())
}

fn segment_of(desired: &mut Desired) -> anyhow::Result<&mut overlay::datapath::desired::Segment> {
    desired.segments.get_mut(&network(1)).map(Arc::make_mut).context("the network")
}

/// Frames that were sent into the tunnel.
fn sent(bench: &RealBench) -> anyhow::Result<u64> {
    let link = bench.inside(network(1), "ip -s -j link show vx0")?;
    number(&link, "/0/stats64/tx/packets")
}

/// A number in what a program said as JSON.
fn number(json: &str, pointer: &str) -> anyhow::Result<u64> {
    let json: serde_json::Value = serde_json::from_str(json)?;
    json.pointer(pointer).and_then(serde_json::Value::as_u64).with_context(|| format!("no {pointer}"))
}

async fn a_container_reaches_the_tunnel_of_no_host(mut bench: RealBench) -> anyhow::Result<()> {
    let (web, db) = (bench.open_container("web")?, bench.open_container("db")?);
    let mut desired = host_with(&[(1, &web)]);
    desired.segments.insert(network(2), segment(2, &[(2, &db)]).into());
    settle(&mut bench, &desired).await?;
    // From one network a frame for the other.
    let frame = datagram(desired.segments[&network(2)].tunnel.context("a tunnel")?.vni, mac(2));
    let send = |vtep: IpAddr| UdpSocket::bind(("0.0.0.0", 0))?.send_to(&frame, (vtep, PORT));
    let injected = || number(&bench.inside(network(2), "ip -s -j link show vx0")?, "/0/stats64/rx/packets");
    for (counted, vtep) in [(1, VTEP.into()), (2, IpAddr::from([192, 0, 2, 2]))] {
        Netns::of(&web)?.run(|| send(vtep))??;
        eventually(SOON, "the datagram is dropped", || {
            ensure!(dropped()? == counted, "{} were dropped", dropped()?);
            Ok(())
        })?;
    }
    ensure!(injected()? == 0, "a frame arrived");
    // From a host it does arrive: it is nothing about the datagram.
    send(VTEP.into())?;
    eventually(SOON, "a host's datagram arrives", || {
        ensure!(injected()? == 1, "it did not arrive");
        Ok(())
    })?;
    ensure!(dropped()? == 2, "a host's datagram was dropped");
    Ok(())
}

/// A frame as VXLAN carries it (RFC 7348).
fn datagram(vni: Vni, to: Mac) -> Vec<u8> {
    let header = [0x0800_0000_u32, vni.get() << 8].map(u32::to_be_bytes).concat();
    [header.as_slice(), to.as_bytes(), mac(9).as_bytes(), &[0x08, 0x00], &[0; 46]].concat()
}

/// How many packets the host's rule for the tunnel's port has dropped.
fn dropped() -> anyhow::Result<u64> {
    let chain = sh("nft list chain inet overlay prerouting")?;
    let rule = chain.lines().find(|line| line.contains(" drop")).context("no such rule")?;
    let packets = rule.split_whitespace().skip_while(|word| *word != "packets").nth(1);
    Ok(packets.context("no counter")?.parse()?)
}

async fn a_container_s_end_follows_the_mtu_under_whatever_name(mut bench: RealBench) -> anyhow::Result<()> {
    let web = bench.open_container("web")?;
    let mut desired = host_with(&[(1, &web)]);
    settle(&mut bench, &desired).await?;
    let mtu = |name| number(&inside(&web.path, &format!("ip -j link show {name}"))?, "/0/mtu");
    segment_of(&mut desired)?.ports.values_mut().for_each(|port| port.mtu = 1400);
    settle(&mut bench, &desired).await?;
    ensure!(mtu("eth0")? == 1400, "{}", mtu("eth0")?);
    for command in ["set eth0 down", "set eth0 name eth7", "set eth7 up", "add eth0 mtu 1500 type bridge"] {
        inside(&web.path, &format!("ip link {command}"))?;
    }
    segment_of(&mut desired)?.ports.values_mut().for_each(|port| port.mtu = 1300);
    settle(&mut bench, &desired).await?;
    ensure!(mtu("eth7")? == 1300, "{}", mtu("eth7")?);
    ensure!(mtu("eth0")? == 1500, "another one's interface was changed");
    Ok(())
}

async fn whatever_is_broken_by_hand_is_noticed(mut bench: RealBench) -> anyhow::Result<()> {
    let web = bench.open_container("web")?;
    let mut desired = host_with(&[(1, &web)]);
    let near = segment_of(&mut desired)?;
    add_remote(near, 21, alike(near, 2));
    add_remote(near, 22, unlike(3));
    let (n, web) = (network(1), port(1, &web).host_ifname);
    let faults = [
        Fault::ForwardingOff,
        Fault::DeleteHostTable,
        Fault::DeleteTable(n),
        Fault::AddRule(n),
        Fault::BridgeDown(n),
        Fault::DeleteAddress(n, [10, 9, 0, 254].into()),
        Fault::LetFlood(n),
        Fault::DeleteTunnel(n),
        Fault::DeleteUplink(n),
        Fault::AddAddress(n),
        Fault::Alter(n),
        Fault::DeleteDefaultRoute(n),
        Fault::DeletePort(n, web.clone()),
        Fault::DetachPort(n, web.clone()),
        Fault::NarrowPort(n, web),
        Fault::DeleteRemote(n, mac(21)),
        Fault::DeleteBridgeRow(n, mac(21)),
        Fault::DeleteTunnelRow(n, mac(22)),
        Fault::DeleteNeighbour(n, address(21)),
        Fault::DeleteBridge(n),
    ];
    for fault in faults {
        settle(&mut bench, &desired).await?;
        let mut changes = bench.kernel().changes();
        quiet(&mut changes).await;
        // Only the parts that are told of are looked at: it has to be the right one.
        let part = match fault {
            Fault::ForwardingOff | Fault::DeleteHostTable => Part::Host,
            _ => Part::Segment(n),
        };
        let before = changes.borrow_and_update().clone();
        bench.inject(&fault)?;
        let noticed = timeout(SOON, changes.wait_for(|news| news.since(&before).contains(&part))).await;
        noticed.with_context(|| format!("{fault:?} is not noticed"))?.context("nobody watches")?;
    }
    Ok(())
}

/// A look at a segment reads also the host's end of its uplink: what changes there is told of the segment.
async fn a_change_of_the_host_s_end_of_an_uplink_is_noticed(mut bench: RealBench) -> anyhow::Result<()> {
    let desired = host_with(&[]);
    let (n, name) = (network(1), uplink_ifname(network(1)));
    for command in [
        format!("ip addr flush dev {name}"),
        format!("ip link set {name} down"),
        format!("ip addr add 192.0.2.77/32 dev {name}"),
        format!("ip route del 169.254.128.2/31 dev {name}"),
    ] {
        let whole = settle(&mut bench, &desired).await?;
        let mut changes = bench.kernel().changes();
        quiet(&mut changes).await;
        let before = changes.borrow_and_update().clone();
        sh(&command)?;
        let noticed = timeout(SOON, changes.wait_for(|news| news.since(&before).contains(&Part::Segment(n)))).await;
        noticed.with_context(|| format!("`{command}` is not noticed"))?.context("nobody watches")?;
        let (_, report) = round(bench.kernel(), &Part::Segment(n).into(), &desired, Knowledge::Whole).await?;
        ensure!(report.settled() && !report.done.is_empty(), "`{command}`: {report:?}");
        ensure!(look(&mut bench).await? == whole, "`{command}` is not repaired");
    }
    Ok(())
}

/// No netlink message tells of it: any look does, also one at the part itself, which may be for an operator and for no round.
async fn a_namespace_that_lost_its_path_is_noticed_by_any_look(mut bench: RealBench) -> anyhow::Result<()> {
    let mut desired = host_with(&[]);
    desired.segments.insert(network(2), segment(2, &[]).into());
    for looked_at in [network(2), network(1)] {
        let whole = settle(&mut bench, &desired).await?;
        let mut changes = bench.kernel().changes();
        quiet(&mut changes).await;
        bench.inject(&Fault::DeleteNamespace(network(1)))?;
        quiet(&mut changes).await;
        let before = changes.borrow_and_update().clone();
        let seen = bench.kernel().observe(&Part::Segment(looked_at).into()).await?;
        ensure!(seen.segments.keys().all(|id| *id == looked_at), "{seen:?}");
        let part = Part::Segment(network(1));
        ensure!(changes.borrow().since(&before) == [part].into(), "{:?}", changes.borrow());
        let (_, report) = round(bench.kernel(), &part.into(), &desired, Knowledge::Whole).await?;
        ensure!(report.settled(), "{report:?}");
        ensure!(look(&mut bench).await? == whole, "it is not made again");
    }
    Ok(())
}

/// Its addresses are given back when nothing is left of it, so a container must not keep its interface.
async fn a_namespace_that_lost_its_path_is_cleared_also_if_nothing_is_desired(
    mut bench: RealBench,
) -> anyhow::Result<()> {
    let web = bench.open_container("web")?;
    let mut desired = host_with(&[(1, &web)]);
    settle(&mut bench, &desired).await?;
    ensure!(!bench.interfaces(&web)?.is_empty(), "the container has no interface");
    bench.inject(&Fault::DeleteNamespace(network(1)))?;
    desired.segments.clear();
    go(&mut bench, &desired).await?;
    ensure!(bench.interfaces(&web)?.is_empty(), "the container keeps its interface");
    Ok(())
}

/// Waits until what was done before has been told to its end.
async fn quiet(changes: &mut tokio::sync::watch::Receiver<News>) {
    while timeout(Duration::from_millis(200), changes.changed()).await.is_ok() {}
}

async fn a_container_s_traffic_is_not_taken_for_a_change(mut bench: RealBench) -> anyhow::Result<()> {
    let web = bench.open_container("web")?;
    settle(&mut bench, &host_with(&[(1, &web)])).await?;
    let mut changes = bench.kernel().changes();
    quiet(&mut changes).await;
    // The gateway learns the container's address: a neighbour on the bridge, but none of ours.
    inside(&web.path, "ping -c 1 -W 1 10.9.0.254")?;
    let neighbours = bench.inside(network(1), "ip neigh show dev br0")?;
    ensure!(neighbours.contains("10.9.0.1 "), "the gateway has learnt nothing: {neighbours}");
    ensure!(timeout(Duration::from_millis(200), changes.changed()).await.is_err(), "taken for a change");
    Ok(())
}

async fn the_tunnel_s_socket_is_in_the_host_s_namespace(mut bench: RealBench) -> anyhow::Result<()> {
    UdpSocket::bind(("0.0.0.0", PORT)).context("the port is free before")?;
    settle(&mut bench, &host_with(&[])).await?;
    ensure!(UdpSocket::bind(("0.0.0.0", PORT)).is_err(), "the host has no socket on the port");
    let path = bench.kernel().netns_path(network(1));
    netns::udp_socket_in(&path, SocketAddr::from(([0, 0, 0, 0], PORT))).context("the segment's own port is free")?;
    Ok(())
}

async fn a_default_route_that_is_there_is_left(mut bench: RealBench) -> anyhow::Result<()> {
    let web = bench.open_container("web")?;
    bench.add_foreign_interface(&web, &"theirs".parse()?)?;
    inside(&web.path, "ip link set theirs up")?;
    inside(&web.path, "ip addr add 10.1.1.2/24 dev theirs")?;
    inside(&web.path, "ip route add default via 10.1.1.1")?;
    settle(&mut bench, &host_with(&[(1, &web)])).await?;
    let routes = inside(&web.path, "ip route show default")?;
    ensure!(routes.lines().any(|route| route.trim() == "default via 10.1.1.1 dev theirs"), "{routes}");
    let way = inside(&web.path, "ip route get 198.51.100.1")?;
    ensure!(way.contains("dev theirs"), "ours is taken before it: {way}");
    Ok(())
}

async fn a_port_that_fails_half_way_leaves_nothing(mut bench: RealBench) -> anyhow::Result<()> {
    let web = bench.open_container("web")?;
    let mut desired = host_with(&[(1, &web)]);
    for port in segment_of(&mut desired)?.ports.values_mut() {
        // Nobody can tell the way to it: the last thing that is set up in the container.
        port.gateways = vec![[203, 0, 113, 1].into()];
    }
    refused(&mut bench, &desired, Cause::Refused).await?;
    ensure!(bench.interfaces(&web)?.is_empty(), "left in the container: {:?}", bench.interfaces(&web)?);
    let links = bench.inside(network(1), "ip -o link")?;
    ensure!(!links.contains("ovp"), "left in the segment: {links}");
    Ok(())
}

async fn a_segment_forwards_and_has_no_ipv6_but_what_it_was_given(mut bench: RealBench) -> anyhow::Result<()> {
    let mut desired = host_with(&[]);
    only_ipv4(segment_of(&mut desired)?);
    desired.segments.insert(network(2), segment(2, &[]).into());
    settle(&mut bench, &desired).await?;
    for (n, switch) in [(1, "ipv4/ip_forward"), (2, "ipv4/ip_forward"), (2, "ipv6/conf/all/forwarding")] {
        let forward = bench.inside(network(n), &format!("cat /proc/sys/net/{switch}"))?;
        ensure!(forward.trim() == "1", "network {n} does not forward: {switch}");
    }
    let addresses = bench.inside(network(1), "ip -6 addr")?;
    ensure!(addresses.is_empty(), "{addresses}");
    let addresses = bench.inside(network(2), "ip -6 -o addr show scope link")?;
    ensure!(addresses.lines().all(|line| line.contains("up0") && line.contains("fe80::3/64")), "{addresses}");
    let tentative = bench.inside(network(2), "ip -6 -o addr show tentative")?;
    ensure!(tentative.is_empty(), "{tentative}");
    Ok(())
}

async fn what_an_earlier_boot_left_is_swept_away(mut bench: RealBench) -> anyhow::Result<()> {
    let kept = bench.run_dir().join("netns");
    let (file, foreign) = (kept.join(network(1).to_string()), kept.join("README"));
    fs::write(&file, "")?;
    fs::write(&foreign, "")?;
    bench.restart()?;
    ensure!(!file.exists(), "the file of a namespace that is no more is still there");
    ensure!(foreign.exists(), "a foreign file is gone");
    // Also if it comes to be while the agent runs.
    fs::write(&file, "")?;
    settle(&mut bench, &host_with(&[])).await?;
    Ok(())
}

async fn a_namespace_is_known_by_more_than_its_path(mut bench: RealBench) -> anyhow::Result<()> {
    let web = bench.open_container("web")?;
    let name = web.path.file_name().context("a name")?.to_string_lossy().into_owned();
    ensure!(netns::at_path(&web) == AtPath::Same, "it is there");
    ensure!(netns::identify(&web.path)? == web, "it is the same when asked again");
    sh(&format!("ip netns del {name} && ip netns add {name}"))?;
    ensure!(netns::at_path(&web) == AtPath::Gone, "another one is taken for it");
    ensure!(matches!(Netns::of(&web), Err(NetnsError::Replaced { .. })), "another one is taken for it");
    sh(&format!("ip netns del {name}"))?;
    ensure!(netns::at_path(&web) == AtPath::Gone, "it is gone");
    Ok(())
}

async fn what_is_no_namespace_is_named(bench: RealBench) -> anyhow::Result<()> {
    let fifo = bench.run_dir().join("fifo");
    sh(&format!("mkfifo {}", fifo.display()))?;
    for path in ["/etc/passwd", "/tmp", "/dev/zero", "/proc/self/ns/mnt", &fifo.to_string_lossy()] {
        let error = netns::identify(Path::new(path)).err().with_context(|| format!("{path} is taken for one"))?;
        ensure!(matches!(error, NetnsError::NotNetns { .. }) && error.to_string().contains(path), "{path}: {error}");
    }
    for path in ["/run/netns/nobody", "/proc/999999999/ns/net"] {
        let error = netns::identify(Path::new(path)).err().with_context(|| format!("{path} is taken for one"))?;
        ensure!(matches!(error, NetnsError::NotFound { .. }) && error.to_string().contains(path), "{path}: {error}");
    }
    Ok(())
}

async fn sockets_are_made_inside_a_namespace(mut bench: RealBench) -> anyhow::Result<()> {
    let web = bench.open_container("web")?;
    settle(&mut bench, &host_with(&[(1, &web)])).await?;
    let path = bench.kernel().netns_path(network(1));
    let gateway = SocketAddr::from(([10, 9, 0, 254], 53));
    let _udp = netns::udp_socket_in(&path, gateway)?;
    let _tcp = netns::tcp_listener_in(&path, gateway)?;
    let error = netns::udp_socket_in(&path, gateway).err().context("bound twice")?;
    ensure!(matches!(error, NetnsError::Bind { .. }), "{error:?}");
    let inside = netns::interfaces(&web).await?;
    let eth0 = inside.get(&"eth0".parse()?).context("no eth0 in the container")?;
    ensure!(eth0.iter().any(|prefixed| prefixed.address == address(1)), "{eth0:?}");
    Ok(())
}

async fn the_preflight_names_what_is_wrong(bench: RealBench) -> anyhow::Result<()> {
    let error = preflight([203, 0, 113, 9].into(), bench.run_dir()).await.err().context("no such address")?;
    ensure!(matches!(error, PreflightError::NoSuchAddress { .. }), "{error:?}");
    let says = error.to_string();
    ensure!(says.contains("203.0.113.9") && says.contains(&VTEP.to_string()), "{says}");
    let error = preflight(VTEP.into(), Path::new("/proc/sys")).await.err().context("no directory to write in")?;
    ensure!(matches!(error, PreflightError::RunDir { .. }), "{error:?}");
    Ok(())
}

/// Each removal alone waits for a grace period of the kernel.
async fn many_ports_go_faster_together_than_one_by_one(mut bench: RealBench) -> anyhow::Result<()> {
    const EACH: u8 = 50;
    let web = bench.open_container("web")?;
    let mut desired = host_with(&[]);
    for m in 1..=2 * EACH {
        let port = Port { ifname: format!("eth{m}").parse()?, gateways: Vec::new(), ..port(m, &web) };
        segment_of(&mut desired)?.ports.insert(endpoint(m), port);
    }
    settle(&mut bench, &desired).await?;
    let leaving: Vec<Step> = segment_of(&mut desired)?
        .ports
        .values()
        .map(|port| Step::Segment(network(1), SegmentStep::DeletePort(port.host_ifname.clone())))
        .collect();
    let (together, alone) = leaving.split_at(EACH.into());
    let start = std::time::Instant::now();
    ensure!(bench.kernel().apply(together).await.iter().all(Result::is_ok), "they do not go together");
    let at_once = start.elapsed();
    for step in alone {
        ensure!(bench.kernel().apply(std::slice::from_ref(step)).await.iter().all(Result::is_ok), "{step}");
    }
    let one_by_one = start.elapsed() - at_once;
    println!("{EACH} ports went together in {at_once:?}, one by one in {one_by_one:?}");
    ensure!(at_once * 2 < one_by_one, "together {at_once:?}, one by one {one_by_one:?}");
    ensure!(bench.interfaces(&web)?.is_empty(), "left: {:?}", bench.interfaces(&web)?);
    settle(&mut bench, &host_with(&[])).await?;
    Ok(())
}

async fn ten_thousand_rows_are_written_in_seconds(mut bench: RealBench) -> anyhow::Result<()> {
    let mut desired = host_with(&[]);
    let near = segment(1, &[]);
    let remote: Remote = alike(&near, 2);
    for n in 0..10_000_u16 {
        let [high, low] = n.to_be_bytes();
        segment_of(&mut desired)?.remotes.insert(Mac::of_address([10, 8, high, low].into()), remote);
    }
    settle(&mut bench, &host_with(&[])).await?;
    let start = std::time::Instant::now();
    let observed = settle(&mut bench, &desired).await?;
    let took = start.elapsed();
    ensure!(observed.segments.values().any(|s| s.remotes.len() == 10_000), "some are missing");
    // Ten times what it takes.
    ensure!(took < Duration::from_secs(10), "it took {took:?}");
    println!("10,000 rows written and read back twice in {took:?}");
    Ok(())
}
