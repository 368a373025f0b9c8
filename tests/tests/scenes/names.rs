//! Names, as containers ask for them.

use std::net::Ipv4Addr;

use anyhow::ensure;
use overlay_tests::eventually::eventually;
use overlay_tests::lab::{Host, Lab, Reply, WORLD};

use super::support::SECOND;

/// What the lab's name server in the world answers, and what another one does.
const ANSWER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);
const OTHER_ANSWER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 8);
const OTHER_WORLD: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);

fn expect(reply: &Reply, addresses: &[Ipv4Addr], what: &str) -> anyhow::Result<()> {
    ensure!(reply.addresses() == addresses, "{what}: {reply:?}, not {addresses:?}");
    Ok(())
}

pub fn names_resolve_on_every_host() -> anyhow::Result<()> {
    let lab = Lab::with_agents(3)?;
    lab.network("web", "10.20.0.0/24")?;
    let [a, b] = [Ipv4Addr::new(10, 20, 0, 41), Ipv4Addr::new(10, 20, 0, 42)];
    let _one = lab.reachable("h1", "web", "one", "--ip 10.20.0.41 --alias db --alias first")?;
    let _two = lab.reachable("h2", "web", "two", "--ip 10.20.0.42 --alias db")?;
    for host in lab.names() {
        let asker = lab.reachable(&host, "web", &format!("asker-{host}"), "")?;
        eventually(5 * SECOND, &format!("{host} to know both"), || {
            expect(&asker.dig("db")?, &[a, b], "an alias of two")
        })?;
        for (question, addresses) in [
            ("one", &[a][..]),
            ("ONE", &[a]),
            ("one.web", &[a]),
            ("first", &[a]),
            ("first.web", &[a]),
            ("+tcp two", &[b]),
            ("+tcp db.web", &[a, b]),
        ] {
            expect(&asker.dig(question)?, addresses, &format!("{host} asks {question}"))?;
        }
        let reverse = asker.dig("-x 10.20.0.41")?;
        ensure!(reverse.answers == ["one.web."], "{host}: {reverse:?}");
        for (question, status) in [
            // The hosts have no nameserver that could say more.
            ("nobody", "NXDOMAIN"),
            ("nobody.web", "NXDOMAIN"),
            ("-x 10.20.0.99", "NXDOMAIN"),
            // The name exists, but not with that type.
            ("one AAAA", "NOERROR"),
            ("one MX", "NOERROR"),
        ] {
            let reply = asker.dig(question)?;
            ensure!(reply.status == status && reply.answers.is_empty(), "{host} asks {question}: {reply:?}");
        }
        // As programs do it.
        asker.sh("ping -n -c 1 -W 1 two")?;
    }
    Ok(())
}

pub fn other_names_are_asked_where_the_host_asks() -> anyhow::Result<()> {
    let lab = Lab::with_agents(1)?;
    let servers = lab.internet();
    servers.ip(&format!("address add {OTHER_WORLD}/32 dev lo"))?;
    let log = |name: &str| Host::directory("internet").join(name);
    let place = servers.place();
    let _first = place.tool(&format!("names {WORLD} {ANSWER}"), &log("names-1.log"))?;
    let _second = place.tool(&format!("names {OTHER_WORLD} {OTHER_ANSWER}"), &log("names-2.log"))?;
    let host = lab.host("h1")?;
    lab.network("web", "10.20.0.0/24")?;
    let asker = lab.connect("h1", "web", "asker", "")?;

    // No name server at all: an answer at once, that says so.
    let start = std::time::Instant::now();
    let reply = asker.dig("example.org")?;
    ensure!(reply.status == "SERVFAIL" && start.elapsed() < SECOND, "{reply:?} after {:?}", start.elapsed());

    for (server, answer) in [(WORLD, ANSWER), (OTHER_WORLD, OTHER_ANSWER)] {
        host.set_resolv_conf(&format!("# changed\nnameserver {server}\noptions edns0\n"))?;
        eventually(5 * SECOND, &format!("the answer of {server}"), || {
            expect(&asker.dig("example.org")?, &[answer], "example.org")
        })?;
    }
    // What no endpoint is called is the world's, whatever it looks like; but not the addresses of the network.
    for question in ["nobody", "nobody.web"] {
        expect(&asker.dig(question)?, &[OTHER_ANSWER], question)?;
    }
    ensure!(asker.dig("-x 10.20.0.99")?.status == "NXDOMAIN", "an address of the network was asked for outside");
    // The first server is dead: the second one answers.
    host.set_resolv_conf(&format!("nameserver 192.0.2.200\nnameserver {WORLD}\n"))?;
    eventually(10 * SECOND, "the second server's answer", || {
        expect(&asker.dig("+time=4 example.org")?, &[ANSWER], "example.org")
    })?;
    Ok(())
}
