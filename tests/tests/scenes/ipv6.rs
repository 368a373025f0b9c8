//! IPv6: beside IPv4, instead of it, and under the tunnels.

use std::net::SocketAddr;
use std::time::Instant;

use anyhow::{Context, ensure};
use overlay_tests::eventually::eventually;
use overlay_tests::lab::{Container, Inner, Lab, ROUTER, WORLD, WORLD6, mapped, underlay};

use super::support::complaint::complains;
use super::support::service::{doorman, is_refused, visit};
use super::support::{HALF_A_SECOND, SECOND, took};

/// A network of both versions that both hosts know.
fn dual(lab: &Lab, name: &str, more: &str) -> anyhow::Result<()> {
    lab.ctl("h1", &format!("network create {name} --subnet 10.80.0.0/24 --subnet fd00:80::/64 {more}"))?.ok()?;
    for host in lab.names() {
        eventually(5 * SECOND, &format!("{host} to know it"), || lab.json(&host, &format!("network inspect {name}")))?;
    }
    Ok(())
}

fn pings(from: &Container, to: &Container) -> anyhow::Result<()> {
    to.addresses()?.iter().try_for_each(|address| from.ping(address, SECOND))
}

pub fn containers_have_ipv6_beside_ipv4_across_hosts() -> anyhow::Result<()> {
    let mut lab = Lab::with_agents(2)?;
    dual(&lab, "web", "")?;
    let began = Instant::now();
    let left = lab.connect("h1", "web", "left", "--ip6 fd00:80::11")?;
    let right = lab.connect("h2", "web", "right", "--ip 10.80.0.12 --ip6 fd00:80::12 --alias db")?;
    took("attach of two with IPv6", began.elapsed());
    ensure!(
        left.address6()?.to_string() == "fd00:80::11" && right.address6()?.to_string() == "fd00:80::12",
        "as asked"
    );
    lab.wait_until_reachable("web", &left)?;
    lab.wait_until_reachable("web", &right)?;

    // The very first packet finds its way, and nobody on the other host is asked where that is.
    let (there, back) = (lab.wire.capture("h1")?, lab.wire.capture("h2")?);
    let began = Instant::now();
    left.ping(right.address6()?, SECOND)?;
    took("first IPv6 ping of two containers", began.elapsed());
    ensure!(left.ping("fd00:80::99", HALF_A_SECOND).is_err(), "an address without endpoint answers");
    _ = left.try_sh("ping -6 -n -c 1 -W 0.3 ff02::1%eth0")?;
    for (what, tally) in [("to", there.stop()?), ("fro", back.stop()?)] {
        let crossed =
            |wanted: Inner| tally.iter().filter(|((_, kind), _)| *kind == wanted).map(|(_, n)| n).sum::<usize>();
        for kind in [Inner::Arp, Inner::NeighbourDiscovery, Inner::Group] {
            ensure!(crossed(kind) == 0, "{what}: {kind:?} inside the tunnel: {tally:?}");
        }
        ensure!(crossed(Inner::Unicast) == 1, "{what}: one echo crossed, and nothing else: {tally:?}");
    }
    pings(&right, &left)?;
    let third = lab.connect("h1", "web", "third", "")?;
    pings(&third, &left)?;
    pings(&third, &right)?;

    // Names, both ways.
    for name in ["right", "right.web", "db"] {
        let reply = left.dig(&format!("{name} AAAA"))?;
        ensure!(reply.answers == ["fd00:80::12"], "{name}: {reply:?}");
    }
    ensure!(left.dig("right")?.addresses() == [right.address()?], "and its IPv4 address");
    let reverse = left.dig("-x fd00:80::12")?;
    ensure!(reverse.answers == ["right.web."], "{reverse:?}");
    ensure!(left.dig("@fd00:80::1 right AAAA")?.answers == ["fd00:80::12"], "the gateway answers under IPv6");

    // The way out, and none for who pretends to be one.
    for container in [&left, &right] {
        eventually(5 * SECOND, "the world to answer", || container.ping(WORLD6, SECOND))?;
        container.ping(WORLD, SECOND)?;
        container.ping(mapped(underlay("h2")?), SECOND)?;
    }
    let settings = left.sh("cat /proc/sys/net/ipv6/conf/eth0/accept_ra")?;
    ensure!(settings.trim() == "0", "it listens to whoever says to be a router");

    for (line, words) in [
        ("web --ip6 fd00:80::12", &["fd00:80::12", "in use", "`right`"][..]),
        ("web --ip6 fd00:80::1", &["fd00:80::1", "gateway"]),
        ("web --ip6 fd00:80::", &["fd00:80::", "subnet itself"]),
        ("web --ip6 fd00:81::1", &["fd00:81::1", "outside", "fd00:80::/64"]),
        ("web --ip6 10.80.0.40", &["`10.80.0.40`", "fd00:38::11"]),
        ("web --ip fd00:80::40", &["`fd00:80::40`", "172.38.0.11"]),
    ] {
        let stray = lab.host("h1")?.place();
        _ = stray.try_sh("ip netns add stray")?;
        let done = lab.ctl("h1", &format!("network connect {line} --netns /run/netns/stray --name stray"))?;
        complains(&done, words)?;
    }

    let inspected = lab.json("h1", "network inspect web")?;
    let text = |pointer: &str| inspected.pointer(pointer).map(ToString::to_string).unwrap_or_default();
    ensure!(text("/0/EnableIPv6") == "true" && text("/0/IPAM/Config/1/Subnet") == "\"fd00:80::/64\"", "{inspected:#}");
    let rows = inspected[0]["Containers"].as_object().context("containers")?;
    ensure!(rows.values().any(|row| row["IPv6Address"] == "fd00:80::12/64"), "{inspected:#}");
    lab.endpoints_are_alike("web")?;
    lab.kernels_are_as_they_should_be()?;

    // What fails half way keeps nothing: the one address is this host's to give, the other that of one which has crashed.
    lab.crash("h2")?;
    let half = lab.ctl(
        "h1",
        "network connect web --netns /run/netns/stray --name half --ip 10.80.0.50 --ip6 fd00:80::ffff:0:0:9",
    )?;
    ensure!(half.code != 0 && half.stderr.contains("fd00:80::ffff:0:0:9") && half.stderr.contains("h2"), "{half:?}");
    let left = lab.host("h1")?.place().sh("ip -n stray -br address")?;
    ensure!(!left.contains("10.80") && !left.contains("fd00"), "{left}");
    let taken = lab.connect("h1", "web", "taken", "--ip 10.80.0.50")?;
    ensure!(taken.address()?.octets()[3] == 50, "it is free");
    Ok(())
}

