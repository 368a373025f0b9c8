//! Networks whose containers reach each other by links only, on one host and across two.

use std::time::Duration;

use anyhow::{Context, ensure};
use overlay_tests::eventually::eventually;
use overlay_tests::lab::{Container, Ending, Lab, WORLD, underlay};

use super::support::service::{doorman, is_refused, visit};
use super::support::{HALF_A_SECOND, SECOND};

/// All that is here hears of a link in this time.
const TOLD: Duration = Duration::from_secs(5);

/// Is it this one who answers there?
fn answers(lab: &Lab, from: &Container, protocol: &str, to: &Container, port: u16) -> anyhow::Result<()> {
    let at = format!("{}:{port}", to.address()?);
    let (name, seen) = visit(lab, from.place(), protocol, at, "--patience 500")?;
    ensure!(name == to.name() && seen == from.address()?, "{name} answers, and sees {seen}");
    Ok(())
}

fn refuses(lab: &Lab, from: &Container, protocol: &str, to: &Container, port: u16) -> anyhow::Result<()> {
    let result = is_refused(lab, from.place(), protocol, &format!("{}:{port}", to.address()?));
    result.with_context(|| format!("{} reaches {}", from.name(), to.name()))
}

/// Neither reaches the other, whatever it tries.
fn are_apart(lab: &Lab, one: &Container, two: &Container) -> anyhow::Result<()> {
    for (from, to) in [(one, two), (two, one)] {
        for protocol in ["tcp", "udp"] {
            refuses(lab, from, protocol, to, 80)?;
        }
        ensure!(from.ping(to.address()?, HALF_A_SECOND).is_err(), "{} pings {}", from.name(), to.name());
    }
    Ok(())
}

/// How many packets rules have dropped that a pattern matches, in a chain of the bridge of `closed`.
fn dropped(lab: &Lab, host: &str, chain: &str) -> anyhow::Result<u64> {
    let rules = lab.in_segment(host, "closed", &format!("nft list chain bridge overlay {chain}"))?;
    let drops = rules.lines().filter(|line| line.contains(" drop "));
    let counts = drops.map(|line| line.split("packets ").nth(1)?.split(' ').next()?.parse::<u64>().ok());
    counts.map(|count| count.with_context(|| rules.clone())).sum()
}

