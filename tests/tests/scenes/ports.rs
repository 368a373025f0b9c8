//! Published ports: who gets in where, by TCP, UDP and SCTP.

use std::net::IpAddr;

use anyhow::{Context, ensure};
use overlay_tests::eventually::eventually;
use overlay_tests::lab::{Host, Lab, ROUTER, underlay};

use super::support::SECOND;
use super::support::complaint::complains;
use super::support::service::{doorman, is_refused, sctp_doorman, visit};

pub fn published_ports_lead_in_and_the_client_stays_who_it_is() -> anyhow::Result<()> {
    let lab = Lab::with_agents(2)?;
    lab.network("web", "10.20.0.0/24")?;
    let web =
        lab.reachable("h1", "web", "web", "-p 8088:80 -p 127.0.0.1:8089:80 -p 8088:80/udp -p 9000-9002:9000-9002")?;
    let near = lab.reachable("h1", "web", "near", "")?;
    let far = lab.reachable("h2", "web", "far", "")?;
    let (_door, _range) = (doorman(&web, 80)?, doorman(&web, 9001)?);
    let (h1, h2) = (underlay("h1")?, underlay("h2")?);
    let port = format!("{h1}:8088");
    for protocol in ["tcp", "udp"] {
        for (place, sees) in
            [(lab.internet().place(), None), (lab.host("h2")?.place(), Some(h2)), (lab.host("h1")?.place(), Some(h1))]
        {
            let (name, seen) = visit(&lab, &place, protocol, &port, "")?;
            ensure!(name == "web", "{name} answers");
            ensure!(sees.is_none_or(|sees| seen == IpAddr::from(sees)), "{protocol}: it sees {seen} and not {sees:?}");
        }
        // From a container of another host, of this one, and from itself: whoever it is, it is answered.
        for client in [&far, &near, &web] {
            let (name, _) = visit(&lab, client.place(), protocol, &port, "")?;
            ensure!(name == "web", "{name} answers");
        }
        // Those that the host itself has.
        let (name, _) = visit(&lab, &lab.host("h1")?.place(), protocol, "127.0.0.1:8088", "")?;
        ensure!(name == "web", "{name} answers at loopback");
    }
    let (name, _) = visit(&lab, &lab.host("h1")?.place(), "tcp", "127.0.0.1:8089", "")?;
    ensure!(name == "web", "{name} answers");
    visit(&lab, &lab.host("h2")?.place(), "tcp", format!("{h1}:9001"), "")?;
    // What is published at loopback is not outside, and what is not published nowhere.
    for to in [format!("{h1}:8089"), format!("{h1}:80"), format!("{h2}:8088"), format!("{h1}:9003")] {
        is_refused(&lab, &lab.host("h2")?.place(), "tcp", &to)?;
    }
    let ports = lab.ctl("h1", "endpoint port web 80")?.ok()?;
    ensure!(ports.lines().eq(["0.0.0.0:8088", "127.0.0.1:8089"]), "{ports}");

    // A port of a program, one of another endpoint, and ones that are none.
    let _program = lab.host("h1")?.place().tool("doorman host 7000", &near.file("host-doorman.log"))?;
    eventually(5 * SECOND, "the program to listen", || {
        visit(&lab, &lab.host("h1")?.place(), "tcp", "127.0.0.1:7000", "")
    })?;
    for (spec, words) in [
        ("7000:80", &["port 7000/tcp", "labtool", "another port"][..]),
        ("8088:81", &["8088/tcp", "`web`", "another port"]),
        ("9:9 -p 127.0.0.1:9:9", &["127.0.0.1:9/tcp", "twice"]),
        ("192.0.2.99:80:80", &["192.0.2.99:80/tcp", "none of this host's"]),
        ("4789:80/udp", &["4789/udp", "tunnels", "another port"]),
        ("0:80", &["`0`", "1 to 65535"]),
        ("80", &["`80`", "8088:80"]),
        ("80:80/icmp", &["`icmp`", "tcp, udp or sctp"]),
        ("[::1]:80:80", &["`[::1]:80:80`", "127.0.0.1"]),
        ("::1:80:80", &["`::1`", "[2001:db8::1]:8088:80"]),
        ("9:9 --allow-from 10.0.0.1/8", &["10.0.0.1/8", "10.0.0.0/8"]),
    ] {
        let done = lab.ctl("h1", &format!("endpoint publish web near -p {spec}"))?;
        complains(&done, words)?;
    }
    ensure!(lab.ctl("h1", "endpoint port near")?.ok()?.is_empty(), "something was published");
    lab.kernels_are_as_they_should_be()
}