/// An address that is asked for by number goes to another host at once, and those who know it find it there.
pub fn an_address_that_moves_keeps_its_mac() -> anyhow::Result<()> {
    let lab = Lab::with_agents(2)?;
    dual(&lab, "web", "")?;
    let client = lab.reachable("h1", "web", "client", "")?;
    let filler = lab.reachable("h2", "web", "filler", "")?;
    let first = lab.reachable("h1", "web", "db", "--ip6 fd00:80::9")?;
    client.ping("fd00:80::9", SECOND)?;
    filler.ping("fd00:80::9", SECOND)?;
    let mac = first.sh("cat /sys/class/net/eth0/address")?;
    lab.ctl("h1", "network disconnect web db")?.ok()?;
    let second = lab.reachable("h2", "web", "db", "--ip6 fd00:80::9")?;
    ensure!(second.sh("cat /sys/class/net/eth0/address")? == mac, "it has another MAC");
    ensure!(second.address()? != first.address()?, "it has the same IPv4 address, which proves nothing");
    client.ping("fd00:80::9", SECOND)?;
    filler.ping("fd00:80::9", SECOND)
}

pub fn published_ports_lead_in_under_ipv6() -> anyhow::Result<()> {
    let lab = Lab::with_agents(3)?;
    dual(&lab, "web", "")?;
    let web = lab.reachable("h1", "web", "web", "-p 8088:80 -p 5353:53/udp -p [::]:8090:80 -p 0.0.0.0:8091:80")?;
    let near = lab.reachable("h1", "web", "near", "")?;
    let far = lab.reachable("h2", "web", "far", "")?;
    let _doors = (doorman(&web, 80)?, doorman(&web, 53)?, doorman(&near, 53)?);
    let (h1, h1_4) = (mapped(underlay("h1")?), underlay("h1")?);
    let at = |port: u16| SocketAddr::new(h1.into(), port);
    let internet = lab.internet().place();

    for (protocol, port) in [("tcp", 8088), ("udp", 5353), ("tcp", 8090)] {
        let (name, seen) = visit(&lab, &internet, protocol, at(port), "")?;
        ensure!(name == "web" && seen == mapped(ROUTER), "{name} answers, and sees {seen}");
    }
    // From the host itself, from others inside, from itself.
    let host = lab.host("h1")?.place();
    for place in [&host, near.place(), far.place(), web.place(), &lab.host("h2")?.place()] {
        let (name, _) = visit(&lab, place, "tcp", at(8088), "")?;
        ensure!(name == "web", "{name} answers");
    }
    for (spec, words) in [
        ("[fe80::1]:81:80", &["`[fe80::1]`", "no address"][..]),
        ("81:80 --allow-from 2001:db8::1/64", &["2001:db8::1/64", "host bits"]),
    ] {
        let done = lab.ctl("h1", &format!("endpoint publish web near -p {spec}"))?;
        complains(&done, words)?;
    }
    // Each under its own version only; and at ::1 nobody is, which is told at once.
    visit(&lab, &internet, "tcp", format!("{h1_4}:8091"), "")?;
    is_refused(&lab, &internet, "tcp", &at(8091).to_string())?;
    is_refused(&lab, &internet, "tcp", &format!("{h1_4}:8090"))?;
    let began = Instant::now();
    ensure!(visit(&lab, &host, "tcp", "[::1]:8088", "--patience 20000").is_err(), "somebody answers at ::1");
    ensure!(began.elapsed() < 5 * SECOND, "who asks at ::1 has to wait");
    let shown = host.sh("ip -6 -br address show dev eth0 scope link")?;
    let local = shown.split_whitespace().find_map(|word| word.strip_suffix("/64")).context(shown.clone())?;
    let began = Instant::now();
    ensure!(host.try_sh(&format!("nc -z -w 20 {local}%eth0 8088"))?.code != 0, "somebody answers at {local}");
    ensure!(began.elapsed() < 5 * SECOND, "who asks at {local} has to wait");
    // A port that is not published leads nowhere, nor does the way past the host.
    is_refused(&lab, &internet, "tcp", &at(80).to_string())?;
    internet.sh(&format!("ip route add fd00:80::/64 via {h1}"))?;
    is_refused(&lab, &internet, "tcp", &format!("[{}]:80", web.address6()?))?;

    let ports = lab.ctl("h1", "endpoint port web 80")?.ok()?;
    ensure!(ports.lines().eq(["0.0.0.0:8088", "[::]:8088", "0.0.0.0:8091", "[::]:8090"]), "{ports}");
    // A flow follows its port.
    let ask = || visit(&lab, &internet, "udp", at(5353), "--from 4444 --patience 300").map(|(name, _)| name);
    ensure!(ask()? == "web", "the first one");
    lab.ctl("h1", "endpoint unpublish web web 5353/udp")?.ok()?;
    ensure!(ask().is_err(), "it still leads there");
    lab.ctl("h1", "endpoint publish web near -p 5353:53/udp")?.ok()?;
    ensure!(ask()? == "near", "the other one, at once");
    // Who may.
    let h2 = mapped(underlay("h2")?);
    lab.ctl("h1", &format!("endpoint publish web web -p 8088:80 --allow-from {h2}/128"))?.ok()?;
    visit(&lab, &lab.host("h2")?.place(), "tcp", at(8088), "")?;
    is_refused(&lab, &lab.host("h3")?.place(), "tcp", &at(8088).to_string())?;
    is_refused(&lab, &internet, "tcp", &format!("{h1_4}:8088"))?;
    // As shown, so taken back: under one version, and it goes on under the other.
    lab.ctl("h1", "endpoint publish web web -p 8088:80")?.ok()?;
    lab.ctl("h1", "endpoint unpublish web web [::]:8088")?.ok()?;
    is_refused(&lab, &lab.host("h2")?.place(), "tcp", &at(8088).to_string())?;
    visit(&lab, &internet, "tcp", format!("{h1_4}:8088"), "")?;
    lab.kernels_are_as_they_should_be()
}