pub fn containers_reach_each_other_by_links_only() -> anyhow::Result<()> {
    let lab = Lab::with_agents(2)?;
    lab.ctl("h1", "network create closed --icc=false --subnet 10.70.0.0/24")?.ok()?;
    eventually(5 * SECOND, "h2 to know it", || lab.json("h2", "network inspect closed"))?;
    let [web, near] = ["web", "near"].map(|name| lab.connect("h1", "closed", name, ""));
    let [db, other] = ["db", "other"].map(|name| lab.connect("h2", "closed", name, ""));
    let (web, near, db, other) = (web?, near?, db?, other?);
    let mut servers = Vec::new();
    for container in [&web, &near, &db, &other] {
        servers.push(doorman(container, 80)?);
    }
    servers.push(doorman(&db, 81)?);
    let all = [&web, &near, &db, &other];
    for (n, one) in all.iter().enumerate() {
        for two in &all[n + 1..] {
            are_apart(&lab, one, two)?;
        }
        // The world is not what they are kept apart from, nor are names.
        eventually(5 * SECOND, "the world to answer", || one.ping(WORLD, SECOND))?;
        ensure!(one.dig("db")?.addresses() == [db.address()?], "its name");
    }
    for host in ["h1", "h2"] {
        ensure!(dropped(&lab, host, "forward")? > 0, "nothing was dropped on {host}");
    }

    // One port, across hosts. It leads one way, and is nobody else's.
    lab.ctl("h1", "link add closed web db:80")?.ok()?;
    eventually(TOLD, "the link to be open", || answers(&lab, &web, "tcp", &db, 80))?;
    refuses(&lab, &web, "tcp", &db, 81)?;
    refuses(&lab, &web, "udp", &db, 80)?;
    ensure!(web.ping(db.address()?, HALF_A_SECOND).is_err(), "a port is not all there is");
    refuses(&lab, &db, "tcp", &web, 80)?;
    for (one, two) in [(&near, &db), (&other, &db), (&near, &web)] {
        are_apart(&lab, one, two)?;
    }
    // UDP, on one host: who was asked may answer, and may not ask.
    lab.ctl("h2", "link add closed web near:80/udp")?.ok()?;
    eventually(TOLD, "the link to be open", || answers(&lab, &web, "udp", &near, 80))?;
    refuses(&lab, &web, "tcp", &near, 80)?;
    let unasked = visit(&lab, near.place(), "udp", format!("{}:80", web.address()?), "--from 8080 --patience 300");
    ensure!(unasked.is_err(), "whoever was asked asks: {unasked:?}");
    // All there is, from the other host.
    lab.ctl("h1", "link add closed other web")?.ok()?;
    eventually(TOLD, "the link to be open", || other.ping(web.address()?, HALF_A_SECOND))?;
    answers(&lab, &other, "tcp", &web, 80)?;
    answers(&lab, &other, "udp", &web, 80)?;
    ensure!(web.ping(other.address()?, HALF_A_SECOND).is_err(), "a link leads one way");
    refuses(&lab, &web, "tcp", &other, 80)?;

    // Nobody gets in as somebody else, or by the gateway.
    let before = dropped(&lab, "h1", "prerouting")?;
    near.sh(&format!("ip address add {}/32 dev eth0", web.address()?))?;
    ensure!(near.sh(&format!("ping -c 1 -W 1 -I {} {}", web.address()?, db.address()?)).is_err(), "it is answered");
    ensure!(dropped(&lab, "h1", "prerouting")? > before, "a packet under the address of another one went out");
    near.sh(&format!("ip address del {}/32 dev eth0", web.address()?))?;
    // Nor in what is neither IPv4 nor ARP, where these rules would not know it.
    let before = dropped(&lab, "h1", "prerouting")?;
    let own = web.sh("ip -6 -br address show dev eth0")?;
    let local = own.split_whitespace().find_map(|word| word.strip_suffix("/64")).context(own.clone())?;
    ensure!(near.sh(&format!("ping -6 -c 1 -W 1 {local}%eth0")).is_err(), "it is answered");
    ensure!(dropped(&lab, "h1", "prerouting")? > before, "it went out");
    near.sh(&format!("ip route add {} via 10.70.0.1", web.address()?))?;
    refuses(&lab, &near, "tcp", &web, 80)?;
    near.sh(&format!("ip route del {} via 10.70.0.1", web.address()?))?;

    // A published port leads in all the same.
    lab.ctl("h1", "endpoint publish closed near -p 8088:80")?.ok()?;
    let (name, _) = visit(&lab, &lab.internet().place(), "tcp", format!("{}:8088", underlay("h1")?), "")?;
    ensure!(name == "near", "{name} answers");

    let rows = lab.rows("h2", "link ls closed")?;
    let shown: Vec<String> = rows.iter().map(|r| format!("{} {} {}", r["from"], r["to"], r["port"])).collect();
    ensure!(shown == ["\"other\" \"web\" 0", "\"web\" \"db\" 80", "\"web\" \"near\" 80"], "{rows:?}");
    lab.ctl("h2", "link rm closed web db:80")?.ok()?;
    eventually(TOLD, "the link to be closed", || refuses(&lab, &web, "tcp", &db, 80))?;
    answers(&lab, &web, "udp", &near, 80)?;
    lab.kernels_are_as_they_should_be()
}