/// Answers leave by the network that the question came in by, whichever is the way out and whichever was connected first.
pub fn a_port_is_reached_in_each_network_of_its_container() -> anyhow::Result<()> {
    let lab = Lab::with_agents(2)?;
    lab.network("front", "10.20.0.0/24")?;
    lab.network("back", "10.21.0.0/24")?;
    let web = lab.reachable("h1", "front", "web", "-p 8088:80")?;
    let join = |network: &str, port: u16, more: &str| {
        let netns = web.netns().display();
        lab.json("h1", &format!("network connect {network} --netns {netns} --name web -p {port}:80 {more}"))
    };
    let rules = || web.sh("ip rule show").map(|rules| rules.lines().filter(|rule| rule.contains("from 10.")).count());
    join("back", 8090, "")?;
    let _door = doorman(&web, 80)?;
    let (h1, far) = (underlay("h1")?, lab.reachable("h2", "back", "far", "")?);
    let all_are_answered = |when: &str| -> anyhow::Result<()> {
        for port in [8088, 8090] {
            for place in [lab.internet().place(), lab.host("h2")?.place(), lab.host("h1")?.place(), far.place().clone()]
            {
                let visited = visit(&lab, &place, "tcp", format!("{h1}:{port}"), "");
                visited.with_context(|| format!("{when}: port {port} from {place:?}"))?;
            }
        }
        Ok(())
    };
    all_are_answered("the first network is the way out")?;
    lab.ctl("h1", "network disconnect back web")?.ok()?;
    join("back", 8090, "--gw-priority 10")?;
    all_are_answered("the second network is the way out")?;
    // The endpoints of both are where they were: the main table's routes come first.
    web.ping(far.address()?, SECOND)?;
    ensure!(rules()? == 2, "a rule for each address, and none that is left over: {}", web.sh("ip rule show")?);
    lab.ctl("h1", "network disconnect front web")?.ok()?;
    lab.ctl("h1", "network disconnect back web")?.ok()?;
    join("front", 8088, "--ip 10.20.0.77")?;
    ensure!(rules()? == 1, "rules of addresses that are gone: {}", web.sh("ip rule show")?);
    lab.kernels_are_as_they_should_be()
}

pub fn a_udp_flow_follows_its_port_at_once() -> anyhow::Result<()> {
    let lab = Lab::with_agents(2)?;
    lab.network("web", "10.20.0.0/24")?;
    let one = lab.reachable("h1", "web", "one", "-p 5353:53/udp")?;
    let two = lab.reachable("h1", "web", "two", "")?;
    let (_one, _two) = (doorman(&one, 53)?, doorman(&two, 53)?);
    let client = lab.host("h2")?.place();
    let to = format!("{}:5353", underlay("h1")?);
    // One flow: always from the same port, and never silent for as long as the kernel remembers it.
    let ask = || visit(&lab, &client, "udp", &to, "--from 4444 --patience 300").map(|(name, _)| name);
    ensure!(ask()? == "one", "the first one");
    lab.ctl("h1", "endpoint unpublish web one 5353/udp")?.ok()?;
    ensure!(ask().is_err(), "it still leads there");
    lab.ctl("h1", "endpoint publish web two -p 5353:53/udp")?.ok()?;
    ensure!(ask()? == "two", "the other one, at once");
    lab.kernels_are_as_they_should_be()
}

pub fn sctp_goes_where_tcp_does() -> anyhow::Result<()> {
    let lab = Lab::with_agents(2)?;
    lab.network("web", "10.20.0.0/24")?;
    let (one, two) = (lab.reachable("h1", "web", "one", "-p 9000:900/sctp")?, lab.reachable("h1", "web", "two", "")?);
    let far = lab.reachable("h2", "web", "far", "")?;
    let _doors = (sctp_doorman(&one, 900)?, sctp_doorman(&two, 900)?);
    let (name, _) = visit(&lab, far.place(), "sctp", format!("{}:900", one.address()?), "")?;
    ensure!(name == "one", "{name} answers across hosts");
    let to = format!("{}:9000", underlay("h1")?);
    let internet = lab.internet().place();
    let (name, seen) = visit(&lab, &internet, "sctp", &to, "")?;
    ensure!(name == "one" && seen == ROUTER, "{name} answers, and sees {seen}");
    is_refused(&lab, &internet, "tcp", &to)?;
    is_refused(&lab, &internet, "sctp", &format!("{}:900", underlay("h1")?))?;
    // One that goes on follows its port.
    let ask = || visit(&lab, &internet, "sctp", &to, "--from 4444 --patience 300").map(|(name, _)| name);
    ensure!(ask()? == "one", "the first one");
    lab.ctl("h1", "endpoint unpublish web one 9000/sctp")?.ok()?;
    ensure!(ask().is_err(), "it still leads there");
    lab.ctl("h1", "endpoint publish web two -p 9000:900/sctp --allow-from 192.0.2.0/24")?.ok()?;
    ensure!(ask()? == "two", "the other one, at once");

    // Only where a link says so, one way, if there are links.
    lab.ctl("h1", "network create closed --icc=false --subnet 10.70.0.0/24")?.ok()?;
    eventually(5 * SECOND, "h2 to know it", || lab.json("h2", "network inspect closed"))?;
    let (web, db) = (lab.connect("h1", "closed", "web", "")?, lab.connect("h2", "closed", "db", "")?);
    let _doors = (sctp_doorman(&web, 80)?, sctp_doorman(&db, 80)?);
    let (at_web, at_db) = (format!("{}:80", web.address()?), format!("{}:80", db.address()?));
    is_refused(&lab, web.place(), "sctp", &at_db)?;
    lab.ctl("h1", "link add closed web db:80/sctp")?.ok()?;
    eventually(5 * SECOND, "the link to be open", || visit(&lab, web.place(), "sctp", &at_db, "--patience 500"))?;
    is_refused(&lab, db.place(), "sctp", &at_web)?;
    is_refused(&lab, db.place(), "sctp", &format!("{at_web} --from 80"))?;
    lab.kernels_are_as_they_should_be()
}