pub fn a_network_may_have_ipv6_only() -> anyhow::Result<()> {
    let lab = Lab::with_agents(2)?;
    lab.ctl("h1", "network create six --subnet fd00:66::/64")?.ok()?;
    eventually(5 * SECOND, "h2 to know it", || lab.json("h2", "network inspect six"))?;
    let (left, right) = (lab.reachable("h1", "six", "left", "")?, lab.reachable("h2", "six", "right", "")?);
    ensure!(left.address().is_err(), "it has an IPv4 address");
    ensure!(left.address6()? != right.address6()?, "they have the same address");
    pings(&left, &right)?;
    ensure!(left.dig("right AAAA")?.answers == [right.address6()?.to_string()], "its name");
    let none = left.dig("right")?;
    ensure!(none.status == "NOERROR" && none.answers.is_empty(), "it has a name, and no IPv4 address: {none:?}");
    eventually(5 * SECOND, "the world to answer", || left.ping(WORLD6, SECOND))?;
    ensure!(left.ping(WORLD, HALF_A_SECOND).is_err(), "IPv4 comes from nowhere");
    let done = lab.ctl("h2", "run --network six --name job -- ping -6 -n -c 1 -W 1 left")?;
    ensure!(done.code == 0, "{done:?}");

    // Without a way out, and without translation.
    lab.ctl("h1", "network create closed --internal --subnet fd00:67::/64")?.ok()?;
    let closed = lab.connect("h1", "closed", "closed", "")?;
    ensure!(closed.ping(WORLD6, HALF_A_SECOND).is_err(), "there is a way out");
    lab.ctl("h1", "network create open --no-masquerade --subnet fd00:68::/64")?.ok()?;
    let open = lab.connect("h1", "open", "open", "")?;
    ensure!(open.ping(WORLD6, HALF_A_SECOND).is_err(), "somebody has masqueraded");
    lab.internet().sh(&format!("ip route add fd00:68::/64 via {}", mapped(underlay("h1")?)))?;
    eventually(5 * SECOND, "the world to answer", || open.ping(WORLD6, SECOND))?;
    ensure!(
        lab.internet().place().try_sh(&format!("ping -6 -c 1 -W 0.3 {}", open.address6()?))?.code != 0,
        "it leads in"
    );
    lab.kernels_are_as_they_should_be()
}

