//! Addresses that several hosts want at the same moment: one of them gets it, and the others are told which.

use std::sync::Barrier;
use std::thread;
use std::time::Instant;

use anyhow::{Context, ensure};
use overlay_tests::eventually::eventually;
use overlay_tests::lab::{Container, Done, Lab, Oracle, Stream};

use super::support::leases::{AGREED, agree, ends};
use super::support::{SECOND, took};

const HOSTS: u8 = 6;

/// Asks for endpoints of `web` at the same moment, each given by its host, name and address.
fn at_once(lab: &Lab, wanted: &[(String, String, String)]) -> anyhow::Result<Vec<(Container, Done)>> {
    let containers = wanted.iter().map(|(host, name, _)| lab.container(host, name)).collect::<Result<Vec<_>, _>>()?;
    let begin = &Barrier::new(wanted.len());
    let ask = |container: &Container, address: &str| {
        let (netns, name) = (container.netns().display(), container.name());
        let line = format!("-o json network connect web --netns {netns} --name {name} --ip {address}");
        begin.wait();
        lab.ctl(container.host(), &line)
    };
    let ask = &ask;
    let answers: Vec<_> = thread::scope(|scope| {
        let asked = containers
            .iter()
            .zip(wanted)
            .map(|(container, (.., address))| scope.spawn(move || ask(container, address)));
        // All are started before one is waited for.
        let asked: Vec<_> = asked.collect();
        asked
            .into_iter()
            .map(|asked| asked.join().map_err(|_| anyhow::anyhow!("overlayctl could not be run")))
            .collect()
    });
    containers.into_iter().zip(answers).map(|(container, answer)| Ok((container, answer??))).collect()
}

pub fn six_hosts_take_the_addresses_that_they_ask_for_at_once() -> anyhow::Result<()> {
    let lab = Lab::with_agents(HOSTS)?;
    lab.network("web", "172.38.0.0/16")?;
    let wanted: Vec<_> = (1..=HOSTS)
        .map(|number| (format!("h{number}"), format!("redis-{number}"), format!("172.38.0.{}", 10 + number)))
        .collect();
    let start = Instant::now();
    let asked = at_once(&lab, &wanted)?;
    took("six hosts have the six addresses that they asked for", start.elapsed());
    let mut all = Vec::new();
    for ((mut container, done), (.., address)) in asked.into_iter().zip(&wanted) {
        container.attached(&done.json()?)?;
        ensure!(container.address()?.to_string() == *address, "{} got {:?}", container.name(), container.address());
        all.push(container);
    }
    let oracle = Oracle::watch(&all.iter().collect::<Vec<_>>())?;
    let stream = Stream::start(&all[0], &all[5])?;
    for from in &all {
        for to in &all {
            eventually(AGREED, "each to reach each", || from.ping(to.address()?, SECOND))?;
        }
    }
    agree(&lab, "web")?;
    let stream = stream.stop()?;
    ensure!(!stream.broken && stream.messages > 0, "{stream:?}");
    oracle.stop().map(drop)
}

pub fn of_hosts_that_ask_for_one_address_at_once_one_gets_it() -> anyhow::Result<()> {
    const ROUNDS: u8 = 16;
    let lab = Lab::with_agents(HOSTS)?;
    lab.network("web", "10.20.0.0/24")?;
    let [left, right] = &ends(&lab)?;
    let oracle = Oracle::watch(&[left, right])?;
    let stream = Stream::start(left, right)?;
    let mut winners = Vec::new();
    let mut firsts = 0;
    for round in 0..ROUNDS {
        // Every pair once: as the address's block is held by somebody, that one asks itself in a third of them. The last
        // round is for all of them.
        let pairs = (1..=HOSTS).flat_map(|a| (a + 1..=HOSTS).map(move |b| vec![a, b]));
        let rivals = pairs.chain([(1..=HOSTS).collect()]).nth(usize::from(round)).context("fewer pairs than rounds")?;
        let address = format!("10.20.0.{}", 20 + 13 * round);
        let wanted: Vec<_> =
            rivals.iter().map(|host| (format!("h{host}"), format!("rival-{host}-{round}"), address.clone())).collect();
        let mut gained = Vec::new();
        let mut refused = Vec::new();
        for (mut container, done) in at_once(&lab, &wanted)? {
            if done.code == 0 {
                container.attached(&done.json()?)?;
                oracle.also(&container)?;
                gained.push(container);
            } else {
                refused.push((container, done));
            }
        }
        let names: Vec<_> = gained.iter().map(Container::name).collect();
        ensure!(names.len() == 1, "{address} was given to {names:?}, refused were {refused:?}");
        let winner = gained.pop().context("nobody")?;
        ensure!(winner.address()?.to_string() == address, "{} got {:?}", winner.name(), winner.address());
        let who = format!("by endpoint `{}` on host `{}`", winner.name(), winner.host());
        for (loser, done) in &refused {
            let named =
                done.stderr.contains(&address) && done.stderr.contains(&who) && done.stderr.lines().count() == 1;
            ensure!(done.code == 1 && named, "{} is not told that it is taken {who}: {done:?}", loser.name());
            ensure!(loser.try_sh("ip link show eth0")?.code != 0, "{} was refused, and has an interface", loser.name());
        }
        firsts += usize::from(wanted.first().is_some_and(|(_, name, _)| name == winner.name()));
        winners.push(winner);
    }
    println!("{ROUNDS} rounds; {firsts} times the one that was named first was the one that got it");
    for winner in &winners {
        eventually(AGREED, "who got it to be reached", || left.ping(winner.address()?, SECOND))?;
    }
    let rows = lab.rows("h1", "endpoint ls web")?;
    ensure!(rows.len() == winners.len() + 2, "{} endpoints, with those that were refused: {rows:?}", rows.len());
    agree(&lab, "web")?;
    let stream = stream.stop()?;
    ensure!(!stream.broken && stream.longest_stall_ms < 1000, "{stream:?}");
    oracle.stop().map(drop)
}