pub fn only_those_who_may_reach_a_published_port() -> anyhow::Result<()> {
    let lab = Lab::with_agents(3)?;
    lab.network("web", "10.20.0.0/24")?;
    let (h1, h2) = (underlay("h1")?, underlay("h2")?);
    let web = lab.reachable("h1", "web", "web", &format!("-p 8088:80 --allow-from {h2}/32"))?;
    let far = lab.reachable("h3", "web", "far", "")?;
    let _door = doorman(&web, 80)?;
    let to = format!("{h1}:8088");
    let ask = |host: &str| visit(&lab, &lab.host(host)?.place(), "tcp", &to, "--patience 300");
    ask("h2")?;
    ask("h1").context("the host itself")?;
    ensure!(ask("h3").is_err(), "h3 may not");
    is_refused(&lab, far.place(), "tcp", &to)?;
    let dropped = lab.host("h1")?.sh("nft list chain inet overlay limited")?;
    ensure!(!dropped.contains("packets 0 "), "they are counted: {dropped}");
    // It may be said anew.
    lab.ctl("h1", "endpoint publish web web -p 8088:80 --allow-from 192.0.2.0/24")?.ok()?;
    ask("h3")?;
    // One subnet inside of the other.
    lab.ctl("h1", &format!("endpoint publish web web -p 8088:80 --allow-from 192.0.0.0/8 --allow-from {h2}/32"))?
        .ok()?;
    ask("h3")?;
    lab.ctl("h1", "endpoint publish web web -p 8088:80")?.ok()?;
    ask("h3")?;
    ensure!(lab.ctl("h1", "endpoint port web")?.ok()?.trim() == "80/tcp -> 0.0.0.0:8088", "for anybody");
    Ok(())
}

pub fn a_thousand_published_ports_are_elements_and_not_rules() -> anyhow::Result<()> {
    let lab = Lab::with_agents(1)?;
    lab.network("web", "10.20.0.0/24")?;
    let host = lab.host("h1")?;
    let rules = |host: &Host| host.sh("nft list table inet overlay").map(|t| t.matches("counter").count());
    let web = lab.connect("h1", "web", "web", "-p 10000:80")?;
    let one = rules(host)?;
    lab.ctl("h1", "endpoint publish web web -p 11000-11999:1000-1999")?.ok()?;
    ensure!(rules(host)? == one, "rules for ports");
    let _door = doorman(&web, 1500)?;
    visit(&lab, &host.place(), "tcp", format!("{}:11500", underlay("h1")?), "")?;
    // Deleted by hand, it comes back.
    host.sh("nft delete element inet overlay ports { 0.0.0.0/0 . tcp . 11500 }")?;
    eventually(2 * SECOND, "the port to be there again", || {
        visit(&lab, &host.place(), "tcp", format!("{}:11500", underlay("h1")?), "--patience 200")
    })?;
    lab.ctl("h1", "endpoint unpublish web web 11000-11999")?.ok()?;
    ensure!(lab.ctl("h1", "endpoint port web")?.ok()?.trim() == "80/tcp -> 0.0.0.0:10000", "only that");
    let elements = host.sh("nft list map inet overlay ports")?;
    ensure!(elements.matches(" tcp ").count() == 1, "{elements}");
    lab.kernels_are_as_they_should_be()
}