pub fn links_hold_under_ipv6() -> anyhow::Result<()> {
    let lab = Lab::with_agents(2)?;
    dual(&lab, "closed", "--icc=false")?;
    let web = lab.connect("h1", "closed", "web", "")?;
    let near = lab.connect("h1", "closed", "near", "")?;
    let db = lab.connect("h2", "closed", "db", "")?;
    let _doors = [doorman(&web, 80)?, doorman(&near, 80)?, doorman(&db, 80)?, doorman(&db, 81)?];
    let at = |to: &Container, port| -> anyhow::Result<String> {
        Ok(SocketAddr::new(to.address6()?.into(), port).to_string())
    };
    for (from, to) in [(&web, &near), (&near, &web), (&web, &db), (&db, &web)] {
        for protocol in ["tcp", "udp"] {
            is_refused(&lab, from.place(), protocol, &at(to, 80)?)?;
        }
        for address in to.addresses()? {
            ensure!(from.ping(address, HALF_A_SECOND).is_err(), "{} pings {}", from.name(), to.name());
        }
    }
    eventually(5 * SECOND, "the world to answer", || web.ping(WORLD6, SECOND))?;

    lab.ctl("h1", "link add closed web db:80")?.ok()?;
    lab.ctl("h1", "link add closed near web:80/udp")?.ok()?;
    lab.ctl("h1", "link add closed near db")?.ok()?;
    let open = |from: &Container, protocol: &str, to: &Container| -> anyhow::Result<()> {
        let (name, seen) = visit(&lab, from.place(), protocol, at(to, 80)?, "--patience 500")?;
        ensure!(name == to.name() && seen == from.address6()?, "{name} answers, and sees {seen}");
        Ok(())
    };
    eventually(5 * SECOND, "the first link to be open", || open(&web, "tcp", &db))?;
    eventually(5 * SECOND, "the second link to be open", || open(&near, "udp", &web))?;
    eventually(5 * SECOND, "the third link to be open", || near.ping(db.address6()?, SECOND))?;
    // Also in pieces, of which only the first shows ports.
    for to in db.addresses()? {
        near.sh(&format!("ping -n -s 4000 -c 1 -W 1 {to}")).with_context(|| format!("a large ping to {to}"))?;
    }
    is_refused(&lab, web.place(), "tcp", &at(&db, 81)?)?;
    is_refused(&lab, web.place(), "udp", &at(&db, 80)?)?;
    is_refused(&lab, db.place(), "tcp", &at(&web, 80)?)?;
    is_refused(&lab, near.place(), "tcp", &at(&web, 80)?)?;
    ensure!(db.ping(near.address6()?, HALF_A_SECOND).is_err(), "a link leads one way");

    // Under the address of another one nothing goes out, nor over the addresses that interfaces give themselves.
    let drops = || -> anyhow::Result<u64> {
        let rules = lab.in_segment("h1", "closed", "nft list chain bridge overlay prerouting")?;
        let counts =
            rules.lines().filter_map(|line| line.split("packets ").nth(1)?.split(' ').next()?.parse::<u64>().ok());
        Ok(counts.sum())
    };
    let before = drops()?;
    near.sh(&format!("ip address add {}/128 dev eth0 nodad", web.address6()?))?;
    ensure!(
        near.sh(&format!("ping -6 -c 1 -W 1 -I {} {}", web.address6()?, db.address6()?)).is_err(),
        "it is answered"
    );
    ensure!(drops()? > before, "a packet under the address of another one went out");
    near.sh(&format!("ip address del {}/128 dev eth0", web.address6()?))?;
    let own = web.sh("ip -6 -br address show dev eth0 scope link")?;
    let local = own.split_whitespace().find_map(|word| word.strip_suffix("/64")).context(own.clone())?;
    ensure!(near.sh(&format!("ping -6 -c 1 -W 1 {local}%eth0")).is_err(), "{local} is answered");
    // By the gateway neither.
    near.sh(&format!("ip route add {} via fd00:80::1", web.address6()?))?;
    is_refused(&lab, near.place(), "tcp", &at(&web, 80)?)?;
    lab.kernels_are_as_they_should_be()
}