pub fn links_outlive_agents_and_containers() -> anyhow::Result<()> {
    let mut lab = Lab::with_agents(3)?;
    lab.ctl("h1", "network create closed --icc=false --subnet 10.70.0.0/24")?.ok()?;
    eventually(5 * SECOND, "all to know it", || {
        lab.json("h2", "network inspect closed")?;
        lab.json("h3", "network inspect closed")
    })?;
    let (web, db) = (lab.connect("h1", "closed", "web", "")?, lab.connect("h2", "closed", "db", "--alias store")?);
    let server = doorman(&db, 80)?;
    // Said where neither of the two is.
    eventually(TOLD, "h3 to know them", || lab.ctl("h3", "link add closed web store:80")?.ok())?;
    eventually(TOLD, "the link to be open", || answers(&lab, &web, "tcp", &db, 80))?;
    lab.ctl("h3", "link add closed db web")?.ok()?;
    eventually(TOLD, "the link to be open", || db.ping(web.address()?, HALF_A_SECOND))?;
    lab.ctl("h3", "link rm closed db web")?.ok()?;
    eventually(TOLD, "the link to be closed", || {
        ensure!(db.ping(web.address()?, HALF_A_SECOND).is_err(), "it is open");
        Ok(())
    })?;

    // All agents end at once: what was decided is on their disks, and rules stand without them.
    for host in ["h1", "h2", "h3"] {
        lab.stop(host, Ending::Kill)?;
    }
    answers(&lab, &web, "tcp", &db, 80)?;
    for host in ["h1", "h2"] {
        lab.start(host)?;
    }
    eventually(4 * TOLD, "the two to know what they knew", || {
        for host in ["h1", "h2"] {
            let rows = lab.rows(host, "link ls")?;
            ensure!(rows.len() == 1 && rows[0]["from"] == "web" && rows[0]["to"] == "store", "{host}: {rows:?}");
        }
        Ok(())
    })?;
    answers(&lab, &web, "tcp", &db, 80)?;
    lab.wait_until_all_see_all()?;
    answers(&lab, &web, "tcp", &db, 80)?;
    ensure!(db.ping(web.address()?, HALF_A_SECOND).is_err(), "a link that was removed is back");

    // A link is for names: whoever has one next has the link.
    drop(server);
    lab.ctl("h2", "network disconnect closed db")?.ok()?;
    let rows = lab.rows("h2", "link ls")?;
    ensure!(rows[0]["missing"] == serde_json::json!(["store"]), "{rows:?}");
    let heir = lab.connect("h1", "closed", "heir", "--alias store")?;
    let _server = doorman(&heir, 80)?;
    eventually(TOLD, "the link to be open", || answers(&lab, &web, "tcp", &heir, 80))?;
    lab.ctl("h1", "network rm --force closed")?.ok()?;
    ensure!(lab.rows("h1", "link ls")?.is_empty(), "a link is left of a network that is removed");
    Ok(())
}

pub fn what_cannot_be_linked_is_said_in_one_line() -> anyhow::Result<()> {
    let lab = Lab::with_agents(1)?;
    lab.ctl("h1", "network create open --subnet 10.71.0.0/24")?.ok()?;
    lab.ctl("h1", "network create closed --icc=false --subnet 10.70.0.0/24")?.ok()?;
    for (network, name) in [("open", "a"), ("open", "b"), ("closed", "web"), ("closed", "db")] {
        lab.connect("h1", network, name, "")?;
    }
    lab.ctl("h1", "link add closed web db:80")?.ok()?;
    let before = lab.rows("h1", "link ls")?;
    for (line, words) in [
        ("link add open a b", &["`open`", "--icc=false"][..]),
        ("link add nowhere a b", &["`nowhere`", "network ls"]),
        ("link add closed web nobody:80", &["`nobody`", "`closed`", "endpoint ls closed"]),
        ("link add closed nobody web", &["`nobody`", "`closed`"]),
        ("link add closed web web", &["`web`", "itself"]),
        ("link add closed web db:80/tcp", &["`web` to `db` at 80/tcp", "already"]),
        ("link add closed web db:0", &["`0`", "1 to 65535"]),
        ("link add closed web db:65536", &["`65536`", "1 to 65535"]),
        ("link add closed web db:80-90", &["`80-90`", "1 to 65535"]),
        ("link add closed web db:80/icmp", &["`icmp`", "tcp, udp or sctp"]),
        ("link add closed web db_", &["`db_`", "name"]),
        ("link rm closed web db", &["no link", "`web` to `db`", "link ls closed"]),
        ("network create third --icc=perhaps --subnet 10.72.0.0/24", &["perhaps", "--icc"]),
    ] {
        let done = lab.ctl("h1", line)?;
        ensure!(done.code != 0 && words.iter().all(|word| done.stderr.contains(word)), "{line}: {done:?}");
        ensure!(done.code == 2 || done.stderr.lines().count() == 1, "{line}: {}", done.stderr);
    }
    ensure!(lab.rows("h1", "link ls")? == before && lab.rows("h1", "network ls")?.len() == 2, "something has changed");
    let inspected = lab.json("h1", "network inspect closed")?;
    ensure!(inspected[0]["Options"]["com.docker.network.bridge.enable_icc"] == "false", "{inspected:#}");
    Ok(())
}