pub fn the_tunnels_may_run_over_ipv6() -> anyhow::Result<()> {
    let mut lab = Lab::with_agents_over_ipv6(3)?;
    dual(&lab, "web", "")?;
    let left = lab.reachable("h1", "web", "left", "-p 8088:80")?;
    let right = lab.reachable("h2", "web", "right", "--ip 10.80.0.12")?;
    lab.wait_until_reachable("web", &left)?;
    pings(&left, &right)?;
    pings(&right, &left)?;
    ensure!(left.dig("right")?.addresses() == [right.address()?], "its name");
    let segment = lab.in_segment("h1", "web", "ip -d link show vx0")?;
    ensure!(segment.contains("local 2001:db8::1") && segment.contains("mtu 1430"), "70 bytes are added: {segment}");
    // A packet of that size crosses whole.
    left.sh(&format!("ping -n -M do -s {} -c 1 -W 1 {}", 1430 - 28, right.address()?))?;
    left.sh(&format!("ping -6 -n -M do -s {} -c 1 -W 1 {}", 1430 - 48, right.address6()?))?;
    ensure!(
        left.try_sh(&format!("ping -n -M do -s {} -c 1 -W 0.5 {}", 1430 - 27, right.address()?))?.code != 0,
        "more"
    );
    eventually(5 * SECOND, "the world to answer", || left.ping(WORLD, SECOND))?;
    left.ping(WORLD6, SECOND)?;
    let _door = doorman(&left, 80)?;
    visit(&lab, &lab.internet().place(), "tcp", SocketAddr::new(lab.underlay("h1")?, 8088), "")?;
    // Whoever is not a member can't put frames in, nor can a container.
    let row = lab.rows("h1", "host ls")?;
    ensure!(row.iter().all(|row| row["vtep"].as_str().is_some_and(|vtep| vtep.starts_with("2001:db8::"))), "{row:?}");
    // A host dies, and is forgotten.
    lab.crash("h2")?;
    eventually(10 * SECOND, "its rows to be withdrawn", || {
        ensure!(lab.kernel_rows("h1", "web", "h2")?.is_empty(), "they are there");
        Ok(())
    })?;
    lab.ctl("h1", "host forget h2")?.ok()?;
    lab.connect("h3", "web", "again", "--ip 10.80.0.12")?;
    Ok(())
}
